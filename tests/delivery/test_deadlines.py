"""
Deadlines, many with one delayed call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import booleans, integers, lists, tuples
from twisted.internet.task import Clock

from lmtpsvc.delivery.deadlines import Deadlines


class Watched:
    """
    What is called, and when.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock)
        self.heard: list[tuple[str, float]] = []
        self.calls: dict[str, Callable[[], None]] = {}

    def set(self, name: str, seconds: float) -> None:
        self.calls[name] = partial(self._hear, name)
        self.deadlines.set(seconds, self.calls[name])

    def drop(self, name: str) -> None:
        self.deadlines.drop(self.calls[name])

    def _hear(self, name: str) -> None:
        self.heard.append((name, self.clock.seconds()))


@pytest.fixture
def watched() -> Watched:
    return Watched()


class TestDeadlines:
    """
    Each in time, and none that nobody waits for.
    """

    def test_in_time(self, watched: Watched) -> None:
        """
        The earliest comes first, in whatever order they were set.
        """
        watched.set("late", 30)
        watched.set("soon", 10)
        watched.set("then", 20)

        watched.clock.pump([9, 1, 10, 10, 100])

        assert [("soon", 10), ("then", 20), ("late", 30)] == watched.heard

    def test_not_before(self, watched: Watched) -> None:
        """
        One that is due a moment later is called a moment later.
        """
        watched.set("now", 10)
        watched.set("next", 10.0005)

        watched.clock.advance(10)
        assert [("now", 10)] == watched.heard
        watched.clock.advance(0.0005)
        assert ["now", "next"] == [name for name, _ in watched.heard]

    def test_dropped(self, watched: Watched) -> None:
        """
        What ends in time is not called; and when nothing is waited for, nothing is left.
        """
        watched.set("one", 10)
        watched.set("other", 10)

        watched.drop("one")
        watched.clock.advance(5)
        watched.drop("other")

        assert [] == watched.clock.getDelayedCalls()
        watched.clock.advance(10)
        assert [] == watched.heard

    def test_one_call(self, watched: Watched) -> None:
        """
        However many there are, and come and go, one delayed call stands for them.
        """
        watched.set("first", 240)
        (call,) = watched.clock.getDelayedCalls()

        for n in range(100):
            watched.clock.advance(1)
            watched.set(str(n), 240)
            if n:
                watched.drop(str(n - 1))
        watched.drop("first")

        assert [call] == watched.clock.getDelayedCalls()
        watched.clock.advance(239)
        assert [] == watched.heard
        watched.clock.advance(1)
        assert [("99", 340)] == watched.heard
        assert [] == watched.clock.getDelayedCalls()

    def test_again_from_within(self, watched: Watched) -> None:
        """
        What is called may set another, and drop others of the same moment.
        """

        def again() -> None:
            watched.drop("other")
            watched.set("grace", 3)

        watched.set("last", 100)
        watched.deadlines.set(10, again)
        watched.set("other", 10)

        watched.clock.pump([10, 3, 87])

        assert [("grace", 13), ("last", 100)] == watched.heard

    @pytest.mark.parametrize("error", [KeyError(), asyncio.CancelledError()], ids=repr)
    def test_one_fails(self, error: BaseException, watched: Watched, logged: Any) -> None:
        """
        Others are called all the same.
        """

        def fail() -> None:
            raise error

        watched.deadlines.set(10, fail)
        watched.set("other", 10)

        watched.clock.advance(10)

        assert [("other", 10)] == watched.heard
        (defect,) = logged.defects
        assert error is defect.value

    @given(lists(tuples(integers(0, 9), booleans()), max_size=20))
    def test_any(self, said: list[tuple[int, bool]]) -> None:
        """
        Whatever is set and dropped, a second apart, the rest is called at its time.
        """
        watched, expected = Watched(), []
        for n, (seconds, stays) in enumerate(said):
            watched.set(str(n), seconds + 0.1)
            if stays:
                expected.append((str(n), n + seconds + 0.1))
            else:
                watched.drop(str(n))
            watched.clock.advance(1)
        watched.clock.pump([0.1] * 200)

        assert sorted(name for name, _ in expected) == sorted(name for name, _ in watched.heard)
        when = dict(watched.heard)
        assert all(at - 0.01 <= when[name] <= at + 1.01 for name, at in expected)
        assert [] == watched.clock.getDelayedCalls()
