"""
Locks: other programs are kept out, are waited for, and hold up nobody else's mail.
"""

from __future__ import annotations

import errno
import fcntl
import mailbox
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock

from lmtpsvc.backends import mbox_locks
from lmtpsvc.backends.mbox import MboxBackend
from lmtpsvc.backends.mbox_locks import MAKER, STALE_SECONDS, Busy, locked
from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import TemporaryFailure
from lmtpsvc.testing import MemoryMessage

ANN, BOB = (Mailbox(user, "example.org") for user in ("ann", "bob"))

Make = Callable[..., MboxBackend]

HOLDER = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
if sys.argv[2] == "dotlock":
    os.open(sys.argv[1] + ".lock", os.O_CREAT | os.O_EXCL)
else:
    getattr(fcntl, {"fcntl": "lockf", "flock": "flock"}[sys.argv[2]])(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
if sys.argv[2] == "dotlock":
    os.unlink(sys.argv[1] + ".lock")
"""


class Holder:
    """
    Another process that has a lock.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path), kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert b"locked\n" == self._process.stdout.readline()

    def release(self) -> None:
        """
        Give it back.
        """
        self._process.communicate()


@pytest.fixture
def hold(root: Path) -> Iterator[Callable[[str], Holder]]:
    """
    ``hold("fcntl")``: another process has that lock of Ann's mailbox.
    """
    holders: list[Holder] = []

    def hold(kind: str) -> Holder:
        root.mkdir(exist_ok=True)
        holder = Holder(root / "ann", kind)
        holders.append(holder)
        return holder

    yield hold
    for holder in holders:
        holder.release()


BOTH = pytest.mark.parametrize("kind", ["fcntl", "dotlock"])


@BOTH
def test_held_for_too_long(
    mbox: Make,
    message: MemoryMessage,
    root: Path,
    clock: Clock,
    hold: Any,
    failure_of: Any,
    no_result: Any,
    kind: str,
) -> None:
    """
    Who has waited for as long as the operator wants hears "not now", and the file is untouched.
    """
    hold(kind)
    backend = mbox(lock_timeout="5")
    [result] = backend.deliver(message, [ANN])

    clock.pump([0.1] * 49)
    no_result(result)
    clock.pump([0.1] * 2)

    assert "451 4.2.0" == str(failure_of(result, TemporaryFailure).value.reply)[:9]
    assert b"" == (root / "ann").read_bytes()
    assert [] == clock.getDelayedCalls()


@BOTH
def test_released(
    mbox: Make, message: MemoryMessage, clock: Clock, hold: Any, success_of: Any, kind: str
) -> None:
    """
    Once the lock is given back, all who wait get their mail, together.
    """
    holder = hold(kind)
    backend = mbox()
    results = backend.deliver(message, [ANN])
    clock.pump([0.1] * 20)
    results += backend.deliver(message, [ANN])
    holder.release()

    clock.pump([0.1] * 10)

    for result in results:
        success_of(result)


@pytest.mark.parametrize("kind", ["fcntl", "dotlock", "flock"])
def test_others_are_served(
    mbox: Make,
    held_pool: Any,
    message: MemoryMessage,
    clock: Clock,
    hold: Any,
    success_of: Any,
    no_result: Any,
    kind: str,
) -> None:
    """
    While Ann's mailbox is locked no thread waits for it, and Bob gets his mail.
    """
    hold(kind)
    backend = mbox(held_pool, locks="fcntl,flock,dotlock")

    for _ in range(20):
        ann, bob = backend.deliver(message, [ANN, BOB])
        held_pool.work()
        success_of(bob)
        no_result(ann)
        clock.advance(0.5)

    for call in clock.getDelayedCalls():
        call.cancel()


def test_tries_less_and_less_often(
    mbox: Make, held_pool: Any, message: MemoryMessage, clock: Clock, hold: Any
) -> None:
    """
    A mailbox that stays locked is looked at soon at first, and then once a second.
    """
    hold("dotlock")
    backend = mbox(held_pool, lock_timeout="20")
    held_pool.work()
    [result] = backend.deliver(message, [ANN])
    result.addErrback(lambda _: None)
    tries = []
    while not result.called:
        if held_pool.jobs:
            tries.append(clock.seconds())
            held_pool.work()
        clock.advance(0.01)

    pauses = [after - before for before, after in pairwise(tries)]
    assert pauses[0] < 0.03
    assert pauses == pytest.approx(sorted(pauses[:-1]) + pauses[-1:])
    assert 0.9 < max(pauses) < 1.1
    assert len(tries) < 70


def test_cancelled_while_it_waits(
    mbox: Make, message: MemoryMessage, root: Path, clock: Clock, hold: Any, failure_of: Any
) -> None:
    """
    A delivery that waits for a lock can be called off.
    """
    holder = hold("fcntl")
    [result] = mbox().deliver(message, [ANN])

    result.cancel()
    holder.release()
    clock.pump([0.1] * 20)

    failure_of(result, CancelledError)
    assert b"" == (root / "ann").read_bytes()
    assert [] == clock.getDelayedCalls()


