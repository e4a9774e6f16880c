"""
How things are made durable: one by one, or all that is on a file system at once.

One fsync waits for the disk to have one file.  syncfs(2) waits until it has everything that was
written to a file system: for many files that is one wait instead of many, and one journal commit.
It is no bargain while somebody else writes gigabytes to the same file system.  So both ways are
timed, and what each has cost of late decides.
"""

from __future__ import annotations

import ctypes
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
        before = self._seconds()
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _syncfs(descriptor)
            # Without a journal, ext4 empties the disk's own cache before the last directory blocks
            # are on their way.  An fsync empties it behind them.
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            now = self._seconds()
            self._whole += _WEIGHT * (now - before - self._whole)
            self._whole_at = now


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
    return told and os.uname().sysname == "Linux" and hasattr(_library(), "syncfs")


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _syncfs(descriptor: int) -> None:
    if _library().syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
