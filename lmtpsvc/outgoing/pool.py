"""
Pool: the connections to one destination, kept and used again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from attrs import evolve, frozen
from twisted.internet import defer, error
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..replies import Reply
from ..session.client_events import Ended
from ..session.outcomes import Stage
from ..session.terms import TLS, Terms
from ..wire.heard_replies import HeardReply
from .connecting import connect
from .delivery import Delivery
from .encryption import Encryption
from .protocol import ClientProtocol
from .timeouts import Timeouts

_log = Logger()

# Who cancels is our own timeout, or somebody who does not wait for the answer any more.  Twisted's
# endpoints say so with an error of their own, which is not a CancelledError.
_OUT_OF_TIME: Final = (
    defer.TimeoutError,
    defer.CancelledError,
    error.ConnectingCancelledError,
    error.TimeoutError,
    error.TCPTimedOutError,
)

_CLOSED: Final = Reply(451, "The client is shutting down, try again later", (3, 2))


@frozen
class PoolLimits:
    """
    What one destination gets of us.
    """

    #: Connections at the same time; further deliveries wait for one.
    connections: int = 10
    #: Messages over one connection.
    messages: int = 1000
    #: Seconds that a connection is kept with nothing to send.
    idle_seconds: float = 30.0


class Pool:
    """
    Sends deliveries to *endpoint*, each over a connection of its own for the time that it takes.

    A connection that is kept may have been closed by the server, which shows when the next message
    is begun: if nothing at all was answered, that message is sent once more, over a new connection.
    """

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        terms: Terms,
        clock: IReactorTime,
        *,
        encryption: Encryption | None = None,
        timeouts: Timeouts | None = None,
        limits: PoolLimits | None = None,
        overhear: Callable[[str, HeardReply], None] | None = None,
    ) -> None:
        self._endpoint, self._terms, self._clock = endpoint, terms, clock
        self._encryption = encryption or Encryption()
        self._timeouts = timeouts or Timeouts()
        self._limits = limits or PoolLimits()
        self._overhear = None if overhear is None else _harmless(overhear)
        self._waiting: deque[Delivery] = deque()
        self._idle: list[ClientProtocol] = []
        self._open: set[ClientProtocol] = set()
        # What a new connection is for, until it is ready.
        self._first: dict[ClientProtocol, _Errand] = {}
        self._connecting: dict[_Errand, Deferred[IProtocol]] = {}
        self._is_filling = self._is_closed = False
        self._closed: list[Deferred[None]] = []

    @property
    def connections(self) -> int:
        """
        How many there are, or are about to be.
        """
        return len(self._open) + len(self._connecting)

    def send(self, delivery: Delivery) -> None:
        """
        Send it, now or when there is a connection for it.
        """
        if self._is_closed:
            delivery.settle_rest(_CLOSED, Stage.CONNECT)
            return
        # The one used last is the least likely to have been closed.
        for connection in reversed(self._idle):
            if connection.is_ready and connection.suits(delivery):
                self._idle.remove(connection)
                connection.deliver(delivery)
                return
        if self.connections < self._limits.connections:
            self._connect(_Errand(delivery, self._terms))
        else:
            self._wait(delivery)
            if self._idle:
                # It suits others only, and makes room for one that suits.
                self._idle.pop(0).quit()

    def close(self) -> Deferred[None]:
        """
        Take leave of the server; deliveries on their way are brought to their end, and those that
        wait for a connection fail temporarily.  Fires when no connection is left.
        """
        self._is_closed = True
        waiting, self._waiting = self._waiting, deque()
        for delivery in waiting:
            delivery.settle_rest(_CLOSED, Stage.CONNECT)
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.quit()
        closed: Deferred[None] = Deferred()
        self._closed.append(closed)
        self._look_whether_closed()
        return closed

    # ── what connections tell ────────────────────────────────────────────────────────────────────

    def connection_ready(self, connection: ClientProtocol) -> None:
        errand = self._first.pop(connection, None)
        if errand is not None:
            if not errand.delivery.is_settled:
                connection.deliver(errand.delivery)
                return
        if connection.transactions >= self._limits.messages:
            connection.quit()
        elif self._waiting:
            if connection.suits(self._waiting[0]):
                connection.deliver(self._waiting.popleft())
            else:
                connection.quit()
        elif self._is_closed:
            connection.quit()
        else:
            self._idle.append(connection)
            connection.keep(self._limits.idle_seconds)

    def connection_ended(self, connection: ClientProtocol, ended: Ended) -> None:
        if connection in self._idle:
            self._idle.remove(connection)
        errand = self._first.pop(connection, None)
        if errand is None:
            return
        if ended.stage is Stage.HANDSHAKE and errand.terms.tls is TLS.MAY:
            # RFC 7435 §3: what is there only if it works must not be in the way if it does not.
            _log.warn("sending in the clear: {reason}", reason=str(ended.reply))
            terms = evolve(errand.terms, tls=TLS.NONE, tls_failure=ended.reply)
            self._connect(_Errand(errand.delivery, terms))
            return
        errand.delivery.on_its_way(None)
        errand.delivery.settle_rest(ended.reply, ended.stage, heard=ended.heard)

    def connection_gone(self, connection: ClientProtocol) -> None:
        self._open.discard(connection)
        self._fill()
        self._look_whether_closed()

    def send_again(self, delivery: Delivery) -> None:
        _log.debug("a connection that was kept is gone; sending over a new one")
        self._connect(_Errand(delivery, self._terms))

    # ── new connections ──────────────────────────────────────────────────────────────────────────

    def _wait(self, delivery: Delivery) -> None:
        self._waiting.append(delivery)

        def called_off(reply: Reply) -> None:
            if delivery in self._waiting:
                self._waiting.remove(delivery)
            delivery.settle_rest(reply, Stage.CONNECT)

        delivery.on_its_way(called_off)

    def _fill(self) -> None:
        if self._is_filling:
            # A connection has failed at once: the loop goes on with the next, however many there are.
            return
        self._is_filling = True
        try:
            while self._waiting and self.connections < self._limits.connections:
                self._connect(_Errand(self._waiting.popleft(), self._terms))
        finally:
            self._is_filling = False

    def _connect(self, errand: _Errand) -> None:
        def called_off(reply: Reply) -> None:
            errand.delivery.settle_rest(reply, Stage.CONNECT)
            connecting = self._connecting.get(errand)
            if connecting is not None:
                connecting.cancel()
            for connection in [each for each, what in self._first.items() if what is errand]:
                del self._first[connection]
                connection.abort()

        def build() -> ClientProtocol:
            connection = ClientProtocol(
                self,
                errand.terms,
                self._encryption,
                self._timeouts,
                self._clock,
                self._overhear,
            )
            self._first[connection] = errand
            self._open.add(connection)
            return connection

        connecting = connect(self._endpoint, _Connecting(build), self._clock)
        self._connecting[errand] = connecting
        connecting.addTimeout(self._timeouts.connect, self._clock, _too_late)
        connecting.addCallbacks(
            self._connected, self._not_connected, callbackArgs=(errand,), errbackArgs=(errand,)
        )
        errand.delivery.on_its_way(called_off)

    def _connected(self, _connection: IProtocol, errand: _Errand) -> None:
        self._connecting.pop(errand, None)

    def _not_connected(self, failure: Failure, errand: _Errand) -> None:
        self._connecting.pop(errand, None)
        errand.delivery.on_its_way(None)
        text, detail = _why(failure)
        errand.delivery.settle_rest(Reply(451, text, (4, 1)), Stage.CONNECT, detail)
        self._fill()
        self._look_whether_closed()

    def _look_whether_closed(self) -> None:
        if self._is_closed and not self.connections:
            closed, self._closed = self._closed, []
            for each in closed:
                each.callback(None)


@frozen(eq=False)
class _Errand:
    """
    What a new connection is made for.
    """

    delivery: Delivery
    terms: Terms


def _harmless(overhear: Callable[[str, HeardReply], None]) -> Callable[[str, HeardReply], None]:
    """
    *overhear*, without ending a conversation if it fails.
    """

    def hear(command: str, reply: HeardReply) -> None:
        try:
            overhear(command, reply)
        except Exception:
            _log.failure("who overhears replies has failed")

    return hear


class _Connecting(Factory):
    noisy = False

    def __init__(self, build: Callable[[], ClientProtocol]) -> None:
        self._build = build

    def buildProtocol(self, _address: object) -> ClientProtocol:
        return self._build()


def _too_late(_failure: object, seconds: float) -> Failure:
    """
    What has become of a connection that was given up after so many *seconds*: whose name was being
    looked for then, Twisted says that there is no such name.
    """
    return Failure(defer.TimeoutError(f"no connection within {seconds:g} seconds"))


def _why(failure: Failure) -> tuple[str, str]:
    """
    Why there is no connection, for everybody and for our log.
    """
    detail = " ".join(failure.getErrorMessage().split())
    if failure.check(error.ConnectionRefusedError):
        return "Connection refused", detail
    if failure.check(*_OUT_OF_TIME):
        return "Connection timed out", detail
    if failure.check(error.DNSLookupError):
        return "Host not found", detail
    if not failure.check(error.ConnectError, OSError):
        _log.failure("connecting failed", failure)
    return "Cannot connect", detail
