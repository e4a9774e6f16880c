"""
What is cheaper: to wait for each file, or for the whole file system.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from twisted.internet.task import Clock

from lmtpsvc.backends import syncing
from lmtpsvc.backends.syncing import Syncing, can_sync_file_systems, check_written

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
        monkeypatch.setattr(syncing, "_syncfs", lambda _: clock.advance(self.whole_takes))

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
            self.syncing.whole(str(self.root))


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
    What the last ones took decides: where syncfs takes as long as ten files, eleven are too many.
    """
    disk.one_by_one(0.010)
    disk.at_once(0.100)

    assert not disk.syncing.whole_pays(9)
    assert disk.syncing.whole_pays(11)


def test_the_newest_count_most(disk: Disk) -> None:
    """
    One slow moment does not decide; several do.
    """
    disk.one_by_one(0.010)
    disk.at_once(0.010)
    disk.at_once(0.060, times=1)
    assert disk.syncing.whole_pays(3)

    disk.at_once(0.060, times=10)
    assert not disk.syncing.whole_pays(3)


def test_tried_again_later(disk: Disk) -> None:
    """
    A bad experience counts half after five seconds: the backup that was in the way may have ended.
    """
    disk.one_by_one(0.010)
    disk.at_once(0.160)
    assert not disk.syncing.whole_pays(5)

    disk.clock.advance(5.1)
    assert disk.syncing.whole_pays(8)
    assert not disk.syncing.whole_pays(7)

    disk.clock.advance(5.1)
    assert disk.syncing.whole_pays(4)
    assert not disk.syncing.whole_pays(3)


def test_failures_cost_time_too(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A disk that takes long to say no is no bargain either.
    """

    def fail(descriptor: int) -> None:
        disk.clock.advance(1)
        raise OSError(errno.EIO, "")

    monkeypatch.setattr(syncing, "_syncfs", fail)

    with pytest.raises(OSError, match="5"):
        disk.syncing.whole(str(disk.root))

    assert not disk.syncing.whole_pays(100)


def test_not_able(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where the system cannot do it, it never pays.
    """
    monkeypatch.setattr(syncing, "can_sync_file_systems", lambda: False)

    assert not disk.syncing.whole_pays(1000)


def test_whole(root: Path, calls: Calls) -> None:
    """
    The file system, and the directory after it: without a journal, the disk's cache is emptied then.
    """
    root.mkdir()
    calls.clear()

    Syncing(lambda: 0.0).whole(str(root))

    assert [("syncfs", "."), ("fsync", ".")] == calls


@pytest.mark.parametrize("call", ["syncfs", "fsync"])
def test_whole_fails(
    tmp_path: Path, break_call: Callable[[str, str, int], None], call: str
) -> None:
    """
    What the disk says is passed on, and no descriptor stays open.
    """
    before = os.listdir("/proc/self/fd")
    break_call(call, tmp_path.name, errno.EIO)

    with pytest.raises(OSError, match="Input/output error"):
        Syncing(lambda: 0.0).whole(str(tmp_path))

    assert before == os.listdir("/proc/self/fd")


@pytest.mark.parametrize("number", [0x65735546, 0xFF534D42, 0x01021997, 0x794C7630, 0x6969])
def test_not_on_this_file_system(disk: Disk, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """
    FUSE, CIFS, 9P, overlayfs and NFS are synced one by one, and are not asked again for a minute.
    """
    monkeypatch.setattr(syncing, "_file_system", lambda _: number)
    monkeypatch.setattr(syncing, "_syncfs", lambda _: pytest.fail("it would have said yes"))

    with pytest.raises(OSError, match="no promise"):
        disk.syncing.whole(str(disk.root))

    disk.clock.advance(50)
    assert not disk.syncing.whole_pays(2)
    disk.clock.advance(30)
    assert disk.syncing.whole_pays(2)


def test_whole_without_a_directory(tmp_path: Path) -> None:
    """
    A directory that is not there is no success.
    """
    with pytest.raises(FileNotFoundError):
        Syncing(lambda: 0.0).whole(f"{tmp_path}/missing")


# ── the system ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def fresh() -> Iterator[None]:
    """
    What is known of the system is looked up in the test, and again after it.
    """
    can_sync_file_systems.cache_clear()
    yield
    can_sync_file_systems.cache_clear()


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("system", "release", "able"),
    [
        ("Linux", "5.8.0", True),
        ("Linux", "5.10.0-21-amd64", True),
        ("Linux", "6.1-rc3", True),
        ("Linux", "10.0", True),
        ("Linux", "5.7.19", False),
        ("Linux", "4.18.0-553.el8.x86_64", False),
        ("Linux", "6", False),
        ("Linux", "strange", False),
        ("FreeBSD", "14.1-RELEASE", False),
    ],
)
def test_which_system(
    monkeypatch: pytest.MonkeyPatch, system: str, release: str, able: bool
) -> None:
    """
    Linux before 5.8 tells of no errors, and so is not asked.
    """
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(sysname=system, release=release))

    assert able is can_sync_file_systems()


@pytest.mark.usefixtures("fresh")
def test_no_such_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A C library without syncfs.
    """
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(sysname="Linux", release="6.1.0"))
    monkeypatch.setattr(syncing, "_library", SimpleNamespace)

    assert not can_sync_file_systems()


def test_real(
    unavailable: Callable[[str], None],
    real: dict[str, Callable[[int], object]],
    mounted: Callable[[Path], None],
    tmp_path: Path,
) -> None:
    """
    The system calls take a descriptor, and say what is wrong with another.
    """
    if not can_sync_file_systems():
        unavailable("syncfs")
    mounted(tmp_path)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    real["syncfs"](descriptor)
    assert 0x01021994 == real["file_system"](descriptor)
    os.close(descriptor)
    with open(tmp_path / "file", "wb") as file:
        check_written(file.fileno())

    with pytest.raises(OSError, match="Bad file descriptor") as error:
        real["syncfs"](descriptor)

    assert errno.EBADF == error.value.errno
    for call in (check_written, real["file_system"]):
        with pytest.raises(OSError, match="Bad file descriptor"):
            call(descriptor)
