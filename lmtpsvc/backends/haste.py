"""
Which system calls are sure to be quick.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Final

from .calls import PATIENT, Calls, HastyCalls
from .file_systems import FileSystem
from .places import Known
from .syncing import Syncing

#: Octets of a message that may be written with the lock kept, at most.
SMALL: Final = 1 << 16

#: For so many seconds after its last mail, the kernel is expected to have a Maildir's directories in
#: memory.
WARM: Final = 60.0

# Devices that are remembered at a time; one backend seldom has more than one.
_DEVICES: Final = 1000

#: A disk that took longer than so many seconds for the latest sync, or takes longer for one that is
#: not over, has more to do than it can: what writes to it may be made to wait.
BUSY: Final = 0.05

#: For how many seconds the lock is given away then, and for how many if it happens again and again.
PAUSE: Final = 5.0
LONGEST_PAUSE: Final = 300.0


class Haste:
    """
    Decides which way to take.

    The lock is kept for files in the machine itself, in Maildirs that were used a moment ago.  Even
    there a call may block: while others write more than the disk can take, while a journal is full,
    or when the disk is about to fail.  So the lock is given away while the disk is busy, as *syncing*
    knows.  And each call is timed: after one that has blocked the lock is given away for a while, and
    for longer each time that it happens again.  May be used from any thread.

    *seconds* is a clock that never goes back.
    """

    def __init__(self, seconds: Callable[[], float], syncing: Syncing) -> None:
        self._seconds, self._syncing = seconds, syncing
        self._pause = 0.0
        self._until = -math.inf
        # When each device was last looked at, and whether it is in the machine itself.
        self._seen: dict[int, tuple[float, bool]] = {}
        self._hasty = self._made()

    def calls(self, known: Known | None, octets: int) -> Calls:
        """
        For a message of *octets* that is to be in the Maildir of which this is *known*; in a
        worker thread.
        """
        if known is None or self._hasty is None:
            return PATIENT
        is_at_hand = self.device_at_hand([known]) is not None
        may_hurry = is_at_hand and octets <= SMALL and self._is_at_ease()
        return self._hasty if may_hurry else PATIENT

    def _is_at_ease(self) -> bool:
        """
        Whether what is little can be expected to be written at once.
        """
        return self._seconds() >= self._until and not self._syncing.takes_longer_than(BUSY)

    def device_at_hand(self, maildirs: Sequence[Known | None]) -> int | None:
        """
        The device that all *maildirs* are on, as far as is known, if it is in the machine itself and
        all are in use: this counts as a use.
        """
        now, found = self._seconds(), None
        for known in maildirs:
            if known is None or now - known.used > WARM:
                return None
            if found is not None and known.device != found:
                return None
            found = known.device
            known.used = now
        seen = None if found is None else self._seen.get(found)
        return found if seen is not None and seen[1] else None

    @property
    def knows_disks(self) -> bool:
        """
        Whether a device has been seen that is in the machine itself.
        """
        # Others change it: only a list is made in one go.
        return any(is_here for _, is_here in list(self._seen.values()))

    def is_in_use(self, known: Known) -> bool:
        """
        Whether the kernel can be expected to have the Maildir's directories in memory.
        """
        return self._seconds() - known.used <= WARM

    def saw_use(self, known: Known) -> None:
        """
        Learn that a message has just been stored in the Maildir, or somebody has looked there, so that
        the kernel has its directories in memory.
        """
        known.used = self._seconds()

    def wants_to_see(self, known: Known) -> bool:
        """
        Whether it is time to find out what the Maildir is on.
        """
        seen = self._seen.get(known.device)
        return seen is None or self._seconds() - seen[0] > WARM

    def saw(self, file_system: FileSystem) -> None:
        """
        Learn what is on a device.
        """
        if len(self._seen) >= _DEVICES:
            self._seen.clear()
        self._seen[file_system.device] = (self._seconds(), file_system.is_reliable)

    def _made(self) -> Calls | None:
        try:
            calls = HastyCalls(self._seconds, self._blocked)
            here = os.open("/", os.O_RDONLY | os.O_CLOEXEC)
            try:
                return calls if calls.device(here) == os.fstat(here).st_dev else None
            finally:
                os.close(here)
        except (OSError, AttributeError):
            return None

    def _blocked(self) -> None:
        now = self._seconds()
        again = now - self._until < self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE) if again else PAUSE
        self._until = now + self._pause
