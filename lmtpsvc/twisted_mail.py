"""
Between this package and `twisted.mail`: deliveries as backends, and backends as deliveries.

`MessageDeliveryBackend` lets an `twisted.mail.interfaces.IMessageDelivery` that somebody has written
for Twisted's SMTP server take mail from ours.  `BackendMessageDelivery` lets Twisted's SMTP server
deliver to a backend of ours.

What Twisted's server does with failures is made good here, where it can be.  To a delivery that
fails in any way, it says one 550 for all recipients, so that what was meant to be tried again is
returned to its sender; and what it says after the text it tries to send as str, which fails.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, cast

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime, ISSLTransport
from twisted.mail import smtp
from twisted.mail.interfaces import IMessageDelivery, IMessageDeliveryFactory, IMessageSMTP
from twisted.python.failure import Failure
from zope.interface import implementer

from . import replies
from .backends.pool import WorkerPool
from .delivery.agent import DeliveryAgent
from .delivery.dispatch import reply_for
from .delivery.routing import AddressRules, Routing
from .delivery.spool import SpoolSettings
from .delivery.transaction import Accepted, Transaction
from .envelope import NO_PARAMETERS, Address, Client, Envelope, Mailbox, Recipient, Sender
from .errors import DeliveryError, PermanentFailure, TemporaryFailure, refusal
from .interfaces import IBackend, IDirectory, IMessage
from .limits import Limits
from .per_recipient import PerRecipientBackend, to_the_end
from .replies import Reply
from .wire.paths import parse_rcpt

#: Octets that are handed over as lines in one turn of the reactor.
CHUNK: Final = 64 * 1024

_name = re.compile(r"[A-Za-z0-9.:_\-\[\]]{1,255}\Z").match
_enhanced = re.compile(r"[45]\.(\d{1,3})\.(\d{1,3}) ").match
_host = re.compile(r"[0-9A-Fa-f.:]+\Z").match


# ── a delivery of twisted.mail as a backend ──────────────────────────────────────────────────────


class MessageDeliveryBackend(PerRecipientBackend):
    """
    Gives mail to *delivery*, an IMessageDelivery, or IMessageDeliveryFactory, of `twisted.mail`.

    Each recipient is a message of its own to it, with the client's LHLO and address and the real
    sender, so that one that is refused or fails leaves the others alone.  There is no
    `twisted.mail.smtp.SMTP` behind it: the ``protocol`` of a User is None.  At RCPT, it is asked
    whether it takes the recipient from the null sender.

    A delivery of `twisted.mail` makes no promise about power cuts: this one is as good as it is.
    """

    def __init__(self, reactor: object, delivery: object) -> None:
        super().__init__()
        if not (
            IMessageDelivery.providedBy(delivery) or IMessageDeliveryFactory.providedBy(delivery)
        ):
            raise TypeError(f"neither an IMessageDelivery nor a factory of one: {delivery!r}")
        self._offered: Any = delivery
        self._pool = WorkerPool(IReactorFromThreads(reactor), 4, "twisted-mail")

    def verify(self, mailbox: Mailbox) -> Awaitable[None]:
        """
        Ask for the recipient, who would be refused here already.
        """
        return self._verify(mailbox)

    async def _verify(self, mailbox: Mailbox) -> None:
        helo, delivery = (b"", b""), self._delivery()
        try:
            # What it makes of the sender is what it wants to see with the recipient.
            nobody = await maybeDeferred(delivery.validateFrom, helo, smtp.Address(b""))
        except smtp.SMTPServerError:
            # It says so again when the real one is known.
            return
        try:
            user = _user(mailbox, helo, nobody)
            await maybeDeferred(delivery.validateTo, user)
        except smtp.SMTPServerError as error:
            raise _failure(error) from error

    async def store(self, message: IMessage, mailbox: Mailbox) -> None:
        """
        Walk through what an SMTP transaction is for a delivery.
        """
        client, sender = message.envelope.client, str(message.envelope.sender)
        helo = client.name.encode("ascii", "replace"), client.host.encode()
        delivery = self._delivery()
        try:
            said = smtp.Address(_ascii(sender)) if sender else smtp.Address(b"")
            origin = await maybeDeferred(delivery.validateFrom, helo, said)
            user = _user(mailbox, helo, origin)
            make = await maybeDeferred(delivery.validateTo, user)
            lines = make()
            try:
                if header := delivery.receivedHeader(helo, origin, [user]):
                    lines.lineReceived(header if isinstance(header, bytes) else header.encode())
                await self._feed(message, lines)
            except BaseException:
                lines.connectionLost()
                raise
            # Nobody can tell what it does with a message that is complete.
            await to_the_end(maybeDeferred(lines.eomReceived))
        except smtp.SMTPServerError as error:
            raise _failure(error) from error

    def stopService(self) -> Deferred[Any]:
        return super().stopService().addCallback(lambda _: self._pool.stop())

    async def _feed(self, message: IMessage, lines: Any) -> None:
        """
        Hand over the text line by line, a little in each turn of the reactor.
        """
        file = await self._pool.submit(message.open)
        try:
            held, seen = bytearray(), 0
            while octets := await self._pool.submit(partial(file.read, CHUNK)):
                held += octets
                # What has been looked through is not looked through again: a line has no limit.
                end = held.rfind(b"\r\n", max(seen - 1, 0))
                if end >= 0:
                    for line in bytes(held[:end]).split(b"\r\n"):
                        lines.lineReceived(line)
                    del held[: end + 2]
                seen = len(held)
            if held:
                lines.lineReceived(bytes(held))
        finally:
            file.close()

    def _delivery(self) -> Any:
        if IMessageDeliveryFactory.providedBy(self._offered):
            return self._offered.getMessageDelivery()
        return self._offered


def _user(mailbox: Mailbox, helo: tuple[bytes, bytes], origin: object) -> Any:
    local = f"{mailbox.user}+{mailbox.detail}" if mailbox.detail else mailbox.user
    address = _ascii(str(Address(local, mailbox.domain)))
    try:
        return smtp.User(address, helo, None, origin)
    except smtp.AddressError as error:
        # Its grammar is not all of RFC 5321's.
        raise refusal(replies.BAD_MAILBOX) from error


def _ascii(address: str) -> bytes:
    """
    An address for `twisted.mail`, which knows nothing of SMTPUTF8.
    """
    try:
        return address.encode("ascii")
    except UnicodeEncodeError as error:
        raise refusal(replies.BAD_MAILBOX) from error


def _failure(error: smtp.SMTPServerError) -> DeliveryError:
    """
    The refusal of `twisted.mail` as ours.
    """
    resp = error.resp.decode("latin-1") if isinstance(error.resp, bytes) else str(error.resp)
    text = "".join(each if " " <= each <= "~" else " " for each in resp)[: replies.MAX_TEXT]
    status = (0, 0)
    if enhanced := _enhanced(text):
        text, status = text[enhanced.end() :], (int(enhanced[1]), int(enhanced[2]))
    if 500 <= error.code < 600:
        return PermanentFailure(text, status, error.code)
    return TemporaryFailure(text, status, error.code if 400 <= error.code < 500 else 0)


# ── a backend as a delivery of twisted.mail ──────────────────────────────────────────────────────


@implementer(IMessageDelivery)
class BackendMessageDelivery(MultiService):
    """
    Delivers what Twisted's SMTP server takes to *backend*; one for any number of connections.

    It is a service, and *backend* and *directory* are started and stopped with it if they are.
    SMTP has one reply for all recipients of a message: it is 250 if all have it; else that of a
    recipient who could have it later, so that the client tries again; else that of one who cannot.
    Some recipients may have it already then, and get it twice, as with any SMTP server.
    """

    def __init__(
        self,
        reactor: object,
        backend: IBackend,
        directory: IDirectory,
        hostname: str,
        *,
        limits: Limits | None = None,
        recipient_delimiter: str = "+",
    ) -> None:
        super().__init__()
        limits, clock = limits or Limits(), IReactorTime(reactor)
        capabilities = backend.capabilities
        self._threads = WorkerPool(IReactorFromThreads(reactor), 4, "spool")
        rules = AddressRules(hostname, recipient_delimiter)
        self._agent = DeliveryAgent(
            Routing(directory, backend, rules, clock, limits.lookup_seconds),
            backend,
            clock,
            hostname,
            limits,
            SpoolSettings(
                limits.spool_memory,
                capabilities.spool_directory or tempfile.gettempdir(),
                capabilities.line_ending,
                self._threads.submit,
            ),
        )
        for part in (directory, backend):
            if IService.providedBy(part):
                cast("Service", part).setServiceParent(self)

    def stopService(self) -> Deferred[Any]:
        """
        Fires when all have stopped.
        """
        stopped = cast("Deferred[Any]", super().stopService())
        return stopped.addCallback(lambda _: self._threads.stop())

    def validateFrom(self, helo: tuple[bytes | None, bytes | str], origin: Any) -> Any:
        """
        Anybody may send.
        """
        return _Origin(origin, helo)

    def validateTo(self, user: Any) -> Deferred[Callable[[], _Part]]:
        """
        Ask the directory and the backend.
        """
        origin = user.orig
        if not isinstance(origin, _Origin):
            raise smtp.SMTPServerError(451, "4.3.0 Internal error, try again later")
        if origin.incoming is None:
            origin.incoming = _Incoming(self._agent, origin, user.protocol)
        try:
            address = _address(user.dest)
        except Exception as error:
            raise _refusal(user, replies.BAD_MAILBOX) from error
        begun = self._agent.clock.seconds()

        def found(mailboxes: tuple[Mailbox, ...]) -> Callable[[], _Part]:
            seconds = self._agent.clock.seconds() - begun
            return partial(incoming.add, Accepted(Recipient(address), mailboxes, seconds))

        def refused(failure: Failure) -> Any:
            raise _refusal(user, reply_for(failure)) from failure.value

        incoming = origin.incoming
        resolved: Deferred[Any] = self._agent.resolve(address)
        return resolved.addCallbacks(found, refused)

    def receivedHeader(self, helo: object, origin: object, recipients: object) -> bytes:
        """
        None here: the trace headers are made once for all recipients.
        """
        return b""


class _Origin(smtp.Address):
    """
    The sender of one transaction: the only thing that all its recipients know.
    """

    def __init__(self, origin: Any, helo: tuple[bytes | None, bytes | str]) -> None:
        super().__init__(origin)
        self.helo = helo
        self.incoming: _Incoming | None = None


class _Incoming:
    """
    One message of an SMTP transaction: the lines come to each recipient, and are taken once.
    """

    def __init__(self, agent: DeliveryAgent, origin: _Origin, protocol: Any) -> None:
        self._agent, self._origin, self._protocol = agent, origin, protocol
        self._accepted: list[Accepted] = []
        self._results: list[Deferred[None]] = []
        self._transaction: Transaction | None = None
        self._ended = 0
        self._size = 0
        self._answers: dict[int, Reply] = {}

    def add(self, accepted: Accepted) -> _Part:
        """
        One more recipient; they are all known when the first line comes.
        """
        self._accepted.append(accepted)
        self._results.append(Deferred())
        return _Part(self, len(self._results) - 1)

    def line(self, line: bytes) -> None:
        """
        The next line, without its end.
        """
        before, self._size = self._size, self._size + len(line) + 2
        most = self._agent.limits.message_size
        if self._size <= most:
            self._begun().write(line + b"\r\n")
        elif before <= most:
            # Not raised: Twisted's server would fail to say so.
            self._begun().reject(replies.TOO_LARGE)

    def end(self, position: int) -> Deferred[None]:
        """
        One recipient has heard of the end; when all have, it is delivered.
        """
        self._ended += 1
        if self._ended == len(self._results):
            if self._size > self._agent.limits.message_size:
                self._say(replies.TOO_LARGE)
            else:
                self._begun().deliver(self._answer)
        return self._results[position]

    def lost(self) -> None:
        """
        The rest of the text will not come.
        """
        if self._transaction is not None:
            self._transaction.abandon()

    def _begun(self) -> Transaction:
        if self._transaction is None:
            recipients = tuple(each.recipient for each in self._accepted)
            envelope = Envelope(_sender(self._origin), recipients, self._client())
            transport = getattr(self._protocol, "transport", None)
            self._transaction = self._agent.begin(
                envelope,
                self._accepted,
                getattr(transport, "pauseProducing", _nothing),
                getattr(transport, "resumeProducing", _nothing),
            )
        return self._transaction

    def _client(self) -> Client:
        name, host = (_text(each) for each in self._origin.helo)
        transport = getattr(self._protocol, "transport", None)
        return Client(
            host if _host(host) else "local",
            name if _name(name) else "unknown",
            bool(ISSLTransport.providedBy(transport)),
            "ESMTP" if isinstance(self._protocol, smtp.ESMTP) else "SMTP",
        )

    def _answer(self, position: int, reply: Reply) -> None:
        self._answers[position] = reply
        if len(self._answers) < len(self._results):
            return
        worst = min(self._answers.values(), key=lambda reply: {4: 0, 5: 1, 2: 2}[reply.code // 100])
        if worst.is_success:
            for result in self._results:
                result.callback(None)
        else:
            self._say(worst)

    def _say(self, reply: Reply) -> None:
        """
        Refuse.  Whatever the results failed with, Twisted's server would say 550: it is left
        waiting for them, and does not wait for anything else.
        """
        if isinstance(self._protocol, smtp.SMTP):
            self._protocol.sendCode(reply.code, _words(reply).encode())
        else:
            for result in self._results:
                result.errback(smtp.SMTPServerError(reply.code, _words(reply)))


@implementer(IMessageSMTP)
class _Part:
    """
    What Twisted's server believes to be the message for one recipient.
    """

    def __init__(self, incoming: _Incoming, position: int) -> None:
        self._incoming, self._position = incoming, position

    def lineReceived(self, line: bytes) -> None:
        # All get the same lines.
        if self._position == 0:
            self._incoming.line(line)

    def eomReceived(self) -> Deferred[None]:
        return self._incoming.end(self._position)

    def connectionLost(self) -> None:
        if self._position == 0:
            self._incoming.lost()


def _address(said: Any) -> Address:
    address, _ = parse_rcpt(b"TO:<%s>" % bytes(said))
    return address


def _sender(said: Any) -> Sender:
    octets = bytes(said)
    if not octets:
        return Sender(None)
    try:
        return Sender(_address(said), NO_PARAMETERS)
    except Exception:
        # What Twisted's server has taken for an address is one to be shown, if nothing else.
        local, _, domain = octets.decode("ascii", "replace").rpartition("@")
        return Sender(Address(local, domain))


def _refusal(user: Any, reply: Reply) -> Exception:
    return smtp.SMTPBadRcpt(user, reply.code, _words(reply))


def _words(reply: Reply) -> str:
    """
    What stands behind the code of *reply*.
    """
    return str(reply)[4:]


def _text(said: bytes | str | None) -> str:
    return said.decode("ascii", "replace") if isinstance(said, bytes) else said or ""


def _nothing() -> None:
    """
    There is nobody who could send less.
    """
