"""
Maildirs that have not been in use: a thread looks there, and the message takes the short way with all
others; none is told of before its directories are safe, too.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from lmtpsvc.backends import file_systems, listing, places
from lmtpsvc.backends.group_commit import PATIENCE
from lmtpsvc.backends.maildir import MaildirBackend
from lmtpsvc.backends.places import STALE_SECONDS
from lmtpsvc.backends.posting import Posting
from lmtpsvc.backends.shortcut import MANY
from lmtpsvc.commitment import Commitment
from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import TemporaryFailure
from lmtpsvc.testing import MemoryMessage

from .conftest import NOW

ANN, BOB, CY = USERS = [Mailbox(user, "example.org") for user in ("ann", "bob", "cy")]
DEE = Mailbox("dee", "example.com")

ONE = MemoryMessage(b"1\r\n")

Make = Callable[..., MaildirBackend]
Calls = list[tuple[str, str]]
Deliver = Callable[..., Commitment]
Work = Callable[[], None]


@pytest.fixture
def backend(
    maildir: Make, held_pool: Any, process: Any, at_once: None, calls: Calls
) -> MaildirBackend:
    """
    A backend that has seen its disk, and no mailbox but that of the first message.
    """
    first = maildir(held_pool)
    for user in USERS:
        first.deliver(ONE, [user])
        held_pool.work()
    backend = maildir(held_pool, process=process)
    backend.deliver(ONE, [Mailbox("first", "example.org")])
    held_pool.work()
    calls.clear()
    return backend


@pytest.fixture
def deliver(backend: MaildirBackend, held_pool: Any) -> Deliver:
    """
    ``deliver(ANN)``: the result of a message that is not alone, so that somebody looks there first;
    that has still to be done.
    """
    backend._shortcut._others = lambda: MANY

    def deliver(mailbox: Mailbox) -> Commitment:
        [result] = backend.deliver(ONE, [mailbox])
        return result

    return deliver


def steps(calls: Calls) -> list[str]:
    return [call for call, _ in calls]


def look(held_pool: Any) -> None:
    """
    Have a thread look.
    """
    held_pool.jobs.pop(0)()


def is_safe(backend: MaildirBackend, mailbox: Mailbox) -> bool:
    return backend._places.is_safe(backend._place(mailbox))


def test_a_look_and_no_more(
    backend: MaildirBackend,
    deliver: Deliver,
    held_pool: Any,
    process: Any,
    calls: Calls,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Where a mailbox is, the thread changes nothing; the message is left to the process, and the waits
    that make it safe make its directories safe.
    """
    monkeypatch.setattr(file_systems, "_journal", lambda _: True)
    results = [deliver(user) for user in (ANN, BOB)]
    assert process.is_idle

    look(held_pool)
    assert 1 == process.letters
    assert not is_safe(backend, ANN)
    look(held_pool)
    assert 2 == process.letters
    assert [] == steps(calls)
    assert [] == held_pool.jobs

    process.work()
    assert ["write", "write", "syncfs", "link", "link", "syncfs"] == steps(calls)
    assert [True, True] == [result.called for result in results]
    assert is_safe(backend, ANN)
    assert is_safe(backend, BOB)


