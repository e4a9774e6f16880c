"""
Worker: the service in one of several processes that share the listening sockets.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from .. import replies
from ..delivery.agent import DeliveryAgent
from ..replies import Reply
from ..session.extensions import Extensions
from .counts import Counts
from .factory import LMTPFactory
from .listening import Listener
from .protocol import LMTPProtocol
from .service import LMTPService


class WorkerFactory(LMTPFactory):
    """
    Tells the other workers how many connections this one has; the limit is one for all.
    """

    def __init__(
        self, agent: DeliveryAgent, extensions: Extensions, counts: Counts, number: int
    ) -> None:
        super().__init__(agent, extensions)
        self._counts, self._number = counts, number

    def admit(self, protocol: LMTPProtocol) -> Reply | None:
        full = self._counts.total() >= self.agent.limits.connections
        refusal = super().admit(protocol)
        self._counts.set(self._number, len(self._protocols))
        return refusal or (replies.TOO_MANY_CONNECTIONS if full else None)

    def forget(self, protocol: LMTPProtocol) -> None:
        super().forget(protocol)
        self._counts.set(self._number, len(self._protocols))


@implementer(IReadDescriptor)
class Lifeline:
    """
    The reading end of a pipe whose writing end only the supervisor has: calls *cut* when that has
    gone, however it went.
    """

    def __init__(self, descriptor: int, cut: Callable[[], None]) -> None:
        self._descriptor, self._cut = descriptor, cut

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "Lifeline"

    def doRead(self) -> Any:
        # Nobody ever writes, so that this is the end; the reactor then calls connectionLost.
        return None if os.read(self._descriptor, 1) else EOFError()

    def connectionLost(self, reason: Failure) -> None:
        self._cut()


class Worker(LMTPService):
    """
    Worker *number*: stops at SIGTERM or SIGINT, from whomever and however often, and when its supervisor has
    gone.
    """

    def __init__(
        self,
        listeners: Sequence[Listener],
        factory: LMTPFactory,
        parts: Sequence[object],
        summary: str,
        at_end: Callable[[], Deferred[None]],
        reactor: Any,
        counts: Counts,
        number: int,
        lifeline: int,
    ) -> None:
        super().__init__(listeners, factory, parts, summary, at_end)
        self._reactor, self._counts, self._number = reactor, counts, number
        self._lifeline = Lifeline(lifeline, self._orphaned)
        self._told_to_stop = False

    def startService(self) -> None:
        super().startService()
        self._reactor.addReader(self._lifeline)
        self._reactor.callWhenRunning(self._heed_signals)
        self._counts.take(self._number)

    def stopService(self) -> Deferred[None]:
        self._told_to_stop = True
        self._counts.leave(self._number)
        self._reactor.removeReader(self._lifeline)
        return super().stopService()

    def _say_started(self) -> None:
        # The supervisor says where it listens, and what becomes of mail.
        self._log.info(
            "worker {number} takes connections (process {pid})",
            number=self._number,
            pid=os.getpid(),
        )

    def _refuse(self, reason: str) -> NoReturn:
        # A worker's standard error ends in the supervisor, which says it for all; Python's own ends
        # in the log by now.
        os.write(2, f"twistd lmtp: {reason}\n".encode(errors="backslashreplace"))
        raise SystemExit(1)

    def _heed_signals(self) -> None:
        """
        Twisted's own way of stopping fails when it is asked twice, as it is when a service manager
        sends SIGTERM, or a terminal SIGINT, to all processes of a service and the supervisor SIGTERM
        to its workers.  Unlike with `StopOnce`, a worker then ends with status 0, and not by the signal.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._reactor.callFromThread(self._stop_reactor))

    def _orphaned(self) -> None:
        self._log.warn("worker {number}: the supervisor has gone", number=self._number)
        self._stop_reactor()

    def _stop_reactor(self) -> None:
        if not self._told_to_stop:
            self._told_to_stop = True
            self._reactor.stop()
