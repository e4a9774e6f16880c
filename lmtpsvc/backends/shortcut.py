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

from .batch import Batch
from .common_sync import CommonSync
from .haste import Haste
from .places import Places
from .pool import Pool
from .posting import Posting
from .settings import Settings
from .syncing import Syncing
from .waits import Waits

#: Mailboxes that are shown a message in one go, at most, while everybody else waits.
MOST_TARGETS: Final = 64


class Shortcut:
    """
    Takes what can be written at once; all in the reactor thread.

    *patiently* takes what has begun so, and cannot be ended so.
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
    ) -> None:
        self._settings, self._places, self._haste = settings, places, haste
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
        device = self._device(posting)
        if device is None:
            return False
        common = self._busy.get(device)
        if common is None:
            common = self._busy[device] = self._make(device)
        return common.write(posting)

    def finish(self) -> Deferred[None]:
        """
        Fires when all that has been taken is stored, or goes the long way.
        """
        if not self._busy:
            return succeed(None)
        finished: Deferred[None] = Deferred()
        self._finishing.append(finished)
        return finished

    def _device(self, posting: Posting) -> int | None:
        """
        The one device that all targets of *posting* are on; None if it is not to be written at once.
        """
        targets, message = posting.targets, posting.message
        # What is in a file may have to be read as a whole, only to know how large it is.
        if len(targets) > MOST_TARGETS or not getattr(message, "is_in_memory", False):
            return None
        if self._settings.sharing is not None and message.is_for_all:
            return None
        octets = message.sizes(self._settings.line_ending).physical
        if not self._haste.is_at_ease(octets):
            return None
        known = self._places.known
        return self._haste.device_at_hand(
            [known(target.place) if target.quota is None else None for target in targets]
        )

    def _idle(self, common: CommonSync) -> None:
        # Another one may have taken its place, where it was idle twice: who is answered may have
        # the next message at once, and that may go the long way.
        if self._busy.get(common.device) is common:
            del self._busy[common.device]
        if not self._busy:
            finishing, self._finishing = self._finishing, []
            for finished in finishing:
                finished.callback(None)
