"""
A worker: what it has from its supervisor, and what ends it.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.internet.ssl import CertificateOptions
from twisted.internet.testing import MemoryReactorClock

from lmtpsvc.limits import Limits
from lmtpsvc.replies import TOO_MANY_CONNECTIONS
from lmtpsvc.server.counts import Counts
from lmtpsvc.server.factory import LMTPFactory
from lmtpsvc.server.inherited import VARIABLE, Inheritance, InheritedSocketReactor
from lmtpsvc.server.worker import Lifeline, Worker, WorkerFactory


class TestInheritance:
    def test_claimed(self) -> None:
        """
        What one process writes the other reads; it is gone then, and programs that the worker
        starts get none of it.
        """
        reading, writing = os.pipe()
        os.set_inheritable(reading, True)
        given = Inheritance(2, 4, reading, writing, (reading, writing))
        environment = {"HOME": "/", **given.environment()}
        assert given == Inheritance.claim(environment)
        assert environment == {"HOME": "/"}
        assert not os.get_inheritable(reading)
        os.close(reading)
        os.close(writing)

    def test_none(self) -> None:
        """
        Without the variable it is no worker.
        """
        assert Inheritance.claim({}) is None
        assert VARIABLE not in os.environ


class TestReactor:
    @pytest.fixture
    def real(self) -> MemoryReactorClock:
        return MemoryReactorClock()

    @pytest.mark.parametrize("method", ["listenTCP", "listenUNIX", "listenSSL", "adoptStreamPort"])
    def test_listens_on_what_it_has(self, real: MemoryReactorClock, method: str) -> None:
        """
        However an endpoint asks for it.
        """
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        address = listening.getsockname()
        reactor: Any = InheritedSocketReactor(real, listening.detach(), Counts.create(1), 1)
        factory = Factory()
        port: IListeningPort = {
            "listenTCP": lambda: reactor.listenTCP(24, factory, backlog=5, interface=""),
            "listenUNIX": lambda: reactor.listenUNIX("/x", factory, mode=0o600, wantPID=True),
            "listenSSL": lambda: reactor.listenSSL(
                24, factory, contextFactory=CertificateOptions()
            ),
            "adoptStreamPort": lambda: reactor.adoptStreamPort(3, socket.AF_INET, factory),
        }[method]()
        assert address == (port.getHost().host, port.getHost().port)  # type: ignore[attr-defined]  # TCP
        assert 1 == len(real.getReaders())
        port.stopListening()
        assert [] == real.getReaders()

    def test_is_the_real_one_else(self, real: MemoryReactorClock) -> None:
        """
        All that has nothing to do with listening.
        """
        reactor: Any = InheritedSocketReactor(real, 0, Counts.create(1), 1)
        assert real.seconds() == reactor.seconds()


class TestFactory:
    def test_one_limit_for_all(self) -> None:
        """
        The connections of other workers count.
        """
        counts = Counts.create(2)
        agent: Any = SimpleNamespace(limits=Limits(connections=3), clock=None)
        factory = WorkerFactory(agent, (), counts, 1)  # type: ignore[arg-type]  # not looked at
        one, two, three = (object() for _ in range(3))
        admit: Any = factory.admit
        forget: Any = factory.forget
        counts.set(2, 1)
        assert admit(one) is None
        assert admit(two) is None
        assert admit(three) == TOO_MANY_CONNECTIONS
        assert counts.total() == 4
        forget(three)
        forget(one)
        assert admit(three) is None


class Reactor(MemoryReactorClock):
    """
    Counts how often it is stopped: a real one may be only once.
    """

    stops = 0

    def stop(self) -> None:
        self.stops += 1

    def callFromThread(self, callable: Any, *args: object, **kwargs: object) -> None:
        self.callLater(0, callable, *args, **kwargs)


class TestEnd:
    @pytest.fixture
    def reactor(self) -> Iterator[Reactor]:
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = [signal.getsignal(number) for number in numbers]
        yield Reactor()
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)

    @pytest.fixture
    def worker(self, reactor: Reactor) -> Worker:
        agent: Any = SimpleNamespace(limits=Limits(), clock=None)
        factory = LMTPFactory(agent, ())  # type: ignore[arg-type]  # not looked at
        counts = Counts.create(1)
        worker = Worker([], factory, [], "", list, reactor, counts, 1, 0)  # type: ignore[arg-type]
        worker.startService()
        return worker

    def test_told_twice(self, worker: Worker, reactor: Reactor) -> None:
        """
        SIGTERM comes from the service manager and from the supervisor, SIGINT from the terminal: the
        second does nothing.
        """
        reactor.run()
        reactor.stops = 0
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        reactor.advance(0)
        assert reactor.stops == 1

    def test_orphan(self, worker: Worker, reactor: Reactor) -> None:
        """
        It ends when the supervisor has.
        """
        [lifeline] = reactor.getReaders()
        lifeline.connectionLost(None)
        lifeline.connectionLost(None)
        assert reactor.stops == 1

    def test_takes_no_more(self, worker: Worker) -> None:
        """
        A worker that stops is not waited for by the others.
        """
        worker.stopService()
        other = Counts(worker._counts.descriptor, 1)
        other.set(1, 3)
        assert other.begun(1)


def test_lifeline() -> None:
    """
    It is cut when nobody has the other end, and not before.
    """
    cut: list[None] = []
    reading, writing = os.pipe()
    lifeline = Lifeline(reading, lambda: cut.append(None))
    os.write(writing, b"x")
    assert lifeline.doRead() is None
    os.close(writing)
    assert isinstance(lifeline.doRead(), EOFError)
    os.close(reading)
