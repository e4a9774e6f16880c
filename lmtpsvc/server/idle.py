"""
IdleWatch: notices that nothing has happened on a connection for a while.
"""

from __future__ import annotations

from typing import Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

_log = Logger(namespace="lmtpsvc.server")

#: All connections are looked at together, at most so many times within the time in question: that
#: late one may be noticed.
LOOKS: Final = 100


class Watched(Protocol):
    """
    A connection, that notes in *touched* at what time something has happened, in seconds of the
    clock.
    """

    touched: float

    def idle_too_long(self) -> None: ...


class IdleWatch:
    """
    Tells each connection that it watches once nothing has happened there for *seconds*, and again
    after each further such time, until it is let go.

    There is one delayed call for all, and as long as there are any: connections that come and go
    cost none.
    """

    __slots__ = ("_call", "_clock", "_watched", "seconds")

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        self.seconds = seconds
        self._clock = clock
        self._watched: set[Watched] = set()
        self._call: IDelayedCall | None = None

    def watch(self, connection: Watched) -> None:
        """
        From now on.
        """
        connection.touched = self._clock.seconds()
        self._watched.add(connection)
        if self._call is None:
            self._call = self._clock.callLater(self.seconds, self._look)

    def let_go(self, connection: Watched) -> None:
        """
        No more.
        """
        self._watched.discard(connection)
        if not self._watched and self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        self._call = None
        now = self._clock.seconds()
        idle = [each for each in self._watched if each.touched + self.seconds <= now]
        for each in idle:
            # One may have been let go because of another.
            if each in self._watched:
                each.touched = now
                try:
                    each.idle_too_long()
                except Exception:
                    _log.failure("a silent connection could not be told so")
        if self._watched and self._call is None:
            first = min(each.touched for each in self._watched) + self.seconds
            wait = max(first - now, self.seconds / LOOKS)
            self._call = self._clock.callLater(wait, self._look)
