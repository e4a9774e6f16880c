"""
A file system as a whole: whether its syncfs is a promise, and what has to be done besides.
"""

from __future__ import annotations

import errno
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from lmtpsvc.backends import file_systems
from lmtpsvc.backends.file_systems import FileSystem, can_sync_file_systems, check_written

Calls = list[tuple[str, str]]

EXT4, XFS, BTRFS, F2FS, TMPFS = 0xEF53, 0x58465342, 0x9123683E, 0xF2F52010, 0x01021994


@pytest.fixture
def make(root: Path) -> Iterator[Callable[[], FileSystem]]:
    """
    ``make()``: the one that *root* is on.
    """
    root.mkdir()
    made: list[FileSystem] = []

    def make() -> FileSystem:
        made.append(FileSystem(str(root)))
        return made[-1]

    yield make
    for file_system in made:
        file_system.close()


def test_sync(make: Callable[[], FileSystem], calls: Calls) -> None:
    """
    Without a journal, the disk's cache is emptied behind the last, and only behind the last.
    """
    file_system = make()
    calls.clear()

    file_system.sync(finally_=False)
    assert [("syncfs", ".")] == calls

    file_system.sync(finally_=True)
    assert [("syncfs", "."), ("syncfs", "."), ("fsync", ".")] == calls


@pytest.mark.parametrize(
    ("kind", "journal", "synced"),
    [
        (EXT4, False, True),
        (EXT4, True, False),
        (XFS, False, False),
        (BTRFS, False, False),
        # Not known.
        (F2FS, False, True),
        # The name of a journal says something of ext4 only.
        (TMPFS, True, True),
    ],
)
def test_journal(
    make: Callable[[], FileSystem],
    calls: Calls,
    monkeypatch: pytest.MonkeyPatch,
    kind: int,
    journal: bool,
    synced: bool,
) -> None:
    """
    With one, syncfs has done all that there is to do.
    """
    monkeypatch.setattr(file_systems, "_file_system", lambda _: kind)
    monkeypatch.setattr(file_systems, "_journal", lambda _: journal)
    file_system = make()
    calls.clear()

    file_system.sync(finally_=True)

    assert synced == (("fsync", ".") in calls)


@pytest.mark.parametrize(
    ("kind", "journal", "always"),
    [
        (EXT4, False, False),
        (EXT4, True, True),
        (XFS, False, True),
        (BTRFS, False, True),
        (F2FS, True, False),
    ],
)
def test_tells_since(
    make: Callable[[], FileSystem],
    monkeypatch: pytest.MonkeyPatch,
    kind: int,
    journal: bool,
    always: bool,
) -> None:
    """
    Without a journal, a directory may have been lost before it was opened; somebody else was told.
    """
    monkeypatch.setattr(file_systems, "_file_system", lambda _: kind)
    monkeypatch.setattr(file_systems, "_journal", lambda _: journal)
    before = time.monotonic()
    file_system = make()
    after = time.monotonic()

    if always:
        assert -math.inf == file_system.tells_since
    else:
        assert before <= file_system.tells_since <= after


def test_journal_is_looked_for_anew(
    make: Callable[[], FileSystem],
    calls: Calls,
    tmp_path: Path,
    real: dict[str, Callable[[int], object]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    As long as it is open it stays what it is; the next file system on the same device may have none.
    """
    file_system = make()
    monkeypatch.setattr(file_systems, "_journal", real["journal"])
    monkeypatch.setattr(file_systems, "_JOURNALS", str(tmp_path))
    monkeypatch.setattr(file_systems, "_name", lambda _: "disk!part1")
    calls.clear()

    (tmp_path / "disk!part1-8").mkdir()
    (tmp_path / "disk!part10-8").mkdir()
    file_system.sync(finally_=True)
    assert [("syncfs", ".")] == calls

    (tmp_path / "disk!part1-8").rmdir()
    file_system.sync(finally_=True)
    assert ("fsync", ".") not in calls
    make().sync(finally_=True)
    assert ("fsync", ".") == calls[-1]


def test_no_device(real: dict[str, Callable[[int], object]]) -> None:
    """
    What is not on a block device, as tmpfs is not, has no journal that we know.
    """
    assert not real["journal"](os.makedev(0, 4711))


@pytest.mark.parametrize("call", ["syncfs", "fsync"])
def test_fails(tmp_path: Path, break_call: Callable[[str, str, int], None], call: str) -> None:
    """
    What the disk says is passed on, and no descriptor stays open.
    """
    before = os.listdir("/proc/self/fd")
    break_call(call, tmp_path.name, errno.EIO)

    file_system = FileSystem(str(tmp_path))
    with pytest.raises(OSError, match="Input/output error"):
        file_system.sync(finally_=True)
    file_system.close()

    assert before == os.listdir("/proc/self/fd")


def test_not_even_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where it cannot be looked at, no descriptor stays open.
    """

    def fail(_: int) -> int:
        raise OSError(errno.EIO, "")

    monkeypatch.setattr(file_systems, "_file_system", fail)
    before = os.listdir("/proc/self/fd")

    with pytest.raises(OSError, match="5"):
        FileSystem(str(tmp_path))

    assert before == os.listdir("/proc/self/fd")


def test_without_a_directory(tmp_path: Path) -> None:
    """
    A directory that is not there is no success.
    """
    with pytest.raises(FileNotFoundError):
        FileSystem(f"{tmp_path}/missing")


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
        ("Linux", "5.17.0", True),
        ("Linux", "5.19.0-21-amd64", True),
        ("Linux", "6.1-rc3", True),
        ("Linux", "10.0", True),
        ("Linux", "5.16.20", False),
        ("Linux", "5.8.0", False),
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
    Linux before 5.17 does not tell of all errors, and so is not asked.
    """
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(sysname=system, release=release))

    assert able is can_sync_file_systems()


@pytest.mark.usefixtures("fresh")
def test_no_such_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A C library without syncfs.
    """
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(sysname="Linux", release="6.1.0"))
    monkeypatch.setattr(file_systems, "_library", SimpleNamespace)

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
