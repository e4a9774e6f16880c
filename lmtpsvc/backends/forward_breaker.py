"""
Breaker: who could not be reached is not tried again for everybody who asks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

#: So many failures in a row, and a destination counts as down.
ENOUGH: Final = 3


class Breaker:
    """
    Counts how often a destination could not be reached.  When it is down, one delivery in *retry*
    seconds may find out whether it still is; all others are told so at once.
    """

    def __init__(self, seconds: Callable[[], float], retry: float) -> None:
        self._seconds, self._retry = seconds, retry
        self._failures = 0
        self._next_try = 0.0

    @property
    def is_down(self) -> bool:
        """
        It could not be reached, several times in a row.
        """
        return self._failures >= ENOUGH

    @property
    def is_refusing(self) -> bool:
        """
        Nobody may try now.
        """
        return self.is_down and self._seconds() < self._next_try

    def may_try(self) -> bool:
        """
        Whether to try now; who is told so does.
        """
        if not self.is_down:
            return True
        if self.is_refusing:
            return False
        self._next_try = self._seconds() + self._retry
        return True

    def reached(self) -> bool:
        """
        It answered; returns whether it was down before.
        """
        was_down, self._failures = self.is_down, 0
        return was_down

    def not_reached(self) -> bool:
        """
        It did not; returns whether it is down only now.
        """
        self._failures += 1
        self._next_try = self._seconds() + self._retry
        return self._failures == ENOUGH
