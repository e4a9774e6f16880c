"""
Small messages that share each wait for the disk.

The reactor thread writes them to ``tmp`` and shows them in ``new`` by itself, as such calls are sure
to be quick (see `shortcut`); others do nothing but wait for the disk (see `waits`).  Each wait is for all that
was done before it began: for the texts of some messages, and for the names of those whose texts the
disk had already.  So nobody waits for a batch to begin, and the interpreter's lock does not change
hands.

Whatever does not go as it should is left to `Batch`, which takes its time, in a thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from attrs import evolve
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from .batch import Batch
from .file_systems import FileSystem
from .group_commit import PATIENCE
from .haste import Haste
from .identity import as_user
from .places import Places
from .pool import Pool
from .posting import Posting, Shown
from .syncing import Syncing
from .target import Answer, Target, fire
from .waits import Waits

_log = Logger()

#: Names that are shown when a wait has ended, at most, while everybody else waits; a message more.
MOST_NAMES: Final = 1024


class CommonSync:
    """
    What is on its way to the file system *device*; all in the reactor thread, but for the waits.

    *batch* makes a `Batch`, and *patiently* takes a posting that has to be stored another way.
    *idle* is called when nothing is on its way any more; the object can be used again after that.
    """

    def __init__(
        self,
        device: int,
        pool: Pool,
        clock: IReactorTime,
        places: Places,
        syncing: Syncing,
        waits: Waits,
        haste: Haste,
        batch: Callable[[], Batch],
        patiently: Callable[[Posting], None],
        idle: Callable[[CommonSync], None],
    ) -> None:
        self.device = device
        self._pool, self._clock = pool, clock
        self._places, self._haste = places, haste
        self._syncing, self._waits = syncing, waits
        self._batch, self._patiently, self._idle = batch, patiently, idle
        # In tmp, and in new; neither is safe yet, and no wait has begun for either.
        self._written: list[Posting] = []
        self._shown: list[Shown] = []
        # Of those written, safe or not.
        self._names = 0
        # Waits; and how many of them have used up our patience.
        self._running = 0
        self._written_off = 0
        self._slow: IDelayedCall | None = None
        self._soon: IDelayedCall | None = None
        # Opened before anything was written that is to be synced as a whole.
        self._file_system: FileSystem | None = None
        # Those that a thread waits for.
        self._waited_for: set[FileSystem] = set()

    def write(self, posting: Posting, *, alone: bool = True) -> bool:
        """
        Store *posting*, of which all targets are on this device; False if it cannot be done so:
        nothing has been changed then.  If it is not *alone*, others follow at once.
        """
        begun = self._syncing.whole_pays(2) and self._begin(posting, alone)
        self._rest()
        return begun

    def _begin(self, posting: Posting, alone: bool) -> bool:
        if alone and self._is_idle and not self._syncing.whole_pays(len(posting.targets)):
            # Alone: the thread that waits does everything.
            self._have_done(lambda batch: batch.store([posting]))
            return True
        if self._names >= MOST_NAMES or not self._is_watched(posting) or not self._put(posting):
            return False
        self._written.append(posting)
        self._names += _names(posting)
        self._start()
        return True

    @property
    def _is_idle(self) -> bool:
        return not (self._running or self._written or self._shown)

    def _put(self, posting: Posting) -> bool:
        before = self._haste.now()
        try:
            posting.put_at_once(posting.targets[0])
        except Exception:
            # Batch finds out what it is, and tells.
            return False
        finally:
            self._haste.took_since(before)
        if posting.device != self.device:
            # Somebody has put the mailbox elsewhere since it was last looked at.
            posting.withdraw()
            return False
        del posting.targets[0]
        return True

    def _is_watched(self, posting: Posting) -> bool:
        """
        See to it that we hear of all that is lost from now on, where that will be asked.
        """
        if self._file_system is not None:
            return True
        place = posting.targets[0].place
        try:
            with as_user(place.uid, place.gid):
                file_system = FileSystem(os.path.join(place.directory, "tmp"))
        except OSError:
            return False
        if file_system.device != self.device:
            file_system.close()
            return False
        self._haste.saw(file_system)
        self._file_system = file_system
        return True

    # ── when to wait ─────────────────────────────────────────────────────────────────────────────

    def _start(self) -> None:
        """
        Begin to wait, unless somebody does already: then for all that has come meanwhile.
        """
        if not self._written and not self._shown:
            return
        # One wait at a time for a file system: it tells only one of what it has lost.
        if self._running > self._written_off or self._file_system in self._waited_for:
            if self._slow is None:
                self._slow = self._clock.callLater(PATIENCE, self._run_out_of_patience)
        elif self._soon is None:
            # What comes in the same round of the reactor is to be there, too.
            self._soon = self._clock.callLater(0, self._wait)

    def _wait(self) -> None:
        self._soon = None
        if not self._written and not self._shown:
            # A wait that had been given up has failed meanwhile, and they are asked for one by one.
            return
        written, shown = self._taken()
        file_system = self._file_system
        # So many files and directories will have been waited for in the end.
        count = len(shown) + sum(map(_names, written))
        if file_system is not None and self._syncing.whole_pays(count):
            self._waited_for.add(file_system)
            self._running += 1
            ended = partial(self._synced, file_system, written, shown)
            self._waits.begin(file_system, finally_=bool(shown), ended=ended)
        else:
            self._carry_on(written, shown)

    def _taken(self) -> tuple[list[Posting], list[Shown]]:
        """
        All for which no wait has begun, which is none of them any more.
        """
        taken = self._written, self._shown
        self._written, self._shown = [], []
        return taken

    def _carry_on(self, written: list[Posting], shown: list[Shown]) -> None:
        """
        Have each synced by itself.
        """
        self._names -= sum(map(_names, written))
        self._have_done(lambda batch: batch.carry_on(written, shown))

    def _have_done(self, work: Callable[[Batch], list[Answer]]) -> None:
        """
        Have a thread do *work*: all that is left to do.
        """
        self._running += 1
        self._pool.run(partial(self._work, work))

    def _run_out_of_patience(self) -> None:
        self._slow = None
        self._written_off = self._running
        # What it hears of now, the one that hangs will be told; and who begins to listen now may have
        # missed what was lost of these.
        self._let_go()
        self._carry_on(*self._taken())

    def _ended(self) -> None:
        self._running -= 1
        self._written_off = min(self._written_off, self._running)
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def _let_go(self) -> None:
        """
        Let the file system be unmounted, as soon as nobody waits for it.
        """
        file_system, self._file_system = self._file_system, None
        if file_system is not None and file_system not in self._waited_for:
            file_system.close()

    def _rest(self) -> None:
        if self._is_idle:
            self._let_go()
            self._idle(self)

    # ── waits ────────────────────────────────────────────────────────────────────────────────────

    def _synced(
        self,
        file_system: FileSystem,
        written: list[Posting],
        shown: list[Shown],
        error: Exception | None,
    ) -> None:
        self._ended()
        self._waited_for.remove(file_system)
        if file_system is not self._file_system:
            # The others have given it up.
            file_system.close()
        if error is not None:
            self._places.doubt()
            _log.warn(
                "{directory}: syncfs failed ({error}), syncing one by one",
                directory=file_system.directory,
                error=error,
            )
            # What has been written meanwhile may be lost as well, and the next sync would not tell.
            more_written, more_shown = self._taken()
            self._carry_on(written + more_written, shown + more_shown)
            written, shown = [], []
        answers, unsure = self._answers(shown)
        for posting in written:
            self._show(posting)
        if unsure:
            self._carry_on([], unsure)
        self._start()
        fire(answers)
        self._rest()

    def _answers(self, shown: list[Shown]) -> tuple[list[Answer], list[Shown]]:
        """
        What those hear who have the message; and those whose Maildir may be another by now.
        """
        answers: list[Answer] = []
        unsure: list[Shown] = []
        for posting, target in shown:
            # The directories were there before the message, so the disk has them, too.
            if not self._places.take_for_safe(target.place, target.known):
                unsure.append((posting, target))
                continue
            answers.append((target, posting.codes(target)))
            if self._places.is_untidy(target.place):
                self._pool.run(partial(self._places.tidy, target.place))
        return answers, unsure

    def _work(self, work: Callable[[Batch], list[Answer]]) -> None:
        """
        In a worker thread.
        """
        answers: list[Answer] = []
        try:
            answers = work(self._batch())
        finally:
            self._pool.post(self._worked, answers)

    def _worked(self, answers: list[Answer]) -> None:
        self._ended()
        self._start()
        fire(answers)
        self._rest()

    # ── into new ─────────────────────────────────────────────────────────────────────────────────

    def _show(self, posting: Posting) -> None:
        """
        Link the file, which is safe, into ``new`` of all, then move it into that of the source.
        """
        self._names -= _names(posting)
        before = self._haste.now()
        left: list[Target] = []
        for target in posting.targets:
            if target.begin():
                with suppress(Exception):
                    if posting.link(target):
                        self._shown.append((posting, target))
                        continue
                left.append(target)
        source = posting.written_to
        if source.begin():
            try:
                posting.move()
            except Exception:
                posting.withdraw()
                left.append(source)
            else:
                self._shown.append((posting, source))
        else:
            posting.withdraw()
        self._haste.took_since(before)
        if left:
            self._patiently(evolve(posting, targets=left))


def _names(posting: Posting) -> int:
    """
    How many the message is to have, once it is written.
    """
    return 1 + len(posting.targets)
