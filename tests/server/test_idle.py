"""
A watch that notices silence.
"""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from lmtpsvc.server.idle import LOOKS, IdleWatch


class Connection:
    """
    Notes the times at which it was told that it is idle, and then does what is to be done.
    """

    touched = 0.0

    def __init__(self, house: House) -> None:
        self._house = house
        self.noticed: list[float] = []
        self.takes_along: list[Connection] = []
        self.is_broken = False
        house.watch.watch(self)

    def touch(self) -> None:
        self.touched = self._house.clock.seconds()

    def go(self) -> None:
        self._house.watch.let_go(self)

    def idle_too_long(self) -> None:
        self.noticed.append(self._house.clock.seconds())
        for each in self.takes_along:
            each.go()
        if self.is_broken:
            raise RuntimeError("broken")


class House:
    """
    A watch, with ten seconds.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.watch = IdleWatch(self.clock, 10)

    @property
    def calls(self) -> int:
        return len(self.clock.getDelayedCalls())


@pytest.fixture
def house() -> House:
    return House()


def test_silence(house: House) -> None:
    """
    It is noticed at the end of the time, and again after each further one.
    """
    connection = Connection(house)
    house.clock.pump([1] * 35)

    assert [10, 20, 30] == connection.noticed


def test_one_fails(house: House) -> None:
    """
    A connection that fails when it is told harms nobody else, then or later.
    """
    connections = [Connection(house) for _ in range(3)]
    connections[1].is_broken = True
    with capturedLogs() as logs:
        house.clock.pump([1] * 25)

    assert [[10, 20]] * 3 == [each.noticed for each in connections]
    assert [RuntimeError] * 2 == [each["log_failure"].type for each in logs]


def test_touched(house: House) -> None:
    """
    The time counts from the last thing that happened.
    """
    connection = Connection(house)
    house.clock.advance(6)
    connection.touch()
    house.clock.pump([1] * 9)
    assert [] == connection.noticed

    house.clock.advance(1)
    assert [16] == connection.noticed


def test_each_in_its_time(house: House) -> None:
    """
    Each connection has its own time, late by a hundredth of it at most.
    """
    connections = []
    for _ in range(50):
        connections.append(Connection(house))
        house.clock.advance(0.07)
    house.clock.pump([0.01] * 1200)

    for position, each in enumerate(connections):
        [noticed] = each.noticed
        due = 10 + position * 0.07
        assert due - 1e-9 <= noticed <= due + 10 / LOOKS + 0.01


def test_one_call(house: House) -> None:
    """
    However many there are and however much happens, one call is waiting; none where nobody is.
    """
    assert 0 == house.calls
    for _ in range(2):
        connections = [Connection(house) for _ in range(5)]
        for _ in range(100):
            house.clock.advance(0.5)
            for each in connections:
                each.touch()
            assert 1 == house.calls
        for each in connections:
            assert [] == each.noticed
            each.go()
            each.go()
        assert 0 == house.calls


def test_goes_when_it_is_told(house: House) -> None:
    """
    Nothing is left of one that goes because of what it was told.
    """
    connection = Connection(house)
    connection.takes_along = [connection]
    house.clock.advance(10)

    assert [10] == connection.noticed
    assert 0 == house.calls


def test_one_takes_another_along(house: House) -> None:
    """
    One that is gone because of another is told nothing, whichever comes first.
    """
    one, two = Connection(house), Connection(house)
    one.takes_along, two.takes_along = [two], [one]
    house.clock.advance(10)

    assert 1 == len(one.noticed + two.noticed)
    assert 1 == house.calls
