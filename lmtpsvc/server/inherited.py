"""
What a worker process has from its supervisor: its number, and open files.

They are named in an environment variable, which is taken out of the environment when it is read.
It is between the two, and no interface: numbers in decimal, with spaces between: that of the
worker, of workers, then the descriptors of the lifeline (a pipe whose other end the supervisor
has), of the table of connections, and of one listening socket for each ``--listen``, in their
order.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

from attrs import frozen
from twisted.internet.interfaces import IListeningPort, IProtocolFactory

from .counts import Counts
from .poller import Poller
from .shared_port import SharedPort
from .stand_in import StandInReactor

VARIABLE: Final = "LMTPSVC_WORKER"


@frozen
class Inheritance:
    """
    Who a worker is, and which descriptors are what.
    """

    number: int
    workers: int
    lifeline: int
    table: int
    sockets: tuple[int, ...]

    @classmethod
    def claim(cls, environment: MutableMapping[str, str]) -> Inheritance | None:
        """
        Take it out of *environment*; None in a process that is no worker.

        The descriptors are for this process only: programs that it starts do not get them.
        """
        text = environment.pop(VARIABLE, None)
        if text is None:
            return None
        number, workers, *descriptors = map(int, text.split())
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        lifeline, table, *sockets = descriptors
        return cls(number, workers, lifeline, table, tuple(sockets))

    def environment(self) -> Mapping[str, str]:
        """
        The variable, for a new worker.
        """
        numbers = (self.number, self.workers, self.lifeline, self.table, *self.sockets)
        return {VARIABLE: " ".join(map(str, numbers))}


class InheritedSocketReactor(StandInReactor):
    """
    Stands in for *reactor* where an endpoint is made, so that it listens on a socket that is open
    already, whatever kind of endpoint it is and whatever it is wrapped in.
    """

    def __init__(self, reactor: Any, descriptor: int, counts: Counts, number: int) -> None:
        super().__init__(reactor)
        self._descriptor = descriptor
        self._poller = Poller(reactor)
        self._counts, self._number = counts, number

    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        return self._share(factory)

    def listenUNIX(
        self,
        address: str,
        factory: IProtocolFactory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> IListeningPort:
        return self._share(factory)

    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: int, factory: IProtocolFactory
    ) -> IListeningPort:
        return self._share(factory)

    def _share(self, factory: IProtocolFactory) -> IListeningPort:
        port = SharedPort(self._poller, self._descriptor, factory, self._counts, self._number)
        port.startListening()
        return port
