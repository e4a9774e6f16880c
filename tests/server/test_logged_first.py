"""
A reply that a client has heard stands in the log, whatever happens to the server then.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, cast

import pytest
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher, textFileLogObserver

from lmtpsvc.delivery.text_log import TextLog

MAIL = b"MAIL FROM:<ann@example.net>\r\n"


class File(io.RawIOBase):
    """
    A file that knows what has reached the disk.
    """

    def __init__(self) -> None:
        self._waiting = b""
        self.safe = b""

    def write(self, octets: Any) -> int:
        self._waiting += octets
        return len(octets)

    def flush(self) -> None:
        self.safe += self._waiting
        self._waiting = b""


@pytest.fixture(params=[None, Clock()], ids=["one by one", "together"])
def file(request: pytest.FixtureRequest) -> Iterator[File]:
    """
    The file of a text log, on the short way.
    """
    file = File()
    observer = textFileLogObserver(cast("Any", file))
    globalLogPublisher.addObserver(observer)
    service = TextLog(clock=request.param)
    service.startService()
    yield file
    service.stopService()
    globalLogPublisher.removeObserver(observer)


class TestLoggedFirst:
    """
    What stands in the file when something is written to the transport.
    """

    @pytest.fixture
    def wire(self, server: Any, file: File, monkeypatch: pytest.MonkeyPatch) -> Any:
        wire = server.connect()
        write = wire.write

        def watched(octets: bytes) -> None:
            for line in octets.splitlines():
                if line.endswith((b"Delivered", b"No such user")):
                    assert b"reply=" + line + b"\n" in file.safe
                    watched.seen += 1  # type: ignore[attr-defined]
            write(octets)

        watched.seen = 0  # type: ignore[attr-defined]
        monkeypatch.setattr(wire, "write", watched)
        return wire

    def test_delivered(self, wire: Any, world: Any) -> None:
        """
        The replies of mailboxes that are ready at once, and of those that are later.
        """
        recipients = b"".join(
            b"RCPT TO:<%b@example.org>\r\n" % name
            for name in (b"quick1", b"late", b"bob", b"quick2", b"cat")
        )
        wire.says(MAIL + recipients)
        world.lookups["late"].callback(None)
        wire.says(b"DATA\r\n", b"Hi\r\n.\r\n")
        for name in ("cat", "late", "bob"):
            world.held[name].callback(None)

        assert 5 == wire.write.seen

    def test_refused(self, wire: Any) -> None:
        """
        And of those that are refused.
        """
        wire.says(MAIL + b"RCPT TO:<nobody@example.org>\r\n")

        assert 1 == wire.write.seen

    def test_gone(self, wire: Any, world: Any, file: File) -> None:
        """
        A recipient that nobody waits for any more has a line, too.
        """
        wire.says(MAIL + b"RCPT TO:<bob@example.org>\r\nDATA\r\n", b"Hi\r\n.\r\n")
        wire.hang_up()
        world.held["bob"].callback(None)

        assert b" to=<bob@example.org> " in file.safe
