"""
One message for several mailboxes: written once, and linked into each.

The message is written to ``tmp`` of one mailbox, and the disk is waited for.  If that is the only
mailbox, the file is renamed into ``new``; else it is linked into the ``new`` of each, by several
threads, and removed from ``tmp`` when all are done.  Each mailbox is answered as soon as its own
``new`` is synced.  Where there can be no link, the mailbox gets a copy.

All runs in worker threads.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from functools import partial
from itertools import count
from typing import Final

from .files import remove
from .identity import as_user
from .posting import Posting
from .target import Target

#: Mailboxes that one thread links into before it syncs them, one after the other.
PIECE: Final = 8

# What link(2) says where a copy may still succeed: another file system, too many links, links to
# others' files forbidden (fs.protected_hardlinks), a file system that has no links, the file gone.
_NO_LINK: Final = (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.ENOENT)


def deliver(posting: Posting, targets: Sequence[Target]) -> None:
    """
    Store the message in all *targets*, which belong to the same user and group.
    """
    for number, source in enumerate(targets, start=1):
        # One that cannot be written to must not be in the way of the others.
        if source.is_cancelled or not posting.attempt(source, posting.write):
            continue
        others = targets[number:]
        if others:
            _Sharing(posting, source).spread(others)
        else:
            posting.attempt(source, posting.show)
        return


class _Sharing:
    """
    The file in ``tmp`` of *source*, for as long as others are linked to it.
    """

    def __init__(self, posting: Posting, source: Target) -> None:
        self._posting, self._source = posting, source
        self._path = posting.path(source, "tmp")
        self._rest: list[Target] = []
        # next() is atomic, so that exactly one thread finds that it is the last.
        self._finished = count(1)
        self._pieces = 0

    def spread(self, others: Sequence[Target]) -> None:
        """
        Link the file into all, the source's own ``new`` first.
        """
        run, linked = self._posting.pool.run, list[Target]()
        self._posting.attempt(self._source, partial(self._link_or_leave, linked))
        if self._rest:
            # There are no links here.  So whoever is left over below is never the source, and each
            # round has fewer than the one before.
            for target in others:
                run(partial(deliver, self._posting, [target]))
            self._posting.attempt(self._source, self._posting.show)
            return
        starts = range(PIECE - 1, len(others), PIECE)
        self._pieces = 1 + len(starts)
        for start in starts:
            run(partial(self._store, others[start : start + PIECE], []))
        self._store(others[: PIECE - 1], linked)

    def _store(self, targets: Sequence[Target], linked: list[Target]) -> None:
        """
        Link into one piece of the targets, then sync each.

        A journal writes all that was done before the first sync with it, and has little to do for
        the others.
        """
        try:
            for target in targets:
                self._posting.attempt(target, partial(self._link_or_leave, linked))
            for target in linked:
                self._posting.attempt(target, self._posting.settle)
        finally:
            if next(self._finished) == self._pieces:
                self._finish()

    def _link_or_leave(self, linked: list[Target], target: Target) -> None:
        posting = self._posting
        if not posting.places.is_safe(target.place):
            posting.places.make(target.place)
        if target.begin():
            (linked if self._link(target) else self._rest).append(target)

    def _link(self, target: Target) -> bool:
        """
        Link the file into ``new``; False if there can be no link.
        """
        place, new = target.place, self._posting.path(target, "new")
        with as_user(place.uid, place.gid):
            try:
                os.link(self._path, new)
            except OSError as error:
                if error.errno not in _NO_LINK:
                    raise
                return False
        return True

    def _finish(self) -> None:
        """
        Remove the file from ``tmp``; those who could not have a link share the next copy.
        """
        place = self._source.place
        with as_user(place.uid, place.gid):
            remove(self._path)
        if self._rest:
            self._posting.pool.run(partial(deliver, self._posting, self._rest))
