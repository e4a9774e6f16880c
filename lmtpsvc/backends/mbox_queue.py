"""
Who waits for which mailbox.

Each mailbox has a line of its own, and is written to by one thread at a time: what comes meanwhile
waits, and goes together.  Where another program has the lock, the line waits with a timer and not
with a thread, so that no number of locked mailboxes holds up the others.  All decisions are made in
the reactor thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ..errors import refusal
from ..replies import MAILBOX_UNAVAILABLE
from .mbox_batch import Answers, Letter
from .mbox_files import Spot
from .mbox_locks import Busy
from .pool import Pool
from .target import fire

#: Messages that share a lock, at most, and their octets, but for the last: readers wait for it too.
MOST: Final = 64
MOST_OCTETS: Final = 8 << 20

#: A locked mailbox is looked at again after an eighth of the time it has been waited for, but not
#: sooner nor later than after so many seconds.
SOONEST: Final = 0.01
LATEST: Final = 1.0


class Line:
    """
    Those who wait for the mailbox at *spot*.
    """

    def __init__(self, spot: Spot) -> None:
        self.spot = spot
        self.letters: deque[Letter] = deque()
        #: Since when it is locked, if it is.
        self.locked_since: float | None = None


class MboxQueue:
    """
    Hands letters to *store*, in threads of *pool*.  *patience* is how long one waits for a lock.
    """

    def __init__(
        self,
        pool: Pool,
        clock: IReactorTime,
        patience: float,
        store: Callable[[Spot, list[Letter]], Answers],
    ) -> None:
        self._pool, self._clock, self._patience, self._store = pool, clock, patience, store
        self._lines: dict[str, Line] = {}
        self._finishing: list[Deferred[None]] = []

    def add(self, spot: Spot, letter: Letter | None = None) -> None:
        """
        Have *letter* stored, soon; without one, the mailbox is only looked after.
        """
        line = self._lines.get(spot.path)
        if line is not None:
            if letter is not None:
                line.letters.append(letter)
            return
        line = self._lines[spot.path] = Line(spot)
        if letter is not None:
            line.letters.append(letter)
        self._start(line)

    def finish(self) -> Deferred[None]:
        """
        Fires when all that has been added is stored or refused.
        """
        finished: Deferred[None] = Deferred()
        self._finishing.append(finished)
        self._tell_if_finished()
        return finished

    def _start(self, line: Line) -> None:
        """
        Have a thread store what waits.
        """
        batch: list[Letter] = []
        octets = 0
        while line.letters and len(batch) < MOST and octets < MOST_OCTETS:
            letter = line.letters.popleft()
            batch.append(letter)
            if line.letters:
                # A spooled one is large, and to ask for more may mean to read it.
                is_spooled = letter.message.path is not None
                octets += MOST_OCTETS if is_spooled else letter.message.sizes("\n").physical
        # Within a mailbox, mail keeps its order; between them, the most urgent goes first.
        urgent = max((letter.message.envelope.sender.priority for letter in batch), default=0)
        self._pool.run(partial(self._work, line, batch), urgent)

    def _work(self, line: Line, batch: list[Letter]) -> None:
        """
        In a worker thread.
        """
        answers: Answers | None
        try:
            answers = self._store(line.spot, batch)
        except Busy:
            answers = None
        except BaseException:
            # A defect of ours.
            answers = [(letter, Failure()) for letter in batch]
        if answers is None:
            self._pool.post(self._wait, line, batch)
        else:
            self._pool.post(self._ended, line, answers)

    def _ended(self, line: Line, answers: Answers) -> None:
        """
        Keep the disk busy first, then tell what it has.
        """
        line.locked_since = None
        for letter in line.letters:
            letter.until = None
        if line.letters:
            self._start(line)
        else:
            del self._lines[line.spot.path]
        fire(answers)
        self._tell_if_finished()

    def _wait(self, line: Line, batch: list[Letter]) -> None:
        """
        Try again later, but for those who have waited for too long.
        """
        now = self._clock.seconds()
        if line.locked_since is None:
            line.locked_since = now
        line.letters.extendleft(reversed(batch))
        given_up: Answers = []
        still: deque[Letter] = deque()
        for letter in line.letters:
            if letter.until is None:
                letter.until = now + self._patience
            if letter.until <= now:
                given_up.append((letter, Failure(refusal(MAILBOX_UNAVAILABLE))))
            elif not letter.is_cancelled:
                still.append(letter)
        line.letters = still
        if still:
            assert still[0].until is not None, "it waits"
            pause = min(max((now - line.locked_since) / 8, SOONEST), LATEST, still[0].until - now)
            self._clock.callLater(pause, self._start, line)
        else:
            del self._lines[line.spot.path]
        fire(given_up)
        self._tell_if_finished()

    def _tell_if_finished(self) -> None:
        if not self._lines:
            finishing, self._finishing = self._finishing, []
            for finished in finishing:
                finished.callback(None)
