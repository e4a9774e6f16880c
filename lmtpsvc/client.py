"""
Send messages over LMTP or SMTP, and learn what becomes of each recipient as soon as it is known.

    client = Client(reactor, "unix:/run/lmtp.sock")
    delivery = client.send("me@example.org", ["ann@example.org", "bob@example.org"], message)
    async for recipient, outcome in delivery:
        print(recipient, outcome.reply)

`Client` keeps connections to one destination and uses them again.  `Client.send` returns a `Delivery`
at once: a Deferred for each recipient (``delivery.outcomes``), an async iterator of recipients and
their outcomes as they come, and something to await for all of them.  An `Outcome` has the server's
``reply``; a server that cannot be reached, or is lost, is an outcome, too, with a 4yz reply.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from .envelope import Address, Recipient, Sender
from .outgoing.delivery import Delivery
from .outgoing.destination import Destination, destination
from .outgoing.encryption import Encryption
from .outgoing.pool import Pool, PoolLimits
from .outgoing.text import Text
from .outgoing.timeouts import Timeouts
from .replies import Reply
from .session.client_transaction import check_mailing
from .session.outcomes import Outcome, Stage
from .session.sasl_client import Login
from .session.terms import NO_ATTRIBUTES, TLS, Body, Dialect, Mailing, Terms
from .wire.commands import CommandError
from .wire.grammar import match_domain
from .wire.heard_replies import HeardReply
from .wire.paths import parse_rcpt

__all__ = [
    "TLS",
    "Client",
    "Delivery",
    "Dialect",
    "Encryption",
    "HeardReply",
    "Login",
    "Outcome",
    "PoolLimits",
    "Stage",
    "Timeouts",
    "address",
    "own_name",
]


class Client:
    """
    Sends messages to one destination.

    *to* is an endpoint, or words for one: ``mail.example.org:24``, ``/run/lmtp.sock``,
    ``unix:/run/lmtp.sock``, ``tcp:mail.example.org:24``.  *dialect* is LMTP, or SMTP to a server
    that has one reply for all recipients.  *hostname* is what we call ourselves, by default the
    name of this machine.

    *tls* says when to encrypt, and *encryption* with whom: by default the certificate has to be in
    the name of the host in *to*, and from an authority that the system trusts.  *login* is how to
    authenticate.  *xclient* are attributes of XCLIENT to introduce ourselves with.

    *timeouts* and *limits* say how long to wait, and how many connections to make.  *pipelining* and
    *chunking* False do without those extensions.  *overhear* is called with every command and the
    reply to it.

    Raises:
        ValueError: The words, the host name or the name for the certificate make no sense.
    """

    def __init__(
        self,
        reactor: Any,
        to: str | IStreamClientEndpoint,
        *,
        dialect: Dialect = Dialect.LMTP,
        hostname: str | None = None,
        tls: TLS = TLS.NONE,
        encryption: Encryption | None = None,
        login: Login | None = None,
        xclient: Mapping[str, str | None] = NO_ATTRIBUTES,
        timeouts: Timeouts | None = None,
        limits: PoolLimits | None = None,
        pipelining: bool = True,
        chunking: bool = True,
        overhear: Callable[[str, HeardReply], None] | None = None,
    ) -> None:
        found = destination(reactor, to) if isinstance(to, str) else Destination(to, "")
        encryption = (encryption or Encryption()).named(found.host)
        if tls is TLS.MUST:
            encryption.options(tls)
        self._clock = IReactorTime(reactor)
        terms = Terms(
            hostname or own_name(),
            dialect,
            # There is nothing left to encrypt then.
            TLS.MUST if found.is_verified else tls,
            login,
            xclient,
            pipelining,
            chunking,
        )
        self._pool = Pool(
            found.endpoint,
            terms,
            self._clock,
            encryption=encryption,
            timeouts=timeouts,
            limits=limits,
            overhear=overhear,
        )

    def send(
        self,
        sender: str | Address | Sender | None,
        recipients: Sequence[str | Address | Recipient],
        message: bytes | BinaryIO,
        *,
        body: Body | None = None,
        size: int | None = None,
        seconds: float | None = None,
        smtputf8: bool = False,
        xforward: Mapping[str, str | None] = NO_ATTRIBUTES,
        xclient: Mapping[str, str | None] | None = None,
    ) -> Delivery:
        """
        Send *message* from *sender* (None or an empty text for the null sender) to *recipients*.

        *message* is octets, or a binary file, which is read from where it stands while it is sent,
        and not closed; its lines end with CRLF.  A Sender may have the parameters ``ENVID`` and
        ``RET``, a Recipient ``NOTIFY`` and ``ORCPT`` (RFC 3461), as `Mailing` has them.

        *body* says what the message is made of (7BIT, 8BITMIME, BINARYMIME); by default it is looked
        at.  A server without the extension that it needs gets nothing; the outcomes say so
        (``outcome.lacking``).  *size* is its size in octets where the file cannot tell.  *smtputf8*
        says that its headers need SMTPUTF8; addresses are looked at.  *xforward* are attributes for
        the server's log, and *xclient* those for this message instead of the client's own.

        After *seconds*, those who have no outcome get ``451 4.4.7``.

        Raises:
            ValueError: There are no recipients, or an address or parameter that cannot be said:
                nothing is sent.
        """
        text = Text(message)
        if body is None:
            # A long text is looked at only if the server turns out to take nothing but 7 bits.
            body = "7BIT" if text.is_short and text.is_ascii() else "8BITMIME"
            is_ascii = None if text.is_short else text.is_ascii
        else:
            is_ascii = None
        said = _sender(sender)
        if smtputf8:
            said = evolve(said, parameters={**said.parameters, "SMTPUTF8": True})
        mailing = Mailing(
            said,
            tuple(map(_recipient, recipients)),
            body,
            text.size if size is None else size,
            xforward,
            xclient,
            is_ascii,
        )
        check_mailing(mailing)
        delivery = Delivery(mailing, text)
        if seconds is not None:
            self._limit(delivery, seconds)
        self._pool.send(delivery)
        return delivery

    def close(self) -> Deferred[None]:
        """
        Bring to its end what is on its way, and take leave.  Fires when no connection is left.
        """
        return self._pool.close()

    def _limit(self, delivery: Delivery, seconds: float) -> None:
        late = Reply(451, f"Not delivered within {seconds:g} seconds", (4, 7))
        call = self._clock.callLater(seconds, delivery.give_up, late)

        def done(_outcomes: object) -> None:
            if call.active():
                call.cancel()

        delivery.as_deferred().addCallback(done)


def own_name() -> str:
    """
    What this machine is called, as something that may be said with LHLO.
    """
    name = socket.gethostname().strip(".")
    return name if name.isascii() and match_domain(name) else "localhost"


def address(text: str) -> Address:
    """
    Read an address: ``ann@example.org``, ``"a b"@example.org``, ``postmaster``.

    Raises:
        ValueError: It is none.
    """
    try:
        read, rest = parse_rcpt(f"TO:<{text}>".encode())
    except (CommandError, UnicodeEncodeError) as error:
        raise ValueError(f"not an address: {text!r}") from error
    if rest:
        raise ValueError(f"not an address: {text!r}")
    return read


def _sender(sender: str | Address | Sender | None) -> Sender:
    if isinstance(sender, Sender):
        return sender
    if isinstance(sender, str):
        return Sender(address(sender) if sender else None)
    return Sender(sender)


def _recipient(recipient: str | Address | Recipient) -> Recipient:
    if isinstance(recipient, Recipient):
        return recipient
    return Recipient(address(recipient) if isinstance(recipient, str) else recipient)
