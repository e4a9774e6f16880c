"""
Threads: results come back, all jobs are done before the end, and one wake-up serves many.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped]  # it has no types
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.internet.task import Clock, deferLater
from twisted.logger import capturedLogs, formatEvent
from zope.interface import implementer

from lmtpsvc.backends import group_commit, write_process
from lmtpsvc.backends.maildir import MaildirBackend, MaildirFactory
from lmtpsvc.backends.pool import AGAIN_SECONDS, WorkerPool
from lmtpsvc.backends.syncing import Syncing
from lmtpsvc.envelope import Mailbox
from lmtpsvc.testing import MemoryMessage

#: The test, a coroutine, is run in the reactor.
in_reactor: Callable[[Callable[..., Any]], Callable[..., Any]] = pytest_twisted.ensureDeferred


@implementer(IReactorFromThreads)
class Reactor:
    """
    Counts the wake-ups; the test does what they ask for.
    """

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        self.calls.append(lambda: callable(*args, **kwargs))

    def suggestThreadPoolSize(self, size: int) -> None:
        raise NotImplementedError

    def getThreadPool(self) -> Any:
        raise NotImplementedError

    def callInThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        raise NotImplementedError

    def run(self) -> None:
        while self.calls:
            self.calls.pop(0)()


@implementer(IReactorTime)
class ClockReactor(Reactor):
    """
    The same, with a clock.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()

    def seconds(self) -> float:
        return self.clock.seconds()

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object
    ) -> Any:
        return self.clock.callLater(delay, callable, *args, **kwargs)

    def getDelayedCalls(self) -> Any:
        raise NotImplementedError


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    """
    A pool of three threads on the real reactor.
    """
    pool = WorkerPool(IReactorFromThreads(reactor), 3, "test")
    yield pool
    assert [] == pool._threads, "the test has not stopped it"


