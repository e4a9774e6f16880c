"""
TLS over real sockets, with the standard library at the other end.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar, cast

import pytest
import pytest_twisted  # type: ignore[import-untyped]  # it has no types
from attrs import define
from cryptography import x509
from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThread

from lmtpsvc import replies
from lmtpsvc.limits import Limits
from lmtpsvc.server.direct import DirectReactor
from lmtpsvc.server.tls import ServerTLS, TLSFiles
from lmtpsvc.session.connection import Terms

from ..certificates import Authority, Pair

Test = TypeVar("Test")
#: Runs a coroutine of a test.
in_reactor = cast("Callable[[Test], Test]", pytest_twisted.ensureDeferred)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@define
class Listening:
    """
    A service with a certificate, and where it listens.
    """

    factory: Any
    address: Any
    authority: Authority

    def context(self, pair: Pair | None = None) -> ssl.SSLContext:
        """
        What a client trusts, and who it is.
        """
        context = ssl.create_default_context(cafile=str(self.authority.path))
        if pair is not None:
            context.load_cert_chain(pair.certificate, pair.key)
        return context


Listen = Callable[..., Coroutine[Any, Any, Listening]]


@pytest.fixture
def listen(
    make_server: Callable[..., Any], authority: Authority, tmp_path: Path
) -> Iterator[Listen]:
    """
    Make a service on a socket; *encrypted* has TLS from the first octet on.
    """
    ports: list[IListeningPort] = []
    pair = authority.sign()

    async def listen(
        *, encrypted: bool = False, clients: str = "no", terms: Terms | None = None, words: str = ""
    ) -> Listening:
        factory = make_server(Limits(stop_seconds=5), reactor).factory
        ca = str(authority.path)
        factory.tls = ServerTLS.read(
            TLSFiles(str(pair.certificate), str(pair.key), ca, cast("Any", clients))
        )
        endpoint = serverFromString(DirectReactor(reactor), words or "tcp:0:interface=127.0.0.1")
        ports.append(await endpoint.listen(factory.on(terms or Terms(), encrypted=encrypted)))
        host = cast("Any", ports[-1].getHost())
        address = str(tmp_path / "sock") if words else ("127.0.0.1", host.port)
        return Listening(factory, address, authority)

    yield listen
    for port in ports:
        pytest_twisted.blockon(maybeDeferred(port.stopListening))


class Client:
    """
    One connection, that blocks.
    """

    def __init__(self, listening: Listening) -> None:
        self._listening = listening
        family = socket.AF_UNIX if isinstance(listening.address, str) else socket.AF_INET
        self.socket = socket.socket(family)
        self.socket.settimeout(60)
        self.socket.connect(listening.address)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.socket.close()

    def encrypt(self, pair: Pair | None = None) -> None:
        """
        Shake hands, with a certificate if one is given.
        """
        context = self._listening.context(pair)
        self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self._file = self.socket.makefile("rb")

    def hear(self) -> list[bytes]:
        """
        One reply.
        """
        lines = []
        while True:
            line = self._file.readline()
            lines.append(line.removesuffix(b"\r\n"))
            if line[3:4] != b"-":
                return lines

    def say(self, octets: bytes) -> list[bytes]:
        self.socket.sendall(octets)
        return self.hear()

    def rest(self) -> bytes:
        """
        All that comes until the end.
        """
        return self._file.read()


def secured(listening: Listening, pair: Pair | None = None) -> Client:
    """
    A client that has done what STARTTLS needs.
    """
    client = Client(listening)
    client.hear()
    assert b"STARTTLS" in [line[4:] for line in client.say(b"LHLO x.example\r\n")]
    assert [replies.START_TLS.wire[:-2]] == client.say(b"STARTTLS\r\n")
    client.encrypt(pair)
    return client


MAIL = (
    b"MAIL FROM:<ann@example.net>\r\n",
    b"RCPT TO:<quick@example.org>\r\n",
    b"DATA\r\n",
    b"Subject: x\r\n\r\nHi\r\n.\r\n",
)


def deliver(client: Client) -> list[bytes]:
    """
    A letter; returns the codes.
    """
    hello = client.say(b"LHLO client.example.net\r\n")
    assert b"STARTTLS" not in [line[4:] for line in hello]
    return [client.say(octets)[0][:3] for octets in MAIL]


def head_of(world: Any) -> bytes:
    with world.messages[-1].open() as file:
        octets: bytes = file.read()
    return octets.partition(b"Subject")[0]


class TestStartTLS:
    @in_reactor
    async def test_a_letter(self, listen: Listen, world: Any) -> None:
        """
        It goes through TLS, and says so.
        """
        listening = await listen()

        def talk() -> list[bytes]:
            with secured(listening) as client:
                return deliver(client)

        assert [b"250", b"250", b"354", b"250"] == await deferToThread(talk)
        assert b"from client.example.net ([127.0.0.1])" in head_of(world)
        assert b" with LMTPS id " in head_of(world)
        assert b"\r\n\t(TLSv1.3 TLS_" in head_of(world)

    @in_reactor
    async def test_injection(self, listen: Listen, world: Any) -> None:
        """
        What a stranger on the way puts behind STARTTLS is not done behind the handshake
        (CVE-2011-0411): there is none.
        """
        listening = await listen()

        def talk() -> bytes:
            with Client(listening) as client:
                client.hear()
                client.socket.sendall(b"STARTTLS\r\nLHLO evil\r\nMAIL FROM:<evil@example.org>\r\n")
                return client.rest()

        assert replies.TOO_EARLY.wire == await deferToThread(talk)

    @in_reactor
    async def test_fixation(self, listen: Listen, world: Any) -> None:
        """
        Nothing of what was said in the clear is true behind the handshake: neither the client's
        name nor that it has said one.
        """
        listening = await listen()

        def talk() -> list[bytes]:
            with Client(listening) as client:
                client.hear()
                client.say(b"LHLO evil.example\r\n")
                client.say(b"STARTTLS\r\n")
                client.encrypt()
                return [client.say(b"MAIL FROM:<>\r\n")[0], *deliver(client)]

        said = await deferToThread(talk)
        assert [replies.LHLO_FIRST.wire[:-2], b"250", b"250", b"354", b"250"] == said
        assert b"evil" not in head_of(world)

    @in_reactor
    async def test_taken_away(self, listen: Listen, world: Any) -> None:
        """
        Where a reload takes the certificate away, those that it was offered to can still encrypt.
        """
        listening = await listen()
        client = Client(listening)

        def offered() -> list[bytes]:
            client.hear()
            return client.say(b"LHLO client.example.net\r\n")

        def talk() -> list[bytes]:
            with client:
                client.say(b"STARTTLS\r\n")
                client.encrypt()
                return deliver(client)

        assert b"250-STARTTLS" in await deferToThread(offered)
        listening.factory.tls = None
        assert [b"250", b"250", b"354", b"250"] == await deferToThread(talk)

    @in_reactor
    async def test_no_handshake(self, listen: Listen, world: Any) -> None:
        """
        Commands in place of a handshake end the connection, and others go on.
        """
        listening = await listen()

        def talk() -> tuple[bytes, list[bytes]]:
            with Client(listening) as client:
                client.hear()
                client.say(b"STARTTLS\r\n")
                client.socket.sendall(b"LHLO x\r\n")
                try:
                    rest = client.rest()
                except ConnectionResetError:
                    rest = b""
            with secured(listening) as client:
                return rest, deliver(client)

        rest, said = await deferToThread(talk)
        assert not rest.startswith(b"250")
        assert b"250" == said[-1]

    @in_reactor
    async def test_quit_behind_the_text(self, listen: Listen, world: Any) -> None:
        """
        Nothing is read while a message is delivered; but what ends TLS is, when QUIT stood there.
        """
        listening = await listen()

        def talk() -> bytes:
            with secured(listening) as client:
                client.say(b"LHLO x\r\n")
                client.say(b"MAIL FROM:<>\r\n")
                client.say(b"RCPT TO:<ann@example.org>\r\n")
                client.say(b"DATA\r\n")
                client.socket.sendall(b"Hi\r\n.\r\nQUIT\r\n")
                said = client.rest()
                cast("ssl.SSLSocket", client.socket).unwrap()
                return said

        talking = deferToThread(talk)
        while "ann" not in world.held:
            once: Deferred[None] = Deferred()
            reactor.callLater(0, once.callback, None)
            await once
        world.held["ann"].callback(None)
        said = await talking

        assert [b"250", b"221"] == [line[:3] for line in said.splitlines()]
        await listening.factory.stop()
        assert not _sessions(listening)

    @in_reactor
    async def test_unix_socket(self, listen: Listen, tmp_path: Path, world: Any) -> None:
        """
        STARTTLS works on a UNIX socket, too.
        """
        listening = await listen(words=f"unix:{tmp_path}/sock")

        def talk() -> list[bytes]:
            with secured(listening) as client:
                return deliver(client)

        assert b"250" == (await deferToThread(talk))[-1]
        assert b"(local)" in head_of(world)

    @in_reactor
    async def test_an_old_version(self, listen: Listen) -> None:
        """
        TLS 1.1 is not spoken.
        """
        listening = await listen()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")

        def talk() -> None:
            with Client(listening) as client:
                client.hear()
                client.say(b"STARTTLS\r\n")
                context.wrap_socket(client.socket, server_hostname="localhost")

        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
            await deferToThread(talk)


class TestFromTheFirstOctet:
    @in_reactor
    async def test_a_letter(self, listen: Listen, world: Any) -> None:
        """
        Without STARTTLS, all of the conversation is over TLS; Received says so.
        """
        listening = await listen(encrypted=True)

        def talk() -> list[bytes]:
            with Client(listening) as client:
                client.encrypt()
                client.hear()
                return deliver(client)

        assert [b"250", b"250", b"354", b"250"] == await deferToThread(talk)
        assert b" with LMTPS id " in head_of(world)

    @in_reactor
    async def test_other_certificates(
        self, listen: Listen, authority: Authority, tmp_path: Path
    ) -> None:
        """
        Those that a reload has found are for the next handshake, and who is connected stays so.
        """
        listening = await listen(encrypted=True)
        other = Authority(tmp_path, "Other")
        pair = other.sign()

        def talk() -> bytes:
            with Client(listening) as before:
                before.encrypt()
                before.hear()
                listening.factory.tls = ServerTLS.read(
                    TLSFiles(str(pair.certificate), str(pair.key))
                )
                with Client(listening) as client, pytest.raises(ssl.SSLCertVerificationError):
                    client.encrypt()
                listening.authority = other
                with Client(listening) as client:
                    client.encrypt()
                    client.hear()
                return before.say(b"NOOP\r\n")[0]

        assert replies.OK.wire[:-2] == await deferToThread(talk)


class TestClients:
    @pytest.mark.parametrize("encrypted", [True, False])
    @in_reactor
    async def test_named(
        self, encrypted: bool, listen: Listen, authority: Authority, world: Any
    ) -> None:
        """
        The name in a certificate of our authority is known to the session.
        """
        listening = await listen(clients="require", encrypted=encrypted)
        pair = authority.sign("mta", [x509.DNSName("mta.example.org")])

        def talk() -> object:
            if not encrypted:
                with secured(listening, pair) as client:
                    return deliver(client), _sessions(listening)[0].connection.certificate
            with Client(listening) as client:
                client.encrypt(pair)
                client.hear()
                return deliver(client), _sessions(listening)[0].connection.certificate

        assert ([b"250", b"250", b"354", b"250"], "mta.example.org") == await deferToThread(talk)

    @pytest.mark.parametrize(
        ("clients", "taken"), [("no", True), ("ask", True), ("require", False)]
    )
    @in_reactor
    async def test_nameless(self, clients: str, taken: bool, listen: Listen) -> None:
        """
        A client without a certificate is sent away only where one is required.
        """
        listening = await listen(clients=clients)

        assert taken == await deferToThread(lambda: _is_taken(listening, None))

    @pytest.mark.parametrize(("clients", "taken"), [("no", True), ("ask", False)])
    @in_reactor
    async def test_of_another_authority(
        self, clients: str, taken: bool, listen: Listen, tmp_path: Path
    ) -> None:
        """
        What is shown must be good, where somebody looks at it.
        """
        listening = await listen(clients=clients)
        pair = Authority(tmp_path, "Stranger").sign("mta")

        assert taken == await deferToThread(lambda: _is_taken(listening, pair))
        for session in _sessions(listening):
            assert session.connection.certificate is None


def _is_taken(listening: Listening, pair: Pair | None) -> bool:
    try:
        with secured(listening, pair) as client:
            return deliver(client)[-1] == b"250"
    except (ssl.SSLError, ConnectionError):
        return False


def _sessions(listening: Listening) -> list[Any]:
    return [protocol._session for protocol in listening.factory._protocols]
