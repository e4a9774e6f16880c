"""
Backends and deliveries of twisted.mail, each in the place of the other, with Twisted's own server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped]  # it has no types
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import deferLater
from twisted.internet.testing import StringTransport
from twisted.mail import smtp
from twisted.mail.interfaces import IMessageDelivery, IMessageDeliveryFactory, IMessageSMTP
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from lmtpsvc.directory.anyone import Anyone
from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import PermanentFailure, TemporaryFailure
from lmtpsvc.interfaces import IBackend, IMessage
from lmtpsvc.limits import Limits
from lmtpsvc.per_recipient import PerRecipientBackend
from lmtpsvc.testing import BackendContract, MemoryMessage, envelope
from lmtpsvc.twisted_mail import BackendMessageDelivery, MessageDeliveryBackend

#: The test, a coroutine, is run in the reactor.
in_reactor: Callable[[Callable[..., Any]], Callable[..., Any]] = pytest_twisted.ensureDeferred

clock = IReactorTime(reactor)
ANN, BOB = Mailbox("ann", "example.org"), Mailbox("bob", "example.org")


# ── a delivery of twisted.mail ───────────────────────────────────────────────────────────────────


@implementer(IMessageSMTP)
class Lines:
    def __init__(self, delivery: Delivery, key: str) -> None:
        self.delivery, self.key = delivery, key
        self.lines: list[bytes] = []

    def lineReceived(self, line: bytes) -> None:
        if self.key == "full@example.org":
            raise smtp.SMTPServerError(452, "No more lines\n please")
        self.lines.append(line)

    def eomReceived(self) -> Deferred[Any]:
        if self.key == "later@example.org":
            return fail(smtp.SMTPServerError(451, b"4.2.0 Not now"))
        if self.key in {"broken@example.org", self.delivery.broken}:
            return fail(smtp.SMTPServerError(554, "No"))
        if self.key == "defect@example.org":
            return fail(KeyError("x"))
        waiting: Deferred[None] = deferLater(clock, 0)
        return waiting.addCallback(lambda _: self._keep())

    def connectionLost(self) -> None:
        self.delivery.lost.append(self.key)

    def _keep(self) -> str:
        text = b"".join(line + b"\r\n" for line in self.lines)
        self.delivery.kept.setdefault(self.key, []).append(text)
        return "kept"


@implementer(IMessageDelivery, IMessageDeliveryFactory)
class Delivery:
    """
    What the books on Twisted show: keeps messages by address.
    """

    def __init__(self, header: bytes = b"") -> None:
        self.kept: dict[str, list[bytes]] = {}
        self.lost: list[str] = []
        self.origins: list[tuple[object, str]] = []
        self.header = header
        self.broken = ""

    def getMessageDelivery(self) -> Delivery:
        return self

    def receivedHeader(self, helo: object, origin: object, recipients: list[Any]) -> bytes:
        return self.header

    def validateFrom(self, helo: tuple[bytes, bytes], origin: Any) -> Any:
        if str(origin) == "spammer@example.net":
            raise smtp.SMTPBadSender(origin)
        self.origins.append((helo, str(origin)))
        return succeed(origin)

    def validateTo(self, user: Any) -> Any:
        if user.dest.local == b"nobody":
            raise smtp.SMTPBadRcpt(user)
        if user.dest.local == b"unknown":
            return fail(smtp.SMTPBadRcpt(user, 553, "Who?"))
        return lambda: Lines(self, str(user.dest))


class TestContract(BackendContract):
    """
    A delivery that keeps its promises makes a backend that does.
    """

    delivery: Delivery
    # Nothing here comes later than the next turn of the reactor.
    settling = 0.05

    def make(self, reactor: Any, directory: Path) -> IBackend:
        self.delivery = Delivery()
        return MessageDeliveryBackend(reactor, self.delivery)

    def stored(self, directory: Path, mailbox: Mailbox) -> list[bytes]:
        return self.delivery.kept.get(str(mailbox), [])

    def expected(self, text: bytes) -> bytes:
        """
        All that it gets are lines.
        """
        return text if text.endswith(b"\r\n") or not text else text + b"\r\n"

    @contextmanager
    def broken(self, directory: Path, mailbox: Mailbox) -> Iterator[None]:
        self.delivery.broken = str(mailbox)
        yield
        self.delivery.broken = ""


class TestMessageDeliveryBackend:
    async def outcome(
        self, mailbox: Mailbox, sender: str = "sender@example.net", header: bytes = b""
    ) -> tuple[Delivery, BaseException | None]:
        delivery = Delivery(header)
        backend = MessageDeliveryBackend(reactor, delivery)
        message = MemoryMessage(
            b"a: b\r\n\r\nbody\r\n", envelope=envelope("ann@example.org", sender=sender)
        )
        (result,) = backend.deliver(message, [mailbox])
        error = await result.addErrback(lambda failure: failure.value)
        await backend.stopService()
        return delivery, error

    @in_reactor
    async def test_what_it_sees(self) -> None:
        """
        It sees the client, the sender and each line, below its own Received.
        """
        delivery, error = await self.outcome(
            Mailbox("ann", "example.org", "lists"), header=b"Received: x\r\n\tby y"
        )

        assert error is None
        assert {
            "ann+lists@example.org": [b"Received: x\r\n\tby y\r\na: b\r\n\r\nbody\r\n"]
        } == delivery.kept
        assert [((b"client.example.net", b"127.0.0.1"), "sender@example.net")] == delivery.origins

    @in_reactor
    async def test_null_sender(self) -> None:
        """
        A bounce has no sender.
        """
        delivery, error = await self.outcome(ANN, sender="")

        assert error is None
        assert "" == delivery.origins[0][1]

    @pytest.mark.parametrize(
        ("user", "reply"),
        [
            ("nobody", "550 5.0.0 Cannot receive for specified address"),
            ("unknown", "553 5.0.0 Who?"),
            ("full", "452 4.0.0 No more lines  please"),
            ("later", "451 4.2.0 Not now"),
            ("broken", "554 5.0.0 No"),
            ("grüße", "553 5.1.3 This address cannot be a mailbox here"),
            ('"', "553 5.1.3 This address cannot be a mailbox here"),
        ],
    )
    @in_reactor
    async def test_refusals(self, user: str, reply: str) -> None:
        """
        What it says is what the recipient is answered, temporary or not.
        """
        delivery, error = await self.outcome(Mailbox(user, "example.org"))

        assert isinstance(error, (PermanentFailure, TemporaryFailure))
        assert reply == str(error.reply)
        assert {} == delivery.kept
        assert (["full@example.org"] if user == "full" else []) == delivery.lost

    @in_reactor
    async def test_sender_refused(self) -> None:
        """
        A sender that it does not like is every recipient's refusal.
        """
        _, error = await self.outcome(ANN, sender="spammer@example.net")

        assert isinstance(error, PermanentFailure)

    @in_reactor
    async def test_defect(self) -> None:
        """
        What it should not raise is left to be logged.
        """
        _, error = await self.outcome(Mailbox("defect", "example.org"))

        assert isinstance(error, KeyError)

    def test_verify(
        self, failure_of: Callable[..., Failure], success_of: Callable[[Awaitable[Any]], Any]
    ) -> None:
        """
        It refuses recipients at RCPT already.
        """
        backend = MessageDeliveryBackend(reactor, Delivery())

        assert success_of(backend.verify(ANN)) is None
        failure_of(backend.verify(Mailbox("nobody", "example.org")), PermanentFailure)
        failure_of(backend.verify(Mailbox("unknown", "example.org")), PermanentFailure)

    def test_verify_as_in_a_transaction(
        self, success_of: Callable[[Awaitable[Any]], Any], failure_of: Callable[..., Failure]
    ) -> None:
        """
        A delivery sees the recipient with what it has made of the sender: a backend of ours as one,
        for example, which takes no other.
        """
        shelf = Shelf()
        shelf.refusals["nobody"] = PermanentFailure("Who?", (1, 1))
        delivery = BackendMessageDelivery(reactor, shelf, Anyone(), "mx.example.org")
        backend = MessageDeliveryBackend(reactor, delivery)

        assert success_of(backend.verify(ANN)) is None
        failure_of(backend.verify(Mailbox("nobody", "example.org")), PermanentFailure)

    def test_verify_without_a_sender(self, success_of: Callable[[Awaitable[Any]], Any]) -> None:
        """
        One that takes nothing from the null sender is asked when the real one is known.
        """

        class Choosy(Delivery):
            def validateFrom(self, helo: tuple[bytes, bytes], origin: Any) -> Any:
                raise smtp.SMTPBadSender(origin)

        backend = MessageDeliveryBackend(reactor, Choosy())

        assert success_of(backend.verify(Mailbox("nobody", "example.org"))) is None

    def test_no_delivery(self) -> None:
        """
        Something else is refused when it is made.
        """
        with pytest.raises(TypeError, match="neither"):
            MessageDeliveryBackend(reactor, object())


# ── a backend of ours ────────────────────────────────────────────────────────────────────────────


class Shelf(PerRecipientBackend):
    """
    Keeps messages in memory, and refuses as it is told to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, list[bytes]] = {}
        self.headers: list[EmailMessage] = []
        self.refusals: dict[str, Exception] = {}
        self.full: dict[str, Exception] = {}

    def verify(self, mailbox: Mailbox) -> None:
        if mailbox.user in self.refusals:
            raise self.refusals[mailbox.user]

    async def store(self, message: IMessage, mailbox: Mailbox) -> None:
        if mailbox.user in self.full:
            raise self.full[mailbox.user]
        with message.open() as file:
            self.kept.setdefault(str(mailbox), []).append(file.read())
        self.headers.append(message.headers())


