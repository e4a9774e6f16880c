"""
Which messages take the short way: the reactor thread writes them itself.

That must be sure to be quick, as everybody waits meanwhile: small messages, for Maildirs in use, on
disks in this machine that are not busy.  There, to hand each of them to a thread costs several times
what it takes to write it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from .batch import Batch
from .common_sync import CommonSync
from .first_look import FirstLook
from .haste import Haste
from .places import Places
from .pool import Pool
from .posting import Posting
from .settings import Settings
from .syncing import Syncing
from .target import Target, fire
from .waits import Waits

#: Mailboxes that are shown a message in one go, at most, while everybody else waits.
MOST_TARGETS: Final = 64


class Shortcut:
    """
    Takes what can be written at once; all in the reactor thread.

    *patiently* takes what has begun so, and cannot be ended so; *nobody_waits* tells whether there is
    nothing that has gone that way.
    """

    def __init__(
        self,
        pool: Pool,
        clock: IReactorTime,
        settings: Settings,
        places: Places,
        syncing: Syncing,
        waits: Waits,
        haste: Haste,
        batch: Callable[[], Batch],
        patiently: Callable[[Posting], None],
        nobody_waits: Callable[[], bool],
    ) -> None:
        self._settings, self._places, self._haste = settings, places, haste
        self._syncing, self._patiently, self._nobody_waits = syncing, patiently, nobody_waits
        self._look = FirstLook(pool, clock, settings.threads, places, syncing, haste, self._looked)
        self._make = partial(
            CommonSync,
            pool=pool,
            clock=clock,
            places=places,
            syncing=syncing,
            waits=waits,
            haste=haste,
            batch=batch,
            patiently=patiently,
            idle=self._idle,
        )
        # By device, those that have something on its way.
        self._busy: dict[int, CommonSync] = {}
        self._finishing: list[Deferred[None]] = []

    def take(self, posting: Posting) -> bool:
        """
        Store *posting*; False if it has to go the long way.
        """
        if not self._may_be_quick(posting):
            return False
        device = self._device(posting.targets)
        if device is not None:
            return self._write(posting, device)
        if not self._is_worth_a_look(posting):
            return False
        self._look.add(posting)
        return True

    def _is_worth_a_look(self, posting: Posting) -> bool:
        """
        Whether *posting* can be expected to be written at once, when its Maildirs have been looked at.
        """
        if not self._haste.knows_disks or not self._syncing.whole_pays(2):
            return False
        if not self._busy and self._look.is_idle and self._nobody_waits():
            # A lone message has nobody to share a wait with: one thread does everything.
            return False
        in_use = self._haste.is_in_use
        known = [target.known for target in posting.targets]
        return not all(each is not None and in_use(each) for each in known)

    def _looked(self, postings: list[Posting]) -> None:
        """
        Go on with those whose Maildirs have been looked at.
        """
        alone = len(postings) == 1
        for posting in postings:
            try:
                device = self._device(posting.targets) if self._may_be_quick(posting) else None
                if device is None or not self._write(posting, device, alone=alone):
                    self._patiently(posting)
            except Exception:
                # A defect of ours; the others are to be answered, too.
                failure = Failure()
                fire([(target, failure) for target in posting.targets])

    def finish(self) -> Deferred[None]:
        """
        Fires when all that has been taken is stored, or goes the long way.
        """
        return self._look.finish().addCallback(lambda _: self._finish())

    def _finish(self) -> Deferred[None]:
        if not self._busy:
            return succeed(None)
        finished: Deferred[None] = Deferred()
        self._finishing.append(finished)
        return finished

    def _write(self, posting: Posting, device: int, *, alone: bool = True) -> bool:
        common = self._busy.get(device)
        if common is None:
            common = self._busy[device] = self._make(device)
        return common.write(posting, alone=alone)

    def _may_be_quick(self, posting: Posting) -> bool:
        """
        Whether *posting* can be written at once where its Maildirs are at hand.
        """
        targets, message = posting.targets, posting.message
        # What is in a file may have to be read as a whole, only to know how large it is.
        if len(targets) > MOST_TARGETS or not getattr(message, "is_in_memory", False):
            return False
        if self._settings.sharing is not None and message.is_for_all:
            return False
        octets = message.sizes(self._settings.line_ending).physical
        return self._haste.is_at_ease(octets) and all(target.quota is None for target in targets)

    def _device(self, targets: list[Target]) -> int | None:
        """
        The one device that all *targets* are on; None if they are not all at hand.
        """
        for target in targets:
            target.known = self._places.known(target.place)
        return self._haste.device_at_hand([target.known for target in targets])

    def _idle(self, common: CommonSync) -> None:
        # Another one may have taken its place, where it was idle twice: who is answered may have
        # the next message at once, and that may go the long way.
        if self._busy.get(common.device) is common:
            del self._busy[common.device]
        if not self._busy:
            finishing, self._finishing = self._finishing, []
            for finished in finishing:
                finished.callback(None)
