"""
Poller: tells connections that they may be read or written, without the reactor's detours.

For each event, a reactor of Twisted's goes through the context of its log and a dozen calls, which
takes as long as a short command does by itself.  So the connections of the service have an epoll of
their own.  To the reactor, whichever it is, that is one descriptor, which says that there is
something; all that there is is then taken at once.
"""

from __future__ import annotations

import select
from typing import Any, Final, Protocol

from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

#: So many events are taken at a time; then it is the turn of what else the reactor has.
AT_ONCE: Final = 256

_IN: Final = select.EPOLLIN
_OUT: Final = select.EPOLLOUT
_DONE: Final = Failure(CONNECTION_DONE)


class Descriptor(Protocol):
    """
    What waits here: a port or a connection of Twisted's.
    """

    def fileno(self) -> int: ...
    def doRead(self) -> Exception | None: ...
    def doWrite(self) -> Exception | None: ...
    def readConnectionLost(self, reason: Failure) -> None: ...
    def connectionLost(self, reason: Failure) -> None: ...


@implementer(IReadDescriptor)
class Poller:
    """
    Stands in for *reactor* where a port or a connection is made, and tells it when it may read or
    write.
    """

    _log = Logger(namespace="lmtpsvc.server")

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        # Is there as long as anybody waits: a daemon has its connections in a process that does not
        # exist yet when this is made.
        self._epoll: select.epoll | None = None
        # Who waits, and for what, by the number of the descriptor.
        self._waiting: dict[int, Descriptor] = {}
        self._events: dict[int, int] = {}

        #: What a port or a connection asks of a reactor beside.
        self.callLater, self.seconds = reactor.callLater, reactor.seconds

    # ── what ports and connections call ──────────────────────────────────────────────────────────

    def begin(self, reader: Descriptor, descriptor: int) -> None:
        """
        As `addReader`, for one that has just got its *descriptor*, and waits for nothing yet.
        """
        epoll = self._epoll or self._open()
        epoll.register(descriptor, _IN)
        self._events[descriptor], self._waiting[descriptor] = _IN, reader

    def addReader(self, reader: Any) -> None:
        self._wait(reader, _IN)

    def addWriter(self, writer: Any) -> None:
        self._wait(writer, _OUT)

    def removeReader(self, reader: Any) -> None:
        self._wait_no_more(reader, _IN)

    def removeWriter(self, writer: Any) -> None:
        self._wait_no_more(writer, _OUT)

    def _wait(self, who: Descriptor, event: int) -> None:
        descriptor = who.fileno()
        events = self._events.get(descriptor, 0)
        if events & event:
            return
        epoll = self._epoll or self._open()
        if events:
            epoll.modify(descriptor, events | event)
        else:
            epoll.register(descriptor, event)
        self._events[descriptor] = events | event
        self._waiting[descriptor] = who

    def _open(self) -> select.epoll:
        self._epoll = select.epoll()
        self._reactor.addReader(self)
        return self._epoll

    def _wait_no_more(self, who: Descriptor, event: int) -> None:
        descriptor = who.fileno()
        events = self._events.get(descriptor, 0)
        if not events & event:
            return
        assert self._epoll is not None, "somebody waits"
        if events == event:
            self.forget(descriptor)
        else:
            self._events[descriptor] = events = events & ~event
            self._epoll.modify(descriptor, events)

    def forget(self, descriptor: int) -> None:
        """
        Nobody waits there any more, for nothing; it is about to be closed.
        """
        if self._events.pop(descriptor, 0) == 0:
            return
        assert self._epoll is not None, "somebody has waited"
        del self._waiting[descriptor]
        self._epoll.unregister(descriptor)
        if not self._events:
            self._reactor.removeReader(self)
            self._epoll.close()
            self._epoll = None

    # ── what the reactor calls ───────────────────────────────────────────────────────────────────

    def fileno(self) -> int:
        return -1 if self._epoll is None else self._epoll.fileno()

    def logPrefix(self) -> str:
        return "Poller"

    def doRead(self) -> None:
        """
        Somebody may read or write.
        """
        if self._epoll is None:
            return
        waiting, events = self._waiting, self._events
        why: BaseException | None
        for descriptor, event in self._epoll.poll(0, AT_ONCE):
            # One that came before may have closed it.  If there is another by now that has its
            # number, that one finds nothing to read, which does no harm.
            who = waiting.get(descriptor)
            if who is None:
                continue
            try:
                if event == _IN == events[descriptor]:
                    why = who.doRead()
                else:
                    why = self._tell(who, descriptor, event)
            except BaseException as error:
                # Whatever it is: if the reactor saw it, it would take it for the end of all.
                self._log.failure("{descriptor} has failed", descriptor=who)
                why = error
            if why is not None:
                self._end(who, descriptor, why)

    def connectionLost(self, reason: Failure) -> None:
        """
        The reactor has let go of it, at its end: that is the end of all.
        """
        for descriptor, who in tuple(self._waiting.items()):
            if self._waiting.get(descriptor) is who:
                self._end(who, descriptor, reason.value or CONNECTION_LOST)

    def _tell(self, who: Descriptor, descriptor: int, event: int) -> BaseException | None:
        """
        *who* may do something.  Returns what its connection has ended with, if it has.

        That a connection is broken, or has been hung up, is found out by who reads or writes then.
        """
        if event != _OUT and self._events[descriptor] & _IN:
            why = who.doRead()
            if why is not None or self._waiting.get(descriptor) is not who:
                return why
        if event != _IN and self._events[descriptor] & _OUT:
            return who.doWrite()
        return None

    def _end(self, who: Descriptor, descriptor: int, why: BaseException) -> None:
        """
        Tell *who* that it is over; nothing is told after that, however it takes it.
        """
        try:
            self.removeReader(who)
            if why is CONNECTION_DONE:
                who.readConnectionLost(_DONE)
            else:
                self.removeWriter(who)
                who.connectionLost(Failure(why))
        except BaseException:
            self._log.failure("{descriptor} has failed", descriptor=who)
            if self._waiting.get(descriptor) is who:
                self.forget(descriptor)
