"""
What comes while the disk is busy goes to it together, and nobody waits for long.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted  # type: ignore[import-untyped]  # it has no types
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from lmtpsvc.backends.group_commit import MOST, PATIENCE, GroupCommit
from lmtpsvc.backends.maildir import MaildirBackend, MaildirFactory
from lmtpsvc.backends.posting import Posting
from lmtpsvc.backends.target import Answer, Target
from lmtpsvc.commitment import Commitment
from lmtpsvc.envelope import Mailbox
from lmtpsvc.testing import MemoryMessage

THREADS = 3


class Group:
    """
    A group commit of messages that are mere numbers, on a disk that has one batch when told so.
    """

    def __init__(self, pool: Any, clock: Clock) -> None:
        self.pool = pool
        self.batches_pay = True
        #: All batches that a thread has taken up, and what has happened, in order.
        self.stored: list[list[int]] = []
        self.events: list[str] = []
        self.commit = GroupCommit(pool, clock, THREADS, lambda: self.batches_pay, self._store)

    def add(self, *numbers: int, priority: int = 0) -> None:
        for number in numbers:
            self.commit.add(cast("Posting", number), priority)

    @property
    def running(self) -> int:
        return len(self.pool.jobs)

    def end(self, index: int = 0) -> None:
        """
        The disk has what one of the running threads has.
        """
        self.pool.jobs.pop(index)()

    def _store(self, postings: list[Posting]) -> list[Answer]:
        numbers = cast("list[int]", postings)
        self.stored.append(numbers)
        return [(self._target(number), None) for number in numbers]

    def _target(self, number: int) -> Target:
        target = Target(cast("Any", None), cast("Any", None))
        waiting = Commitment()
        waiting.addCallback(lambda _: self.events.append(f"{number} with {self.running} running"))
        target.waiting.append(waiting)
        return target


@pytest.fixture
def group(held_pool: Any, clock: Clock) -> Group:
    return Group(held_pool, clock)


def test_alone(group: Group) -> None:
    """
    Where nobody else is, nobody waits.
    """
    group.add(1)

    assert 1 == group.running
    group.end()
    assert [[1]] == group.stored
    assert 0 == group.running


def test_next_batch(group: Group) -> None:
    """
    What comes while the disk is busy is the next batch, in its order.
    """
    group.add(1, 2, 3, 4)
    assert 1 == group.running

    group.end()
    group.add(5)
    group.end()
    group.end()

    assert [[1], [2, 3, 4], [5]] == group.stored


def test_count(group: Group) -> None:
    """
    What is being stored counts, and what waits.
    """
    counts = []
    group.add(1, 2, 3)
    for _ in range(2):
        counts.append(group.commit.count)
        group.end()

    assert [3, 2, 0] == [*counts, group.commit.count]


def test_urgent_first(group: Group) -> None:
    """
    Of those that wait, the most urgent go first (RFC 6710).
    """
    group.batches_pay = False
    group.add(1, 2, 3, 4, 5)
    group.add(6, priority=9)
    group.add(7, priority=-1)
    for _ in range(7):
        group.end()

    assert [[1], [2], [3], [6], [4], [5], [7]] == group.stored


def test_no_more_than_most(group: Group) -> None:
    """
    A batch has its limit; the rest is in the next ones.
    """
    numbers = list(range(2 * MOST + 2))
    group.add(*numbers)
    while group.running:
        group.end()

    assert [1, MOST, MOST, 1] == [len(batch) for batch in group.stored]
    assert numbers == [number for batch in group.stored for number in batch]


def test_next_batch_before_the_answers(group: Group) -> None:
    """
    The disk has work again before anybody is told what it has done.
    """
    group.add(1, 2)

    group.end()
    group.end()

    assert ["1 with 1 running", "2 with 0 running"] == group.events


def test_slow_batch(group: Group, clock: Clock) -> None:
    """
    A disk that does not answer keeps the others waiting for a moment only, thread for thread.
    """
    group.add(1, 2)
    clock.advance(PATIENCE * 0.9)
    assert 1 == group.running

    clock.advance(PATIENCE * 0.2)
    assert 2 == group.running
    group.add(3, 4)
    assert 2 == group.running

    clock.advance(PATIENCE)
    assert THREADS == group.running
    group.end(2)
    assert [[3, 4]] == group.stored


def test_never_more_than_threads(group: Group, clock: Clock) -> None:
    """
    However slow the disk is; and when it comes back, nothing has been forgotten.
    """
    numbers = list(range(10))
    for number in numbers:
        group.add(number)
        clock.advance(PATIENCE)
        assert min(number + 1, THREADS) == group.running
    clock.pump([PATIENCE] * 10)
    assert THREADS == group.running

    while group.running:
        group.end()

    assert [[0], [1], [2], [3, 4, 5, 6, 7, 8, 9]] == group.stored
    assert [] == clock.getDelayedCalls()


def test_a_slow_one_holds_up_one_thread(group: Group, clock: Clock) -> None:
    """
    While one thread hangs, the others go on batch by batch, and no thread of theirs is lost.
    """
    group.add(1, 2)
    clock.advance(PATIENCE)
    for number in range(3, 10):
        group.add(number)
        assert 2 == group.running
        group.end(1)

    assert [[2], [3], [4], [5], [6], [7], [8]] == group.stored
    assert 2 == group.running
    group.end(1)
    group.end(0)
    assert [[9], [1]] == group.stored[-2:]

    # The one that hung counts no more: it is one batch at a time again.
    group.add(10, 11)
    assert 1 == group.running


def test_no_timer_when_idle(group: Group, clock: Clock) -> None:
    """
    Where nobody waits, no clock ticks.
    """
    group.add(1)
    assert [] == clock.getDelayedCalls()

    group.add(2)
    assert 1 == len(clock.getDelayedCalls())
    group.end()
    assert [] == clock.getDelayedCalls()


def test_single(group: Group, clock: Clock) -> None:
    """
    Where batches do not pay, each message has a thread, as long as there are any.
    """
    group.batches_pay = False
    group.add(1, 2, 3, 4, 5)
    assert THREADS == group.running
    clock.advance(PATIENCE * 10)
    assert THREADS == group.running

    while group.running:
        group.end()

    assert [[1], [2], [3], [4], [5]] == group.stored


def test_change_of_mind(group: Group) -> None:
    """
    When batches begin to pay, those that run are let finish, and what waits is one batch.
    """
    group.batches_pay = False
    group.add(1, 2, 3, 4, 5)
    group.batches_pay = True

    group.end()
    group.end()
    assert 1 == group.running
    group.end()
    assert 1 == group.running
    group.batches_pay = False
    group.add(6)
    assert 2 == group.running
    group.end()
    group.end()

    assert [[1], [2], [3], [4, 5], [6]] == group.stored


def test_a_defect_forgets_nobody_else(
    held_pool: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A batch that ends in an exception is over; the next ones have their turn.
    """
    group = Group(held_pool, clock)
    group.add(1, 2)
    store = group._store
    group.commit._store = lambda _: 1 // 0  # type: ignore[assignment,return-value]  # a defect
    with pytest.raises(ZeroDivisionError):
        group.end()
    group.commit._store = store

    group.end()

    assert [[2]] == group.stored


