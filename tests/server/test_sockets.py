"""
What only a real socket can show: replies that leave one by one, a socket in a folder, and TLS.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
import pytest_twisted  # type: ignore[import-untyped]  # it has no types
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
    serverFromString,
)
from twisted.internet.interfaces import IListeningPort, IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.internet.threads import deferToThread
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from lmtpsvc.limits import Limits
from lmtpsvc.server.direct import DirectReactor

from ..certificates import self_signed

MESSAGE = b"MAIL FROM:<ann@example.net>\r\n%sDATA\r\nSubject: x\r\n\r\nHi\r\n.\r\n"


def message(*names: str) -> bytes:
    to = b"".join(f"RCPT TO:<{name}@example.org>\r\n".encode() for name in names)
    return MESSAGE % to


class Client(LineOnlyReceiver):
    """
    Somebody who can wait for lines.
    """

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.lost: Deferred[None] = Deferred()
        self._wanted = 0
        self._waiting: Deferred[None] | None = None

    def lineReceived(self, line: bytes) -> None:
        self.lines.append(line)
        if self._waiting is not None and len(self.lines) >= self._wanted:
            waiting, self._waiting = self._waiting, None
            waiting.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)

    async def hear(self, count: int) -> list[bytes]:
        """
        Wait for *count* lines, and take all that are there.
        """
        if len(self.lines) < count:
            self._wanted, self._waiting = count, Deferred()
            await self._waiting
        lines, self.lines = self.lines, []
        return lines

    async def greet(self) -> None:
        """
        Say LHLO.
        """
        assert (await self.hear(1))[0].startswith(b"220 ")
        assert self.transport is not None
        self.transport.write(b"LHLO client.example.net\r\n")
        while not (await self.hear(1))[-1].startswith(b"250 "):
            pass


@pytest.fixture
def listen(make_server: Callable[..., Any]) -> Any:
    """
    A service on an endpoint, by the words of the command line.
    """
    ports: list[IListeningPort] = []

    async def listen(words: str) -> IListeningPort:
        factory = make_server(Limits(stop_seconds=5), reactor).factory
        endpoint = serverFromString(DirectReactor(reactor), words)
        ports.append(await endpoint.listen(factory))
        return ports[-1]

    yield listen
    for port in ports:
        pytest_twisted.blockon(maybeDeferred(port.stopListening))


async def connect(endpoint: IStreamClientEndpoint) -> Client:
    client = await connectProtocol(endpoint, Client())
    assert isinstance(client, Client)
    await client.greet()
    return client


def codes(lines: list[bytes]) -> list[bytes]:
    return [each[:3] for each in lines]


def number(port: IListeningPort) -> int:
    address = port.getHost()
    assert isinstance(address, IPv4Address)
    return address.port


Test = TypeVar("Test")
#: Runs a coroutine of a test.
in_reactor = cast("Callable[[Test], Test]", pytest_twisted.ensureDeferred)

Listen = Callable[[str], Coroutine[Any, Any, IListeningPort]]


@in_reactor
async def test_early_reply(listen: Listen, world: Any) -> None:
    """
    The first of three recipients has its reply while the second is held, the third waits for the
    second, and order is kept.
    """
    port = await listen("tcp:0:interface=127.0.0.1")
    client = await connect(TCP4ClientEndpoint(reactor, "127.0.0.1", number(port)))
    assert client.transport is not None
    client.transport.write(message("ann", "bob", "eve"))
    assert [*[b"250"] * 4, b"354"] == codes(await client.hear(5))
    while len(world.held) < 3:
        await turn()

    world.held["ann"].callback(None)
    assert b"<ann@" in (await client.hear(1))[0]

    # Nothing of Eve's can be on its way when the answer to Bob is there first.
    world.held["eve"].callback(None)
    await turn()
    assert [] == client.lines
    world.held["bob"].callback(None)
    bob, eve = await client.hear(2)
    assert b"<bob@" in bob
    assert b"<eve@" in eve

    client.transport.write(b"QUIT\r\n")
    assert [b"221"] == codes(await client.hear(1))
    await client.lost


async def turn() -> None:
    """
    Let the reactor go round once.
    """
    once: Deferred[None] = Deferred()
    reactor.callLater(0, once.callback, None)
    await once


@in_reactor
async def test_unix_socket(listen: Listen, world: Any, tmp_path: Path) -> None:
    """
    A UNIX socket has the mode that was asked for, and its client is "local".
    """
    path = tmp_path / "lmtp.sock"
    await listen(f"unix:{path}:mode=660")
    assert 0o660 == path.stat().st_mode & 0o777

    client = await connect(UNIXClientEndpoint(reactor, str(path)))
    assert client.transport is not None
    client.transport.write(message("quick") + b"QUIT\r\n")
    assert [b"250", b"250", b"354", b"250", b"221"] == codes(await client.hear(5))
    await client.lost

    with world.messages[0].open() as file:
        assert b"Received: from client.example.net (local)\r\n" in file.read()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A certificate for this machine that nobody but us trusts, and its key.
    """
    return self_signed(tmp_path_factory.mktemp("tls") / "server.pem")


def converse(port: int, certificate: Path, octets: bytes) -> list[bytes]:
    """
    Say it all over TLS, with the standard library as the client; returns the lines that come back.
    """
    context = ssl.create_default_context(cafile=str(certificate))
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        secure.sendall(octets)
        with secure.makefile("rb") as replies:
            return replies.read().splitlines()


# Twisted hands objects to pyOpenSSL 26 that the latter would rather have otherwise.
@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
@in_reactor
async def test_tls(listen: Listen, certificate: Path, world: Any) -> None:
    """
    With TLS from the first octet on, all is the same, and the message says that it came so.
    """
    port = await listen(f"ssl:0:interface=127.0.0.1:privateKey={certificate}:certKey={certificate}")
    hello, goodbye = b"LHLO client.example.net\r\n", b"QUIT\r\n"
    said = hello + message("quick", "quick") + message("quick") + goodbye

    lines = await deferToThread(converse, number(port), certificate, said)

    finals = [line[:3] for line in lines if line[3:4] == b" "]
    first, second = [*[b"250"] * 3, b"354", *[b"250"] * 2], [*[b"250"] * 2, b"354", b"250"]
    assert [b"220", b"250", *first, *second, b"221"] == finals
    with world.messages[0].open() as file:
        assert b" with LMTPS id " in file.read()
