"""
What waits for a thread, the most urgent first (RFC 6710).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import chain
from threading import Lock
from typing import Final, Generic, TypeVar

T = TypeVar("T")

#: RFC 6710 §3.
HIGHEST: Final = 9

#: One in so many is taken by turns, from the least urgent up: they wait longer, but not for ever.
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
        self._usual_order = range(len(self._all))
        # Whose turn it was last, in what is taken by turns.
        self._last = len(self._all)

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

    def put_back(self, item: T, priority: int = 0) -> None:
        """
        Let *item*, which was taken last, be the next of its priority again.
        """
        with self._lock:
            self._all[HIGHEST - priority].appendleft(item)
            if priority != 0:
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
            for number in self._by_turns() if self._turns % TURN == 0 else self._usual_order:
                rank = self._all[number]
                try:
                    item = rank.popleft()
                except IndexError:
                    continue
                if rank is not self._usual:
                    self._others -= 1
                if self._turns % TURN == 0:
                    self._last = number
                return item
        return self._usual.popleft()

    def _by_turns(self) -> Iterable[int]:
        """
        Up from the one behind that which had the last turn, and on from the least urgent.
        """
        return chain(range(self._last - 1, -1, -1), range(len(self._all) - 1, self._last - 1, -1))
