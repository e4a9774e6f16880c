"""
Counts: how many connections each worker has, in memory that all processes of the service share.

A number that is 8 octets long, and aligned, is written and read as a whole by every processor that
Python runs on; each has one writer while its process lives, so that nothing is locked.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import Final

_SIZE: Final = 8
#: What a worker does: nothing yet, or nothing any more, or it takes connections.
_ABSENT, _TAKING, _LEAVING = range(3)


class Counts:
    """
    The table, at its file *descriptor*, for *workers* that are numbered from 1.
    """

    def __init__(self, descriptor: int, workers: int) -> None:
        self.descriptor, self.workers = descriptor, workers
        # The first says whether the service stops; then each worker has a state and a count.
        self._table = memoryview(mmap.mmap(descriptor, _SIZE * (1 + 2 * workers))).cast("q")

    @classmethod
    def create(cls, workers: int) -> Counts:
        """
        A new table.
        """
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("lmtpsvc")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, _SIZE * (1 + 2 * workers))
        return cls(descriptor, workers)

    @property
    def stopping(self) -> bool:
        """
        Whether the service stops: the sockets are closed, or are just being closed.
        """
        return bool(self._table[0])

    def stop(self) -> None:
        """
        Tell all workers that the service stops.
        """
        self._table[0] = 1

    def begun(self, number: int) -> bool:
        """
        Whether a worker has come so far as to take connections.
        """
        return self._table[2 * number - 1] != _ABSENT

    def clear(self, number: int) -> None:
        """
        A worker is gone, and so are its connections.
        """
        self._table[2 * number - 1] = _ABSENT
        self._table[2 * number] = 0

    def take(self, number: int) -> None:
        """
        A worker takes connections from now on.
        """
        self._table[2 * number - 1] = _TAKING

    def leave(self, number: int) -> None:
        """
        A worker takes no more connections; those that it has still count.
        """
        self._table[2 * number - 1] = _LEAVING

    def set(self, number: int, connections: int) -> None:
        """
        A worker has so many connections now.
        """
        self._table[2 * number] = connections

    def total(self) -> int:
        """
        The connections of the whole service.
        """
        return sum(self._table[2::2])

    def is_due(self, number: int) -> bool:
        """
        Whether none of the others that take connections has fewer than this worker.
        """
        table = self._table
        own = table[2 * number]
        return all(
            table[each + 1] >= own for each in range(1, len(table), 2) if table[each] == _TAKING
        )
