"""
What is in a directory, with few system calls: each that Python makes may cost the interpreter's lock.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Final

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

#: ``.`` and ``..`` have struct linux_dirent64 of so many octets each.
_DOTS: Final = 2 * 24

#: Octets of names that are read at a time.
_ROOM: Final = 1024


def read_some(path: str) -> os.stat_result:
    """
    Have the kernel read a directory, as far as it does at a time; returns what the directory is.

    Raises:
        OSError: It cannot be read.
    """
    descriptor = os.open(path, _DIRECTORY)
    try:
        _read(descriptor)
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def has_names(path: str) -> bool:
    """
    Whether there may be something in the directory.

    Raises:
        OSError: It cannot be read.
    """
    descriptor = os.open(path, _DIRECTORY)
    try:
        return _read(descriptor) != _DOTS
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> int:
    """
    How many octets of names there were, at most `_ROOM`; -1 if nobody can tell.

    Raises:
        OSError: It cannot be read.
    """
    names = _getdents()
    octets = -1 if names is None else names(descriptor, ctypes.create_string_buffer(_ROOM), _ROOM)
    if octets < 0:
        # It reads where there is no such call, and tells what is wrong where that has failed.
        with os.scandir(descriptor) as entries:
            next(entries, None)
    return int(octets)


@cache
def _getdents() -> ctypes._NamedFuncPointer | None:
    # In glibc since 2.30; others may not go without the lock here, as the disk may have to be read.
    return getattr(ctypes.CDLL(None), "getdents64", None)
