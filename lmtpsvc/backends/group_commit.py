"""
Which messages go to disk together.

While one batch is on its way to disk, what comes meanwhile waits, and becomes the next batch: so a
lone session waits for nobody, and fifty share the wait for the disk.  All decisions are made in the
reactor thread, when a message comes and when a batch ends.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from .pool import Pool
from .ranks import Ranks
from .target import Answer, fire

Posting = TypeVar("Posting")

#: Messages in a batch, at most.
MOST: Final = 64

#: A batch that takes longer than so many seconds must not keep the others waiting: its disk may be
#: another one than theirs, or its mailbox be on a server that does not answer.
PATIENCE: Final = 0.1


class GroupCommit(Generic[Posting]):
    """
    Hands batches of postings to *store*, in threads of *pool*: one batch at a time where batches
    pay, as *pays* tells, else up to *threads* single postings.
    """

    def __init__(
        self,
        pool: Pool,
        clock: IReactorTime,
        threads: int,
        pays: Callable[[], bool],
        store: Callable[[list[Posting]], list[Answer]],
    ) -> None:
        self._pool, self._clock, self._threads = pool, clock, threads
        self._pays, self._store = pays, store
        self._waiting: Ranks[Posting] = Ranks()
        # Batches, and all that is in them.
        self._running = 0
        self._being_stored = 0
        self._slow: IDelayedCall | None = None
        # Of those that run, how many have used up our patience.
        self._written_off = 0
        self._finishing: list[Deferred[None]] = []

    @property
    def is_idle(self) -> bool:
        """
        Whether nothing is being stored, nor waits for it.
        """
        return not self.count

    @property
    def count(self) -> int:
        """
        How many postings are being stored, or wait for it.
        """
        return self._being_stored + len(self._waiting)

    def add(self, posting: Posting, priority: int = 0) -> None:
        """
        Have *posting* stored, soon; before those that wait with a lower *priority* (RFC 6710).
        """
        self._waiting.add(posting, priority)
        self._start()

    def finish(self) -> Deferred[None]:
        """
        Fires when all that has been added is stored.
        """
        finished: Deferred[None] = Deferred()
        self._finishing.append(finished)
        self._tell_if_finished()
        return finished

    def _start(self) -> None:
        """
        Start what may be started now.
        """
        while self._waiting and self._running < self._threads:
            if self._pays():
                if self._running > self._written_off:
                    break
                most = MOST
            else:
                most = 1
            batch = [self._waiting.take() for _ in range(min(most, len(self._waiting)))]
            self._running += 1
            self._being_stored += len(batch)
            self._pool.run(partial(self._work, batch))
        if self._waiting and self._slow is None:
            self._slow = self._clock.callLater(PATIENCE, self._run_out_of_patience)

    def _work(self, batch: list[Posting]) -> None:
        """
        In a worker thread.
        """
        answers: list[Answer] = []
        try:
            answers = self._store(batch)
        finally:
            self._pool.post(self._ended, answers, len(batch))

    def _ended(self, answers: list[Answer], count: int) -> None:
        """
        Keep the disk busy first, then tell what it has.
        """
        self._running -= 1
        self._being_stored -= count
        self._written_off = min(self._written_off, self._running)
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None
        self._start()
        fire(answers)
        self._tell_if_finished()

    def _tell_if_finished(self) -> None:
        if self.is_idle:
            finishing, self._finishing = self._finishing, []
            for finished in finishing:
                finished.callback(None)

    def _run_out_of_patience(self) -> None:
        self._slow = None
        self._written_off = self._running
        self._start()