class Server:
    """
    Twisted's SMTP server in front of a backend, without a socket.
    """

    def __init__(self, kind: type[smtp.SMTP] = smtp.ESMTP, **options: Any) -> None:
        self.shelf = Shelf()
        self.delivery = BackendMessageDelivery(
            reactor, self.shelf, Anyone(), "mx.example.org", **options
        )
        self.transport = StringTransport()
        self.protocol = kind()
        self.protocol.delivery = self.delivery
        self.protocol.makeConnection(self.transport)

    def say(self, *lines: str) -> list[str]:
        """
        The replies to these lines.
        """
        self.transport.clear()
        for line in lines:
            self.protocol.dataReceived(line.encode("latin-1") + b"\r\n")
        return list(self.transport.value().decode().splitlines())

    def send(self, *recipients: str, sender: str = "ann@example.net") -> list[str]:
        """
        The replies to MAIL, each RCPT, DATA and the text.
        """
        return self.say(
            f"MAIL FROM:<{sender}>",
            *(f"RCPT TO:<{each}>" for each in recipients),
            *("DATA", "Subject: hello", "", "..body", "."),
        )


class TestBackendMessageDelivery:
    def test_provides(self) -> None:
        """
        It is what Twisted's server wants.
        """
        assert verifyObject(IMessageDelivery, Server().delivery)

    @pytest.mark.parametrize(("kind", "name"), [(smtp.SMTP, "SMTP"), (smtp.ESMTP, "ESMTP")])
    def test_delivers(self, kind: type[smtp.SMTP], name: str) -> None:
        """
        The message arrives with our trace headers, once for each recipient.
        """
        server = Server(kind)
        server.say("HELO client.example.net")

        assert "250 Delivery in progress" == server.send("ann@example.org", "bob@example.org")[-1]
        assert {"ann@example.org", "bob@example.org"} == set(server.shelf.kept)
        ((text,), _) = server.shelf.kept.values()
        assert text.startswith(
            b"Return-Path: <ann@example.net>\r\nReceived: from client.example.net"
        )
        assert text.endswith(b"\r\nSubject: hello\r\n\r\n.body\r\n")
        assert f"by mx.example.org (lmtpsvc) with {name} id" in server.shelf.headers[0]["Received"]

    def test_again(self) -> None:
        """
        A connection, and a delivery, has many messages; what was reset is none.
        """
        server = Server()
        server.say("EHLO x", "MAIL FROM:<>", "RCPT TO:<bob@example.org>", "RSET")

        server.send("ann@example.org", sender="")
        server.send("ann@example.org", "ann@example.org")

        assert ["ann@example.org"] == list(server.shelf.kept)
        assert 2 == len(server.shelf.kept["ann@example.org"])
        assert server.shelf.kept["ann@example.org"][0].startswith(b"Return-Path: <>\r\n")

    def test_no_text(self) -> None:
        """
        A message without a line has trace headers.
        """
        server = Server()
        said = server.say(
            *("HELO x", "MAIL FROM:<a@b.example>", "RCPT TO:<ann@example.org>", "DATA", ".")
        )

        assert "250 Delivery in progress" == said[-1]
        assert server.shelf.headers[0]["Return-Path"] == "<a@b.example>"

    def test_unusual_addresses(self) -> None:
        """
        Quotes are undone, a detail is split off, and a name that is none is not believed.
        """
        server = Server()
        server.say("HELO (what) is this")
        server.send('"a b"@example.org', "Ann+x@EXAMPLE.org")

        assert {"a b@example.org", "ann+x@example.org"} == set(server.shelf.kept)
        assert server.shelf.headers[0]["Received"].startswith("from unknown ([192.168.1.1])")

    @pytest.mark.parametrize(
        ("error", "reply"),
        [
            (PermanentFailure("No such user", (1, 1)), "550 5.1.1 No such user"),
            (TemporaryFailure("Later", (3, 0)), "451 4.3.0 Later"),
        ],
    )
    def test_refused_at_rcpt(self, error: Exception, reply: str) -> None:
        """
        The backend's refusal is the reply to RCPT.
        """
        server = Server()
        server.shelf.refusals["bob"] = error
        said = server.say(
            *("HELO x", "MAIL FROM:<a@b.example>", "RCPT TO:<bob@example.org>", "RCPT TO:<ann@x>")
        )

        assert [reply, "250 Recipient address accepted"] == said[-2:]

    @pytest.mark.parametrize(
        ("ann", "bob", "reply"),
        [
            (PermanentFailure("No", (2, 0)), None, "550 5.2.0 No"),
            (PermanentFailure("No"), TemporaryFailure("Later", (2, 0)), "451 4.2.0 Later"),
        ],
    )
    def test_one_reply_for_all(self, ann: Exception, bob: Exception | None, reply: str) -> None:
        """
        What may succeed later is tried again, which Twisted's own 550 would forbid; and the
        conversation goes on.
        """
        server = Server()
        server.shelf.full = {"ann": ann} if bob is None else {"ann": ann, "bob": bob}
        server.say("HELO x")

        assert reply == server.send("ann@example.org", "bob@example.org")[-1]
        server.shelf.full = {}
        assert "250 Delivery in progress" == server.send("ann@example.org")[-1]

    def test_too_large(self) -> None:
        """
        A message beyond the limit is refused in the end, and nobody gets it.
        """
        server = Server(limits=Limits(message_size=1000))
        begin = ("MAIL FROM:<a@b.example>", "RCPT TO:<ann@example.org>", "DATA")
        said = server.say("HELO x", *begin, *["x" * 100] * 20, ".")

        assert "552 5.3.4 Message larger than the limit" == said[-1]
        assert {} == server.shelf.kept
        assert "250 Delivery in progress" == server.send("ann@example.org")[-1]

    def test_lost(self) -> None:
        """
        A client that goes in the middle of the text has sent nothing.
        """
        server = Server()
        server.say("HELO x", "MAIL FROM:<a@b.example>", "RCPT TO:<ann@example.org>", "DATA", "x")
        server.protocol.connectionLost(Failure(ConnectionError()))

        assert {} == server.shelf.kept

    def test_other_server(
        self,
        failure_of: Callable[..., Failure],
        success_of: Callable[[Awaitable[Any]], Any],
    ) -> None:
        """
        Whoever uses the delivery without Twisted's server gets the failures.
        """
        server = Server()
        server.shelf.full["ann"] = TemporaryFailure("Later")
        delivery = server.delivery
        origin = delivery.validateFrom((b"x", b"192.0.2.1"), smtp.Address(b"a@b.example"))
        user = smtp.User(b"ann@example.org", (b"x", b"192.0.2.1"), None, origin)
        part = success_of(delivery.validateTo(user))()

        failed = failure_of(part.eomReceived(), smtp.SMTPServerError).value
        assert isinstance(failed, smtp.SMTPServerError)
        assert 451 == failed.code

    def test_unknown_origin(self) -> None:
        """
        A sender that has not been validated belongs to no transaction.
        """
        user = smtp.User(b"ann@example.org", (b"x", b"y"), None, smtp.Address(b"a@b.example"))

        with pytest.raises(smtp.SMTPServerError):
            Server().delivery.validateTo(user)


