"""
Who waits for a descriptor, told when it may be read or written.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure

from lmtpsvc.server.poller import Poller


class Waiting:
    """
    Waits at one end of a pair of sockets, and notes what it is told.
    """

    def __init__(self, poller: Poller) -> None:
        self.poller = poller
        self.socket, self.other = socket.socketpair()
        self.told: list[str] = []
        self.ended: list[Failure] = []
        #: What reading returns, or raises.
        self.why: Exception | None = None
        self.is_broken = False
        #: Who goes when this is read.
        self.takes_along: list[Waiting] = []
        #: What being told of the end raises.
        self.defect: BaseException | None = None

    def fileno(self) -> int:
        return self.socket.fileno()

    def doRead(self) -> Exception | None:
        self.told.append("read")
        for each in self.takes_along:
            each.close()
        if self.is_broken:
            raise self.defect or RuntimeError("broken")
        return self.why

    def doWrite(self) -> Exception | None:
        self.told.append("write")
        return self.why

    def readConnectionLost(self, reason: Failure) -> None:
        self.told.append("no more to read")
        self.connectionLost(reason)

    def connectionLost(self, reason: Failure) -> None:
        self.ended.append(reason)
        self.close()
        if self.defect is not None:
            raise self.defect

    def close(self) -> None:
        if self.socket.fileno() >= 0:
            self.poller.removeReader(self)
            self.poller.removeWriter(self)
            self.socket.close()


class World:
    def __init__(self) -> None:
        self.reactor = MemoryReactorClock()
        self.poller = Poller(self.reactor)
        self.all: list[Waiting] = []

    def waiting(self) -> Waiting:
        """
        One more, of whom the poller does not know yet.
        """
        self.all.append(Waiting(self.poller))
        return self.all[-1]

    def turn(self) -> None:
        """
        The reactor looks once.
        """
        for each in self.reactor.getReaders():
            each.doRead()


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    for each in world.all:
        each.close()
        each.other.close()
    assert [] == world.reactor.getReaders()


def test_read(world: World) -> None:
    """
    A reader is told as long as there is something to read, until it waits no more.
    """
    reader = world.waiting()
    world.poller.addReader(reader)
    world.poller.addReader(reader)
    world.turn()
    assert [] == reader.told

    reader.other.send(b"x")
    world.turn()
    world.turn()
    assert ["read", "read"] == reader.told

    world.poller.removeReader(reader)
    world.poller.removeReader(reader)
    world.turn()
    assert ["read", "read"] == reader.told


def test_write(world: World) -> None:
    """
    So is a writer; who does both is told both at once.
    """
    both = world.waiting()
    world.poller.addWriter(both)
    world.turn()
    assert ["write"] == both.told

    world.poller.addReader(both)
    both.other.send(b"x")
    world.turn()
    assert ["write", "read", "write"] == both.told

    world.poller.removeWriter(both)
    world.turn()
    assert ["write", "read", "write", "read"] == both.told


def test_one_descriptor(world: World) -> None:
    """
    The reactor has one descriptor, which is open as long as anybody waits.
    """
    readers = [world.waiting() for _ in range(3)]
    assert [] == world.reactor.getReaders()
    for _ in range(2):
        for each in readers:
            world.poller.addReader(each)
        assert [world.poller] == world.reactor.getReaders()
        descriptor = world.poller.fileno()
        assert not os.get_inheritable(descriptor)

        for each in readers:
            world.poller.removeReader(each)
        assert [] == world.reactor.getReaders()
        assert -1 == world.poller.fileno()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
        # A reactor may have seen an event just before.
        world.poller.doRead()


@pytest.mark.parametrize(
    ("why", "told", "reason"),
    [
        (CONNECTION_DONE, ["read", "no more to read"], ConnectionDone),
        (CONNECTION_LOST, ["read"], ConnectionLost),
    ],
)
def test_ends(world: World, why: Exception, told: list[str], reason: type[Exception]) -> None:
    """
    One whose connection has ended is told so, as the reactor would.
    """
    reader = world.waiting()
    reader.why = why
    world.poller.addReader(reader)
    reader.other.close()
    world.turn()

    assert told == reader.told
    [failure] = reader.ended
    assert failure.check(reason)


def test_hung_up_while_it_writes(world: World) -> None:
    """
    Who waits only to write finds out by writing.
    """
    writer = world.waiting()
    writer.why = CONNECTION_LOST
    world.poller.addWriter(writer)
    writer.other.close()
    world.turn()

    assert ["write"] == writer.told
    assert 1 == len(writer.ended)


def test_one_fails(world: World) -> None:
    """
    A defect ends the connection on which it was seen, and is logged; all others go on.
    """
    failing, sound = world.waiting(), world.waiting()
    failing.is_broken = True
    for each in (failing, sound):
        world.poller.addReader(each)
        each.other.send(b"x")

    with capturedLogs() as logs:
        world.turn()

    [event] = logs
    assert formatEvent(event).endswith(" has failed")
    assert event["log_failure"].check(RuntimeError)
    [failure] = failing.ended
    assert failure.check(RuntimeError)
    assert ["read"] == sound.told
    assert [] == sound.ended


@pytest.mark.parametrize("is_broken", [False, True])
@pytest.mark.parametrize("defect", [RuntimeError("at its end"), SystemExit(1)])
def test_one_fails_at_its_end(world: World, is_broken: bool, defect: BaseException) -> None:
    """
    A connection that fails when it hears of its end takes nobody along: the reactor would wait for
    none of them any more, if it saw that.
    """
    failing, sound = world.waiting(), world.waiting()
    failing.why, failing.is_broken, failing.defect = CONNECTION_LOST, is_broken, defect
    for each in (failing, sound):
        world.poller.addReader(each)
        each.other.send(b"x")

    with capturedLogs() as logs:
        world.turn()
        world.turn()

    assert all(formatEvent(each).endswith(" has failed") for each in logs)
    assert 1 + is_broken == len(logs)
    assert 1 == len(failing.ended)
    assert ["read", "read"] == sound.told
    assert [] == sound.ended


def test_the_reactor_ends(world: World) -> None:
    """
    When the reactor lets go of all that it waits for, those who wait here hear it from the poller.
    """
    reader, writer = world.waiting(), world.waiting()
    world.poller.addReader(reader)
    world.poller.addWriter(writer)
    world.reactor.removeReader(world.poller)
    world.poller.connectionLost(Failure(ConnectionLost()))

    for each in (reader, writer):
        [failure] = each.ended
        assert failure.check(ConnectionLost)
    assert -1 == world.poller.fileno()


def test_one_ends_another(world: World) -> None:
    """
    One that was closed by another, for which something had come at the same time, is told nothing.
    """
    first, second = world.waiting(), world.waiting()
    first.takes_along, second.takes_along = [second], [first]
    for each in (first, second):
        world.poller.addReader(each)
        each.other.send(b"x")
    world.turn()

    assert 1 == len(first.told + second.told)


def test_closes_itself(world: World) -> None:
    """
    One that is closed while it is read is not written to.
    """
    both = world.waiting()
    both.takes_along = [both]
    world.poller.addReader(both)
    world.poller.addWriter(both)
    both.other.send(b"x")
    world.turn()

    assert ["read"] == both.told
    assert [] == both.ended


def test_clock(world: World) -> None:
    """
    What a connection asks for beside is the reactor's.
    """
    called: list[float] = []
    world.poller.callLater(5, lambda: called.append(world.poller.seconds()))
    world.reactor.advance(5)

    assert [5] == called
