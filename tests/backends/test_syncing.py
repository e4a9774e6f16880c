"""
What is cheaper: to wait for each file, or for the whole file system.
"""

from __future__ import annotations

import contextlib
import errno
import gc
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from lmtpsvc.backends import file_systems, syncing
from lmtpsvc.backends.file_systems import FileSystem
from lmtpsvc.backends.syncing import Syncing

Calls = list[tuple[str, str]]


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The system has a syncfs that tells of errors.
    """
    monkeypatch.setattr(syncing, "can_sync_file_systems", lambda: True)


@pytest.fixture
def disk(clock: Clock, able: None, root: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    root.mkdir()
    return Disk(clock, root, monkeypatch)


class Disk:
    """
    A disk, as slow as the test wants it.
    """

    def __init__(self, clock: Clock, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock, self.root = clock, root
        self.syncing = Syncing(clock.seconds)
        self.whole_takes = 0.0
        monkeypatch.setattr(file_systems, "_syncfs", lambda _: clock.advance(self.whole_takes))

    def whole(self) -> None:
        """
        Wait for the whole file system.
        """
        file_system = FileSystem(str(self.root))
        try:
            self.syncing.whole(file_system, finally_=True)
        finally:
            file_system.close()

    def one_by_one(self, seconds: float, times: int = 30) -> None:
        """
        Use it, where one file takes so many *seconds*.
        """
        for _ in range(times):
            with self.syncing.timed():
                self.clock.advance(seconds)

    def at_once(self, seconds: float, times: int = 30) -> None:
        """
        Use it, where the whole file system takes so many *seconds*.
        """
        self.whole_takes = seconds
        for _ in range(times):
            self.whole()


def test_nothing_known(disk: Disk) -> None:
    """
    As long as nobody knows better, two files are enough for a common wait.
    """
    assert disk.syncing.whole_pays(2)
    assert disk.syncing.whole_pays(100)


@pytest.mark.parametrize("count", [0, 1])
def test_a_single_file(disk: Disk, count: int) -> None:
    """
    One file is synced by itself, however quick the other way is.
    """
    disk.one_by_one(1.0)

    assert not disk.syncing.whole_pays(count)


def test_as_many_as_pay(disk: Disk) -> None:
    """
    What the last ones took decides: where syncfs takes as long as twenty files, eleven are too many,
    as so many threads would have to wait for them.
    """
    disk.one_by_one(0.010)
    disk.at_once(0.200)

    assert not disk.syncing.whole_pays(9)
    assert disk.syncing.whole_pays(11)


def test_the_newest_count_most(disk: Disk) -> None:
    """
    One slow moment does not decide; several do.
    """
    disk.one_by_one(0.010)
    disk.at_once(0.010)
    disk.at_once(0.120, times=1)
    assert disk.syncing.whole_pays(3)

    disk.at_once(0.120, times=10)
    assert not disk.syncing.whole_pays(3)


def test_tried_again_later(disk: Disk) -> None:
    """
    A bad experience counts half after five seconds: the backup that was in the way may have ended.
    """
    disk.one_by_one(0.010)
    disk.at_once(0.320)
    assert not disk.syncing.whole_pays(5)

    disk.clock.advance(5.1)
    assert disk.syncing.whole_pays(8)
    assert not disk.syncing.whole_pays(7)

    disk.clock.advance(5.1)
    assert disk.syncing.whole_pays(4)
    assert not disk.syncing.whole_pays(3)


def test_first_wait(disk: Disk) -> None:
    """
    The first one may have to wait for what somebody else has written before; the next is not put off
    for long.
    """
    disk.one_by_one(0.002)
    disk.at_once(0.500, times=1)
    assert not disk.syncing.whole_pays(10)

    disk.clock.advance(0.5)
    assert disk.syncing.whole_pays(2)


def test_pauses_grow(disk: Disk) -> None:
    """
    The more follow each other, the longer it is until the next: a backup takes its time.
    """
    disk.one_by_one(0.002)
    pauses = []
    for _ in range(6):
        disk.at_once(0.500, times=1)
        begun = disk.clock.seconds()
        while not disk.syncing.whole_pays(2):
            disk.clock.advance(0.01)
        pauses.append(disk.clock.seconds() - begun)
    assert pauses == sorted(pauses)
    assert pauses[0] < 0.5
    assert pauses[-1] > 10


def test_good_after_bad(disk: Disk) -> None:
    """
    When it has been tried again later, and was quick, what was before is forgotten.
    """
    disk.one_by_one(0.010)
    disk.at_once(0.640)
    disk.clock.advance(30)
    assert disk.syncing.whole_pays(2)

    disk.at_once(0.010, times=1)
    assert disk.syncing.whole_pays(2)


def test_bad_ones_add_up(disk: Disk) -> None:
    """
    On a disk where it never pays, it is tried as seldom as if nothing were ever forgotten.
    """
    tries = 0
    for _ in range(20_000):
        if disk.syncing.whole_pays(2):
            tries += 1
            disk.at_once(0.500, times=1)
        else:
            disk.one_by_one(0.020, times=1)
    assert tries < 50


def test_one_good_one_bad(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What a file system costs where it is no promise is not forgotten because that of another one is.
    """
    disk.one_by_one(0.005)
    with monkeypatch.context() as patch:
        patch.setattr(file_systems, "_file_system", lambda _: 0x6969)
        with contextlib.suppress(OSError):
            disk.at_once(0.0, times=1)
    disk.at_once(0.004, times=1)
    disk.clock.advance(10)
    assert not disk.syncing.whole_pays(10)


