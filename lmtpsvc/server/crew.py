"""
Crew: the processes of workers, between ProcessMonitor, which says when, and the reactor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IDelayedCall, IProcessProtocol, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

_STDERR = 2


@implementer(IReactorTime)
class Crew:
    """
    What a ProcessMonitor takes for a reactor.  It starts each process with the *descriptors* of the
    mapping of that name, hands on every line of its standard error to *said*, with its name, and
    tells *ended* when it has gone, and why.
    """

    def __init__(
        self,
        reactor: Any,
        said: Callable[[str, str], None],
        ended: Callable[[str, Failure], None],
    ) -> None:
        self._reactor, self.said, self._ended = reactor, said, ended
        self.descriptors: Mapping[int, int | str] = {}
        self._running: dict[str, _Watched] = {}
        self._gone: Deferred[None] | None = None

    def all_gone(self) -> Deferred[None]:
        """
        Fires when no process is left.
        """
        if not self._running:
            return succeed(None)
        self._gone = Deferred()
        return self._gone

    def signal_all(self, name: str) -> None:
        """
        Send a signal, ``HUP``, to all processes.
        """
        for watched in self._running.values():
            if watched.transport is not None:
                with suppress(ProcessExitedAlready):
                    watched.transport.signalProcess(name)

    def forget(self, name: str, reason: Failure) -> None:
        """
        A process has ended.
        """
        self._running.pop(name, None)
        self._ended(name, reason)
        if self._gone is not None and not self._running:
            gone, self._gone = self._gone, None
            gone.callback(None)

    # ── what ProcessMonitor calls ────────────────────────────────────────────────────────────────

    def spawnProcess(
        self,
        processProtocol: Any,
        executable: str,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        path: str | None = None,
        uid: int | None = None,
        gid: int | None = None,
    ) -> None:
        watched = _Watched(self, processProtocol.name, processProtocol)
        self._running[watched.name] = watched
        try:
            self._reactor.spawnProcess(
                watched, executable, args, env, path, uid, gid, childFDs=self.descriptors
            )
        except OSError as error:
            self.said(watched.name, f"{executable}: {error.strerror or error}")
            watched.makeConnection(_Nothing())
            # ProcessMonitor does not expect the end before this call returns.
            self._reactor.callLater(0, watched.processEnded, Failure(ProcessTerminated(1)))

    def seconds(self) -> float:
        return float(self._reactor.seconds())

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object
    ) -> IDelayedCall:
        call: IDelayedCall = self._reactor.callLater(delay, callable, *args, **kwargs)
        return call

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        calls: Sequence[IDelayedCall] = self._reactor.getDelayedCalls()
        return calls


class _Watched(ProcessProtocol):
    """
    Stands before the protocol of a ProcessMonitor, which has no way to tell us what it hears.
    """

    def __init__(self, crew: Crew, name: str, monitors: IProcessProtocol) -> None:
        self.name = name
        self._crew, self._monitors = crew, monitors
        self._line = b""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self._monitors.makeConnection(self.transport)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        *lines, self._line = (self._line + data).split(b"\n")
        self._say(lines)

    def processEnded(self, reason: Failure) -> None:
        self._say([self._line])
        self._monitors.processEnded(reason)
        self._crew.forget(self.name, reason)

    def _say(self, lines: list[bytes]) -> None:
        for line in lines:
            if text := line.decode(errors="backslashreplace").rstrip():
                self._crew.said(self.name, text)


class _Nothing:
    """
    The transport of a process that could not be started.
    """

    def signalProcess(self, signalID: str) -> None:
        raise ProcessExitedAlready
