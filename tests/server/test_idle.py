"""
A clock that notices silence.
"""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from lmtpsvc.server.idle import IdleTimer


class Silence:
    """
    A timer of ten seconds, and the times at which it noticed something.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.noticed: list[float] = []
        self.timer = IdleTimer(self.clock, 10, self._notice)
        self.stop_at_once = False

    def _notice(self) -> None:
        self.noticed.append(self.clock.seconds())
        if self.stop_at_once:
            self.timer.stop()


@pytest.fixture
def silence() -> Silence:
    return Silence()


def test_silence(silence: Silence) -> None:
    """
    It is noticed at the end of the time, and again after each further one.
    """
    silence.clock.pump([1] * 35)

    assert [10, 20, 30] == silence.noticed


def test_touched(silence: Silence) -> None:
    """
    The time counts from the last thing that happened.
    """
    silence.clock.advance(6)
    silence.timer.touch()
    silence.clock.pump([1] * 9)
    assert [] == silence.noticed

    silence.clock.advance(1)
    assert [16] == silence.noticed


def test_touches_cost_nothing(silence: Silence) -> None:
    """
    However much happens, one call is waiting.
    """
    for _ in range(100):
        silence.clock.advance(0.5)
        silence.timer.touch()
        assert 1 == len(silence.clock.getDelayedCalls())
    assert [] == silence.noticed


def test_stopped(silence: Silence) -> None:
    """
    A stopped timer notices nothing and leaves nothing behind; it may be stopped twice.
    """
    silence.timer.stop()
    silence.timer.stop()

    assert [] == silence.clock.getDelayedCalls()


def test_stopped_when_it_notices(silence: Silence) -> None:
    """
    Nor does one that is stopped because of what it noticed.
    """
    silence.stop_at_once = True

    silence.clock.advance(10)

    assert [10] == silence.noticed
    assert [] == silence.clock.getDelayedCalls()
