"""
What one destination gets of us.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock

from lmtpsvc.relay.lanes import LONGEST, Lane


def lane(width: int = 2, most: int = 3) -> tuple[Lane, Clock]:
    clock = Clock()
    clock.advance(1000)
    return Lane(clock.seconds, width, most, 60.0), clock


def test_width(success_of: Callable[..., Any], no_result: Callable[..., None]) -> None:
    """
    So many at a time; who has waited longest is next, and who has left is not.
    """
    some, _ = lane()
    entering = [some.enter() for _ in range(5)]
    for each in entering[:2]:
        success_of(each)
    for each in entering[2:]:
        no_result(each)
    entering[2].addErrback(lambda _: None).cancel()
    some.leave(1.0)
    success_of(entering[3])
    no_result(entering[4])
    some.leave(1.0)
    some.leave(1.0)
    assert not some.is_idle
    some.leave(1.0)
    assert some.is_idle


def test_full() -> None:
    """
    So many wait, and the others had better come later.
    """
    some, _ = lane()
    for number in range(5):
        assert not some.is_full, number
        some.enter()
    assert some.is_full


def test_turns() -> None:
    """
    Who is put off comes back one by one, sooner where deliveries take less time, and never much
    later than it would be its turn.
    """
    fast, _ = lane()
    slow, _ = lane()
    for _ in range(50):
        fast.enter()
        fast.leave(0.01)
        slow.enter()
        slow.leave(10.0)
    quick = [fast.turn() for _ in range(100)]
    long = [slow.turn() for _ in range(100)]

    assert quick == sorted(set(quick))
    assert long == sorted(set(long))
    assert quick[-1] < 1
    assert 100 < long[-1] < 100 * 10.0 / 2


def test_longest() -> None:
    """
    However slow a destination is, its turn comes within the longest time.
    """
    some, _ = lane()
    for _ in range(50):
        some.enter()
        some.leave(600.0)
    assert max(some.turn() for _ in range(1000)) <= LONGEST
