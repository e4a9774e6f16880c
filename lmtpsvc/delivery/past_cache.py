"""
PastCache: writes a new file straight to the disk, past the kernel's cache (O_DIRECT).

What goes through the cache is copied there, into pages that the kernel has to find first, and is on
its way to the disk only when somebody waits for it: at the end, when there is nothing left to be
done meanwhile.  Past the cache, one piece goes to the disk while the next one comes in.

Whoever has the text puts it into a `Room`, which the disk takes it from: the thread that writes has
nothing to copy, and hardly needs Python's lock.

That is for what nobody is going to read at once, and where the disk takes it quickly: if not, as
where each piece waits for a platter to come round or for a server, the rest goes through the cache.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Final

#: What disks write at a time: places in memory and in the file have to be multiples of it.
BLOCK: Final = 4096

#: Octets that come at a time, at most, where much does.
READ: Final = 320 << 10

#: Octets that are written at a time, at most: what comes twice.
ROOM: Final = 2 * READ

#: A disk that has taken longer than this, in seconds, and as many more as it would with so many
#: octets in each, is slow.
LEEWAY: Final = 0.02
LEAST_RATE: Final = 50_000_000

#: So many rooms are many: where they wait for the disk, they are enough to keep it busy; and the memory
#: of as many is kept for the next ones.
MANY: Final = 6

_stock: list[memoryview] = []

# An entry for each room that somebody has, and for each that is full: a list is what several threads can
# add to and take from.
_taken: list[None] = []
_full: list[None] = []


class Room:
    """
    Memory for `ROOM` octets of a file, where a disk can take it from.  One thread at a time has it.
    """

    __slots__ = ("_is_full", "_memory", "filled")

    def __init__(self) -> None:
        #: Octets that are there.
        self.filled = 0
        self._is_full = False
        self._memory: memoryview | None = None
        try:
            self._memory = _stock.pop()
        except IndexError:
            self._memory = memoryview(mmap(-1, ROOM, MAP_PRIVATE | MAP_ANONYMOUS))
        _taken.append(None)

    def __del__(self) -> None:
        self.let_go()

    @property
    def octets(self) -> memoryview:
        """
        All that is there.
        """
        assert self._memory is not None, "it has not been let go"
        return self._memory[: self.filled]

    def fill(self, octets: bytes) -> bytes:
        """
        Take *octets*, or as many as there is room for; returns the others.
        """
        assert self._memory is not None, "it has not been let go"
        start = self.filled
        end = start + len(octets)
        if end <= ROOM:
            self._memory[start:end] = octets
            self.filled = end
            return b""
        taken = ROOM - start
        self._memory[start:] = octets[:taken]
        self.filled = ROOM
        return octets[taken:]

    def cut(self) -> bytes:
        """
        Take out, and return, what is behind the last whole block.
        """
        end = self.filled - self.filled % BLOCK
        rest = bytes(self.octets[end:])
        self.filled = end
        return rest

    def close(self) -> None:
        """
        No more is to come: it waits for the disk.
        """
        self._is_full = True
        _full.append(None)

    def let_go(self) -> None:
        """
        What is there is needed no more.
        """
        memory, self._memory = self._memory, None
        if memory is not None:
            _taken.pop()
            if self._is_full:
                _full.pop()
            if len(_stock) < MANY:
                _stock.append(memory)


def many_are_taken() -> bool:
    """
    Whether many have rooms; a client that has stopped in the middle may keep one for long.
    """
    return len(_taken) >= MANY


def many_wait() -> bool:
    """
    Whether as many rooms as are of use wait for the disk.  Those that are being filled do not count: a
    client that has stopped in the middle is not to slow the others down.
    """
    return len(_full) >= MANY


class PastCache:
    """
    Writes to *descriptor*, an empty file.  *seconds* is a clock that never goes back.
    """

    __slots__ = ("_descriptor", "_is_direct", "_octets", "_seconds", "_spent")

    def __init__(self, descriptor: int, seconds: Callable[[], float] = time.monotonic) -> None:
        self._descriptor, self._seconds = descriptor, seconds
        self._octets = 0
        self._spent = 0.0
        self._is_direct = True
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_DIRECT)
        except OSError:
            # There is no such thing on this file system.
            self._is_direct = False

    def write(self, room: Room) -> None:
        """
        Write what is in *room*, which is let go.  After one that does not end with a whole block, all
        goes through the cache.

        Raises:
            OSError: There is no room, or the disk is broken.
        """
        octets = room.octets
        end = len(octets) - len(octets) % BLOCK
        self._write_out(octets[:end])
        if end < len(octets):
            self.go_through_cache()
            write_all(self._descriptor, octets[end:])
        octets.release()
        room.let_go()

    def go_through_cache(self) -> None:
        """
        All that is written from now on goes through the cache.
        """
        if self._is_direct:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, 0)
            self._is_direct = False

    def _write_out(self, octets: memoryview) -> None:
        while octets and self._is_direct:
            before = self._seconds()
            try:
                written = os.write(self._descriptor, octets)
            except OSError as error:
                # Blocks are larger here, or a write has ended within one.
                if error.errno != errno.EINVAL:
                    raise
                self.go_through_cache()
                break
            octets = octets[written:]
            self._octets += written
            self._spent += self._seconds() - before
            if self._spent > LEEWAY + self._octets / LEAST_RATE:
                self.go_through_cache()
        write_all(self._descriptor, octets)


def write_all(descriptor: int, octets: bytes | memoryview) -> None:
    """
    Write all *octets*.

    Raises:
        OSError: There is no room, or the disk is broken.
    """
    rest = memoryview(octets)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
