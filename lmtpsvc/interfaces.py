"""
Everything that somebody who writes a backend or a directory needs to know.

A **backend** is where mail comes to rest, a **directory** knows who lives here, and an **extension**
adds to what is said (see `lmtpsvc.session.extensions`).  Each is made by a **factory**, a plugin that
turns the words of the command line (``maildir:/srv/mail``) into one.

All methods run in the reactor thread and must not block it.  Where an Awaitable is asked for, that
is a Deferred or a coroutine (``async def``) that awaits Deferreds.  To refuse somebody, fail with
`lmtpsvc.errors.TemporaryFailure` or `lmtpsvc.errors.PermanentFailure`: its reply is what the
client reads.  Any other exception is taken for a defect: it is logged with its traceback, and the
client reads ``451 4.3.0``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from email.message import EmailMessage
from typing import BinaryIO, Literal, NamedTuple

from attrs import frozen
from zope.interface import Attribute, Interface

from .envelope import Envelope, Mailbox, Recipient
from .response_codes import Codes

#: How lines end: ``"\r\n"`` as on the wire, ``"\n"`` as in files.
LineEnding = Literal["\r\n", "\n"]


class Sizes(NamedTuple):
    """
    How large a message is, in octets.
    """

    #: What `IMessage.open` yields.
    physical: int
    #: The same if every line ended with CRLF: what IMAP calls RFC822.SIZE.
    virtual: int


@frozen
class Capabilities:
    """
    What a backend tells about itself, once, when the service starts.

    *line_ending* is the form that it stores, so that a large message is spooled in that form and
    needs no conversion.  *spool_directory* is where it wants large messages to be spooled: on its
    own file system it can take the spooled file itself with a hard link (`IMessage.path`).
    *links_spooled* says that it does so, without reading the file before, wherever the mail is to belong
    to the service itself, with mode 0600: such a file is written past the kernel's cache.

    *binary* says that whoever reads a message gets exactly the octets that were sent: CRLF and bare
    LF are not mixed up, and nothing is quoted or completed.  Only where all backends say so, clients
    may send binary content (BINARYMIME, RFC 3030 §3).
    """

    line_ending: LineEnding = "\r\n"
    spool_directory: str | None = None
    binary: bool = False
    links_spooled: bool = False


class IMessage(Interface):
    """
    A whole message, received and spooled: read-only, and shared by all its recipients.

    It starts with the trace headers (``Return-Path``, ``Received``, and ``Delivered-To`` where it
    may).  It may be used from any thread, until the last Deferred that `IBackend.deliver` returned
    has fired.
    """

    id: str = Attribute("The transaction id: in Received, in the reply and in the log.")
    envelope: Envelope = Attribute("Sender, accepted recipients and client.")
    digest: str = Attribute(
        "SHA-256 of the text as the client sent it (dots unstuffed, trace headers left out), in hex."
        "  It is made when it is asked for: all of the message is read, so ask in a thread."
    )
    deadline: float = Attribute(
        "When the recipients still open will be answered 451, in seconds of reactor.seconds()."
    )
    begun: float = Attribute("When the client said MAIL, in seconds of reactor.seconds().")
    path: str | None = Attribute(
        "A file that holds exactly what open() yields with the line ending of the backend's"
        " capabilities, or None for a message in memory.  Link it, following symbolic links, or"
        " read it; never write to it."
    )

    trace: bytes = Attribute(
        "The trace headers that it starts with, each line with CRLF.  All behind them is the text."
    )
    is_for_all: bool = Attribute(
        "Nothing in it is for one recipient only: this very copy would do for any other."
    )

    def open(line_ending: LineEnding = "\r\n") -> BinaryIO:
        """
        Return the message as a new binary file, at its beginning; close it after use.

        With ``"\\r\\n"``, the octets are those that the client sent, bare CR and LF included.  With
        ``"\\n"``, each CRLF is an LF.
        """

    def sizes(line_ending: LineEnding = "\r\n") -> Sizes:
        """
        Return how many octets `open` yields.
        """

    def recipients_of(mailbox: Mailbox) -> Sequence[Recipient]:
        """
        Return the accepted recipients whose mail goes to *mailbox*, one of those that
        `IBackend.deliver` has got: what they have asked for is in their parameters.
        """

    def headers() -> EmailMessage:
        """
        Return the headers, without the body: ``headers()["Subject"]`` is decoded text, or None.

        They are read when somebody asks for the first time, from the first 128 KiB.  What a
        stranger has written wrongly is its text, and no error.  All recipients share what is
        returned: do not change it.
        """


class IBackend(Interface):
    """
    A place where mail comes to rest.
    """

    capabilities: Capabilities = Attribute("What the service should know about this backend.")

    def verify(mailbox: Mailbox) -> Awaitable[None] | None:
        """
        Say, at RCPT time, whether mail for *mailbox* would be taken.

        If the client has said how large the message is (RFC 1870), *mailbox* has the number of
        octets, as text, in ``attributes["declared_size"]``, see `lmtpsvc.quota`; what `deliver`
        gets is without it.

        Returns None (yes), or a Deferred or coroutine that ends with None; a no is raised.

        Fails:
            PermanentFailure: There can be no such mailbox.
            TemporaryFailure: It cannot be known now.
        """

    def deliver(message: IMessage, mailboxes: Sequence[Mailbox]) -> Sequence[Awaitable[Codes]]:
        """
        Store *message*, and return one Deferred or coroutine per mailbox, in their order.

        Each fires once the message would survive a power cut, not before: the client then forgets
        its copy.  It fires with None, or with `lmtpsvc.response_codes.ResponseCode`s for a client
        that has asked for such; with `lmtpsvc.replies.PassedOn` if the message is not in a mailbox
        yet, but with an SMTP server.  (An exception that is returned counts as raised, and False or a
        coroutine as a defect: neither is a success.)  They may fire in any order, and should fire as early as they can:
        a reply leaves as soon as it and those of all recipients before it are known
        (RFC 2033 §4.2).

        To cancel one means: if you have not committed, do not, and fail with CancelledError; if
        you have begun to, finish, and fire as if nothing had been said.  (A Deferred's own cancel()
        does the former; `lmtpsvc.commitment.Commitment` does both.  A coroutine gets the
        CancelledError from the ``await`` where it is, if what it awaits there can be cancelled;
        `lmtpsvc.per_recipient.to_the_end` awaits what must not be.)

        Fails:
            TemporaryFailure, PermanentFailure: The reply this recipient gets.
        """


class ITellsWhere(Interface):
    """
    What a backend may provide besides, for ``lmtpsvc check``.
    """

    def where(mailbox: Mailbox) -> str:
        """
        Say, for an operator, where mail for *mailbox* would lie; it need not be there yet.

        Raises:
            PermanentFailure, TemporaryFailure: As `IBackend.verify`.
        """


class IDirectory(Interface):
    """
    Knows who lives here.
    """

    def resolve(mailbox: Mailbox) -> Awaitable[Sequence[Mailbox]] | Sequence[Mailbox]:
        """
        Return where mail for *mailbox* goes: mostly to itself, or to what it is an alias of; with what
        is known about each filled in.

        *mailbox* is what the address says, the local part folded and split at the recipient
        delimiter as the operator wants it.

        Fails:
            PermanentFailure: Nobody of that name lives here (`lmtpsvc.replies.NO_SUCH_USER`).
            TemporaryFailure: It cannot be known now.
        """


class ITellsSince(Interface):
    """
    What a directory may provide besides that knows since when a mailbox has been the same person's
    (RFC 7293).
    """

    tells_since: bool = Attribute(
        "Whether it knows that of any mailbox: it is in the attributes since and domain_since then, see"
        " lmtpsvc.ownership."
    )


class IBackendFactory(Interface):
    """
    Makes a backend from the words of the command line; a plugin (`twisted.plugin.IPlugin`).
    """

    name: str = Attribute("What stands before the first colon: ``maildir``.")
    synopsis: str = Attribute("All words, on one line: ``maildir:TEMPLATE[:option=value]``.")
    help: str = Attribute("What it does and what each word means, in a few lines of text.")

    def build(reactor: object, *words: str, **options: str) -> IBackend:
        """
        Make the backend from what stands between the colons; ``key=value`` words are *options*.

        It must not change anything on disk that a later error would leave behind, and must find
        every mistake that can be found now.  If what it returns provides
        `twisted.application.service.IService`, it is started and stopped with the service: nobody
        waits for its ``startService``, which raises if mail cannot be taken, and mail comes as soon as
        it returns; what its ``stopService`` returns is waited for, for as long as it takes.

        Raises:
            ValueError: The words are wrong; the text, one line, is shown to the operator.
        """


class IDirectoryFactory(Interface):
    """
    Makes a directory from the words of the command line; a plugin (`twisted.plugin.IPlugin`).
    """

    name: str = Attribute("What stands before the first colon: ``file``.")
    synopsis: str = Attribute("All words, on one line: ``file:PATH``.")
    help: str = Attribute("What it does and what each word means, in a few lines of text.")

    def build(reactor: object, *words: str, **options: str) -> IDirectory:
        """
        As `IBackendFactory.build`, for a directory.
        """


class IExtensionFactory(Interface):
    """
    Makes an ESMTP extension, a `lmtpsvc.session.extensions.Extension`, from the words of the command
    line; a plugin (`twisted.plugin.IPlugin`).
    """

    name: str = Attribute("What stands before the first colon.")
    synopsis: str = Attribute("All words, on one line: ``NAME:WORD[:option=value]``.")
    help: str = Attribute("What it does and what each word means, in a few lines of text.")

    def build(reactor: object, *words: str, **options: str) -> object:
        """
        Make the extension; it may be made anew whenever the service is told to reload.

        Raises:
            ValueError: As `IBackendFactory.build`.
        """
