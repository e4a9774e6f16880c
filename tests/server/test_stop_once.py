"""
SIGTERM and SIGINT, more than once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent

from lmtpsvc.server.stop_once import StopOnce


class Reactor(MemoryReactorClock):
    """
    Remembers the signals that it was asked to stop by: a real one may be asked only once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.heeded: list[int] = []

    def heed(self, number: int, _frame: object) -> None:
        self.heeded.append(number)

    def callFromThread(self, callable: Any, *args: object, **kwargs: object) -> None:
        self.callLater(0, callable, *args, **kwargs)

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.heed)
        super().run()


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    yield Reactor()
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


class TestStopOnce:
    def test_once(self, reactor: Reactor, logged: list[LogEvent]) -> None:
        """
        The reactor heeds the first, not in the midst of something; the others are no errors.
        """
        StopOnce(reactor).startService()
        reactor.run()
        reactor.heeded.clear()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert [] == reactor.heeded
        reactor.advance(0)
        assert [signal.SIGTERM] == reactor.heeded
        assert ["SIGINT", "SIGTERM"] == [event["signal"] for event in logged]

    def test_stops_for_another_reason(self, reactor: Reactor) -> None:
        """
        What has begun to stop by itself is not asked again.
        """
        StopOnce(reactor).startService()
        reactor.run()
        for call, words, _ in reactor.triggers["before"]["shutdown"]:
            call(*words)
        os.kill(os.getpid(), signal.SIGTERM)
        reactor.advance(0)
        assert [] == reactor.heeded

    def test_somebody_elses(self, reactor: Reactor) -> None:
        """
        A program that has taken the signals keeps them.
        """
        theirs: list[int] = []
        StopOnce(reactor).startService()
        signal.signal(signal.SIGTERM, lambda number, _: theirs.append(number))
        for each in reactor.whenRunningHooks:
            each[0]()
        os.kill(os.getpid(), signal.SIGTERM)
        assert [signal.SIGTERM] == theirs