# ── the end ──────────────────────────────────────────────────────────────────────────────────────


def test_finish_when_idle(group: Group, success_of: Any) -> None:
    """
    Where there is nothing to do, the end is there at once.
    """
    success_of(group.commit.finish())
    group.add(1)
    group.end()
    success_of(group.commit.finish())


def test_finish(group: Group, success_of: Any, no_result: Any) -> None:
    """
    The end comes after the last answer, for whoever asks.
    """
    group.add(1, 2)
    first, second = group.commit.finish(), group.commit.finish()
    first.addCallback(lambda _: group.events.append("end"))

    group.end()
    no_result(second)
    group.end()

    success_of(first)
    success_of(second)
    assert ["1 with 1 running", "2 with 0 running", "end"] == group.events


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("way", ["one_by_one", "at_once"], indirect=True)
@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]  # as above
async def test_stop_waits_for_all(
    root: Path,
    message: MemoryMessage,
    way: str,
    threads: str,
    # A test that never ends says nothing.
    timeout_of: Callable[[Deferred[Any]], Deferred[Any]],
) -> None:
    """
    A service that is stopped stores what it was given, what still waits for its turn included.
    """
    backend = MaildirFactory().build(reactor, str(root), threads=threads)
    assert isinstance(backend, MaildirBackend)
    backend.startService()
    ann = Mailbox("ann", "example.org")
    results = [backend.deliver(message, [ann])[0] for _ in range(MOST + 5)]

    await timeout_of(backend.stopService())

    assert all(result.called for result in results)
    assert MOST + 5 == len(list((root / "example.org/ann/new").iterdir()))
