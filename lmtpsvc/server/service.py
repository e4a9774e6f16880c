"""
LMTPService: everything that starts and stops, in an order in which nothing is lost.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from typing import Any, NoReturn

from attrs import frozen
from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from .factory import LMTPFactory

# RFC 2033 §5: LMTP must not be used on the TCP port of SMTP.
SMTP_PORT = 25


class CannotStart(Exception):
    """
    The service cannot do what it was asked to; the text is one line for the operator.
    """


@frozen
class Listener:
    """
    An endpoint, and the words that asked for it.
    """

    words: str
    endpoint: IStreamServerEndpoint


class LMTPService(Service):
    """
    Listens, and delivers.

    Started before anything listens are *parts*, those that are services; when it stops, it stops
    listening first, then the connections end, then the parts: in the reverse order, and each only
    when the one before has.  *at_end* is called last.
    """

    _log = Logger(namespace="lmtpsvc.server")

    def __init__(
        self,
        listeners: Sequence[Listener],
        factory: LMTPFactory,
        parts: Sequence[object],
        summary: str,
        at_end: Callable[[], Deferred[None]],
    ) -> None:
        self._listeners, self._factory, self._summary = listeners, factory, summary
        self._parts = [IService(part) for part in parts if IService.providedBy(part)]
        self._at_end = at_end
        self._ports: list[IListeningPort] = []

    def privilegedStartService(self) -> None:
        """
        Listen, while that may need the rights of root.

        Raises:
            CannotStart: Some endpoint cannot be listened on; then none is.
        """
        super().privilegedStartService()
        for listener in self._listeners:
            self._listen(listener)

    def startService(self) -> None:
        """
        Start the parts, as the user that the service runs as.

        Raises:
            CannotStart: One of them cannot be started.
        """
        super().startService()
        if not self._ports:
            self.privilegedStartService()
        for part in self._parts:
            try:
                part.startService()
            except OSError as error:
                self._refuse(f"{error.filename or part}: {error.strerror or error}")
        for listener, port in zip(self._listeners, self._ports, strict=True):
            self._log.info(
                "listening on {words} ({address})",
                words=listener.words,
                address=port.getHost(),
            )
        self._log.info("{summary}", summary=self._summary)

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """
        Fires when every transaction has ended and everything is stopped.
        """
        yield maybeDeferred(super().stopService)
        self._log.info("stopping: no new connections, waiting for transactions in flight")
        for port in self._ports:
            yield maybeDeferred(port.stopListening)
        yield self._factory.stop()
        for part in reversed(self._parts):
            yield maybeDeferred(part.stopService)
        yield self._at_end()
        self._log.info("stopped")

    def _listen(self, listener: Listener) -> None:
        outcome: list[IListeningPort | Failure] = []
        # Every endpoint of Twisted listens, or fails to, at once.
        listener.endpoint.listen(self._factory).addBoth(outcome.append)
        if not outcome:
            self._refuse(f"cannot listen on {listener.words}: it takes its time")
        port = outcome[0]
        if isinstance(port, Failure):
            self._refuse(f"cannot listen on {listener.words}: {_reason(port)}")
        self._ports.append(port)
        if getattr(port.getHost(), "port", None) == SMTP_PORT:
            self._refuse(f"{listener.words} is port 25, where LMTP must not be (RFC 2033)")

    def _refuse(self, reason: str) -> NoReturn:
        """
        Do not start: say so in one line.
        """
        for port in self._ports:
            port.stopListening()
        self._ports = []
        self._log.critical("cannot start: {reason}", reason=reason)
        # twistd prints the traceback of an exception, unless it is SystemExit.  A daemon's terminal
        # is gone by now, and the exception is what twistd tells there.
        if os.path.samestat(os.fstat(2), os.stat(os.devnull)):
            raise CannotStart(reason)
        raise SystemExit(f"twistd lmtp: {reason}")


def _reason(failure: Failure) -> str:
    """
    What is wrong, without the words that a CannotListenError puts around it.
    """
    cause = getattr(failure.value, "socketError", failure.value)
    return getattr(cause, "strerror", None) or str(cause)
