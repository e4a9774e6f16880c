"""
Lane: what one destination gets of us at a time, and in which order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred, succeed

from ..backends.forward_breaker import Breaker

#: Nobody is put off for longer, in seconds, without being asked again.
LONGEST: Final = 1800.0
#: So many times as many are let come back as will have been served: who comes in vain is put off once
#: more, which costs little; who comes too late leaves a server idle.
_MORE: Final = 4
#: Nobody comes back sooner, in seconds.
_AT_LEAST: Final = 0.5
#: What a delivery is thought to take before there was one, in seconds.
_FIRST: Final = 0.02
#: How much the latest delivery says of how long they take.
_WEIGHT: Final = 0.2


class Lane:
    """
    Lets up to *width* deliveries to one destination be on their way, while up to *most* more wait.
    *retry* is the pause in seconds between attempts to reach one that is down; *seconds* a clock.
    """

    def __init__(self, seconds: Callable[[], float], width: int, most: int, retry: float) -> None:
        self._seconds, self._width, self._most = seconds, width, most
        self.breaker = Breaker(seconds, retry)
        self._active = 0
        # Of those active, who have left while somebody is being let in.
        self._free = 0
        self._is_calling = False
        self._waiting: deque[Deferred[None]] = deque()
        #: What a delivery takes, in seconds, as far as we know.
        self._usual = _FIRST
        self._last_turn = 0.0

    @property
    def is_idle(self) -> bool:
        """
        Nobody is in it.
        """
        return not self._active and not self._waiting

    @property
    def is_full(self) -> bool:
        """
        So many wait that the next had better come later.
        """
        return len(self._waiting) >= self._most

    def enter(self) -> Deferred[None]:
        """
        Fires when one may begin; `leave` has to be called then.  It can be cancelled.
        """
        if self._active < self._width:
            self._active += 1
            return succeed(None)
        turn: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(turn)
        return turn

    def leave(self, took: float) -> None:
        """
        One has ended, after so many seconds.
        """
        self._usual += _WEIGHT * (took - self._usual)
        self._free += 1
        if self._is_calling:
            # Whoever was let in has left again at once: the loop goes on with the next, rather than
            # each inside the one before.
            return
        self._is_calling = True
        try:
            while self._free and self._waiting:
                self._free -= 1
                self._waiting.popleft().callback(None)
        finally:
            self._is_calling = False
        self._active -= self._free
        self._free = 0

    def turn(self) -> float:
        """
        In how many seconds it would be the turn of one who is put off.

        Each who asks is given another moment, some way behind that of the one before: so they come
        back one by one, and not all together to be sent away again.
        """
        now = self._seconds()
        pace = max(self._usual, 0.001) / self._width / _MORE
        earliest = now + pace * len(self._waiting)
        self._last_turn = max(self._last_turn, earliest) + pace
        if self._last_turn > now + LONGEST:
            self._last_turn = earliest
        return min(_AT_LEAST + self._last_turn - now, LONGEST)