def test_what_comes_later_may_wait_as_long(
    mbox: Make,
    message: MemoryMessage,
    clock: Clock,
    hold: Any,
    failure_of: Any,
    no_result: Any,
) -> None:
    """
    Each message has its own time to wait.
    """
    hold("fcntl")
    backend = mbox(lock_timeout="5")
    [first] = backend.deliver(message, [ANN])
    clock.pump([0.1] * 30)
    [second] = backend.deliver(message, [ANN])

    clock.pump([0.1] * 22)
    failure_of(first, TemporaryFailure)
    no_result(second)
    clock.pump([0.1] * 40)
    failure_of(second, TemporaryFailure)


def test_keeps_others_out(
    mbox: Make, message: MemoryMessage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    While we write, Python's mailbox module, which takes fcntl and dot-locks, does not get in.
    """
    backend, clashes = mbox(), []
    backend.deliver(message, [ANN])
    fsync = os.fsync

    def look(descriptor: int) -> None:
        fsync(descriptor)
        maker = f"{os.getpid()}:{HERE}"
        assert (root / "ann.lock").read_text() == f"{maker}\n"
        assert os.getxattr(root / "ann.lock", MAKER).decode() == f"{maker}:{BOOT}"
        with closing(mailbox.mbox(root / "ann")) as reader:
            try:
                reader.lock()
            except mailbox.ExternalClashError:
                clashes.append(1)
        (root / "ann.lock").rename(root / "away")
        with closing(mailbox.mbox(root / "ann")) as reader:
            try:
                reader.lock()
            except mailbox.ExternalClashError:
                clashes.append(2)
        (root / "away").rename(root / "ann.lock")

    monkeypatch.setattr(os, "fsync", look)
    backend.deliver(message, [ANN])

    assert [1, 2] * 2 == clashes
    assert ["ann"] == os.listdir(root)


def test_two_backends_of_one_process(root: Path) -> None:
    """
    Two open files of one process exclude each other, though its fcntl locks would not.
    """
    root.mkdir()
    one, two = (os.open(root / "ann", os.O_RDWR | os.O_CREAT) for _ in range(2))
    try:
        with locked(one, str(root / "ann"), ["fcntl"], nullcontext):
            with pytest.raises(Busy), locked(two, str(root / "ann"), ["fcntl"], nullcontext):
                pass
            with pytest.raises(BlockingIOError):
                fcntl.lockf(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(one)
        os.close(two)
    with locked(-1, str(root / "ann"), ["dotlock"], nullcontext):
        with pytest.raises(Busy), locked(-1, str(root / "ann"), ["dotlock"], nullcontext):
            pass
        assert ["ann", "ann.lock"] == sorted(os.listdir(root))


def _nobody() -> int:
    """
    The number of a process that is no more.
    """
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


HERE = socket.gethostname()
BOOT = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]


def _told(words: str) -> str:
    """
    What a lock tells, with processes of this host in place of their names, so that the test is
    called the same each time.
    """
    return words.format(nobody=_nobody(), us=os.getpid(), parent=os.getppid(), here=HERE, boot=BOOT)


@pytest.mark.parametrize(
    ("content", "age", "is_removed"),
    [
        ("{nobody}:{here}\n", 0, True),
        ("{us}:{here}\n", 0, True),
        ("{parent}:{here}\n", 10 * STALE_SECONDS, False),
        ("{nobody}:elsewhere.example\n", 0, False),
        ("{nobody}:elsewhere.example\n", STALE_SECONDS + 60, True),
        ("{nobody}\n", 0, False),
        ("", 0, False),
        ("", STALE_SECONDS - 60, False),
        ("", STALE_SECONDS + 60, True),
        ("\0\xff:{here}", STALE_SECONDS + 60, True),
        (f"{10**30}:{{here}}\n", 0, True),
    ],
)
def test_left_behind(
    mbox: Make,
    message: MemoryMessage,
    root: Path,
    clock: Clock,
    content: str,
    age: int,
    is_removed: bool,
) -> None:
    """
    A dot-lock of a process of this host that is no more, or an old one of anybody else, is no lock.
    """
    backend = mbox(lock_timeout="0")
    lock = root / "ann.lock"
    lock.write_text(_told(content))
    os.utime(lock, (time.time() - age,) * 2)

    [result] = backend.deliver(message, [ANN])
    result.addErrback(lambda failure: failure.trap(TemporaryFailure) and False)

    assert is_removed == (not lock.exists())
    assert is_removed == (not isinstance(result.result, bool))


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_left_behind_for_two(root: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """
    Of two processes that find the same one left behind, the second leaves alone what the first is
    about to remove, and what it has put in its place.
    """
    root.mkdir(exist_ok=True)
    path = str(root / "ann")
    lock = root / "ann.lock"
    lock.write_text(_told("{nobody}:{here}\n"))
    before = lock.stat()

    def replace(_: int) -> bool:
        lock.rename(root / "was")
        lock.write_text("new")
        return False

    if when == "meanwhile":
        monkeypatch.setattr(mbox_locks, "_lives", replace)
    with lock.open() as other:
        if when == "before":
            fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Busy), locked(-1, path, ["dotlock"], nullcontext):
            pass

    assert (lock.read_text() == "new") == (when == "meanwhile")
    assert os.path.samestat(before, lock.stat()) == (when == "before")


@pytest.mark.parametrize(
    ("maker", "is_removed"),
    [
        ("{nobody}:{here}:{boot}", True),
        ("{parent}:{here}:{boot}", False),
        ("{parent}:{here}:00000000", True),
        ("{parent}:{here}:", False),
        ("{nobody}:elsewhere.example:00000000", False),
        ("{nobody}:{here}", False),
        ("{nobody}:{here}:{boot}:", False),
        ("\xff::", False),
    ],
)
def test_left_behind_by_a_power_cut(
    mbox: Make,
    message: MemoryMessage,
    root: Path,
    clock: Clock,
    maker: str,
    is_removed: bool,
) -> None:
    """
    A dot-lock that has lost what was in it says in its attribute whose it is, and since which boot.
    """
    backend = mbox(lock_timeout="0")
    lock = root / "ann.lock"
    lock.touch()
    os.setxattr(lock, MAKER, _told(maker).encode("latin-1"))

    [result] = backend.deliver(message, [ANN])
    result.addErrback(lambda failure: failure.trap(TemporaryFailure) and False)

    assert is_removed == (not lock.exists())
    assert is_removed == (not isinstance(result.result, bool))


def test_no_more_ours(
    mbox: Make, message: MemoryMessage, root: Path, success_of: Any, break_call: Any
) -> None:
    """
    A dot-lock that somebody has taken for one left behind, and replaced, is not removed.
    """
    backend = mbox()
    write = os.write

    def steal(descriptor: int, octets: bytes) -> int:
        if bytes(octets[:5]) == b"From ":
            (root / "ann.lock").unlink()
            (root / "ann.lock").write_text("somebody's")
        return write(descriptor, octets)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "write", steal)
        success_of(backend.deliver(message, [ANN])[0])

    assert "somebody's" == (root / "ann.lock").read_text()


@pytest.mark.parametrize(("locks", "code"), [("fcntl,dotlock", 451), ("fcntl,dotlock_try", 0)])
def test_no_right_to_lock(
    mbox: Make,
    message: MemoryMessage,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure_of: Any,
    success_of: Any,
    locks: str,
    code: int,
) -> None:
    """
    Where no dot-lock can be created there is no delivery, unless the operator wants it so.
    """
    backend = mbox(locks=locks)
    (root / "ann").touch()
    opened = os.open

    def forbid(path: str, flags: int, *args: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise PermissionError(13, "Permission denied", path)
        return opened(path, flags, *args)

    monkeypatch.setattr(os, "open", forbid)
    [result] = backend.deliver(message, [ANN])

    if code:
        assert code == failure_of(result, TemporaryFailure).value.reply.code
    else:
        success_of(result)


@pytest.mark.parametrize("number", [errno.EISDIR, errno.EOPNOTSUPP])
def test_no_files_without_names(
    mbox: Make,
    message: MemoryMessage,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    success_of: Any,
    no_result: Any,
    number: int,
) -> None:
    """
    On NFS a dot-lock cannot be written before it has a name; it is a lock all the same.
    """
    backend = mbox()
    opened = os.open

    def refuse(path: str, flags: int, *args: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(number, "no such thing", path)
        return opened(path, flags, *args)

    monkeypatch.setattr(os, "open", refuse)
    success_of(backend.deliver(message, [ANN])[0])
    assert ["ann"] == os.listdir(root)
    (root / "bob.lock").touch()

    no_result(backend.deliver(message, [BOB])[0])


@pytest.mark.parametrize("replace", [True, False])
def test_replaced_while_we_lock(
    mbox: Make,
    message: MemoryMessage,
    root: Path,
    clock: Clock,
    success_of: Any,
    monkeypatch: pytest.MonkeyPatch,
    replace: bool,
) -> None:
    """
    If a reader renames another file into place, or removes it, just before we have the lock, the
    mail goes to the file that is there then.
    """
    backend = mbox()
    backend.deliver(message, [ANN])
    original = fcntl.fcntl
    done: list[bool] = []

    def swap(*args: Any) -> Any:
        if not done:
            done.append(True)
            (root / "ann").unlink()
            if replace:
                (root / "ann").write_bytes(b"From x\n\nkept\n\n")
        return original(*args)

    monkeypatch.setattr(fcntl, "fcntl", swap)
    [result] = backend.deliver(message, [ANN])
    clock.advance(0.1)

    success_of(result)
    octets = (root / "ann").read_bytes()
    assert replace == octets.startswith(b"From x\n\nkept\n\nFrom sender@")
    assert octets.endswith(b"body\n\n")
