"""
PastCache: writes a new file straight to the disk, past the kernel's cache (O_DIRECT).

What goes through the cache is copied there, into pages that the kernel has to find first, and is on
its way to the disk only when somebody waits for it: at the end, when there is nothing left to be
done meanwhile.  Past the cache, one piece goes to the disk while the next one comes in.

That is for what nobody is going to read at once, and where the disk takes it quickly: if not, as
where each piece waits for a platter to come round or for a server, the rest goes through the cache.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Final

#: What disks write at a time: places in memory and in the file have to be multiples of it.
BLOCK: Final = 4096

#: Octets that are written at a time, at most.
ROOM: Final = 640 << 10

#: A disk that has taken longer than this, in seconds, and as many more as it would with so many
#: octets in each, is slow.
LEEWAY: Final = 0.02
LEAST_RATE: Final = 50_000_000

#: Pieces of memory that are kept for the next who writes, at most.
_KEPT: Final = 4

# Pieces that are put together first, as they are so many: what came in small packets.
_MANY: Final = 64

_stock: list[memoryview] = []


class PastCache:
    """
    Writes to *descriptor*, an empty file.  *seconds* is a clock that never goes back.
    """

    __slots__ = ("_descriptor", "_is_direct", "_octets", "_rest", "_seconds", "_spent")

    def __init__(self, descriptor: int, seconds: Callable[[], float] = time.monotonic) -> None:
        self._descriptor, self._seconds = descriptor, seconds
        # Less than a block, that waits for more.
        self._rest = b""
        self._octets = 0
        self._spent = 0.0
        self._is_direct = True
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_DIRECT)
        except OSError:
            # There is no such thing on this file system.
            self._is_direct = False

    def write(self, pieces: list[bytes]) -> None:
        """
        Write some more; less than a block may be kept for the next time.  *pieces* is empty then, so
        that their memory is free while the disk is waited for.

        Raises:
            OSError: There is no room, or the disk is broken.
        """
        if not self._is_direct:
            octets = b"".join([self._rest, *pieces])
            self._rest = b""
            pieces.clear()
            write_all(self._descriptor, octets)
            return
        if len(pieces) > _MANY:
            pieces[:] = [b"".join(pieces)]
        with _room() as room:
            filled = len(self._rest)
            room[:filled] = self._rest
            left = memoryview(b"")
            pieces.reverse()
            while left or pieces:
                left = left or memoryview(pieces.pop())
                end = min(filled + len(left), ROOM)
                room[filled:end] = left[: end - filled]
                left, filled = left[end - filled :], end
                if filled == ROOM:
                    self._write_out(room)
                    filled = 0
            del left
            whole = filled - filled % BLOCK
            self._write_out(room[:whole])
            self._rest = bytes(room[whole:filled])

    def flush(self) -> None:
        """
        Write what has been kept.  All that comes now goes through the cache.

        Raises:
            OSError: There is no room, or the disk is broken.
        """
        self._go_through_cache()
        rest, self._rest = self._rest, b""
        write_all(self._descriptor, rest)

    def _write_out(self, octets: memoryview) -> None:
        while octets and self._is_direct:
            before = self._seconds()
            try:
                written = os.write(self._descriptor, octets)
            except OSError as error:
                # Blocks are larger here, or a write has ended within one.
                if error.errno != errno.EINVAL:
                    raise
                self._go_through_cache()
                break
            octets = octets[written:]
            self._octets += written
            self._spent += self._seconds() - before
            if self._spent > LEEWAY + self._octets / LEAST_RATE:
                self._go_through_cache()
        write_all(self._descriptor, octets)

    def _go_through_cache(self) -> None:
        if self._is_direct:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, 0)
            self._is_direct = False


def write_all(descriptor: int, octets: bytes | memoryview) -> None:
    """
    Write all *octets*.

    Raises:
        OSError: There is no room, or the disk is broken.
    """
    rest = memoryview(octets)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


@contextmanager
def _room() -> Iterator[memoryview]:
    """
    Memory that begins with a block.
    """
    try:
        room = _stock.pop()
    except IndexError:
        room = memoryview(mmap(-1, ROOM, MAP_PRIVATE | MAP_ANONYMOUS))
    try:
        yield room
    finally:
        if len(_stock) < _KEPT:
            _stock.append(room)
