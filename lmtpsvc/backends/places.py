"""
The directories of Maildirs: made when the first mail comes, so that they survive a power cut.
"""

from __future__ import annotations

import math
import os
import stat
import time
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Final

from attrs import field, frozen

from .files import (
    make_directory,
    make_directory_durably,
    remove_older,
    sync_directory,
    touch,
)
from .identity import as_user
from .listing import has_names, read_some

#: How many Maildirs are remembered as safe on disk; beyond, the oldest are looked at again.
REMEMBERED: Final = 100_000

# Octets of a directory that are read at a time, at the least.
_ONE_READ: Final = 4096

# As many directories of domains, say, are remembered as being there; then it begins anew.
_SHARED: Final = 10_000

#: https://cr.yp.to/proto/maildir.html: a file in tmp not touched for so long is a leftover.
STALE_SECONDS: Final = 36 * 3600

#: How often the leftovers in one Maildir are looked for.
TIDY_SECONDS: Final = 24 * 3600


@frozen
class Place:
    """
    One Maildir: the INBOX's, or that of a folder within.

    *shared* is the directory, above or the same, up to which the directories are the service's own;
    those below belong to *uid* and *gid*, where these are known.
    """

    directory: str
    inbox: str
    shared: str
    uid: int | None = None
    gid: int | None = None
    #: For the same Maildir, of the same owner, the same; and for the same owner.
    key: Hashable = field(init=False, eq=False, repr=False)
    owner: Hashable = field(init=False, eq=False, repr=False)

    @owner.default
    def _its_owner(self) -> Hashable:
        return self.uid, self.gid

    @key.default
    def _its_key(self) -> Hashable:
        return self.directory, self.uid, self.gid


class Known:
    """
    A Maildir that is there, as far as this process knows: which ``new`` it was when last looked at,
    whether all directories that lead to it are safe on disk, when it was last used, and when
    leftovers were looked for, in seconds.

    *since* is a time before it was found or made, on the clock of `time.monotonic`: what was lost of
    it was lost after that.
    """

    __slots__ = ("device", "inode", "is_safe", "since", "tidied", "used")

    def __init__(
        self,
        new: os.stat_result,
        tidied: float,
        *,
        is_safe: bool,
        since: float = -math.inf,
    ) -> None:
        self.device, self.inode, self.since = new.st_dev, new.st_ino, since
        self.is_safe = is_safe
        self.used = -math.inf
        self.tidied = tidied


