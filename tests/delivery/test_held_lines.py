"""
Lines of the log that wait for others.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, cast

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, Logger, LogPublisher, textFileLogObserver

from lmtpsvc import replies
from lmtpsvc.delivery import log
from lmtpsvc.delivery.held_lines import HELD, write_out
from lmtpsvc.delivery.log import log_delivery
from lmtpsvc.delivery.text_log import MOST_HELD, TextLog
from lmtpsvc.envelope import Address, Client, Envelope, Recipient, Sender


class File(io.RawIOBase):
    """
    What was written at once, piece by piece.
    """

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.full = False

    def write(self, octets: Any) -> int:
        if self.full:
            raise OSError("No space left on device")
        self.pieces.append(bytes(octets))
        return len(octets)

    def said(self) -> list[list[str]]:
        """
        The recipients, or else the words, of the lines of each piece.
        """
        return [[_told(line) for line in piece.decode().splitlines()] for piece in self.pieces]


def _told(line: str) -> str:
    return line.partition(" to=<")[2].partition("@")[0] or line.rpartition("] ")[2]


class House:
    """
    A text log that lets lines wait.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, clock: Clock | None) -> None:
        self.file, self.clock = File(), clock
        self.events: list[LogEvent] = []
        self.publisher = LogPublisher(
            textFileLogObserver(cast("Any", self.file)), cast("Any", self.events.append)
        )
        self.log = Logger(namespace="other", observer=self.publisher)
        monkeypatch.setattr(log, "_log", Logger(namespace=log.NAMESPACE, observer=self.publisher))
        self.service = TextLog(self.publisher, clock)
        self.service.startService()

    def deliver(self, name: str, *, more_follow: bool = True) -> None:
        recipient = Recipient(Address(name, "example.org"))
        envelope = Envelope(Sender(None), (recipient,), Client("local", "mx"))
        log_delivery(
            "t1",
            envelope,
            recipient,
            name,
            1,
            replies.delivered("t1", str(recipient)),
            (0.0, 0.0, 0.0),
            more_follow=more_follow,
        )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Iterator[House]:
    yield House(monkeypatch, clock)
    write_out()


class TestHeld:
    """
    Nothing is lost, and nothing changes its place.
    """

    def test_together(self, house: House) -> None:
        """
        The last line of a message takes those before it along.
        """
        house.deliver("ann")
        house.deliver("bob")
        assert [] == house.file.pieces

        house.deliver("eve", more_follow=False)

        assert [["ann", "bob", "eve"]] == house.file.said()
        assert 3 == len(house.events)

    def test_before_a_reply(self, house: House) -> None:
        """
        Who is to send a reply has all of them written.
        """
        house.deliver("ann")
        house.deliver("bob")

        write_out()

        assert [["ann", "bob"]] == house.file.said()
        assert [] == HELD

    def test_next_turn(self, house: House, clock: Clock) -> None:
        """
        None waits longer than for the next turn of the reactor.
        """
        house.deliver("ann")
        clock.advance(0)
        house.deliver("bob")
        clock.advance(0)

        assert [["ann"], ["bob"]] == house.file.said()
        assert [] == clock.getDelayedCalls()

    def test_in_order(self, house: House) -> None:
        """
        Whatever else is logged stands behind them.
        """
        house.deliver("ann")
        house.log.info("something else")
        house.deliver("bob", more_follow=False)

        assert [["ann", "something else"], ["bob"]] == house.file.said()

    def test_not_too_many(self, house: House) -> None:
        """
        Memory is not filled with lines.
        """
        for n in range(2 * MOST_HELD + 3):
            house.deliver(str(n))

        assert [MOST_HELD + 1] * 2 == [len(piece) for piece in house.file.said()]

    def test_stopped(self, house: House) -> None:
        """
        When the service stops, they are written.
        """
        house.deliver("ann")

        house.service.stopService()

        assert [["ann"]] == house.file.said()

    def test_full_disk(self, house: House, capsys: pytest.CaptureFixture[str]) -> None:
        """
        A log that cannot be written stops no reply, as ever.
        """
        house.deliver("ann")
        house.file.full = True

        write_out()
        house.file.full = False
        house.deliver("bob", more_follow=False)

        assert ["bob"] == house.file.said()[-1]

    def test_no_clock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Who hands in no clock has each line written by itself.
        """
        house = House(monkeypatch, None)

        house.deliver("ann")
        house.deliver("bob")

        assert [["ann"], ["bob"]] == house.file.said()
