"""
A file system that is written to, and what makes all that is on it durable: syncfs(2).

Linux counts the writes that a file system has lost, and remembers with each open file how far the
count was when it was opened: syncfs tells of every one since then, whoever else has asked meanwhile
(errseq_t, Linux 5.8 and newer); and since Linux 5.17 also of a journal that cannot be written.  So the
descriptor is opened before the first write.

What was lost before that, and somebody else was told of, it does not tell.  That can be a directory in
which something is written now, if there is no journal; see `FileSystem.tells_since`.
"""

from __future__ import annotations

import ctypes
import errno
import math
import os
import time
from functools import cache
from typing import Final

_EXT: Final = 0xEF53
_XFS: Final = 0x58465342
_BTRFS: Final = 0x9123683E
_F2FS: Final = 0xF2F52010
_BCACHEFS: Final = 0xCA451A4E
_TMPFS: Final = 0x01021994

#: The file systems (statfs(2)) whose syncfs does for each file what fsync does: ext2 to ext4, XFS,
#: Btrfs, F2FS, bcachefs, tmpfs.  On FUSE, CIFS and 9P it never reaches the server, and on overlayfs
#: it does not hear of errors.  All of them are in the machine itself: none waits for a server.
_RELIABLE: Final = frozenset({_EXT, _XFS, _BTRFS, _F2FS, _BCACHEFS, _TMPFS})

#: Those that always have a journal, or a tree that does for one: the disk's cache is emptied behind
#: the last thing that syncfs writes.
_JOURNALED: Final = frozenset({_XFS, _BTRFS})

#: For sync_file_range(2): wait for what is on its way.
_WAIT_BEFORE: Final = 1

#: Where each journal of an ext3 or ext4 that is mounted has a directory, ``sda1-8``.
_JOURNALS: Final = "/proc/fs/jbd2"

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class FileSystem:
    """
    That of *directory*, which it keeps open until `close`: it cannot be unmounted so long.

    Raises:
        OSError: There is no such directory.
    """

    __slots__ = (
        "_descriptor",
        "_is_journaled",
        "_opened",
        "device",
        "directory",
        "is_reliable",
        "kind",
    )

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._descriptor = os.open(directory, _DIRECTORY)
        self._opened = time.monotonic()
        # As soon as it is known; it stays so until the file system is unmounted.
        self._is_journaled: bool | None = None
        try:
            #: As stat(2) has it.
            self.device = os.fstat(self._descriptor).st_dev
            self.kind = _file_system(self._descriptor)
        except BaseException:
            os.close(self._descriptor)
            raise
        #: Whether it is one of ours, known to keep what `sync` promises, and in this machine.
        self.is_reliable = self.kind in _RELIABLE

    def sync(self, *, finally_: bool) -> None:
        """
        Wait until the disk has all that was written so far.

        Without a journal, syncfs empties the disk's own cache before the last directories and
        inodes are on their way to it.  An fsync empties it behind them; it is done only *finally_*,
        that is, unless another `sync` follows before anybody is told.

        Raises:
            OSError: It has not, or it is not known whether it has.
        """
        if not self.is_reliable:
            raise OSError(errno.EOPNOTSUPP, "syncfs is no promise on this file system")
        _syncfs(self._descriptor)
        if self._needs_fsync(finally_=finally_):
            os.fsync(self._descriptor)

    def _needs_fsync(self, *, finally_: bool) -> bool:
        """
        Whether `sync` is done only when the directory has been synced, too.
        """
        return finally_ and not self.has_journal

    @property
    def has_journal(self) -> bool:
        """
        Whether it is known to have one, or a tree that does for one.
        """
        if self._is_journaled is None:
            in_itself = self.kind == _EXT and _journal(self.device)
            self._is_journaled = in_itself or self.kind in _JOURNALED
        return self._is_journaled

    @property
    def tells_since(self) -> float:
        """
        `sync` tells of each directory that has been lost since then, a time on the clock of
        `time.monotonic`.

        A journal takes directories in the order in which they were made, or nothing any more: if a
        name in them is safe, they are.  Without one, the kernel must have had somebody to tell.
        """
        return -math.inf if self.has_journal else self._opened

    def close(self) -> None:
        """
        Let it be unmounted.
        """
        os.close(self._descriptor)


def check_written(descriptor: int) -> None:
    """
    Make sure that no write to a file has failed that was made before its file system was opened,
    after `FileSystem.sync`.

    Somebody else may have been told of the error, and then nobody else is.  The file remembers it
    for the first who asks there, and only we do.

    Raises:
        OSError: What went wrong when it was written.
    """
    _sync_file_range(descriptor)


def _journal(device: int) -> bool:
    """
    Whether the ext3 or ext4 on *device* has a journal in itself.
    """
    name = _name(device)
    # Its inode is number 8 unless somebody has seen to something else; then nothing is gained.
    return name is not None and os.path.isdir(f"{_JOURNALS}/{name}-8")


def _name(device: int) -> str | None:
    """
    What the kernel calls a block device now, as in ``/sys/block``; None for what is none.
    """
    numbers = f"{os.major(device)}:{os.minor(device)}"
    try:
        return os.path.basename(os.readlink(f"/sys/dev/block/{numbers}"))
    except OSError:
        return None


@cache
def can_sync_file_systems() -> bool:
    """
    Whether syncfs is there, and tells of errors: Linux before 5.8 says yes whatever happened, and
    before 5.17 when it was the file system itself that could not be written, as where ext4 or XFS have
    given up their journal: names that have just been given are lost then.
    """
    release = os.uname().release.split(".")
    try:
        told = (int(release[0]), int(release[1].split("-")[0])) >= (5, 17)
    except (IndexError, ValueError):
        return False
    there = all(hasattr(_library(), name) for name in ("syncfs", "sync_file_range", "fstatfs"))
    return told and os.uname().sysname == "Linux" and there


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _syncfs(descriptor: int) -> None:
    _succeed(_library().syncfs(descriptor))


def _sync_file_range(descriptor: int) -> None:
    whole = ctypes.c_int64(0), ctypes.c_int64(0)
    _succeed(_library().sync_file_range(descriptor, *whole, ctypes.c_uint(_WAIT_BEFORE)))


def _file_system(descriptor: int) -> int:
    """
    The magic number of the file system: f_type, which is the first in struct statfs.
    """
    # Larger than the struct is anywhere.
    room = (ctypes.c_long * 64)()
    _succeed(_library().fstatfs(descriptor, room))
    return int(room[0]) & 0xFFFFFFFF


def _succeed(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
