"""
Threads for work that blocks, and a cheap way back into the reactor.

What Twisted's own thread pool spends on a job (a lock, a context and a wake-up of the reactor each
way) is more than what a small delivery costs.  Here a job is an entry in a queue, and the results
of all jobs that finish before the reactor comes round again share one wake-up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Lock, Thread, current_thread
from typing import Any, Final, Protocol, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from .ranks import Ranks

T = TypeVar("T")

#: If not a single thread can be started, it is tried again after so many seconds.
AGAIN_SECONDS: Final = 1.0

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

    The thread that was idle last is the next to work: what it needs is still in the processor's
    caches.  The pool needs no start, and can be used again after a stop.
    """

    def __init__(self, reactor: IReactorFromThreads, size: int, name: str) -> None:
        self._reactor, self._size, self._name = reactor, size, name
        self._jobs: Ranks[Callable[[], object]] = Ranks()
        self._threads: list[Thread] = []
        # Who adds a job looks for an idle thread behind it, and who becomes idle looks for a job
        # before it, both with this lock: so no job is left lying.
        self._lock = Lock()
        # Each idle thread waits for its own lock.
        self._idle: list[Lock] = []
        self._posts: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._awake = False
        self._stopping: Deferred[None] | None = None
        # The last thread that was to be started could not be; and if there is none, it is tried again
        # without a further job.
        self._is_short = self._tries_again = False

    def run(self, job: Callable[[], object], priority: int = 0) -> None:
        self._jobs.add(job, priority)
        with self._lock:
            if self._idle:
                self._idle.pop().release()
            elif len(self._threads) < self._size:
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
        with self._lock:
            if not self._threads:
                return succeed(None)
            if self._stopping is None:
                self._stopping = Deferred()
            while self._idle:
                self._idle.pop().release()
        waiting: Deferred[None] = Deferred()
        self._stopping.addCallback(waiting.callback)
        return waiting

    def _start_one(self) -> None:
        # Daemons: a process that ends without stop(), as after an error, must not hang.  Nobody was
        # told yes about what they are doing then.
        name = f"{self._name}-{len(self._threads)}"
        thread = Thread(target=self._work, name=name, daemon=True)
        self._threads.append(thread)
        try:
            thread.start()
        except RuntimeError as error:
            # The job is in the queue, for the threads there are or the next try.
            self._threads.remove(thread)
            if not self._is_short:
                self._is_short = True
                _log.warn(
                    "{name}: {error}; the threads that there are do the work ({count})",
                    name=self._name,
                    error=error,
                    count=len(self._threads),
                )
            if not (self._threads or self._tries_again):
                self._tries_again = True
                self._reactor.callFromThread(self._try_again_later)
        else:
            self._is_short = False

    def _try_again_later(self) -> None:
        IReactorTime(self._reactor).callLater(AGAIN_SECONDS, self._try_again)

    def _try_again(self) -> None:
        with self._lock:
            self._tries_again = False
            if self._jobs and not self._threads:
                self._start_one()

    def _work(self) -> None:
        jobs, wake = self._jobs, Lock()
        wake.acquire()
        while True:
            try:
                job = jobs.take()
            except IndexError:
                with self._lock:
                    if jobs:
                        continue
                    if self._stopping is not None:
                        # A job that queues further jobs is followed by its own thread at the least.
                        break
                    self._idle.append(wake)
                wake.acquire()
                continue
            try:
                job()
            except BaseException:
                _log.failure("a job failed")
            # Nothing of the last job (a message, a mailbox) is kept while waiting for the next.
            del job
        self.post(self._ended, current_thread())

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
        with self._lock:
            self._threads.remove(thread)
            if self._jobs and not self._idle:
                # It came when this thread had looked for the last time.
                self._start_one()
            stopped = None if self._threads else self._stopping
            if stopped is not None:
                self._stopping = None
        if stopped is not None:
            stopped.callback(None)
