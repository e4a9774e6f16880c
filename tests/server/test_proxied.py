"""
A proxy in front: who the client is, and what becomes of those who are no proxies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.ssl import CertificateOptions
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import LogEvent, formatEvent
from twisted.protocols.tls import TLSMemoryBIOFactory

from lmtpsvc.limits import Limits
from lmtpsvc.server.proxied import HEADER_SECONDS, HeaderFirst, HeaderFirstFactory
from lmtpsvc.session.connection import Connection, Terms
from lmtpsvc.wiring.listeners import listener

PROXY = IPv4Address("TCP", "192.0.2.1", 1024)
TERMS = Terms(proxied=True)
GREETING = [b"220 mx.example.org LMTP lmtpsvc ready"]


class Wire(StringTransport):
    """
    A connection: like those of reactors, it asks its present protocol.
    """

    def __init__(self, protocol: Any, peer: IAddress) -> None:
        super().__init__(peerAddress=peer)
        self.protocol = protocol
        self.aborting = False
        protocol.makeConnection(self)

    def abortConnection(self) -> None:
        self.aborting = True

    def setTcpNoDelay(self, enabled: bool) -> None: ...

    def says(self, *chunks: bytes) -> list[bytes]:
        for chunk in chunks:
            self.protocol.dataReceived(chunk)
        lines: list[bytes] = self.value().splitlines()
        self.clear()
        return lines


@pytest.fixture
def connect(server: Any) -> Callable[..., Wire]:
    """
    Connect to an endpoint that is proxied; 192.0.2.1, 198.51.100.7 and UNIX sockets are trusted.
    """
    server.factory.trusts = {"192.0.2.1", "198.51.100.7", "local"}.__contains__
    factory = HeaderFirstFactory(server.factory.on(TERMS))
    return lambda peer=PROXY: Wire(factory.buildProtocol(peer), peer)


def known(wire: Wire) -> Connection:
    found: Connection = wire.protocol._session.connection
    return found


class TestClient:
    @pytest.mark.parametrize("size", [1, 1000])
    def test_told(self, connect: Callable[..., Wire], size: int) -> None:
        """
        Nothing is said before the header; then all is as if its client had connected.
        """
        octets = b"PROXY TCP4 203.0.113.9 192.0.2.17 4000 24\r\nLHLO x\r\nNOOP\r\n"
        wire = connect()
        assert [] == wire.says()

        said = wire.says(*(octets[at : at + size] for at in range(0, len(octets), size)))

        assert GREETING == said[:1]
        assert b"250 2.0.0 OK" == said[-1]
        assert Connection("203.0.113.9", 4000, terms=TERMS) == known(wire)
        assert ("203.0.113.9", 4000) == (
            wire.protocol._session.client.host,
            wire.protocol._session.client.port,
        )

    def test_trust_is_the_clients(self, connect: Callable[..., Wire]) -> None:
        """
        What comes through a trusted proxy is not trusted for that, but for who it is.
        """
        for host, trusted in (("203.0.113.9", False), ("198.51.100.7", True)):
            wire = connect()
            said = wire.says(f"PROXY TCP4 {host} 192.0.2.17 4000 24\r\nLHLO x\r\n".encode())

            assert trusted is known(wire).is_trusted
            assert trusted is any(b"XCLIENT" in line for line in said)

    def test_from_a_socket(self, connect: Callable[..., Wire]) -> None:
        """
        The proxy is on this machine, the client is not: nothing is private.
        """
        wire = connect(UNIXAddress(""))

        assert GREETING == wire.says(b"PROXY TCP6 2001:db8::9 ::1 4000 24\r\n")
        assert "2001:db8::9" == known(wire).host
        assert not known(wire).is_private

    def test_unknown(self, connect: Callable[..., Wire], world: Any) -> None:
        """
        Where the proxy does not know who it is, we do not either, and trust nobody.
        """
        wire = connect(UNIXAddress(""))

        assert GREETING == wire.says(b"PROXY UNKNOWN\r\n")
        assert Connection("unknown", terms=TERMS) == known(wire)
        assert not known(wire).is_private
        wire.says(b"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<quick@example.org>\r\nDATA\r\n.\r\n")
        with world.messages[0].open() as file:
            assert b"Received: from x (unknown)\r\n" in file.read()

    def test_of_its_own(self, connect: Callable[..., Wire]) -> None:
        """
        A health check is the proxy itself.
        """
        wire = connect()

        assert GREETING == wire.says(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")
        assert Connection("192.0.2.1", 1024, is_trusted=True, terms=TERMS) == known(wire)

    def test_more(self, server: Any, connect: Callable[..., Wire]) -> None:
        """
        That the client came over TLS, and what the proxy calls it, is known, and stays known.
        """
        server.factory.tls = CertificateOptions()
        wire = connect()
        wire.says(b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\x10\x05\0\5abc-1\x20\0\5\1\0\0\0\0")

        assert known(wire).tls
        assert not known(wire).offers_tls
        wire.says(b"LHLO x\r\n")
        client = wire.protocol._session.client
        assert ("unknown", True, "abc-1") == (client.host, client.tls, client.session)

    def test_tls(self, server: Any) -> None:
        """
        The header comes before TLS, in clear.
        """
        server.factory.trusts = {"192.0.2.1"}.__contains__
        inside = TLSMemoryBIOFactory(CertificateOptions(), False, server.factory.on(TERMS))
        wire = Wire(HeaderFirstFactory(inside).buildProtocol(PROXY), PROXY)

        wire.says(b"PROXY TCP4 203.0.113.9 192.0.2.17 4000 24\r\n")

        lmtp: Any = wire.protocol.wrappedProtocol
        assert Connection("203.0.113.9", 4000, tls=True, terms=TERMS) == lmtp._session.connection


class TestRefusal:
    @pytest.fixture
    def said(self, logged: list[LogEvent]) -> Callable[[], list[str]]:
        return lambda: [
            formatEvent(event)
            for event in logged
            if event["log_namespace"].startswith("lmtpsvc.server")
        ]

    def test_not_trusted(self, connect: Callable[..., Wire], said: Callable[[], list[str]]) -> None:
        """
        Whoever is no proxy hears nothing, whatever it says.
        """
        wire = connect(IPv4Address("TCP", "203.0.113.9", 1024))

        assert [] == wire.says(b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\nLHLO x\r\n")
        assert wire.aborting
        assert [
            "203.0.113.9 is not trusted, but connects where proxies do; connection closed"
        ] == said()

    @pytest.mark.parametrize(
        ("octets", "what"),
        [
            (b"LHLO x\r\n", "no PROXY header"),
            (b"PROXY TCP4 x\r\n", "a PROXY header that is wrong"),
            (b"PROXY " + b"x" * 1000, "a PROXY header that is too long"),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", "a PROXY header that is too long"),
        ],
    )
    @pytest.mark.parametrize("size", [1, 10_000])
    def test_no_header(
        self,
        octets: bytes,
        what: str,
        size: int,
        connect: Callable[..., Wire],
        said: Callable[[], list[str]],
    ) -> None:
        """
        A connection that begins with something else ends there, without a word but in the log.
        """
        wire = connect()

        assert [] == wire.says(*(octets[at : at + size] for at in range(0, len(octets), size)))
        assert wire.aborting
        assert [f"192.0.2.1 has sent {what}; connection closed"] == said()

    def test_too_late(
        self, server: Any, connect: Callable[..., Wire], said: Callable[[], list[str]]
    ) -> None:
        """
        A header that does not come, or not to its end, is not waited for.
        """
        silent, slow = connect(), connect()
        slow.says(b"PROXY TCP4 ")

        server.clock.advance(HEADER_SECONDS - 1)
        slow.says(b"203.")
        assert [False, False] == [silent.aborting, slow.aborting]
        server.clock.advance(1)

        assert silent.aborting
        assert slow.aborting
        assert ["192.0.2.1 has sent no PROXY header; connection closed"] * 2 == said()
        assert [] == server.clock.getDelayedCalls()

    def test_impatient(self, make_server: Callable[..., Any]) -> None:
        """
        Where clients may be silent for less than that, so may proxies.
        """
        server = make_server(Limits(idle_seconds=5))
        server.factory.trusts = {"192.0.2.1"}.__contains__
        wire = Wire(HeaderFirstFactory(server.factory.on(TERMS)).buildProtocol(PROXY), PROXY)

        server.clock.advance(5)

        assert wire.aborting

    def test_too_many(self, make_server: Callable[..., Any]) -> None:
        """
        Those who have not said their header yet are counted, and leave their place when they go.
        """
        server = make_server(Limits(connections=2))
        server.factory.trusts = {"192.0.2.1"}.__contains__
        factory = HeaderFirstFactory(server.factory.on(TERMS))
        first, second, third = (Wire(factory.buildProtocol(PROXY), PROXY) for _ in range(3))
        assert [False, False, True] == [wire.aborting for wire in (first, second, third)]

        first.protocol.connectionLost()
        fourth = Wire(factory.buildProtocol(PROXY), PROXY)
        assert not fourth.aborting
        second.says(b"PROXY UNKNOWN\r\n")
        assert not Wire(factory.buildProtocol(PROXY), PROXY).aborting

    def test_stop(
        self, server: Any, connect: Callable[..., Wire], success_of: Callable[..., Any]
    ) -> None:
        """
        Nobody waits for a header when the service stops.
        """
        wire = connect()

        success_of(server.factory.stop())

        assert wire.aborting
        assert [] == server.clock.getDelayedCalls()

    def test_gone(self, server: Any, connect: Callable[..., Wire], said: Any) -> None:
        """
        A check that connects and goes, as balancers do, is not worth a line.
        """
        connect().protocol.connectionLost()

        assert [] == said()
        assert [] == server.clock.getDelayedCalls()


class TestEndpoints:
    @pytest.mark.parametrize(
        "words",
        ["proxied:tcp:2424", "proxied:login-required:unix:sock", "tls-required:proxied:tcp6:1"],
    )
    def test_words(self, words: str, server: Any, success_of: Callable[..., Any]) -> None:
        """
        Whatever the endpoint is, the header is read first.
        """
        reactor = MemoryReactorClock()
        made = listener(words, reactor)
        assert made.terms.proxied

        success_of(made.endpoint.listen(server.factory.on(made.terms)))

        factory = (reactor.tcpServers or reactor.unixServers)[0][1]
        assert isinstance(factory.buildProtocol(PROXY), HeaderFirst)
