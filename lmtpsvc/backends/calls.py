"""
The system calls that put a message into its place, in two ways.

Python gives the interpreter's lock away around every system call, and in a busy service the reactor
takes it at once: for a call of two microseconds the thread then waits for two others to change
places.  A call that is sure to be quick costs less with the lock kept.  But one that blocks would
hold up the whole service, so that is for what this machine has at hand only: see `haste`.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Final, Protocol

#: What takes longer than so many seconds has blocked; Python lets a thread that does nothing but
#: calculate have the lock for a quarter of it.
SLOW: Final = 0.02


class Calls(Protocol):
    """
    As `os` has them; `device` is which device a file is on.
    """

    def open(self, path: str, flags: int, mode: int) -> int: ...

    def write(self, descriptor: int, octets: bytes) -> int: ...

    def device(self, descriptor: int) -> int: ...

    def close(self, descriptor: int) -> None: ...

    def link(self, source: str, target: str) -> None: ...

    def rename(self, source: str, target: str) -> None: ...


class _Patient:
    """
    Others may go on meanwhile.
    """

    def open(self, path: str, flags: int, mode: int) -> int:
        return os.open(path, flags, mode)

    def write(self, descriptor: int, octets: bytes) -> int:
        return os.write(descriptor, octets)

    def device(self, descriptor: int) -> int:
        return os.fstat(descriptor).st_dev

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def link(self, source: str, target: str) -> None:
        os.link(source, target)

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)


class HastyCalls:
    """
    With the interpreter's lock kept; *seconds* is a clock, and *blocked* is called when a call has
    taken long.

    Raises:
        AttributeError: The C library has not got what it takes.
    """

    def __init__(self, seconds: Callable[[], float], blocked: Callable[[], None]) -> None:
        library = ctypes.PyDLL(None, use_errno=True)
        number, path = ctypes.c_int, ctypes.c_char_p
        self._open = _declared(library.open, number, path, number, ctypes.c_uint)
        self._write = _declared(library.write, ctypes.c_ssize_t, number, path, ctypes.c_size_t)
        self._fstat = _declared(library.fstat, number, number, ctypes.c_void_p)
        self._close = _declared(library.close, number, number)
        self._link = _declared(library.link, number, path, path)
        self._rename = _declared(library.rename, number, path, path)
        self._seconds, self._blocked = seconds, blocked

    def open(self, path: str, flags: int, mode: int) -> int:
        before = self._seconds()
        descriptor = self._open(os.fsencode(path), flags, mode)
        if self._seconds() - before > SLOW:
            self._took_long()
        if descriptor < 0:
            raise _error(path)
        return int(descriptor)

    def write(self, descriptor: int, octets: bytes) -> int:
        before = self._seconds()
        written = self._write(descriptor, octets, len(octets))
        if self._seconds() - before > SLOW:
            self._took_long()
        if written < 0:
            raise _error()
        return int(written)

    def device(self, descriptor: int) -> int:
        # One for each call, as other threads may be here, too.
        seen = _Stat()
        if self._fstat(descriptor, seen):
            raise _error()
        return seen[0]

    def close(self, descriptor: int) -> None:
        if self._close(descriptor):
            raise _error()

    def link(self, source: str, target: str) -> None:
        before = self._seconds()
        failed = self._link(os.fsencode(source), os.fsencode(target))
        if self._seconds() - before > SLOW:
            self._took_long()
        if failed:
            raise _error(target)

    def rename(self, source: str, target: str) -> None:
        before = self._seconds()
        failed = self._rename(os.fsencode(source), os.fsencode(target))
        if self._seconds() - before > SLOW:
            self._took_long()
        if failed:
            raise _error(target)

    def _took_long(self) -> None:
        # Who asks for it next is to hear of the call.
        number = ctypes.get_errno()
        self._blocked()
        ctypes.set_errno(number)


# Larger than struct stat is anywhere; the device comes first where a long has 64 bits.
_Stat = ctypes.c_ulong * 64


def _declared(
    function: ctypes._NamedFuncPointer, result: type, *arguments: type
) -> ctypes._NamedFuncPointer:
    function.restype, function.argtypes = result, arguments
    return function


def _error(path: str | None = None) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), path)


#: The way that is always right.
PATIENT: Final[Calls] = _Patient()
