"""
LMTPService: everything that starts and stops, in an order in which nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from twisted.application.service import IService
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.protocol import Factory

from .factory import LMTPFactory
from .listening import Listener, Listening


class LMTPService(Listening):
    """
    Listens, and delivers.

    Started before anything listens are *parts*, those that are services; when it stops, it stops
    listening first, then the connections end, then the parts: in the reverse order, and each only
    when the one before has.  *at_end* is called last.
    """

    _factory: LMTPFactory

    def __init__(
        self,
        listeners: Sequence[Listener],
        factory: LMTPFactory,
        parts: Sequence[object],
        summary: str,
        at_end: Callable[[], Deferred[None]],
    ) -> None:
        super().__init__(listeners, factory)
        self._summary = summary
        self._parts = [IService(part) for part in parts if IService.providedBy(part)]
        self._at_end = at_end

    def startService(self) -> None:
        """
        Start the parts, as the user that the service runs as.

        Raises:
            CannotStart: One of them cannot be started.
        """
        super().startService()
        for part in self._parts:
            try:
                part.startService()
            except OSError as error:
                self._refuse(f"{error.filename or type(part).__name__}: {error.strerror or error}")
        self._say_started()

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """
        Fires when every transaction has ended and everything is stopped.
        """
        yield maybeDeferred(super().stopService)
        self._log.info("stopping: no new connections, waiting for transactions in flight")
        yield self._stop_listening()
        yield self._factory.stop()
        for part in reversed(self._parts):
            yield maybeDeferred(part.stopService)
        yield self._at_end()
        self._log.info("stopped")

    def _factory_of(self, listener: Listener) -> Factory:
        return self._factory.on(listener.terms, encrypted=listener.encrypted)

    def _say_started(self) -> None:
        self._say_where()
        self._log.info("{summary}", summary=self._summary)
