"""
Maildirs that have not been in use: a thread looks at them before a process writes there.

It reads what the kernel may not have in memory, makes what is not there, and removes what has been
left in ``tmp``.  That is all it does: the message then takes the short way with all others, and the
wait for the disk that makes the message safe makes its directories safe, too.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from .file_systems import FileSystem
from .group_commit import GroupCommit
from .haste import Haste
from .identity import as_user
from .places import Place, Places
from .pool import Pool
from .posting import Posting
from .syncing import Syncing
from .target import Answer

#: What is done with postings whose Maildirs have been looked at, in the reactor thread.
Seen = Callable[[list[Posting]], object]


class FirstLook:
    """
    Looks at the Maildirs of postings, many in a row, then hands these on to *seen*.
    """

    def __init__(
        self,
        pool: Pool,
        clock: IReactorTime,
        threads: int,
        places: Places,
        syncing: Syncing,
        haste: Haste,
        seen: Seen,
    ) -> None:
        self._pool, self._places, self._haste, self._seen = pool, places, haste, seen
        self._count = 0
        self._group = GroupCommit(
            pool, clock, threads, partial(syncing.whole_pays, 2), self._look_for
        )

    @property
    def is_idle(self) -> bool:
        """
        Whether nobody looks, nor waits for it.
        """
        return self._group.is_idle

    @property
    def count(self) -> int:
        """
        How many postings it has.
        """
        return self._count

    def add(self, posting: Posting) -> None:
        """
        Have the Maildirs of *posting* looked at.
        """
        self._count += 1
        self._group.add(posting, posting.message.envelope.sender.priority)

    def finish(self) -> Deferred[None]:
        """
        Fires when all that has been added has been handed on.
        """
        return self._group.finish()

    def _look_for(self, postings: list[Posting]) -> list[Answer]:
        """
        In a worker thread.
        """
        try:
            for posting in postings:
                for target in posting.targets:
                    if not target.is_cancelled:
                        self._look_at(target.place, posting.give_name())
        finally:
            self._pool.post(self._hand_on, postings)
        return []

    def _hand_on(self, postings: list[Posting]) -> None:
        # Before the group hears that the thread has ended: they are counted by others from here on.
        self._count -= len(postings)
        self._seen(postings)

    def _look_at(self, place: Place, name: str) -> None:
        seen = self._places.known(place)
        if seen is not None and self._haste.is_in_use(seen):
            return
        # Whatever is wrong with it, those find out who then have to do with it.
        with suppress(OSError):
            found = self._places.look(place, name)
            if self._haste.wants_to_see(found):
                with as_user(place.uid, place.gid):
                    file_system = FileSystem(place.directory)
                self._haste.saw(file_system)
                file_system.close()
            self._haste.saw_use(found)
