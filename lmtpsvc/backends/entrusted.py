"""
Small messages that a process stores: what is sent to it, and what becomes of its answers.

Whatever does not go as it should is left to `Batch`, which takes its time, in a thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from . import letters
from .batch import Batch
from .letters import Receipt
from .places import Places
from .pool import Pool
from .posting import Posting, Shown
from .ranks import Ranks
from .syncing import Syncing
from .target import Answer, Target, fire
from .write_process import WriteProcess

_log = Logger()


@define(eq=False)
class _Found:
    """
    What has become of postings, and what is to be done about it.
    """

    answers: list[Answer] = field(factory=list)
    written: list[Posting] = field(factory=list)
    shown: list[Shown] = field(factory=list)
    again: list[Posting] = field(factory=list)
    lost: list[Posting] = field(factory=list)


class Entrusted:
    """
    What *process* has, and what waits for it; all in the reactor thread.

    *batch* makes a `Batch`, and *patiently* takes a posting that has to be stored another way.
    """

    def __init__(
        self,
        process: WriteProcess[Posting] | None,
        pool: Pool,
        places: Places,
        syncing: Syncing,
        batch: Callable[[], Batch],
        patiently: Callable[[Posting], None],
    ) -> None:
        self._process, self._pool = process, pool
        self._places, self._syncing = places, syncing
        self._batch, self._patiently = batch, patiently
        # The one device that all is for which the process has, and what waits for it.
        self._device = -1
        # For room; with the device that each is for.
        self._waiting: Ranks[tuple[Posting, int]] = Ranks()
        # Threads that do what is left to do.
        self._running = 0
        self._finishing: list[Deferred[None]] = []
        if process is not None:
            process.told = self._told

    @property
    def is_idle(self) -> bool:
        """
        Whether nothing is on its way.
        """
        return not (self._running or self._waiting) and (
            self._process is None or self._process.is_idle
        )

    def start(self) -> None:
        """
        Have the process started, soon, if it is not, and can be of use.
        """
        if self._process is not None and self._syncing.whole_pays(2):
            self._process.start()

    def take(self, posting: Posting, device: int) -> bool:
        """
        Have *posting*, of which all targets are on *device*, stored; False if it cannot be done so:
        nothing has been changed then.
        """
        process = self._process
        if process is None or not process.is_there or not self._syncing.whole_pays(2):
            return False
        if device != self._device:
            if self._waiting or not process.is_idle:
                # One disk that hangs is not to keep the mail that is for another.
                return False
            self._device = device
        if self._waiting or not self._send(process, posting, device):
            self._waiting.add((posting, device), _priority(posting))
        return True

    def finish(self) -> Deferred[None]:
        """
        Fires when all that has been taken is stored, or goes another way.
        """
        if self.is_idle:
            return succeed(None)
        finished: Deferred[None] = Deferred()
        self._finishing.append(finished)
        return finished

    def allow(self) -> None:
        """
        The process may be started, also after a `stop`.
        """
        if self._process is not None:
            self._process.allow()

    def stop(self) -> None:
        """
        End the process; the pool must be stopped after that.
        """
        if self._process is not None:
            self._process.stop()

    # ── there ────────────────────────────────────────────────────────────────────────────────────

    def _send(self, process: WriteProcess[Posting], posting: Posting, device: int) -> bool:
        """
        Send *posting*; False if there is no room for it just now.
        """
        # From here on it cannot be called off: the process asks nobody any more.
        targets = [target for target in posting.targets if target.begin()]
        if not targets:
            return True
        posting.targets = targets
        try:
            is_sent = self._sent(process, posting, device)
        except Exception:
            # Batch finds out what it is, and tells.
            self._store_again([posting])
            return True
        if not is_sent:
            _put_off(posting)
        return is_sent

    def _sent(self, process: WriteProcess[Posting], posting: Posting, device: int) -> bool:
        """
        The same, where nothing is done about what goes wrong.
        """
        source = posting.targets[0]
        place, known = source.place, source.known
        assert posting.whole is not None, "it is small"
        tmp = posting.begin_in(source)
        posting.device = device
        new: list[str] = []
        together = False
        for target in posting.targets:
            new.append(posting.new(target))
            together = together or target.known is None or not target.known.is_safe
        return process.send(
            posting,
            posting.whole[0],
            device,
            together=together,
            mode=posting.settings.file_mode,
            uid=place.uid,
            gid=place.gid,
            tmp=tmp,
            new=new,
            inode=0 if known is None else known.inode,
        )

    def _send_on(self) -> None:
        """
        Send what waits, as far as there is room; or have it stored another way, if the process does not
        get on.
        """
        process = self._process
        while self._waiting and process is not None:
            posting, device = self._waiting.take()
            if not process.is_there:
                self._patiently(posting)
            elif not self._send(process, posting, device):
                self._waiting.put_back((posting, device), _priority(posting))
                return

    # ── and back ─────────────────────────────────────────────────────────────────────────────────

    def _told(self, told: list[tuple[Posting, int, list[int]]], receipt: Receipt) -> None:
        """
        Keep the process busy first, then tell what is safe.
        """
        if receipt.whole is not None:
            self._syncing.saw_whole(receipt.whole)
        if receipt.each is not None:
            self._syncing.saw_each(receipt.each)
        self._send_on()
        found = _Found()
        for posting, what, refused in told:
            try:
                self._sort(found, posting, what, refused, receipt.tells_since)
            except Exception:
                # A defect of ours; the others are to be answered, too.
                failure = Failure()
                found.answers += [(target, failure) for target in posting.targets]
        if receipt.lost:
            self._doubt(receipt.lost, [each[0] for each in told])
        if found.written or found.shown:
            self._have_done(lambda batch: batch.carry_on(found.written, found.shown))
        if found.lost:
            # If the disk has lost something, it was the process that was told.
            self._places.doubt()
            self._have_done(lambda batch: batch.find_out(found.lost, self._store_again))
        self._store_again(found.again)
        fire(found.answers)
        self._rest()

    def _doubt(self, error: int, postings: list[Posting]) -> None:
        self._places.doubt()
        _log.warn(
            "{directory}: syncfs failed ({error}), syncing one by one",
            directory=postings[0].written_to.place.directory,
            error=os.strerror(error),
        )

    def _store_again(self, postings: list[Posting]) -> None:
        """
        Nothing of them is there: they are stored another way, if anybody still waits for that.
        """
        for posting in postings:
            _put_off(posting)
            self._patiently(posting)

    def _sort(
        self,
        found: _Found,
        posting: Posting,
        what: int,
        refused: list[int],
        told_since: float,
    ) -> None:
        if what == letters.NOTHING:
            found.again.append(posting)
            return
        # No wait for all has followed since it was given a name, or none that is certain.
        posting.may_be_deleted = what in {letters.UNKNOWN, letters.SHOWN}
        if what == letters.UNKNOWN:
            found.lost.append(posting)
            return
        if what == letters.WRITTEN:
            del posting.targets[0]
            found.written.append(posting)
            return
        targets = posting.targets
        if refused:
            left = [targets[index] for index in refused]
            targets = [target for target in targets if target not in left]
            found.again.append(evolve(posting, targets=left))
        # The first last, for which the replies of the others wait: they leave together.
        for target in reversed(targets):
            if what == letters.SAFE and self._is_taken_for_safe(target, told_since):
                found.answers.append((target, posting.codes(target)))
            else:
                found.shown.append((posting, target))

    def _is_taken_for_safe(self, target: Target, told_since: float) -> bool:
        # The directories were there before the message, so the disk has them, too.
        if not self._places.take_for_safe(target.place, target.known, told_since):
            return False
        if self._places.is_untidy(target.place):
            self._pool.run(partial(self._places.tidy, target.place))
        return True

    # ── what is left to do ───────────────────────────────────────────────────────────────────────

    def _have_done(self, work: Callable[[Batch], list[Answer]]) -> None:
        """
        Have a thread do *work*: all that is left to do.
        """
        self._running += 1
        self._pool.run(partial(self._work, work))

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
        self._running -= 1
        fire(answers)
        self._rest()

    def _rest(self) -> None:
        if self._finishing and self.is_idle:
            finishing, self._finishing = self._finishing, []
            for finished in finishing:
                finished.callback(None)


def _priority(posting: Posting) -> int:
    return posting.message.envelope.sender.priority


def _put_off(posting: Posting) -> None:
    for target in posting.targets:
        target.put_off()
