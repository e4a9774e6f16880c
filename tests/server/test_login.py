"""
Who is at the other end of a real UNIX socket.
"""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
import pytest_twisted  # type: ignore[import-untyped]  # it has no types
from twisted.internet import reactor
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import execute, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThread

from lmtpsvc import replies
from lmtpsvc.auth.authority import CheckerAuthority
from lmtpsvc.auth.specs import checker_from_string
from lmtpsvc.limits import Limits
from lmtpsvc.session.auth import Auth
from lmtpsvc.session.connection import Terms
from lmtpsvc.session.standard import standard_extensions

Test = TypeVar("Test")
#: Runs a coroutine of a test.
in_reactor = cast("Callable[[Test], Test]", pytest_twisted.ensureDeferred)

Listen = Callable[..., Any]


@pytest.fixture
def listen(make_server: Callable[..., Any]) -> Iterator[Listen]:
    """
    A service where whoever the kernel names may log in.
    """
    ports: list[IListeningPort] = []

    async def listen(words: str, *checkers: str) -> IListeningPort:
        limits = Limits(stop_seconds=5)
        factory = make_server(limits, reactor).factory
        authority = CheckerAuthority([checker_from_string(each) for each in checkers], execute)
        factory.extensions = standard_extensions(limits, [Auth(authority)])
        terms = Terms(login_required=True)
        ports.append(await serverFromString(reactor, words).listen(factory.on(terms)))
        return ports[-1]

    yield listen
    for port in ports:
        pytest_twisted.blockon(maybeDeferred(port.stopListening))


def talk(address: str | tuple[str, int], *lines: bytes) -> list[bytes]:
    """
    Say *lines*, one after the other; returns the last line of each answer.
    """
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as client:
        client.settimeout(60)
        client.connect(address)
        with client.makefile("rb") as heard:
            said = []
            for line in (b"", b"LHLO x\r\n", *lines):
                client.sendall(line)
                while (answer := heard.readline())[3:4] == b"-":
                    pass
                said.append(answer.strip())
    return said[2:]


@in_reactor
async def test_uid(listen: Listen, tmp_path: Path, world: Any) -> None:
    """
    The kernel says who the client is; the mail says that somebody has logged in.
    """
    await listen(f"unix:{tmp_path}/s", "external")
    lines = [
        b"MAIL FROM:<>\r\n",
        b"AUTH EXTERNAL =\r\n",
        b"MAIL FROM:<>\r\nRCPT TO:<quick@example.org>\r\n",
        b"DATA\r\n",
        b"Subject: x\r\n\r\nHi\r\n.\r\n",
        b"NOOP\r\n",
    ]

    refused, known, *_ = await deferToThread(talk, f"{tmp_path}/s", *lines)

    assert replies.LOGIN_REQUIRED.wire[:-2] == refused
    assert replies.AUTHENTICATED.wire[:-2] == known
    [message] = world.messages
    assert pwd.getpwuid(os.geteuid()).pw_name == message.envelope.client.login
    with message.open() as file:
        assert b" with LMTPA id " in file.read()


@in_reactor
async def test_somebody_else(
    listen: Listen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Only those that the operator names may.
    """
    monkeypatch.setattr("lmtpsvc.session.auth.FIRST_DELAY_SECONDS", 0.01)
    await listen(f"unix:{tmp_path}/s", "external:nobody-of-that-name")

    [said] = await deferToThread(talk, f"{tmp_path}/s", b"AUTH EXTERNAL =\r\n")

    assert replies.LOGIN_FAILED.wire[:-2] == said


@in_reactor
async def test_tcp(listen: Listen) -> None:
    """
    Nobody knows who is at the other end of TCP; passwords are not taken in the clear.
    """
    port = await listen("tcp:0:interface=127.0.0.1", "external", "memory:ann:secret")
    lines = b"AUTH EXTERNAL =\r\n", b"AUTH PLAIN AGFubgBzZWNyZXQ=\r\n"

    said = await deferToThread(talk, ("127.0.0.1", cast("Any", port.getHost()).port), *lines)

    assert [replies.UNKNOWN_MECHANISM.wire[:-2], replies.LOGIN_NEEDS_TLS.wire[:-2]] == said


def test_failures_with_little_time(make_server: Callable[..., Any]) -> None:
    """
    Where a look-up may take less time than a failed login is kept waiting, three failures are the end
    all the same.
    """
    server = make_server(Limits(lookup_seconds=1))
    authority = CheckerAuthority([checker_from_string("memory:ann:secret")], execute)
    server.factory.extensions = standard_extensions(Limits(), [Auth(authority)])
    wire = server.connect(UNIXAddress(None))
    heard = []

    for _ in range(3):
        heard += wire.says(b"AUTH PLAIN AGFubgBubw==\r\n")
        server.clock.advance(0.6)
        heard += wire.heard()
        server.clock.advance(0.6)
        heard += wire.heard()

    failed = replies.LOGIN_FAILED.wire[:-2]
    assert [failed, failed, replies.TOO_MANY_LOGINS.wire[:-2]] == heard
    assert wire.disconnecting