class TestLoopback:
    @in_reactor
    async def test_both_ways(self) -> None:
        """
        Twisted's client, Twisted's server, a backend of ours that is a delivery of Twisted's: it
        arrives.
        """
        there = Delivery()
        backend = MessageDeliveryBackend(reactor, there)
        delivery = BackendMessageDelivery(reactor, backend, Anyone(), "mx.example.org")
        delivery.startService()
        factory = ServerFactory()

        def build(address: object) -> smtp.ESMTP:
            protocol = smtp.ESMTP()
            protocol.delivery = delivery
            return protocol

        factory.buildProtocol = build  # type: ignore[method-assign,assignment]  # the shortest way
        port = IReactorTCP(reactor).listenTCP(0, factory, interface="127.0.0.1")
        recipients: Sequence[str] = ["ann@example.org", "bob@example.org"]
        # Twisted's client has LF, and makes CRLF of each.
        text = b"Subject: hello\n\n" + b"line\n" * 100_000
        host = port.getHost()
        assert isinstance(host, IPv4Address)

        count, answers = await smtp.sendmail(
            *("127.0.0.1", "ann@example.net", recipients, text), port=host.port
        )
        await delivery.stopService()
        await maybeDeferred(port.stopListening)

        assert 2 == count, answers
        for recipient in recipients:
            (kept,) = there.kept[recipient]
            assert kept.startswith(b"Return-Path: <ann@example.net>\r\n")
            assert kept.endswith(text.replace(b"\n", b"\r\n"))
