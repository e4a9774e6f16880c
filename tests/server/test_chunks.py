"""
A text in chunks, over a connection: the spool, and what becomes of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.logger import LogEvent

from lmtpsvc.limits import Limits

ENVELOPE = b"MAIL FROM:<me@example.net>\r\nRCPT TO:<quick@example.org>\r\n"


def chunk(octets: bytes, word: bytes = b"") -> bytes:
    return b"BDAT %d%b\r\n" % (len(octets), word) + octets


@pytest.fixture
def spooling(server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """
    A server that spools what has more than 1,000 octets, and tells which files are open.
    """
    from lmtpsvc.delivery.spool_file import SpoolFile

    server.open = set()
    append, end = SpoolFile.append, SpoolFile.discard

    def noted_append(file: Any, portion: Any) -> None:
        server.open.add(file)
        append(file, portion)

    def noted_end(file: Any) -> None:
        end(file)
        server.open.discard(file)

    monkeypatch.setattr(SpoolFile, "append", noted_append)
    monkeypatch.setattr(SpoolFile, "discard", noted_end)
    return server


def test_delivered(spooling: Any, world: Any) -> None:
    """
    Small and large chunks in one text; the last octet needs no line to end.
    """
    wire = spooling.connect()
    pieces = [b"Subject: x\r\n\r\n", b"\0\n" * 3000, b"", b".\r\n" * 10, b"end"]

    said = b"".join(map(chunk, pieces[:-1])) + chunk(pieces[-1], b" LAST")
    heard = wire.says(ENVELOPE + said)

    assert [b"250"] * 7 == [line[:3] for line in heard]
    (message,) = world.messages
    with message.open("\n") as file:
        stored = file.read()
    assert stored.endswith(b"".join(pieces).replace(b"\r\n", b"\n"))


@pytest.mark.parametrize(
    "end",
    [
        lambda wire: wire.says(b"RSET\r\n"),
        lambda wire: wire.says(b"LHLO again\r\n"),
        lambda wire: wire.says(b"QUIT\r\n"),
        lambda wire: wire.says(b"BDAT 1 FIRST\r\nx"),
        lambda wire: wire.says(b"BDAT x\r\n"),
        lambda wire: wire.says(chunk(b"x" * 9000)),
        lambda wire: wire.hang_up(),
        lambda wire: wire.protocol.factory.agent.clock.advance(601),
    ],
    ids=["RSET", "LHLO", "QUIT", "a mistake", "no size", "too large", "lost", "silence"],
)
def test_dropped(end: Callable[[Any], object], spooling: Any, world: Any) -> None:
    """
    Whatever ends a text between two chunks, the spooled file goes at once, and nothing is delivered.
    """
    from attrs import evolve

    agent = spooling.factory.agent
    spooling.factory.agent = evolve(agent, limits=evolve(agent.limits, message_size=10_000))
    wire = spooling.connect()
    wire.says(ENVELOPE + chunk(b"x" * 3000))
    assert 1 == len(spooling.open)

    end(wire)

    assert not spooling.open
    assert [] == world.messages


def test_again_after_reset(spooling: Any, world: Any) -> None:
    """
    The next transaction of the connection is as if there had been none.
    """
    wire = spooling.connect()

    heard = wire.says(
        ENVELOPE + chunk(b"x" * 3000) + b"RSET\r\n" + ENVELOPE + chunk(b"y" * 3000, b" LAST")
    )

    assert [b"250"] * 7 == [line[:3] for line in heard]
    (text,) = world.texts()
    assert text.endswith(b"y" * 3000)
    assert b"x" * 3000 not in text
    assert not wire.protocol.is_in_transaction


def test_too_large_is_logged(
    make_server: Callable[..., Any], world: Any, logged: list[LogEvent]
) -> None:
    """
    Each recipient of a message that is too large has a line in the log, as with DATA.
    """
    wire = make_server(Limits(message_size=100)).connect()

    heard = wire.says(
        ENVELOPE
        + b"RCPT TO:<quick2@example.org>\r\n"
        + chunk(b"x" * 60)
        + chunk(b"x" * 60)
        # Refused already, and so the reason is the first.
        + chunk(b"", b" LAST")
    )

    assert [b"250"] * 4 + [b"552"] * 3 == [line[:3] for line in heard]
    assert [] == world.messages
    assert 2 == sum("552 5.3.4" in str(event.get("reply", "")) for event in logged)


def test_slow_disk(spooling: Any) -> None:
    """
    When the spool is behind, the client is not read, in the midst of a chunk too.
    """
    spooling.slow_disk = True
    wire = spooling.connect()
    wire.says(ENVELOPE + b"BDAT 100000 LAST\r\n")

    for _ in range(3):
        wire.says(b"x" * 2000)
    assert not wire.is_read

    spooling.work()
    assert wire.is_read
