"""
Deadlines: what is called at some time, unless it has been called off by then.

Nearly every delivery ends long before its deadline.  One delayed call for all of them is looked after
once in minutes, where one for each would be made and cancelled with every message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

_log = Logger()

#: Seconds that are no difference: sums of times are not exact.  But nobody is called before the time:
#: what has not expired yet would be told to come again (RFC 2852).
_SAME: Final = 1e-6


class Deadlines:
    """
    Those of all deliveries of a service.  There is a delayed call as long as there are any.
    """

    __slots__ = ("_at", "_call", "_clock", "_waiting")

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: dict[Callable[[], None], float] = {}
        self._call: IDelayedCall | None = None
        # When that comes.
        self._at = 0.0

    def set(self, seconds: float, call: Callable[[], None]) -> None:
        """
        Call *call*, once, *seconds* from now.
        """
        at = self._clock.seconds() + seconds
        self._waiting[call] = at
        if self._call is None or at < self._at:
            self._wake(at)

    def drop(self, call: Callable[[], None]) -> None:
        """
        Do not call *call* any more, if it was to be.
        """
        self._waiting.pop(call, None)
        if not self._waiting and self._call is not None:
            self._call.cancel()
            self._call = None

    def _wake(self, at: float) -> None:
        self._at, wait = at, max(at - self._clock.seconds(), 0)
        if self._call is None:
            self._call = self._clock.callLater(wait, self._look)
        else:
            self._call.reset(wait)

    def _look(self) -> None:
        self._call = None
        now = self._clock.seconds() + _SAME
        for call in [call for call, at in self._waiting.items() if at <= now]:
            # One may have been dropped because of another.
            if self._waiting.pop(call, None) is not None:
                try:
                    call()
                except BaseException:
                    _log.failure("what was to be done at a deadline failed")
        if self._waiting:
            first = min(self._waiting.values())
            if self._call is None or first < self._at:
                self._wake(first)
