"""
SIGTERM and SIGINT, which ask a service to stop, and may come more than once.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from twisted.application.service import Service
from twisted.logger import Logger

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class StopOnce(Service):
    """
    Has *reactor* heed the first of these signals, as it does by itself, and no other after that: to be
    asked twice is an error to it, but an operator may be impatient, and some send a signal to a process
    and to its whole group.

    Signals that are not the reactor's stay with who has them.
    """

    _log = Logger(namespace="lmtpsvc.server")

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._stops = False

    def startService(self) -> None:
        super().startService()
        # The reactor takes the signals when it begins to run.
        self._reactor.callWhenRunning(self._take)
        self._reactor.addSystemEventTrigger("before", "shutdown", self._has_begun)

    def _take(self) -> None:
        for number in _SIGNALS:
            heed: Any = signal.getsignal(number)
            if getattr(heed, "__self__", None) is self._reactor:
                signal.signal(number, partial(self._came, heed))

    def _came(self, heed: Callable[..., object], number: int, _frame: object) -> None:
        # Between any two instructions of the main thread, which may be about to write to the log: what
        # the reactor does, and it logs, has to wait.
        self._reactor.callFromThread(self._stop, heed, number)

    def _stop(self, heed: Callable[..., object], number: int) -> None:
        if self._stops:
            self._log.info("{signal}: stopping already", signal=signal.Signals(number).name)
            return
        self._stops = True
        heed(number, None)

    def _has_begun(self) -> None:
        self._stops = True
