"""
Which messages take the short way: a process stores them.

It does one thing after the other, so that must be sure to be quick: small messages, for Maildirs in
use, on disks in this machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from .entrusted import Entrusted
from .first_look import FirstLook
from .haste import Haste
from .places import Known, Places
from .pool import Pool
from .posting import Posting
from .settings import Settings
from .syncing import Syncing
from .target import Target, fire

#: Octets of a message that the process may write while all others wait, at most.
MODEST: Final = 1 << 18

#: Mailboxes that are shown a message in one go, at most, while all others wait.
MOST_TARGETS: Final = 64


#: Where so many messages are on their way at a time, a process that stores them is worth its memory.
MANY: Final = 3


class Shortcut:
    """
    Takes what a process can store; all in the reactor thread.

    *patiently* takes what has to go the long way after all; *others* tells how many are on that way.
    """

    def __init__(
        self,
        pool: Pool,
        clock: IReactorTime,
        settings: Settings,
        places: Places,
        syncing: Syncing,
        haste: Haste,
        entrusted: Entrusted,
        patiently: Callable[[Posting], None],
        others: Callable[[], int],
    ) -> None:
        self._settings, self._places, self._haste = settings, places, haste
        self._syncing, self._patiently, self._others = syncing, patiently, others
        self._entrusted = entrusted
        self._look = FirstLook(pool, clock, settings.threads, places, syncing, haste, self._looked)

    def take(self, posting: Posting) -> bool:
        """
        Store *posting*; False if it has to go the long way.
        """
        if not self._is_small(posting):
            return False
        device = self._device(posting.targets)
        if device is not None:
            if self._entrusted.take(posting, device):
                return True
            self._start_if_many(1)
            return False
        if not self._is_worth_a_look(posting):
            return False
        self._look.add(posting)
        return True

    def _start_if_many(self, more: int) -> None:
        """
        Have the process started where many messages are on their way, *more* than others know of.
        """
        if more + self._look.count + self._others() >= MANY:
            self._entrusted.start()

    def _is_worth_a_look(self, posting: Posting) -> bool:
        """
        Whether *posting* can be expected to be written at once, when its Maildirs have been looked at.
        """
        if not self._haste.knows_disks or not self._syncing.whole_pays(2):
            return False
        if self._entrusted.is_idle and self._look.is_idle and not self._others():
            # A lone message has nobody to share a wait with: one thread does everything.
            return False
        in_use = self._haste.is_in_use
        known = [target.known for target in posting.targets]
        return not all(each is not None and in_use(each) for each in known)

    def _looked(self, postings: list[Posting]) -> None:
        """
        Go on with those whose Maildirs have been looked at.
        """
        self._start_if_many(len(postings))
        for posting in postings:
            try:
                device = self._device(posting.targets)
                if device is None or not self._entrusted.take(posting, device):
                    self._patiently(posting)
            except Exception:
                # A defect of ours; the others are to be answered, too.
                failure = Failure()
                fire([(target, failure) for target in posting.targets])

    def finish(self) -> Deferred[None]:
        """
        Fires when all that has been taken is stored, or goes the long way.
        """
        return self._look.finish().addCallback(lambda _: self._entrusted.finish())

    def _is_small(self, posting: Posting) -> bool:
        """
        Whether *posting* can be sent to the process where its Maildirs are at hand.
        """
        targets, message, settings = posting.targets, posting.message, self._settings
        if len(targets) > MOST_TARGETS or (settings.sharing is not None and message.is_for_all):
            return False
        for target in targets:
            if target.quota is not None:
                return False
        # What is in a file may have to be read as a whole, only to know how large it is.
        # Others may have made one that passes on what is asked of it: it speaks for itself only.
        in_memory = getattr(type(message), "in_memory", None)
        whole = None if in_memory is None else in_memory(message, settings.line_ending)
        if whole is None or len(whole[0]) > MODEST:
            return False
        posting.whole = whole
        return True

    def _device(self, targets: list[Target]) -> int | None:
        """
        The one device that all *targets* are on; None if they are not all at hand.
        """
        maildirs: list[Known | None] = []
        for target in targets:
            target.known = known = self._places.known(target.place)
            maildirs.append(known)
        return self._haste.device_at_hand(maildirs)
