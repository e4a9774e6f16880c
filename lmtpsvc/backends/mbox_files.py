"""
The files of mboxes: found or made, and looked at before anybody writes to them.

A directory such as ``/var/mail`` is full of files of different users, who may be able to make files
there themselves.  A service that is root must not be led to another file: a symbolic link, a second
name of a file, a pipe, or the file of another user is no mailbox.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Final

from attrs import frozen
from twisted.logger import Logger

from .files import make_directory, make_directory_durably, sync_directory
from .identity import as_user
from .mbox_locks import Busy

_log = Logger()

#: How many mailboxes are remembered as safe on disk; beyond, the oldest are looked at again.
REMEMBERED: Final = 100_000

# A pipe or device must neither hold us up nor become our terminal.
_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_OURSELVES: Final = nullcontext()


@frozen
class Spot:
    """
    Where one mailbox is.

    *shared* is the directory, above the file, up to which the directories are the service's own, or
    a user's home.  Where there are more below, or it is a home, they belong to *uid* and *gid*, and
    whatever is done there is done as that user, if these are known (*is_private*).
    """

    path: str
    shared: str
    is_private: bool
    uid: int | None = None
    gid: int | None = None

    @property
    def directory(self) -> str:
        """
        That of the file.
        """
        return os.path.dirname(self.path)

    def rights(self) -> AbstractContextManager[None]:
        """
        A context in which files may be made and found there.
        """
        return as_user(self.uid, self.gid) if self.is_private else _OURSELVES


class MboxFiles:
    """
    Opens mailboxes, and makes those that are not there.

    *root* is the directory in which all of them are, if there is one.  All methods may be called
    from any thread, and block.
    """

    def __init__(self, root: str | None, mode: int, directory_mode: int) -> None:
        self._root, self._mode, self._directory_mode = root, mode, directory_mode
        # By path: which file it was whose name is known to be on the disk.
        self._safe: dict[str, tuple[int, int]] = {}
        # Those whose name is not.
        self._made: set[str] = set()
        self._has_told = False
        self._lock = Lock()

    @property
    def shared_mode(self) -> int:
        """
        The mode of directories that are the service's own: users must come through root's.
        """
        mode = self._directory_mode
        return mode | 0o111 if os.geteuid() == 0 else mode

    def open(self, spot: Spot) -> int:
        """
        Return a descriptor of the mailbox, to read and to append.

        Raises:
            OSError: It cannot be opened, or is none.
        """
        with spot.rights():
            try:
                descriptor = os.open(spot.path, _FLAGS)
            except FileNotFoundError:
                descriptor = -1
        if descriptor < 0:
            descriptor = self._make(spot)
        try:
            _check(descriptor, spot)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def check_again(self, descriptor: int, spot: Spot) -> None:
        """
        Make sure, once it is locked, that *descriptor* is still the mailbox.

        Raises:
            Busy: Somebody has removed or replaced the file just now.
        """
        try:
            with spot.rights():
                seen = os.lstat(spot.path)
        except FileNotFoundError as error:
            raise Busy from error
        if not os.path.samestat(seen, os.fstat(descriptor)):
            raise Busy

    def sync_name(self, descriptor: int, spot: Spot) -> None:
        """
        Make the name of the file durable, and those of the directories that it is in; whoever made
        them may have died before he did.
        """
        seen = os.fstat(descriptor)
        identity = (seen.st_dev, seen.st_ino)
        if self._safe.get(spot.path) == identity:
            return
        directory = spot.directory
        with spot.rights():
            while len(directory) > len(spot.shared):
                self._sync(directory, spot)
                directory = os.path.dirname(directory)
        # Those above a home, or the root, are somebody else's.
        top = spot.shared if self._root is None else self._root
        while len(directory) >= len(top):
            self._sync(directory, spot)
            if directory == "/":
                break
            directory = os.path.dirname(directory)
        with self._lock:
            self._made.discard(spot.path)
            while len(self._safe) >= REMEMBERED:
                del self._safe[next(iter(self._safe))]
            self._safe[spot.path] = identity

    def tell_unmarked(self, spot: Spot) -> None:
        """
        Have it logged, once, that there can be no marks.
        """
        if not self._has_told:
            self._has_told = True
            _log.warn(
                "{path}: its file system has no extended attributes of users, so that a crash can"
                " leave the beginning of a message in a mailbox",
                path=spot.path,
            )

    def _sync(self, directory: str, spot: Spot) -> None:
        try:
            sync_directory(directory)
        except PermissionError:
            # Whoever may not read a directory cannot sync it; that matters if it changed.
            if directory == spot.directory and spot.path in self._made:
                raise

    def _make(self, spot: Spot) -> int:
        """
        Make the file, and the directories that are missing.
        """
        try:
            return self._create(spot)
        except FileNotFoundError:
            self._make_directories(spot)
            return self._create(spot)

    def _create(self, spot: Spot) -> int:
        with spot.rights():
            try:
                descriptor = os.open(spot.path, _FLAGS | os.O_CREAT | os.O_EXCL, self._mode)
            except FileExistsError:
                # Somebody else was faster.
                return os.open(spot.path, _FLAGS)
            try:
                # The umask may have taken away what the operator asked for.
                os.fchmod(descriptor, self._mode)
            except BaseException:
                os.close(descriptor)
                raise
        with self._lock:
            self._made.add(spot.path)
        return descriptor

    def _make_directories(self, spot: Spot) -> None:
        """
        Make the directories that are missing; in a home, none but those below.
        """
        if self._root is not None:
            make_directory_durably(spot.shared, self.shared_mode)
        below = os.path.relpath(spot.directory, spot.shared).split("/")
        if below == ["."]:
            return
        directory = f"{spot.shared}/{below[0]}"
        if self._root is not None:
            made = make_directory(directory, self._directory_mode)
            if made and spot.uid is not None and spot.gid is not None and os.geteuid() == 0:
                os.chown(directory, spot.uid, spot.gid, follow_symlinks=False)
        with spot.rights():
            for name in ("", *below[1:]):
                directory = os.path.join(directory, name) if name else directory
                make_directory(directory, self._directory_mode)


def _check(descriptor: int, spot: Spot) -> None:
    """
    Make sure that this is a mailbox, and that of the right user.

    Raises:
        PermissionError: It is not.
    """
    seen = os.fstat(descriptor)
    if not stat.S_ISREG(seen.st_mode):
        raise PermissionError(errno.EPERM, "not a regular file", spot.path)
    if seen.st_nlink > 1:
        raise PermissionError(errno.EPERM, "the file has more than one name", spot.path)
    if spot.uid is None or os.geteuid() != 0 or seen.st_uid == spot.uid:
        return
    if seen.st_uid != 0 or seen.st_size:
        raise PermissionError(errno.EPERM, f"it belongs to user {seen.st_uid}", spot.path)
    # Made by us, just now or by one who died then.  In a directory that passes its group on, as
    # Debian's /var/mail does, the file keeps that.
    passed_on = os.stat(spot.directory).st_mode & stat.S_ISGID
    os.fchown(descriptor, spot.uid, -1 if passed_on or spot.gid is None else spot.gid)
