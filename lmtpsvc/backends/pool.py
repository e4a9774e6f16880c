"""
Threads for work that blocks, and a cheap way back into the reactor.

What Twisted's own thread pool spends on a job (a lock, a context and a wake-up of the reactor each
way) is more than what a small delivery costs.  Here a job is an entry in a queue, and the results
of all jobs that finish before the reactor comes round again share one wake-up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock, Thread, current_thread
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from twisted.python.failure import Failure

from .ranks import Ranks

T = TypeVar("T")

_log = Logger()


class Pool(Protocol):
    """
    What a backend needs of a pool; a test may have one that does each job on the spot.
    """

    def run(self, job: Callable[[], object], priority: int = 0) -> None:
        """
        Have *job* done, soon, in another thread; before those that wait with a lower *priority*,
        from 9 to -9 (RFC 6710).  May be called from any thread.
        """

    def post(self, call: Callable[..., object], *arguments: Any) -> None:
        """
        From a job: have *call* done in the reactor thread, in the order of the posts.
        """

    def submit(self, job: Callable[[], T]) -> Deferred[T]:
        """
        Have *job* done in another thread; fires with what it returns, or fails with what it
        raises.
        """

    def stop(self) -> Deferred[None]:
        """
        Fires when all jobs, those that wait included, are done and the threads have ended.
        """


class WorkerPool:
    """
    A `Pool` of at most *size* threads, each started when there is work that nobody else takes.

    It needs no start, and can be used again after a stop.
    """

    def __init__(self, reactor: IReactorFromThreads, size: int, name: str) -> None:
        self._reactor, self._size, self._name = reactor, size, name
        self._jobs: Ranks[Callable[[], object]] = Ranks()
        # Wakes a thread for each job, which takes the most urgent one; it is there by then.  None
        # tells one thread after the other to end.
        self._wakes: SimpleQueue[bool | None] = SimpleQueue()
        self._threads: list[Thread] = []
        self._starting = Lock()
        self._posts: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._awake = False
        self._stopping: Deferred[None] | None = None

    def run(self, job: Callable[[], object], priority: int = 0) -> None:
        self._jobs.add(job, priority)
        self._wakes.put(True)
        # A job still in the queue: perhaps nobody was waiting for one.
        if len(self._threads) < self._size and not self._wakes.empty():
            self._start_one()

    def post(self, call: Callable[..., object], *arguments: Any) -> None:
        self._posts.append((call, arguments))
        # Not locked: _drain takes back the flag before it looks at the posts, so whoever finds it
        # set is still in time; two who find it clear cost one wake-up too many.
        if not self._awake:
            self._awake = True
            self._reactor.callFromThread(self._drain)

    def submit(self, job: Callable[[], T]) -> Deferred[T]:
        result: Deferred[T] = Deferred()

        def work() -> None:
            try:
                value = job()
            except BaseException:
                self.post(result.errback, Failure())
            else:
                self.post(result.callback, value)

        self.run(work)
        return result

    def stop(self) -> Deferred[None]:
        if not self._threads:
            return succeed(None)
        if self._stopping is None:
            self._stopping = Deferred()
            self._wakes.put(None)
        waiting: Deferred[None] = Deferred()
        self._stopping.addCallback(waiting.callback)
        return waiting

    def _start_one(self) -> None:
        with self._starting:
            number = len(self._threads)
            if number < self._size:
                # Daemons: a process that ends without stop(), as after an error, must not hang.
                # Nobody was told yes about what they are doing then.
                name = f"{self._name}-{number}"
                thread = Thread(target=self._work, name=name, daemon=True)
                self._threads.append(thread)
                try:
                    thread.start()
                except RuntimeError:
                    # The job is in the queue, for the threads there are or the next try.
                    self._threads.remove(thread)
                    _log.failure("a thread cannot be started")

    def _work(self) -> None:
        wakes, jobs = self._wakes, self._jobs
        while True:
            if wakes.get() is None:
                # There is only one None, so an empty queue means that no job is left; the next
                # thread finds it here.  A job that queues further jobs is followed by its own
                # thread at the least, which does them before it ends.
                last = wakes.empty()
                wakes.put(None)
                if last:
                    self.post(self._ended, current_thread())
                    return
                continue
            job = jobs.take()
            try:
                job()
            except BaseException:
                _log.failure("a job failed")
            # Nothing of the last job (a message, a mailbox) is kept while waiting for the next.
            del job

    def _drain(self) -> None:
        self._awake = False
        for _ in range(len(self._posts)):
            call, arguments = self._posts.popleft()
            try:
                call(*arguments)
            except BaseException:
                _log.failure("a result was not taken")

    def _ended(self, thread: Thread) -> None:
        # The thread has nothing more to do than to return.
        thread.join()
        self._threads.remove(thread)
        if not self._threads and self._stopping is not None:
            stopped, self._stopping = self._stopping, None
            self._wakes = SimpleQueue()
            stopped.callback(None)
