"""
The client as a Python developer uses it.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.testing import MemoryReactorClock, StringTransport
from zope.interface import implementer

from lmtpsvc.client import TLS, Client, Dialect, Encryption, Outcome, address, own_name
from lmtpsvc.envelope import Address, Recipient, Sender
from lmtpsvc.session.terms import Body

from .rows import each_row

OK = b"250 2.0.0 OK\r\n"


@implementer(IStreamClientEndpoint)
class Server:
    """
    An LMTP server on a string that takes everything, and announces *extensions*.
    """

    def __init__(self, *extensions: str, verb: bytes = b"LHLO") -> None:
        self.said = b""
        self._extensions, self._verb = extensions, verb
        self._wire = StringTransport()
        self._protocol: IProtocol | None = None

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        protocol = protocolFactory.buildProtocol(None)  # type: ignore[arg-type]  # nobody looks
        assert protocol is not None
        self._protocol = protocol
        protocol.makeConnection(self._wire)
        return succeed(protocol)

    def serve(self) -> None:
        """
        Say what there is to say, until the client is silent.
        """
        assert self._protocol is not None
        self._protocol.dataReceived(b"220 foo.edu\r\n")
        recipients, in_text = 0, False
        while heard := self._wire.value():
            self._wire.clear()
            self.said += heard
            answer = b""
            for line in heard.splitlines():
                if in_text:
                    if line == b".":
                        in_text, answer = False, answer + OK * recipients
                elif line.startswith(self._verb):
                    lines = "".join(f"250-{each}\r\n" for each in ("foo.edu", *self._extensions))
                    answer += f"{lines}250 PIPELINING\r\n".encode()
                elif line == b"DATA":
                    in_text, answer = True, answer + b"354 go\r\n"
                else:
                    recipients += line.startswith(b"RCPT")
                    answer += OK
            self._protocol.dataReceived(answer)


def send(server: Server, *words: Any, **options: Any) -> list[Outcome]:
    """
    All outcomes of a message.
    """
    delivery = Client(MemoryReactorClock(), server, hostname="me.example").send(*words, **options)
    server.serve()
    found: list[Outcome] = []
    delivery.as_deferred().addCallback(found.extend)
    assert delivery.is_settled
    return found


class TestSending:
    @pytest.mark.parametrize(
        ("sender", "said"),
        [
            ("chris@bar.com", b"MAIL FROM:<chris@bar.com>"),
            ("", b"MAIL FROM:<>"),
            (None, b"MAIL FROM:<>"),
            (Address("chris", "bar.com"), b"MAIL FROM:<chris@bar.com>"),
            (Sender(Address("chris", "bar.com")), b"MAIL FROM:<chris@bar.com>"),
        ],
    )
    def test_senders(self, sender: object, said: bytes) -> None:
        """
        A sender is a text, an address, or none.
        """
        server = Server()
        [outcome] = send(server, sender, ["ann@foo.edu"], b"Hi\r\n")

        assert outcome.is_success
        assert outcome.server == "foo.edu"
        assert said in server.said

    def test_recipients(self) -> None:
        """
        A recipient is a text, an address, or one with parameters.
        """
        server = Server("DSN")
        outcomes = send(
            server,
            None,
            [
                "ann@foo.edu",
                Address("bob", "foo.edu"),
                Recipient(Address("cat", "foo.edu"), {"NOTIFY": "NEVER"}),
            ],
            b"Hi\r\n",
        )

        assert len(outcomes) == 3
        assert all(outcome.dsn for outcome in outcomes)
        for line in (b"<ann@foo.edu>\r\n", b"<bob@foo.edu>\r\n", b"<cat@foo.edu> NOTIFY=NEVER\r\n"):
            assert b"RCPT TO:" + line in server.said

    @each_row(
        ("sender", "recipients", "mistake"),
        [
            (None, [], "no recipients"),
            (None, ["ann"], "'ann'"),
            (None, ["ann@foo.edu> NOTIFY=NEVER"], "not an address"),
            (None, ["ann@foo.edu\r\nQUIT"], "not an address"),
            (None, ["ann@foo.edu\ud800"], "not an address"),
            ("ann@foo.edu> SIZE=1", ["ann@foo.edu"], "not an address"),
            (Sender(None, {"RET": "FULL\r\nQUIT"}), ["ann@foo.edu"], "RET"),
            (None, [Recipient(Address("a", "b"), {"NOTIFY": "A B"})], "NOTIFY"),
            (None, [Recipient(Address("a", "b"), {"ORCPT": "nothing"})], "ORCPT"),
        ],
    )
    def test_mistakes(self, sender: object, recipients: list[Any], mistake: str) -> None:
        """
        What cannot be said raises at once, and nothing is sent.
        """
        client = Client(MemoryReactorClock(), server := Server(), hostname="me.example")
        with pytest.raises(ValueError, match=mistake):
            client.send(sender, recipients, b"Hi\r\n")  # type: ignore[arg-type]  # as the table says

        assert server.said == b""

    @pytest.mark.parametrize(
        ("message", "body", "said"),
        [
            (b"Hi\r\n", None, b"MAIL FROM:<> SIZE=4\r\n"),
            (io.BytesIO(b"Hi\r\n"), None, b"MAIL FROM:<> SIZE=4\r\n"),
            (b"\xfc\r\n", None, b"MAIL FROM:<> SIZE=3 BODY=8BITMIME\r\n"),
            (b"Hi\r\n", "8BITMIME", b"MAIL FROM:<> SIZE=4 BODY=8BITMIME\r\n"),
            (b"\xfc\r\n", "7BIT", b"MAIL FROM:<> SIZE=3\r\n"),
        ],
    )
    def test_bodies(self, message: Any, body: Body | None, said: bytes) -> None:
        """
        Size and kind of the message are looked at, or told.
        """
        server = Server("SIZE", "8BITMIME")
        send(server, None, ["ann@foo.edu"], message, body=body)

        assert said in server.said

    def test_next_hop_without_8bitmime(self) -> None:
        """
        The outcome names what is lacking, and the message may be converted and sent again.
        """
        server = Server()
        [outcome] = send(server, None, ["ann@foo.edu"], b"\xfc\r\n")

        assert outcome.lacking == "8BITMIME"
        assert (outcome.reply.code, outcome.reply.status) == (554, (6, 3))
        assert b"MAIL" not in server.said

    @pytest.mark.parametrize(("octet", "code"), [(b"x", 250), (b"\xfc", 554)])
    def test_long_message_to_a_next_hop_without_8bitmime(self, octet: bytes, code: int) -> None:
        """
        A long one is looked through when it matters.
        """
        message = io.BytesIO(b"x" * 2_000_000 + octet)
        server = Server()
        client = Client(MemoryReactorClock(), server, hostname="me.example")
        delivery = client.send(None, ["ann@foo.edu"], message)
        server.serve()
        if code == 250:
            assert not delivery.is_settled
            assert b"DATA" in server.said
        else:
            assert delivery.is_settled

    def test_smtputf8_for_headers(self) -> None:
        """
        Headers in UTF-8 are the caller's to know of.
        """
        server = Server("SMTPUTF8", "8BITMIME")
        send(server, None, ["ann@foo.edu"], b"Hi\r\n", smtputf8=True)

        assert b"MAIL FROM:<> SMTPUTF8\r\n" in server.said

    def test_deadline(self) -> None:
        """
        After so many seconds nobody waits any more.
        """
        reactor = MemoryReactorClock()
        client = Client(reactor, Server(), hostname="me.example")
        delivery = client.send(None, ["ann@foo.edu"], b"Hi\r\n", seconds=30)
        reactor.advance(29)
        assert not delivery.is_settled
        reactor.advance(1)
        outcome = delivery.outcomes[0].result

        assert isinstance(outcome, Outcome)
        assert str(outcome.reply) == "451 4.4.7 Not delivered within 30 seconds"

    def test_deadline_leaves_nothing_behind(self) -> None:
        """
        When all is well, no call is left.
        """
        reactor = MemoryReactorClock()
        client = Client(reactor, server := Server(), hostname="me.example")
        client.send(None, ["ann@foo.edu"], b"Hi\r\n", seconds=1000)
        server.serve()

        assert all(call.getTime() < 1000 for call in reactor.getDelayedCalls())


class TestMaking:
    @pytest.mark.parametrize(
        ("to", "options"),
        [
            ("nowhere", {}),
            ("a:1", {"hostname": "x y"}),
            ("/run/lmtp.sock", {"tls": TLS.MUST}),
        ],
    )
    def test_mistakes(self, to: str, options: dict[str, Any]) -> None:
        """
        They are found when the client is made.
        """
        with pytest.raises(ValueError):
            Client(reactor, to, **options)

    def test_shared_encryption(self) -> None:
        """
        Several clients may share what they trust, each verifying its own host's name.
        """
        shared = Encryption()
        for host in ("a.example", "b.example"):
            Client(reactor, f"{host}:24", tls=TLS.MUST, encryption=shared)

        assert shared.server_name == ""
        assert shared.named("a.example").server_name == "a.example"

    def test_smtp(self) -> None:
        """
        The other dialect says EHLO.
        """
        server = Server(verb=b"EHLO")
        Client(MemoryReactorClock(), server, dialect=Dialect.SMTP, hostname="me.example").send(
            None, ["ann@foo.edu"], b"Hi\r\n"
        )
        server.serve()

        assert server.said.startswith(b"EHLO me.example\r\n")

    def test_own_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        What this machine is called can always be said.
        """
        names: dict[str, str] = {"mx.example.org": "mx.example.org", "a b": "localhost"}
        for name, said in names.items():
            monkeypatch.setattr("socket.gethostname", lambda name=name: name)
            assert own_name() == said

    def test_address(self) -> None:
        """
        Addresses are read as a server reads them.
        """
        assert address('"a b"@Foo.edu') == Address("a b", "foo.edu")
        assert address("Postmaster") == Address("postmaster", "")

    def test_close(self, success_of: Callable[[Deferred[None]], None]) -> None:
        """
        A client that never was used is closed at once.
        """
        success_of(Client(reactor, "a:1").close())
