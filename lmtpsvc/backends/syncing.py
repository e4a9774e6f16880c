"""
How things are made durable: one by one, or all that is on a file system at once.

One fsync waits for the disk to have one file.  syncfs(2) waits until it has everything that was
written to a file system: for many files that is one wait instead of many, and one journal commit.
It tells of a lost write only once, to whoever asks first, so each file is asked for its own errors
after it.

It is no bargain while somebody else writes gigabytes to the same file system.  So both ways are
timed, and what each has cost of late decides.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

#: How much the newest measurement counts.
_WEIGHT: Final = 0.2

#: After so many seconds a bad experience with syncfs counts half: the backup may have ended.
_HALF_LIFE: Final = 5.0

#: What one fsync and one syncfs take as long as nothing is known, in seconds.
_GUESS: Final = 0.001


#: The file systems (statfs(2)) whose syncfs does for each file what fsync does: ext2 to ext4, XFS,
#: Btrfs, F2FS, bcachefs, tmpfs.  On FUSE, CIFS and 9P it never reaches the server, and on overlayfs
#: it does not hear of errors.
_RELIABLE: Final = frozenset({0xEF53, 0x58465342, 0x9123683E, 0xF2F52010, 0xCA451A4E, 0x01021994})

#: What it is taken to cost on any other, in seconds, so that it is not tried for a minute.
_UNRELIABLE: Final = 50.0

#: For sync_file_range(2): wait for what is on its way.
_WAIT_BEFORE: Final = 1


class Syncing:
    """
    Chooses the way, and remembers what it cost.  May be used from any thread: a measurement lost to
    a race is no harm.

    *seconds* is a clock that never goes back.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._each = _GUESS
        self._whole = _GUESS
        self._whole_at = seconds()

    def whole_pays(self, count: int) -> bool:
        """
        Whether *count* files or directories had better be made durable at once.
        """
        if count < 2 or not can_sync_file_systems():
            return False
        age = self._seconds() - self._whole_at
        return bool(self._whole * 0.5 ** (age / _HALF_LIFE) < count * self._each)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """
        Around what waits for one file or directory.
        """
        before = self._seconds()
        yield
        self._each += _WEIGHT * (self._seconds() - before - self._each)

    def whole(self, directory: str) -> None:
        """
        Wait until the disk has all that was written to the file system of *directory*.

        Raises:
            OSError: It does not, or it is not known whether it does.
        """
        before, penalty = self._seconds(), 0.0
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if _file_system(descriptor) not in _RELIABLE:
                penalty = _UNRELIABLE
                raise OSError(errno.EOPNOTSUPP, "syncfs is no promise on this file system")
            _syncfs(descriptor)
            # Without a journal, ext4 empties the disk's own cache before the last directory blocks
            # are on their way.  An fsync empties it behind them.
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            now = self._seconds()
            self._whole += _WEIGHT * (now - before + penalty - self._whole)
            self._whole_at = now


def check_written(descriptor: int) -> None:
    """
    Make sure that no write to the file has failed, after `Syncing.whole`.

    Another thread or process that calls syncfs first is told of the error, and then nobody else is.
    The file remembers it for the first who asks there, and only we do.

    Raises:
        OSError: What went wrong when it was written.
    """
    _sync_file_range(descriptor)


@cache
def can_sync_file_systems() -> bool:
    """
    Whether syncfs is there, and tells of errors: Linux before 5.8 says yes whatever happened.
    """
    release = os.uname().release.split(".")
    try:
        told = (int(release[0]), int(release[1].split("-")[0])) >= (5, 8)
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