def test_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where the system has no room for a thread, that is one line, however many jobs there are; they are
    done when there is, although no further job comes.
    """
    reactor = ClockReactor()
    pool = WorkerPool(reactor, 3, "test")
    done = threading.Semaphore(0)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with capturedLogs() as logged:
        with monkeypatch.context() as context:
            context.setattr(threading.Thread, "start", refuse)
            for _ in range(5):
                pool.run(done.release)
            reactor.run()
            reactor.clock.advance(AGAIN_SECONDS)
            reactor.run()
        reactor.clock.advance(AGAIN_SECONDS)
        for _ in range(5):
            assert done.acquire(timeout=60)

    [event] = logged
    assert "log_failure" not in event
    assert (
        "test: can't start new thread; the threads that there are do the work (0)"
        == formatEvent(event)
    )
    stopped = pool.stop()
    for thread in tuple(pool._threads):
        thread.join()
    reactor.run()
    assert stopped.called


@in_reactor
async def test_result(pool: WorkerPool) -> None:
    """
    What a job returns, done in a thread, arrives.
    """
    name = await pool.submit(lambda: threading.current_thread().name)

    assert name.startswith("test-")
    await pool.stop()


@in_reactor
async def test_failure(pool: WorkerPool) -> None:
    """
    What a job raises arrives, and the thread goes on.
    """
    with pytest.raises(ZeroDivisionError):
        await pool.submit(lambda: 1 // 0)

    assert 1 == await pool.submit(lambda: 1)
    await pool.stop()


@in_reactor
async def test_bounded(pool: WorkerPool) -> None:
    """
    No more threads than were asked for, whatever the work, and none before.
    """
    assert [] == pool._threads

    names = await gatherResults(
        [pool.submit(lambda: threading.current_thread().name) for _ in range(50)]
    )

    assert 50 == len(names)
    assert len(set(names)) <= 3
    assert len(pool._threads) <= 3
    await pool.stop()


@in_reactor
async def test_stop_finishes(pool: WorkerPool) -> None:
    """
    What was asked for is done, and so is what that asks for, before the stop is complete.
    """
    done: list[int] = []

    def job(number: int) -> None:
        done.append(number)
        if number > 0:
            pool.run(lambda: job(number - 1))

    for _ in range(5):
        pool.run(lambda: job(10))
    first, second = pool.stop(), pool.stop()
    await gatherResults([first, second])

    assert 55 == len(done)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("test-")]


@in_reactor
async def test_used_again(pool: WorkerPool) -> None:
    """
    A service that is started again has threads again.
    """
    await pool.stop()
    await pool.submit(lambda: None)
    await pool.stop()

    assert 1 == await pool.submit(lambda: 1)
    await pool.stop()


def test_one_wake_up() -> None:
    """
    Many results, in their order, with a single call into the reactor.
    """
    threads, results = ClockReactor(), list[int]()
    pool = WorkerPool(threads, 1, "test")
    finished = threading.Event()
    for number in range(100):
        pool.run(partial(pool.post, results.append, number))
    pool.run(finished.set)
    assert finished.wait(60)

    assert 1 == len(threads.calls)
    threads.run()
    assert list(range(100)) == results

    pool.stop()
    for thread in pool._threads:
        thread.join(60)
    threads.run()
    assert [] == pool._threads


def test_defects_stop_nothing() -> None:
    """
    A job or a result that raises is logged, and the next one is done.
    """
    threads, results = ClockReactor(), list[int]()
    pool = WorkerPool(threads, 1, "test")
    finished = threading.Event()

    with capturedLogs() as events:
        pool.run(lambda: 1 // 0)
        pool.run(lambda: pool.post(lambda: 1 // 0))
        pool.run(lambda: pool.post(results.append, 1))
        pool.run(finished.set)
        assert finished.wait(60)
        threads.run()

    assert [1] == results
    assert 2 == len([event for event in events if "log_failure" in event])
    pool.stop()
    for thread in pool._threads:
        thread.join(60)
    threads.run()


@in_reactor
async def test_delivery_by_threads(tmp_path: Any) -> None:
    """
    The whole backend with real threads: many messages at once, to few and to many mailboxes.
    """
    backend = MaildirFactory().build(reactor, f"{tmp_path}/mail", threads="4")
    assert isinstance(backend, MaildirBackend)
    backend.startService()
    message = MemoryMessage(b"Subject: x\r\n\r\nbody\r\n")
    users = [Mailbox(f"user{number}", "example.org") for number in range(20)]
    results: list[Deferred[None]] = []
    for first in range(20):
        results += backend.deliver(message, [users[first]])
        results += backend.deliver(message, users)

    await gatherResults(results)
    await backend.stopService()

    for user in users:
        folder = tmp_path / "mail" / "example.org" / user.user
        assert 21 == len(list((folder / "new").iterdir()))
        assert [] == list((folder / "tmp").iterdir())


def test_no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where the system has no thread for us, the job waits until it has; nobody is told a lie.
    """
    threads, results = ClockReactor(), list[int]()
    pool = WorkerPool(threads, 1, "test")
    finished = threading.Event()

    def fail(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch, capturedLogs() as events:
        patch.setattr(threading.Thread, "start", fail)
        pool.run(partial(results.append, 1))
    assert 1 == len(events)
    assert [] == pool._threads

    pool.run(finished.set)
    assert finished.wait(60)

    assert [1] == results
    pool.stop()
    for thread in pool._threads:
        thread.join(60)
    threads.run()


def test_last_idle_first() -> None:
    """
    Jobs that come one after the other are all done by the thread that was idle last, however many
    there are; and no thread is started as long as one is idle.
    """
    reactor = Reactor()
    pool, names = WorkerPool(reactor, 3, "test"), list[str]()

    def meet(barrier: threading.Barrier) -> None:
        barrier.wait(60)

    def note() -> None:
        names.append(threading.current_thread().name)

    def wait_for_idle(count: int) -> None:
        # A thread becomes idle in its own time behind the job, and tells nobody.
        deadline = time.monotonic() + 60
        while len(pool._idle) < count and time.monotonic() < deadline:
            time.sleep(0)
        assert count == len(pool._idle)

    both = threading.Barrier(3)
    pool.run(partial(meet, both))
    pool.run(partial(meet, both))
    both.wait(60)
    wait_for_idle(2)
    for number in range(5):
        pool.run(note)
        wait_for_idle(2)
        assert number + 1 == len(names)

    assert 1 == len(set(names))
    assert 2 == len(pool._threads)
    pool.stop()
    for thread in pool._threads:
        thread.join(60)
    reactor.run()
    assert [] == pool._threads


def test_job_behind_the_last_look() -> None:
    """
    A job that comes when every thread has looked for the last time is done before the pool has
    stopped.
    """
    reactor, done = Reactor(), list[str]()
    pool = WorkerPool(reactor, 1, "test")
    pool.run(partial(done.append, "before"))
    stopped = pool.stop()
    (thread,) = pool._threads
    thread.join(60)
    pool.run(partial(done.append, "behind"))

    reactor.run()
    for thread in pool._threads:
        thread.join(60)
    reactor.run()

    assert ["before", "behind"] == done
    assert stopped.called
    assert [] == pool._threads


@pytest.mark.parametrize("way", ["one_by_one", "at_once", "both"])
@in_reactor
async def test_many_at_once(
    request: pytest.FixtureRequest,
    root: Path,
    timeout_of: Callable[[Deferred[Any]], Deferred[Any]],
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    """
    Three hundred messages from as many sessions to twenty mailboxes, some also to several, with
    batches that are slow, and a choice that changes all the time: each arrives once, and whole.
    """
    choice = random.Random(1)
    if way == "both":
        monkeypatch.setattr(Syncing, "whole_pays", lambda _, count: count > choice.randrange(4))
    else:
        request.getfixturevalue(way)
    monkeypatch.setattr(group_commit, "PATIENCE", 0.0)
    monkeypatch.setattr(write_process, "PATIENCE", 0.0)
    backend = MaildirFactory().build(reactor, str(root), threads="6")
    assert isinstance(backend, MaildirBackend)
    backend.startService()
    users = [Mailbox(f"user{number}", "example.org") for number in range(20)]
    expected: dict[str, list[bytes]] = {user.user: [] for user in users}
    results: list[Deferred[None]] = []
    for number in range(300):
        text = b"%d\n" % number * choice.randrange(1, 2000)
        mailboxes = choice.sample(users, choice.choice([1, 1, 1, 2, 20]))
        results += backend.deliver(MemoryMessage(text), mailboxes)
        for mailbox in mailboxes:
            expected[mailbox.user].append(text)
        if number % 10 == 0:
            # Others have their turn: answers, and the end of a batch.
            await deferLater(IReactorTime(reactor), 0)

    await timeout_of(gatherResults(results))
    await timeout_of(backend.stopService())

    for user, texts in expected.items():
        folder = root / "example.org" / user
        found = [path.read_bytes() for path in (folder / "new").iterdir()]
        assert sorted(texts) == sorted(found)
        assert [] == list((folder / "tmp").iterdir())


@in_reactor
async def test_priority() -> None:
    """
    A job that waits for a thread is taken before those that are less urgent (RFC 6710).
    """
    pool = WorkerPool(IReactorFromThreads(reactor), 1, "test")
    busy, done = threading.Event(), list[str]()
    pool.run(busy.wait)
    for name, priority in (("a", 0), ("b", -3), ("c", 4), ("d", 0), ("e", 4)):
        pool.run(partial(done.append, name), priority)
    busy.set()

    await pool.stop()

    assert list("ceadb") == done
