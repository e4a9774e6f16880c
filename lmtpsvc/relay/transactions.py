"""
Transactions that share a commit: what waits while one is on its way to disk goes in the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeVar

from attrs import define, field
from sqlalchemy import Connection, Engine
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..backends.pool import Pool
from ..backends.sql.engine import writes
from ..backends.sql.failures import Means, judge

T = TypeVar("T")

#: So many go together, at most.
MOST: Final = 64
#: How often a deadlock may be ended at our cost.
_TRIES: Final = 4


@define(eq=False)
class _Job:
    work: Callable[[Connection], Any]
    alone: bool
    done: Deferred[Any] = field(factory=Deferred)
    result: Any = None


class Transactions:
    """
    Does what is asked for in threads of *pool*, up to *threads* transactions at a time.
    """

    def __init__(self, engine: Engine, pool: Pool, threads: int) -> None:
        self._engine, self._pool, self._threads = engine, pool, threads
        self._waiting: deque[_Job] = deque()
        self._running = 0

    def do(self, work: Callable[[Connection], T], *, alone: bool = False) -> Deferred[T]:
        """
        Call *work* in a transaction; fires with what it returns once that is committed, or fails.
        It may be called again if a transaction fails.  With *alone*, it shares it with nobody: for
        what takes long.
        """
        job = _Job(work, alone)
        self._waiting.append(job)
        self._start()
        return job.done

    def _start(self) -> None:
        while self._waiting and self._running < self._threads:
            jobs = [self._waiting.popleft()]
            if not jobs[0].alone:
                while self._waiting and len(jobs) < MOST and not self._waiting[0].alone:
                    jobs.append(self._waiting.popleft())
            self._running += 1
            self._pool.run(lambda jobs=jobs: self._pool.post(self._ended, self._do(jobs)))  # type: ignore[misc]

    def _ended(self, ended: list[tuple[_Job, Failure | None]]) -> None:
        self._running -= 1
        for job, failure in ended:
            if failure is None:
                job.done.callback(job.result)
            else:
                job.done.errback(failure)
        self._start()

    def _do(self, jobs: list[_Job]) -> list[tuple[_Job, Failure | None]]:
        """
        In a thread.  What fails together is done once more one by one, unless it may have been
        committed: then nobody knows, and who asked has to decide.
        """
        failure, committing = self._transact(jobs)
        if failure is None or len(jobs) == 1 or committing or _concerns_all(failure):
            return [(job, failure) for job in jobs]
        return [(job, self._transact([job])[0]) for job in jobs]

    def _transact(self, jobs: list[_Job]) -> tuple[Failure | None, bool]:
        for left in reversed(range(_TRIES)):
            committing = False
            try:
                with writes(self._engine.connect()) as connection:
                    transaction = connection.begin()
                    try:
                        for job in jobs:
                            job.result = job.work(connection)
                        committing = True
                        transaction.commit()
                    except BaseException:
                        # What state the driver is in nobody knows.
                        connection.invalidate()
                        raise
            except Exception as error:
                if left and judge(error).means is Means.AGAIN:
                    continue
                return Failure(), committing
            return None, True
        raise AssertionError("not reached")


def _concerns_all(failure: Failure) -> bool:
    error = failure.value
    return isinstance(error, Exception) and judge(error).means is Means.ALL
