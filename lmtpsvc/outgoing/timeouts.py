"""
How long a client waits for a server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ..session.outcomes import Stage


@frozen
class Timeouts:
    """
    Seconds that each reply may take: those of RFC 5321 §4.5.3.2, which are least values for mail
    that crosses the world.  A server next door may be given less.
    """

    connect: float = 30.0
    greeting: float = 300.0
    #: LHLO, STARTTLS, AUTH, XCLIENT, XFORWARD, and the TLS handshake.
    hello: float = 300.0
    mail: float = 300.0
    rcpt: float = 300.0
    data: float = 120.0
    #: Until the server has taken the next piece of the text.
    text: float = 180.0
    #: From the end of the text to a reply, and from each reply to the next.
    message: float = 600.0
    rset: float = 30.0
    quit: float = 5.0

    def seconds(self, stage: Stage) -> float:
        """
        How long what is waited for at *stage* may take.
        """
        return float(getattr(self, _NAMES.get(stage, "hello")))


_NAMES: Final = {
    Stage.CONNECT: "connect",
    Stage.GREETING: "greeting",
    Stage.MAIL: "mail",
    Stage.RCPT: "rcpt",
    Stage.DATA: "data",
    Stage.TEXT: "text",
    Stage.MESSAGE: "message",
    Stage.RSET: "rset",
    Stage.QUIT: "quit",
}


class Patience:
    """
    Calls *expired* when what is waited for has not come.

    To wait anew mostly notes the time only: a connection where much is said costs one delayed call
    now and then, not one per reply.
    """

    __slots__ = ("_call", "_clock", "_deadline", "_expired")

    def __init__(self, clock: IReactorTime, expired: Callable[[], None]) -> None:
        self._clock, self._expired = clock, expired
        self._deadline: float | None = None
        self._call: IDelayedCall | None = None

    def wait(self, seconds: float | None) -> None:
        """
        Give it *seconds* from now; None is for ever.
        """
        if seconds is None:
            self._deadline = None
            return
        self._deadline = deadline = self._clock.seconds() + seconds
        if self._call is None:
            self._call = self._clock.callLater(seconds, self._look)
        elif self._call.getTime() > deadline:
            self._call.cancel()
            self._call = self._clock.callLater(seconds, self._look)

    def stop(self) -> None:
        """
        Leave no call behind.
        """
        self._deadline = None
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        self._call = None
        if self._deadline is None:
            return
        left = self._deadline - self._clock.seconds()
        if left > 0:
            self._call = self._clock.callLater(left, self._look)
        else:
            self._deadline = None
            self._expired()
