"""
How things are made durable: one by one, or all that is on a file system at once.

One fsync waits for the disk to have one file.  syncfs(2) waits until it has everything that was
written to a file system: for many files that is one wait instead of many, and one journal commit.

It is no bargain while somebody else writes gigabytes to the same file system.  So both ways are
timed, and what each has cost of late decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from .file_systems import FileSystem, can_sync_file_systems

#: How much the newest measurement counts.
_WEIGHT: Final = 0.2

#: After so many seconds a bad experience with syncfs counts half: what somebody has written before we
#: came is on the disk, now that it has been waited for; but the next one may be bad, too, and the more
#: there are, the longer a backup will take.
_SHORT_HALF_LIFE: Final = 0.06
_HALF_LIFE: Final = 5.0

#: What one fsync and one syncfs take as long as nothing is known, in seconds.
_GUESS: Final = 0.001

#: One wait for many may take so many times as long as theirs together: one thread waits then, where
#: several would take turns with the reactor.
_WORTH: Final = 2

#: What syncfs is taken to cost where it is no promise, in seconds, so that it is not tried for a
#: minute.
_UNRELIABLE: Final = 50.0


class Wait:
    """
    One that is not over.
    """

    __slots__ = ()


class Syncing:
    """
    Chooses the way, and remembers what it cost.  May be used from any thread: a measurement lost to
    a race is no harm.

    *seconds* is a clock that never goes back.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        # What the latest wait took, in seconds; and since when each that is not over has lasted.
        self._latest = 0.0
        self._waiting: dict[Wait, float] = {}
        self._each = _GUESS
        self._whole = _GUESS
        self._whole_at = seconds()
        self._half_life = _SHORT_HALF_LIFE / 2

    def whole_pays(self, count: int) -> bool:
        """
        Whether *count* files or directories had better be made durable at once.
        """
        if count < 2 or not can_sync_file_systems():
            return False
        most = _WORTH * count * self._each
        # It is expected to take less and less: what it was at last may do.
        return self._whole < most or self._whole_at_time(self._seconds()) < most

    def takes_longer_than(self, seconds: float) -> bool:
        """
        Whether the latest wait has taken, or one that is not over takes, more than so many
        *seconds*.
        """
        if self._latest > seconds:
            return True
        # Others change it: only a list is made in one go (a garbage collection may come between a tuple
        # and what goes into it).
        begun = min(list(self._waiting.values()), default=None)
        return begun is not None and self._seconds() - begun > seconds

    @contextmanager
    def timed(self) -> Iterator[None]:
        """
        Around what waits for one file or directory.
        """
        wait = self.begin()
        try:
            yield
            self.saw_each(self._seconds() - self._waiting[wait])
        finally:
            self.forget(wait)

    def whole(self, file_system: FileSystem, *, finally_: bool = True) -> None:
        """
        Wait until the disk has all that was written to *file_system*, see `FileSystem.sync`.

        Raises:
            OSError: It has not, or it is not known whether it has.
        """
        wait = self.begin()
        try:
            file_system.sync(finally_=finally_)
        finally:
            penalty = 0.0 if file_system.is_reliable else _UNRELIABLE
            self._learn(self._waiting.pop(wait), penalty)

    def begin(self) -> Wait:
        """
        Somebody waits from now on, until `forget`.
        """
        wait = Wait()
        self._waiting[wait] = self._seconds()
        return wait

    def saw_each(self, seconds: float) -> None:
        """
        Somebody else has waited for one file or directory for so many *seconds*.
        """
        self._latest = seconds
        self._each += _WEIGHT * (seconds - self._each)

    def saw_whole(self, seconds: float) -> None:
        """
        Somebody else has waited for all of a file system for so many *seconds*.
        """
        self._learn(self._seconds() - seconds, 0.0)

    def _learn(self, begun: float, penalty: float) -> None:
        """
        Of a wait for all since *begun*, which is over.
        """
        now = self._seconds()
        self._latest = took = now - begun
        much = 2 * _WORTH * self._each
        is_bad = took + penalty > much
        # A good one counts with what was expected, not with what one had cost long ago: one bad
        # experience would outlive many good ones, where those come seldom because of it.  Bad ones add
        # up: where each is bad, they are to come as seldom as they can.
        before = self._whole if is_bad else self._whole_at_time(begun)
        self._whole = before + _WEIGHT * (took + penalty - before)
        self._whole_at = now
        if penalty:
            self._half_life = _HALF_LIFE
        elif is_bad:
            self._half_life = min(2 * self._half_life, _HALF_LIFE)
        elif self._whole <= much:
            # Unless it is good of one file system, and another one has just been bad.
            self._half_life = _SHORT_HALF_LIFE / 2

    def _whole_at_time(self, now: float) -> float:
        """
        What a wait for all that begins *now* is expected to take, in seconds.
        """
        age = max(now - self._whole_at, 0.0)
        return float(self._whole * 0.5 ** (age / self._half_life))

    def forget(self, wait: Wait) -> None:
        """
        It is over, and tells nothing of how long one takes.
        """
        del self._waiting[wait]