class Places:
    """
    Knows which Maildirs are there and safe, and makes those that are not.

    *root* is the directory in which all of them are, if there is one; *mode* that of a Maildir's
    directories.  All methods may be called from any thread, and block.
    """

    def __init__(self, root: str | None, mode: int, seconds: Callable[[], float]) -> None:
        self._root, self._mode, self._seconds = root, mode, seconds
        # By directory.
        self._known: dict[str, Known] = {}
        # Directories that are the service's own, and were there when last looked at.
        self._there: set[str] = set()
        # A wait for all has failed: what was made before may be lost, and later ones do not tell.
        self._in_doubt = False
        self._lock = Lock()

    @property
    def shared_mode(self) -> int:
        """
        The mode of directories that are the service's own.

        If that is root, there may be mailboxes of other users, who must be able to come through.
        """
        return self._mode | 0o111 if os.geteuid() == 0 else self._mode

    def is_safe(self, place: Place) -> bool:
        """
        Whether the Maildir was there, and safe on disk, when last looked at.
        """
        known = self._known.get(place.directory)
        return known is not None and known.is_safe

    def known(self, place: Place) -> Known | None:
        """
        What is known of the Maildir, if it was there when last looked at.
        """
        return self._known.get(place.directory)

    def look(self, place: Place, name: str = "") -> Known:
        """
        See to it that the Maildir is there, and that the kernel has its directories in memory, where a
        message called *name* will need them; what is made is not safe on disk yet, as with `make`.

        Raises:
            OSError: It is not, and cannot be made.
        """
        known = self._known.get(place.directory)
        if known is None and place.directory != place.inbox:
            # The INBOX's directories have to be there, too.
            known = self.make(place, durably=False)
        now, since = self._seconds(), time.monotonic()
        try:
            with as_user(place.uid, place.gid):
                new = self._read(place, name, -math.inf if known is None else known.tidied)
        except FileNotFoundError:
            return self.make(place, durably=False)
        if known is None or (known.device, known.inode) != (new.st_dev, new.st_ino):
            known = self._remember(place, new, now, since, is_safe=False)
        return known

    def make(self, place: Place, *, durably: bool = True) -> Known:
        """
        Make the Maildir, as far as it is not there; if *durably*, wait until it is safe on disk.

        What is there already is synced too: the process that made it may have died before it did.
        If not *durably*, `sync` or `have_become_safe` must follow.
        """
        with self._lock:
            # What was known is not about what is made now; it may even have the same number.
            self._known.pop(place.directory, None)
        try:
            return self._make_all(place, durably)
        except FileNotFoundError:
            if self._root is None:
                raise
            # Somebody has removed what was there; and another thread may have found out, too.
            self._there.discard(place.shared)
            return self._make_all(place, durably)

    def _make_all(self, place: Place, durably: bool) -> Known:
        made: set[str] = set()
        since = time.monotonic()
        shared = self._make_shared(place, made)
        private = _below(place.shared, place.directory)
        if shared and place.uid is not None and place.gid is not None:
            self._give(private[0], place.uid, place.gid, made)
        with as_user(place.uid, place.gid):
            for directory in private:
                self._make(directory, self._mode, made)
            new = self._fill(place, made)
            if durably:
                _sync([*([] if shared else [place.shared]), *private, *_leaves(place)], made)
        if durably:
            _sync(shared, made)
        # Nobody has left anything in what is new.
        is_tidy = os.path.join(place.directory, "tmp") in made
        tidied = self._seconds() if is_tidy else -TIDY_SECONDS
        return self._remember(place, new, tidied, since, is_safe=durably)

    def have_become_safe(
        self, place: Place, known: Known | None, told_since: float = -math.inf
    ) -> None:
        """
        Remember that the Maildir is safe on disk, as all waits for all that tell of what was lost since
        *told_since* say; *known* is what was known of it before.

        Raises:
            OSError: It is not: somebody has made another one meanwhile, or the waits do not tell, and it
            cannot be made safe.
        """
        if not self.take_for_safe(place, known, told_since) and not self.is_safe(place):
            self.make(place)

    def take_for_safe(
        self, place: Place, known: Known | None, told_since: float = -math.inf
    ) -> bool:
        """
        As `have_become_safe`, without a wait: False, and nothing is done, if it is another one by
        now, or if it may have been lost and the waits do not tell: as it was found before they did, or
        as one has failed.
        """
        if known is None or self._known.get(place.directory) is not known:
            return False
        if not known.is_safe and (self._in_doubt or known.since < told_since):
            return False
        known.is_safe = True
        return True

    def doubt(self) -> None:
        """
        A wait for all has failed: directories are made safe one by one from now on.
        """
        self._in_doubt = True

    def sync(self, place: Place) -> None:
        """
        Make what has been put into ``new`` durable.
        """
        with as_user(place.uid, place.gid):
            new = sync_directory(place.directory + "/new")
        known = self._known.get(place.directory)
        there = (new.st_dev, new.st_ino)
        if known is None or not known.is_safe or (known.device, known.inode) != there:
            # Nobody knows whether it is: it has only been looked at, or somebody has replaced it.
            self.make(place)

    def is_untidy(self, place: Place) -> bool:
        """
        Whether it is time to `tidy`; says so once.
        """
        known = self._known.get(place.directory)
        now = self._seconds()
        if known is None or now - known.tidied < TIDY_SECONDS:
            return False
        known.tidied = now
        return True

    def tidy(self, place: Place) -> None:
        """
        Remove what deliveries that did not end left in ``tmp``.
        """
        with as_user(place.uid, place.gid):
            remove_older(os.path.join(place.directory, "tmp"), self._seconds() - STALE_SECONDS)

    def _make_shared(self, place: Place, made: set[str]) -> list[str]:
        """
        Make the directories that are the service's own; returns them, from the root down.
        """
        if self._root is None:
            # A home directory that is not there is more likely a mount that failed than a new user.
            return []
        shared = _below(self._root, place.shared)
        if place.shared not in self._there:
            if not os.path.isdir(self._root):
                make_directory_durably(self._root, self.shared_mode)
            for directory in shared:
                self._make(directory, self.shared_mode, made)
            if len(self._there) >= _SHARED:
                self._there.clear()
            self._there.add(place.shared)
        return [self._root, *shared]

    def _make(self, directory: str, mode: int, made: set[str]) -> None:
        if make_directory(directory, mode):
            made.add(directory)

    def _give(self, directory: str, uid: int, gid: int, made: set[str]) -> None:
        """
        Make the topmost directory of a user, where only the service may, and give it to him.
        """
        with self._lock:
            self._make(directory, self._mode, made)
            if directory in made and os.geteuid() == 0:
                os.chown(directory, uid, gid, follow_symlinks=False)

    def _fill(self, place: Place, made: set[str]) -> os.stat_result:
        """
        Make what a Maildir consists of, in the INBOX's and in the folder's; returns what the ``new`` is.
        """
        leaves = [
            path for path in _leaves(place) if make_directory(path, self._mode, exactly=False)
        ]
        new = os.stat(place.directory + "/new")
        if (
            place.directory != place.inbox
            or place.directory + "/new" not in leaves
            or stat.S_IMODE(new.st_mode) != self._mode
        ):
            # What takes away from one of them, or adds, does so for all that are made there now.
            for path in leaves:
                os.chmod(path, self._mode)
        made.update(leaves)
        if place.directory != place.inbox and place.directory in made:
            # Tells Courier's deliverquota that the quota is that of the directory above.
            touch(place.directory + "/maildirfolder", file_mode(self._mode))
        return new

    def _read(self, place: Place, name: str, tidied: float) -> os.stat_result:
        """
        Read what a message will need that comes into the Maildir, and remove leftovers, if they were last
        looked for long ago.

        Raises:
            FileNotFoundError: One of the directories is missing.
        """
        tmp, now = os.path.join(place.directory, "tmp"), self._seconds()
        new = read_some(place.directory + "/new")
        os.stat(place.directory + "/cur")
        if new.st_size > _ONE_READ:
            # The part of it where the name will be is another one.
            os.path.lexists(f"{place.directory}/new/{name}")
        if has_names(tmp) and now - tidied >= TIDY_SECONDS:
            remove_older(tmp, now - STALE_SECONDS)
        return new

    def _remember(
        self, place: Place, new: os.stat_result, tidied: float, since: float, *, is_safe: bool
    ) -> Known:
        known = Known(new, tidied, is_safe=is_safe, since=since)
        with self._lock:
            while len(self._known) >= REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known[place.directory] = known
        return known


def file_mode(mode: int) -> int:
    """
    The mode of files in directories of *mode*.
    """
    return mode & 0o666


def _below(top: str, bottom: str) -> list[str]:
    """
    The directories below *top*, down to *bottom*.
    """
    found = []
    while len(bottom) > len(top):
        found.append(bottom)
        bottom = os.path.dirname(bottom)
    return found[::-1]


def _leaves(place: Place) -> list[str]:
    """
    What a Maildir consists of, the INBOX's and the folder's.
    """
    inboxes = {place.inbox, place.directory}
    return [f"{inbox}/{name}" for inbox in inboxes for name in ("tmp", "new", "cur")]


def _sync(directories: list[str], made: set[str]) -> None:
    """
    Sync *directories*, the last first, so that nothing safe stands in something that is not.
    """
    for directory in reversed(directories):
        try:
            sync_directory(directory)
        except PermissionError:
            # Whoever may not read a directory cannot sync it; that matters if it changed.
            if any(os.path.dirname(path) == directory for path in made):
                raise