def test_counts_once(
    backend: MaildirBackend, held_pool: Any, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A message that is handed on is counted by others from then on, and not by both.
    """
    shortcut = backend._shortcut
    counts: list[int] = []
    monkeypatch.setattr(shortcut, "_others", lambda: 1)
    monkeypatch.setattr(shortcut._entrusted, "take", lambda *_: counts.append(shortcut._look.count))
    [result] = backend.deliver(ONE, [ANN])
    assert 1 == shortcut._look.count

    look(held_pool)
    assert [0] == counts
    work()
    assert result.called


def test_many_in_a_row(deliver: Deliver, held_pool: Any, process: Any, work: Work) -> None:
    """
    While a thread looks, others come; it looks for all of them, then; and each mailbox once.
    """
    results = [deliver(user) for user in (ANN, BOB, CY, BOB)]
    look(held_pool)
    look(held_pool)
    assert 4 == process.letters

    work()
    assert all(result.called for result in results)


def test_is_made(
    backend: MaildirBackend,
    deliver: Deliver,
    held_pool: Any,
    work: Work,
    calls: Calls,
    success_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Where no mailbox is, the thread makes one, which is safe when the message is; not before.
    """
    monkeypatch.setattr(file_systems, "_journal", lambda _: True)
    result = deliver(DEE)
    look(held_pool)
    assert ["mkdir"] * 5 == [step for step in steps(calls) if step == "mkdir"]
    assert "fsync" not in steps(calls)
    assert not is_safe(backend, DEE)
    assert not result.called

    work()
    success_of(result)
    assert is_safe(backend, DEE)
    assert "syncfs" in steps(calls)[-2:]


def test_domain_removed(deliver: Deliver, work: Work, root: Path, success_of: Any) -> None:
    """
    What somebody has removed since it was last there is made again.
    """
    for user in ("dee", "eve"):
        result = deliver(Mailbox(user, "example.com"))
        work()
        success_of(result)
        shutil.rmtree(root / "example.com")


def test_right_behind(deliver: Deliver, held_pool: Any, process: Any) -> None:
    """
    Who comes when somebody has looked needs not look again.
    """
    deliver(ANN)
    look(held_pool)
    assert 1 == process.letters

    deliver(ANN)
    assert 2 == process.letters


def test_not_safe_where_the_wait_fails(
    backend: MaildirBackend,
    deliver: Deliver,
    held_pool: Any,
    work: Work,
    calls: Calls,
    success_of: Any,
    break_call: Any,
) -> None:
    """
    What the disk may not have is synced one by one, from the inside out, before anybody is told.
    """
    result = deliver(ANN)
    look(held_pool)
    break_call("syncfs", "", errno.EIO)
    work()

    success_of(result)
    user = "example.org/ann"
    synced = [path for call, path in calls if call == "fsync" and ",S=" not in path]
    assert {f"{user}/{leaf}" for leaf in ("tmp", "new", "cur")} <= set(synced)
    assert [user, "example.org", "."] == synced[-3:]
    assert is_safe(backend, ANN)


def test_made_by_another_meanwhile(
    backend: MaildirBackend,
    deliver: Deliver,
    held_pool: Any,
    work: Work,
    calls: Calls,
    success_of: Any,
) -> None:
    """
    Where a mailbox has been made again since, the wait was not for that one.
    """
    result = deliver(ANN)
    look(held_pool)
    backend._places.make(backend._place(ANN), durably=False)
    work()

    success_of(result)
    assert is_safe(backend, ANN)
    synced = {path for call, path in calls if call == "fsync" and ",S=" not in path}
    assert {"example.org/ann/new", "example.org/ann", "example.org", "."} <= synced


def test_nothing_to_look_at(
    deliver: Deliver, work: Work, root: Path, failure_of: Any, calls: Calls
) -> None:
    """
    What is wrong with a mailbox is found out, and told, by those who would have to write there.
    """
    (root / "example.org/eve").touch()
    failed, stored = deliver(Mailbox("eve", "example.org")), deliver(ANN)
    work()

    failure_of(failed, TemporaryFailure)
    assert stored.called


@pytest.mark.parametrize("can_read", [True, False])
def test_leftovers(
    deliver: Deliver,
    held_pool: Any,
    root: Path,
    can_read: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    What has been left in tmp long ago is removed; what somebody may still write is not.
    """
    if not can_read:
        monkeypatch.setattr(listing, "_getdents", lambda: None)
    tmp = root / "example.org/ann/tmp"
    for name, age in (("old", STALE_SECONDS + 1), ("young", STALE_SECONDS - 1)):
        (tmp / name).touch()
        os.utime(tmp / name, (NOW - age, NOW - age))
    deliver(ANN)
    look(held_pool)

    assert not (tmp / "old").exists()
    assert (tmp / "young").exists()


@pytest.mark.parametrize("name", ["tmp", "cur"])
def test_incomplete(deliver: Deliver, work: Work, root: Path, success_of: Any, name: str) -> None:
    """
    What is missing of a Maildir is made.
    """
    (root / "example.org/ann" / name).rmdir()
    result = deliver(ANN)
    work()

    success_of(result)
    assert (root / "example.org/ann" / name).is_dir()


def test_called_off(deliver: Deliver, work: Work, root: Path) -> None:
    """
    Nobody makes a mailbox for what nobody wants any more.
    """
    result = deliver(DEE)
    result.addErrback(lambda _: None)
    result.cancel()
    work()

    assert not (root / "example.com").exists()


def test_elsewhere(
    maildir: Make, held_pool: Any, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Nobody looks on NFS and its like, as nothing there takes the short way.
    """
    monkeypatch.setattr(file_systems, "_file_system", lambda _: 0x6969)
    backend = maildir(held_pool)
    for user in USERS:
        backend.deliver(ONE, [user])
        assert backend._shortcut._look.is_idle
        held_pool.work()


def test_stop(backend: MaildirBackend, deliver: Deliver, work: Work) -> None:
    """
    What has begun is finished.
    """
    result = deliver(ANN)
    stopped = backend.stopService()
    assert not stopped.called
    work()

    assert result.called
    assert stopped.called


def test_the_wait_of_others_fails(
    backend: MaildirBackend,
    deliver: Deliver,
    held_pool: Any,
    work: Work,
    calls: Calls,
    success_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    What was made before a wait failed may be lost, and only that wait tells: it is synced one by one.
    """
    deliver(DEE)
    look(held_pool)
    waits = iter([errno.EIO])
    syncfs = file_systems._syncfs

    def fail_once(descriptor: int) -> None:
        for number in waits:
            raise OSError(number, os.strerror(number))
        syncfs(descriptor)

    monkeypatch.setattr(file_systems, "_syncfs", fail_once)
    made = backend._places.look(backend._place(Mailbox("eve", "example.net")))
    work()
    assert not made.is_safe

    calls.clear()
    results = [deliver(Mailbox("eve", "example.net")) for _ in range(2)]
    work()
    for result in results:
        success_of(result)
    synced = {path for call, path in calls if call == "fsync"}
    assert {"example.net/eve/new", "example.net/eve", "example.net", "."} <= synced


def test_folder(
    maildir: Make, held_pool: Any, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Of a folder that is there, what the process will need is read before, too.
    """
    folder = Mailbox("ann", "example.org", "lists")
    for backend in (maildir(held_pool, detail="folder") for _ in range(2)):
        backend.deliver(ONE, [folder])
        held_pool.work()
    read: list[str] = []

    def read_some(path: str) -> os.stat_result:
        read.append(path)
        return listing.read_some(path)

    monkeypatch.setattr(places, "read_some", read_some)
    backend = maildir(held_pool, detail="folder")
    place = backend._place(folder)
    backend._places.look(place)
    assert [f"{place.directory}/new"] == read


def test_large_directory(
    backend: MaildirBackend,
    deliver: Deliver,
    held_pool: Any,
    work: Work,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Where a directory is larger than what is read of it, the part is read where the name will be.
    """
    asked: list[str] = []
    monkeypatch.setattr(places, "_ONE_READ", 0)
    monkeypatch.setattr(os.path, "lexists", asked.append)
    deliver(ANN)
    look(held_pool)
    work()

    [stored] = set((root / "example.org/ann/new").iterdir()) & set(map(Path, asked))
    assert [str(stored)] == asked


def test_leftover_that_stays(
    deliver: Deliver, held_pool: Any, process: Any, root: Path, break_call: Any
) -> None:
    """
    A leftover that cannot be removed is in nobody's way.
    """
    old = root / "example.org/ann/tmp/old"
    old.touch()
    os.utime(old, (0, 0))
    break_call("unlink", "/old", errno.EPERM)
    deliver(ANN)
    look(held_pool)
    assert old.exists()
    assert 1 == process.letters


def test_a_defect(
    backend: MaildirBackend, deliver: Deliver, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Where one cannot be gone on with, that one is told, and all others are.
    """
    results = [deliver(user) for user in (ANN, BOB, CY)]
    defects = iter([RuntimeError("a defect")])
    take = backend._entrusted.take

    def fail_once(posting: Posting, device: int) -> bool:
        for defect in defects:
            raise defect
        return take(posting, device)

    monkeypatch.setattr(backend._entrusted, "take", fail_once)
    failures: list[Any] = []
    results[0].addErrback(failures.append)
    work()

    assert [RuntimeError] == [failure.type for failure in failures]
    assert all(result.called for result in results)


def test_threads_are_left(
    backend: MaildirBackend, deliver: Deliver, held_pool: Any, work: Work, clock: Clock
) -> None:
    """
    Those that look have so many threads, and no more, should they hang.
    """
    threads = backend._settings.threads
    for number in range(3 * threads):
        deliver(Mailbox(f"u{number}", "example.com"))
        clock.advance(2 * PATIENCE)
    assert len(held_pool.jobs) == threads
    work()
