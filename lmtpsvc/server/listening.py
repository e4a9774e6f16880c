"""
Listening: the sockets of the service, all of them or none.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Generator, Sequence
from typing import Any, NoReturn

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..session.connection import NO_TERMS, Terms

# RFC 2033 §5: LMTP must not be used on the TCP port of SMTP.
SMTP_PORT = 25


#: Connections that may wait to be accepted; the kernel has a limit of its own (somaxconn).
BACKLOG = 4096


class CannotStart(Exception):
    """
    The service cannot do what it was asked to; the text is one line for the operator.
    """


@frozen
class Listener:
    """
    An endpoint, the words that asked for it, and what it asks of clients.  *encrypted* ones have TLS
    from the first octet on.
    """

    words: str
    endpoint: IStreamServerEndpoint
    terms: Terms = NO_TERMS
    encrypted: bool = False


class Listening(Service):
    """
    Listens where it was told to, as long as it runs; connections are *factory*'s.
    """

    #: Who speaks, on the terminal.
    program = "twistd lmtp"
    #: What it speaks must not be on the port of SMTP (RFC 2033 §5).
    shuns_smtp_port = True

    _log = Logger(namespace="lmtpsvc.server")

    def __init__(self, listeners: Sequence[Listener], factory: Factory) -> None:
        self._listeners, self._factory = listeners, factory
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
        Listen, if that has not been done before.

        Raises:
            CannotStart: As `privilegedStartService`.
        """
        super().startService()
        if not self._ports:
            self.privilegedStartService()

    def _factory_of(self, listener: Listener) -> Factory:
        """
        What makes the protocols of its connections.
        """
        return self._factory

    @inlineCallbacks
    def _stop_listening(self) -> Generator[Deferred[Any], Any, None]:
        """
        Fires when nobody listens any more.
        """
        for port in self._ports:
            try:
                yield maybeDeferred(port.stopListening)
            except OSError as error:
                # The file of a UNIX socket is gone, or in a directory that only root may change.
                # Twisted leaves the socket open then.
                self._log.warn(
                    "{address}: {reason}", address=port.getHost(), reason=error.strerror or error
                )
                if hasattr(port, "fileno"):
                    with socket.socket(fileno=os.dup(port.fileno())) as listening:
                        listening.shutdown(socket.SHUT_RDWR)

    def _say_where(self) -> None:
        for listener, port in zip(self._listeners, self._ports, strict=True):
            self._log.info(
                "listening on {words} ({address})",
                words=listener.words,
                address=port.getHost(),
            )

    def _listen(self, listener: Listener) -> None:
        outcome: list[IListeningPort | Failure] = []
        # Every endpoint of Twisted listens, or fails to, at once.
        listener.endpoint.listen(self._factory_of(listener)).addBoth(outcome.append)
        if not outcome:
            self._refuse(f"cannot listen on {listener.words}: it takes its time")
        port = outcome[0]
        if isinstance(port, Failure):
            # The reason first: the terminal that started a daemon is shown 100 octets.
            self._refuse(
                f"{_reason(port)}: cannot listen on {listener.words};"
                " stop who listens there, or choose another with --listen"
            )
        self._ports.append(port)
        if "backlog=" not in listener.words:
            _deepen(port)
        if self.shuns_smtp_port and getattr(port.getHost(), "port", None) == SMTP_PORT:
            self._refuse(f"{listener.words} is port 25, where LMTP must not be (RFC 2033)")

    def _refuse(self, reason: str) -> NoReturn:
        """
        Do not start: say so in one line.
        """
        for port in self._ports:
            port.stopListening()
        self._ports = []
        # twistd prints the traceback of an exception, unless it is SystemExit.  A daemon's terminal
        # is gone by now, and the exception is what twistd tells there.
        if os.path.samestat(os.fstat(2), os.stat(os.devnull)):
            self._log.critical("cannot start: {reason}", reason=reason)
            # Standard error is the log, where Python would say by what way the exception has come.
            sys.excepthook = _all_but_ours(sys.excepthook)
            raise CannotStart(reason)
        raise SystemExit(f"{self.program}: {reason}")


def _all_but_ours(hook: Callable[..., object]) -> Callable[..., object]:
    """
    What tells of an exception that ends the process, as *hook* does, unless it has been told.
    """

    def tell(kind: type[BaseException], error: BaseException, traceback: object) -> None:
        if not isinstance(error, CannotStart):
            hook(kind, error, traceback)

    return tell


def _deepen(port: IListeningPort) -> None:
    """
    Let more clients wait to be accepted than the 50 of Twisted's.

    Whoever finds the queue full is not refused: its kernel tries again after a second, and a burst
    of a thousand connections takes a minute.
    """
    descriptor = getattr(port, "fileno", lambda: -1)()
    if descriptor >= 0:
        with socket.socket(fileno=os.dup(descriptor)) as same:
            same.listen(BACKLOG)


def _reason(failure: Failure) -> str:
    """
    What is wrong, without the words that a CannotListenError puts around it.
    """
    cause = getattr(failure.value, "socketError", failure.value)
    return getattr(cause, "strerror", None) or str(cause)