def test_waits_of_others(disk: Disk) -> None:
    """
    What another process tells of its waits counts as if they had been here.
    """
    told = Syncing(disk.clock.seconds)
    for each, whole in ((0.010, 0.2), (0.010, 0.2), (0.002, 0.5), (0.030, 0.01), (0.010, 0.01)):
        disk.one_by_one(each, times=3)
        for _ in range(3):
            told.saw_each(each)
        assert told.takes_longer_than(0.9 * each)
        assert not told.takes_longer_than(1.1 * each)

        disk.at_once(whole, times=1)
        told.saw_whole(whole)
        assert told.takes_longer_than(0.9 * whole)
        assert not told.takes_longer_than(1.1 * whole)

        counts = range(2, 200)
        here = [disk.syncing.whole_pays(count) for count in counts]
        assert here == [told.whole_pays(count) for count in counts]


def test_failures_cost_time_too(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A disk that takes long to say no is no bargain either.
    """

    def fail(descriptor: int) -> None:
        disk.clock.advance(1)
        raise OSError(errno.EIO, "")

    monkeypatch.setattr(file_systems, "_syncfs", fail)

    with pytest.raises(OSError, match="5"):
        disk.whole()

    assert not disk.syncing.whole_pays(100)


def test_not_able(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where the system cannot do it, it never pays.
    """
    monkeypatch.setattr(syncing, "can_sync_file_systems", lambda: False)

    assert not disk.syncing.whole_pays(1000)


@pytest.mark.parametrize("number", [0x65735546, 0xFF534D42, 0x01021997, 0x794C7630, 0x6969])
def test_not_on_this_file_system(disk: Disk, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """
    FUSE, CIFS, 9P, overlayfs and NFS are synced one by one, and are not asked again for a minute.
    """
    monkeypatch.setattr(file_systems, "_file_system", lambda _: number)
    monkeypatch.setattr(file_systems, "_syncfs", lambda _: pytest.fail("it would have said yes"))

    with pytest.raises(OSError, match="no promise"):
        disk.whole()

    disk.clock.advance(50)
    assert not disk.syncing.whole_pays(2)
    disk.clock.advance(30)
    assert disk.syncing.whole_pays(2)


def test_others_begin_to_wait_meanwhile(clock: Clock) -> None:
    """
    Wherever another thread may come between, as while garbage is collected, the question is answered.
    """
    syncing = Syncing(clock.seconds)
    for _ in range(100):
        syncing.begin()
    clock.advance(2)

    def another(*_: object) -> None:
        syncing.begin()

    thresholds = gc.get_threshold()
    gc.callbacks.append(another)
    gc.set_threshold(1)
    try:
        answers = [syncing.takes_longer_than(1) for _ in range(100)]
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(another)
    assert [True] * 100 == answers
