"""
IdleTimer: notices that nothing has happened for a while.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class IdleTimer:
    """
    Calls *expired* once nothing has called `touch` for *seconds*, and again after each further
    such time, until it is stopped.

    A touch only notes the time: a connection that talks all the time costs one delayed call per
    period, not one per packet.
    """

    __slots__ = ("_call", "_clock", "_expired", "_seconds", "_touched")

    def __init__(self, clock: IReactorTime, seconds: float, expired: Callable[[], None]) -> None:
        self._clock, self._seconds, self._expired = clock, seconds, expired
        self._touched = clock.seconds()
        self._call: IDelayedCall | None = clock.callLater(seconds, self._look)

    def touch(self) -> None:
        """
        Something has happened.
        """
        self._touched = self._clock.seconds()

    def stop(self) -> None:
        """
        Do not call any more.
        """
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def _look(self) -> None:
        now = self._clock.seconds()
        left = self._touched + self._seconds - now
        if left <= 0:
            self._touched, left = now, self._seconds
            self._expired()
            if self._call is None:
                return
        self._call = self._clock.callLater(left, self._look)
