"""
In haste only where that is safe: on disks of this machine, in mailboxes in use, and on trial.
"""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from twisted.internet.task import Clock

from lmtpsvc.backends import calls, file_systems
from lmtpsvc.backends.calls import PATIENT, SLOW
from lmtpsvc.backends.file_systems import FileSystem
from lmtpsvc.backends.haste import BUSY, LONGEST_PAUSE, PAUSE, SMALL, WARM, Haste
from lmtpsvc.backends.places import Known
from lmtpsvc.backends.syncing import Syncing


@pytest.fixture
def sync(clock: Clock) -> Syncing:
    return Syncing(clock.seconds)


@pytest.fixture
def haste(clock: Clock, sync: Syncing) -> Haste:
    return Haste(clock.seconds, sync)


@pytest.fixture
def known(root: Path, haste: Haste) -> Known:
    """
    A Maildir that was used a moment ago, on a disk that has been looked at.
    """
    root.mkdir()
    look(haste, root)
    known = Known(os.stat(root), 0.0, is_safe=True)
    assert not is_hasty(haste, known), "it was not used yet"
    haste.saw_use(known)
    return known


def look(haste: Haste, root: Path) -> None:
    file_system = FileSystem(str(root))
    haste.saw(file_system)
    file_system.close()


def is_hasty(haste: Haste, known: Known | None, octets: int = 0) -> bool:
    return haste.calls(known, octets) is not PATIENT


def test_in_use(haste: Haste, known: Known, clock: Clock) -> None:
    """
    The first mail to a Maildir is stored with patience, and the next after a long time: until it has
    been.  What is done in haste is a use, too.
    """
    assert is_hasty(haste, known)

    clock.advance(0.9 * WARM)
    assert is_hasty(haste, known)
    clock.advance(0.9 * WARM)
    assert is_hasty(haste, known)

    clock.advance(1.1 * WARM)
    assert not is_hasty(haste, known)
    assert not is_hasty(haste, known)
    haste.saw_use(known)
    assert is_hasty(haste, known)


def test_not_known(haste: Haste) -> None:
    """
    A Maildir that is not known to be there takes patience.
    """
    assert not is_hasty(haste, None)


def test_size(haste: Haste, known: Known) -> None:
    """
    What is large takes patience.
    """
    assert is_hasty(haste, known, SMALL)
    assert not is_hasty(haste, known, SMALL + 1)


@pytest.mark.parametrize("kind", [0x65735546, 0xFF534D42, 0x01021997, 0x794C7630, 0x6969])
def test_elsewhere(
    haste: Haste, known: Known, root: Path, monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    """
    FUSE, CIFS, 9P, overlayfs and NFS take patience, and so does what nobody has looked at.
    """
    monkeypatch.setattr(file_systems, "_file_system", lambda _: kind)
    look(haste, root)
    assert not is_hasty(haste, known)

    known.device += 1
    assert not is_hasty(haste, known)


def test_looked_at_from_time_to_time(haste: Haste, known: Known, root: Path, clock: Clock) -> None:
    """
    Which devices are in this machine is looked at each minute: the number may be another's by then.
    """
    assert not haste.wants_to_see(known)
    clock.advance(1.1 * WARM)
    assert haste.wants_to_see(known)

    look(haste, root)
    assert not haste.wants_to_see(known)
    known.device += 1
    assert haste.wants_to_see(known)


def test_devices_are_forgotten(haste: Haste, known: Known) -> None:
    """
    However many devices come and go, they do not fill the memory.
    """
    for device in range(5000):
        haste.saw(SimpleNamespace(device=device, is_reliable=True))  # type: ignore[arg-type]  # as much of it as counts

    assert len(haste._seen) <= 1000


def test_busy_disk(haste: Haste, known: Known, clock: Clock, sync: Syncing, root: Path) -> None:
    """
    As long as the disk takes long to sync, writing to it takes patience.
    """
    with sync.timed():
        clock.advance(1.1 * BUSY)
    assert not is_hasty(haste, known)

    with sync.timed():
        clock.advance(0.9 * BUSY)
    assert is_hasty(haste, known)


@pytest.mark.parametrize("way", ["one", "whole"])
def test_disk_that_hangs(
    haste: Haste,
    known: Known,
    clock: Clock,
    sync: Syncing,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    """
    Nobody is in haste behind a wait that does not end, whatever ends in other threads meanwhile; and
    when it fails, it is over.
    """

    def hang(_: object = None) -> None:
        assert is_hasty(haste, known)
        clock.advance(1.1 * BUSY)
        assert not is_hasty(haste, known)
        with ThreadPoolExecutor(1) as others:
            others.submit(be_quick).result()
        assert not is_hasty(haste, known)
        raise OSError

    def be_quick() -> None:
        with sync.timed():
            pass

    def wait() -> None:
        if way == "one":
            with sync.timed():
                hang()
        else:
            sync.whole(file_system)

    monkeypatch.setattr(file_systems, "_syncfs", hang)
    file_system = FileSystem(str(root))
    with pytest.raises(OSError):
        wait()
    file_system.close()

    be_quick()
    assert is_hasty(haste, known)


def test_blocked(haste: Haste, known: Known, clock: Clock, root: Path) -> None:
    """
    After a call that has blocked, all take patience for a while; longer, if it happens again.
    """
    (root / "a").touch()

    def block() -> None:
        hasty = haste.calls(known, 0)
        assert hasty is not PATIENT
        rename = hasty._rename  # type: ignore[attr-defined]  # the slow disk is here
        hasty._rename = lambda *_: clock.advance(1.1 * SLOW)  # type: ignore[attr-defined]
        hasty.rename(f"{root}/a", f"{root}/b")
        hasty._rename = rename  # type: ignore[attr-defined]

    pause = PAUSE
    for _ in range(10):
        block()
        clock.advance(0.99 * pause)
        assert not is_hasty(haste, known)
        clock.advance(0.02 * pause)
        haste.saw_use(known)
        assert is_hasty(haste, known)
        pause = min(2 * pause, LONGEST_PAUSE)

    clock.advance(1.1 * LONGEST_PAUSE)
    haste.saw_use(known)
    block()
    clock.advance(1.01 * PAUSE)
    assert is_hasty(haste, known)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """
    A C library that has nothing but what the test puts there.
    """
    library = SimpleNamespace()
    monkeypatch.setattr(ctypes, "PyDLL", lambda *_, **__: library)
    return library


@pytest.mark.usefixtures("library")
def test_no_such_calls(clock: Clock, sync: Syncing, root: Path) -> None:
    """
    Where the C library is another one, there is always patience.
    """
    root.mkdir()
    haste = Haste(clock.seconds, sync)
    known = Known(os.stat(root), 0.0, is_safe=True)
    look(haste, root)
    haste.saw_use(known)

    assert not is_hasty(haste, known)


def test_other_struct(
    clock: Clock, sync: Syncing, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    And where a file's device is not where it should be.
    """
    monkeypatch.setattr(calls.HastyCalls, "device", lambda *_: 4711)
    root.mkdir()
    haste = Haste(clock.seconds, sync)
    known = Known(os.stat(root), 0.0, is_safe=True)
    look(haste, root)
    haste.saw_use(known)

    assert not is_hasty(haste, known)


def test_seen_meanwhile(haste: Haste) -> None:
    """
    A thread may see a new disk while it is asked which are known.
    """

    class Changes:
        def __bool__(self) -> bool:
            haste._seen[3] = (0.0, False)
            return False

    haste._seen.update({1: (0.0, Changes()), 2: (0.0, True)})  # type: ignore[dict-item]
    assert haste.knows_disks
