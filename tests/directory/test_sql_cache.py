"""
Answers that are kept for a while.
"""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from lmtpsvc.directory.cache import Cache
from lmtpsvc.envelope import Mailbox

ANN, BOB = Mailbox("ann", "example.org"), Mailbox("bob", "example.org")


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_kept(clock: Clock) -> None:
    """
    An answer is given for as long as was stated, "nobody" for a sixth of that.
    """
    cache = Cache(60, 0, clock.seconds)
    assert cache.fresh(ANN) is None
    cache.keep(ANN, [ANN, BOB])
    cache.keep(BOB, [])

    clock.advance(9.9)
    assert [ANN, BOB] == cache.fresh(ANN)
    assert [] == list(cache.fresh(BOB) or ())
    assert cache.fresh(BOB) is not None
    clock.advance(0.2)
    assert cache.fresh(BOB) is None
    clock.advance(49.8)
    assert [ANN, BOB] == cache.fresh(ANN)
    clock.advance(0.2)
    assert cache.fresh(ANN) is None


def test_not_kept(clock: Clock) -> None:
    """
    With 0, nothing is kept.
    """
    cache = Cache(0, 0, clock.seconds)
    cache.keep(ANN, [ANN])
    cache.keep(BOB, [])

    assert (None, None, None) == (cache.fresh(ANN), cache.fresh(BOB), cache.stale(ANN))


def test_stale(clock: Clock) -> None:
    """
    Who was found is remembered longer if that is wanted; that there is nobody never is.
    """
    cache = Cache(60, 100, clock.seconds)
    cache.keep(ANN, [ANN])
    cache.keep(BOB, [])
    clock.advance(159)

    assert cache.fresh(ANN) is None
    assert ([ANN], None) == (cache.stale(ANN), cache.stale(BOB))
    clock.advance(1)
    assert cache.stale(ANN) is None
    fresh = Cache(60, 0, clock.seconds)
    fresh.keep(ANN, [ANN])
    assert fresh.stale(ANN) is None


def test_who_left_is_forgotten(clock: Clock) -> None:
    """
    Who was found to have gone does not come back when the database does not answer; nor does
    "nobody" outlive a new user.
    """
    cache = Cache(60, 100, clock.seconds)
    cache.keep(ANN, [ANN])
    cache.keep(ANN, [])
    assert cache.stale(ANN) is None

    cache.keep(BOB, [])
    cache.keep(BOB, [BOB])
    assert [BOB] == cache.fresh(BOB)


def test_bounded(clock: Clock) -> None:
    """
    A stranger who tries names fills neither the memory nor the places of those who live here.
    """
    cache = Cache(60, 0, clock.seconds, most=3)
    cache.keep(ANN, [ANN])
    for number in range(10):
        cache.keep(Mailbox(f"{number}", "example.org"), [])
    assert [ANN] == cache.fresh(ANN)

    for number in range(10):
        cache.keep(Mailbox(f"{number}", "example.net"), [ANN])
    assert (3, 3) == (len(cache._known), len(cache._unknown))
    assert cache.fresh(ANN) is None


def test_old_ones_go(clock: Clock) -> None:
    """
    What is too old makes room as new answers come.
    """
    cache = Cache(60, 0, clock.seconds)
    cache.keep(ANN, [ANN])
    clock.advance(61)
    cache.keep(BOB, [BOB])

    assert [BOB] == list(cache._known)
