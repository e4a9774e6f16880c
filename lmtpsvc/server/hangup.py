"""
SIGHUP, which asks a service to read its configuration again.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.logger import Logger


class Hangup(Service):
    """
    Calls *heed*, in the reactor thread, for each SIGHUP that comes while this runs.

    Who has taken that signal before, a program that the service is part of, keeps it.  To ignore
    it, as nohup(1) does, is not to take it: nobody dies of a reload.
    """

    _log = Logger(namespace="lmtpsvc.server")

    def __init__(self, reactor: Any, heed: Callable[[], None]) -> None:
        self._reactor, self._heed = reactor, heed
        self._before: Any = None

    def startService(self) -> None:
        super().startService()
        before = signal.getsignal(signal.SIGHUP)
        if before not in {signal.SIG_DFL, signal.SIG_IGN}:
            self._log.info("SIGHUP is somebody else's here, and does not reload")
            return
        try:
            signal.signal(signal.SIGHUP, self._came)
        except ValueError:
            # Only the main thread may; a reactor in another one belongs to somebody else.
            self._log.info("not in the main thread: SIGHUP does not reload")
            return
        self._before = before
        # A worker holds back what comes while it is still on its way here.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    def stopService(self) -> None:
        super().stopService()
        before, self._before = self._before, None
        if before is not None and signal.getsignal(signal.SIGHUP) == self._came:
            signal.signal(signal.SIGHUP, before)

    def _came(self, _number: int, _frame: object) -> None:
        # Between any two instructions of the main thread: nothing may be done here.
        self._reactor.callFromThread(self._heed)
