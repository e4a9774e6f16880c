"""
What waits for a thread, the most urgent first (RFC 6710).
"""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import Final, Generic, TypeVar

T = TypeVar("T")

#: RFC 6710 §3.
HIGHEST: Final = 9

#: One in so many is taken from the other end: the least urgent wait longer, but not for ever.
TURN: Final = 8


class Ranks(Generic[T]):
    """
    Items with a priority from -9 to 9.  Those of one priority are taken in the order in which they
    came.

    May be used from any thread.  As long as all have priority 0, which is the usual, it costs no
    more than the deque that it is then.
    """

    def __init__(self) -> None:
        self._usual: deque[T] = deque()
        # In the order in which they are taken.
        self._all: tuple[deque[T], ...] = tuple(
            self._usual if number == HIGHEST else deque() for number in range(2 * HIGHEST + 1)
        )
        # What follows changes under the lock only; to look at it without is to be early or late.
        self._lock = Lock()
        self._others = 0
        self._turns = 0

    def __len__(self) -> int:
        return len(self._usual) + self._others

    def add(self, item: T, priority: int = 0) -> None:
        """
        Let *item* wait.
        """
        if priority == 0:
            self._usual.append(item)
            return
        with self._lock:
            self._all[HIGHEST - priority].append(item)
            self._others += 1

    def take(self) -> T:
        """
        Take the next item.

        Raises:
            IndexError: There is none.
        """
        if not self._others:
            try:
                return self._usual.popleft()
            except IndexError:
                # One of another priority may just have come.
                if not self._others:
                    raise
        with self._lock:
            self._turns += 1
            ranks = reversed(self._all) if self._turns % TURN == 0 else self._all
            for rank in ranks:
                try:
                    item = rank.popleft()
                except IndexError:
                    continue
                if rank is not self._usual:
                    self._others -= 1
                return item
        return self._usual.popleft()
