"""
Small messages that the reactor thread writes, while a thread waits for the disk: none is told of
before it is safe, and what goes wrong for one goes wrong for that one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from lmtpsvc.backends import common_sync, file_systems
from lmtpsvc.backends.group_commit import PATIENCE
from lmtpsvc.backends.maildir import MaildirBackend
from lmtpsvc.backends.syncing import Syncing
from lmtpsvc.commitment import Commitment
from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import DeliveryError
from lmtpsvc.testing import MemoryMessage

ANN, BOB, CY, DEE = USERS = [Mailbox(user, "example.org") for user in ("ann", "bob", "cy", "dee")]

ONE, TWO, THREE = (MemoryMessage(f"{word}\r\n".encode(), id=word) for word in ("1", "2", "3"))

Make = Callable[..., MaildirBackend]
Break = Callable[[str, str, int], None]
Calls = list[tuple[str, str]]


@pytest.fixture
def backend(maildir: Make, held_pool: Any, at_once: None, calls: Calls) -> MaildirBackend:
    """
    A backend whose mailboxes are in use; it waits for the disk when the held pool works.
    """
    backend = maildir(held_pool)
    for _ in range(2):
        backend.deliver(MemoryMessage(b"0\r\n"), USERS)
        held_pool.work()
    calls.clear()
    return backend


@pytest.fixture
def opened(root: Path) -> Callable[[], list[str]]:
    """
    ``opened()``: what is open below the root, so that it could not be unmounted.
    """

    def opened() -> list[str]:
        links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
        paths = [os.readlink(link) for link in links if os.path.lexists(link)]
        return [path for path in paths if path.startswith(f"{root}")]

    return opened


@pytest.fixture
def texts(root: Path) -> Callable[[Mailbox], str]:
    """
    ``texts(ANN)``: what her mail says, but for the first two, in alphabetical order.
    """

    def texts(mailbox: Mailbox) -> str:
        new = root / mailbox.domain / mailbox.user / "new"
        found = "".join(sorted(path.read_text().strip() for path in new.glob("*")))
        assert found.startswith("00")
        return found[2:]

    return texts


def steps(calls: Calls) -> list[str]:
    """
    What was done, in order.
    """
    return [call for call, _ in calls]


@pytest.fixture
def deliver(backend: MaildirBackend, calls: Calls) -> Callable[..., list[Commitment]]:
    """
    ``deliver(ONE, [ANN])``: the results; each adds itself to the calls, when it comes.
    """

    def deliver(message: MemoryMessage, mailboxes: list[Mailbox]) -> list[Commitment]:
        results = backend.deliver(message, mailboxes)
        for result in results:
            result.addCallback(lambda _: calls.append(("answer", message.id)))
        return results

    return deliver


Deliver = Callable[..., list[Commitment]]


def test_no_thread_writes(
    deliver: Deliver,
    held_pool: Any,
    calls: Calls,
    texts: Callable[[Mailbox], str],
    opened: Callable[[], list[str]],
) -> None:
    """
    The message is in tmp at once; each job of the pool is one wait, and none is more.
    """
    deliver(ONE, [ANN])
    assert ["write"] == steps(calls)

    wait = held_pool.jobs.pop(0)
    assert [] == held_pool.jobs
    assert 1 == len(opened())
    wait()
    # Its end is told in the reactor thread, which this pool does on the spot.
    assert ["write", "syncfs", "rename"] == steps(calls)

    held_pool.jobs.pop(0)()
    assert ["write", "syncfs", "rename", "syncfs", "fsync", "answer"] == steps(calls)
    assert [] == held_pool.jobs
    assert [] == opened()
    assert "1" == texts(ANN)


def test_each_wait_is_for_all(deliver: Deliver, held_pool: Any, calls: Calls) -> None:
    """
    While one wait lasts, others are written; the next is for their texts, and for the names of those
    before.
    """
    deliver(ONE, [ANN])
    assert 1 == len(held_pool.jobs)
    deliver(TWO, [BOB])
    deliver(THREE, [CY])
    assert ["write"] * 3 == steps(calls)
    wait = ["syncfs", "fsync"]

    for expected in (
        ["syncfs", "rename"],
        [*wait, "rename", "rename", "answer"],
        [*wait, "answer", "answer"],
    ):
        calls.clear()
        (job,) = held_pool.jobs
        held_pool.jobs.clear()
        job()
        assert expected == steps(calls)
    assert [] == held_pool.jobs


def test_the_same_round(deliver: Deliver, held_pool: Any, calls: Calls) -> None:
    """
    What comes in one round of the reactor is waited for together.
    """
    deliver(ONE, [ANN])
    deliver(TWO, [BOB])
    held_pool.work()

    wait = ["syncfs", "rename", "rename", "syncfs", "fsync"]
    assert ["write", "write", *wait, "answer", "answer"] == steps(calls)


def test_links(
    deliver: Deliver, held_pool: Any, root: Path, calls: Calls, texts: Callable[[Mailbox], str]
) -> None:
    """
    Several mailboxes get one file, once it is safe.
    """
    deliver(ONE, USERS)
    held_pool.work()

    names = ["link", "link", "link", "rename"]
    assert ["write", "syncfs", *names, "syncfs", "fsync", *["answer"] * 4] == steps(calls)
    files = [path for path in root.glob("example.org/*/new/*") if path.read_text() == "1\n"]
    assert 4 == len(files)
    assert 1 == len({path.stat().st_ino for path in files})


def test_alone(
    deliver: Deliver,
    held_pool: Any,
    calls: Calls,
    texts: Callable[[Mailbox], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Where nobody shares its waits, one thread does everything, and the next message waits for it.
    """
    monkeypatch.setattr(Syncing, "whole_pays", lambda _, count: count > 1)
    deliver(ONE, [ANN])
    deliver(TWO, [BOB])
    assert ["write"] == steps(calls)
    calls.clear()

    held_pool.jobs.pop(0)()
    assert ["write", "fsync", "rename", "fsync", "answer"] == steps(calls)
    calls.clear()
    held_pool.work()
    assert ["fsync", "rename", "fsync", "answer"] == steps(calls)
    assert ("1", "2") == (texts(ANN), texts(BOB))


def test_it_does_not_pay(
    deliver: Deliver, held_pool: Any, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    While others write more than the disk can take, everything is left to threads; what was written
    before is synced one by one, and so are its names.
    """
    deliver(ONE, [ANN])
    assert 1 == len(held_pool.jobs)
    deliver(TWO, [BOB])
    monkeypatch.setattr(Syncing, "whole_pays", lambda *_: False)
    deliver(THREE, [CY])
    assert ["write"] * 2 == steps(calls)
    calls.clear()
    held_pool.work()

    assert 3 == steps(calls).count("answer")
    assert 1 == steps(calls).count("syncfs")
    # One name each; two texts, as the wait that had begun was for the first one's.
    assert 5 == steps(calls).count("fsync")


# ── what goes wrong ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize(
    ("call", "where"),
    [
        ("open", "ann/tmp/"),
        ("write", "ann/tmp/"),
        ("close", "ann/tmp/"),
        ("rename", "ann/new/"),
        ("fsync", "ann/tmp/"),
        ("fsync", "ann/new"),
    ],
)
@pytest.mark.parametrize("begun", [False, True])
def test_one_fails(
    deliver: Deliver,
    held_pool: Any,
    break_call: Break,
    success_of: Any,
    failure_of: Any,
    texts: Callable[[Mailbox], str],
    leftovers: Callable[[], list[str]],
    call: str,
    where: str,
    place: int,
    begun: bool,
) -> None:
    """
    Whatever fails for Ann, before she has mail on its way or after: the others get theirs.
    """
    mailboxes = [BOB, CY]
    mailboxes.insert(place, ANN)
    if not begun:
        break_call(call, where, errno.EDQUOT)
    results = [
        deliver(message, [mailbox])[0]
        for message, mailbox in zip([ONE, TWO, THREE], mailboxes, strict=True)
    ]
    if begun:
        break_call(call, where, errno.EDQUOT)
    held_pool.work()

    for mailbox, message, result in zip(mailboxes, [ONE, TWO, THREE], results, strict=True):
        if mailbox is ANN and not (begun and call in {"open", "write", "close"}):
            reply = str(failure_of(result, DeliveryError).value.reply)
            assert "452 4.2.2 Mailbox full" == reply
            assert not texts(ANN)
        else:
            success_of(result)
            assert message.id == texts(mailbox)
    assert [] == leftovers()


@pytest.mark.parametrize(
    ("call", "where", "missing"),
    [
        ("open", "ann/tmp/", "ann"),
        ("write", "ann/tmp/", "ann"),
        ("rename", "ann/new/", "ann"),
        ("fsync", "ann/new", "ann"),
        # Who cannot be linked gets a copy.
        ("link", "bob/new/", ""),
        ("fsync", "bob/new", "bob"),
    ],
)
def test_one_of_several_fails(
    deliver: Deliver,
    held_pool: Any,
    break_call: Break,
    success_of: Any,
    failure_of: Any,
    texts: Callable[[Mailbox], str],
    leftovers: Callable[[], list[str]],
    call: str,
    where: str,
    missing: str,
) -> None:
    """
    Of the mailboxes of one message, those that fail do so alone.
    """
    break_call(call, where, errno.EIO)
    results = deliver(ONE, [ANN, BOB, CY])
    held_pool.work()

    for mailbox, result in zip([ANN, BOB, CY], results, strict=True):
        if mailbox.user == missing:
            failure_of(result, DeliveryError)
            assert not texts(mailbox)
        else:
            success_of(result)
            assert "1" == texts(mailbox)
    assert [] == leftovers()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_short_write(
    deliver: Deliver,
    held_pool: Any,
    success_of: Any,
    texts: Callable[[Mailbox], str],
    leftovers: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    """
    A disk that takes a part only: the message is written anew, by who can wait for the rest.
    """
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, octets: write(descriptor, octets[:1]))
    (result,) = deliver(ONE, [ANN])
    assert [] == leftovers()
    monkeypatch.setattr(os, "write", write)
    held_pool.work()

    success_of(result)
    assert "1" == texts(ANN)


def test_lost_write(
    deliver: Deliver,
    held_pool: Any,
    calls: Calls,
    break_call: Break,
    success_of: Any,
    failure_of: Any,
    texts: Callable[[Mailbox], str],
    leftovers: Callable[[], list[str]],
    opened: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    A sync that fails is told of once: so all that was written until then is asked for one by one,
    what came meanwhile included; and only that is refused which is lost.
    """
    results = [*deliver(ONE, [ANN]), *deliver(TWO, [BOB])]
    real, fsync = file_systems._syncfs, os.fsync

    def fail_once(descriptor: int) -> None:
        monkeypatch.setattr(file_systems, "_syncfs", real)
        results.extend(deliver(THREE, [CY]))
        raise OSError(errno.EIO, "a write was lost")

    def lose_the_third(descriptor: int) -> None:
        if "cy/tmp" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EIO, "it was this one")
        fsync(descriptor)

    monkeypatch.setattr(file_systems, "_syncfs", fail_once)
    monkeypatch.setattr(os, "fsync", lose_the_third)
    with capturedLogs() as events:
        held_pool.work()

    first, second, third = results
    success_of(first)
    success_of(second)
    assert "451" == str(failure_of(third, DeliveryError).value.reply)[:3]
    assert ("1", "2", "") == (texts(ANN), texts(BOB), texts(CY))
    assert [] == leftovers() == opened()
    warning, error = [formatEvent(event) for event in events]
    assert "syncing one by one" in str(warning)
    assert "no delivery to cy@example.org" in str(error)


def test_slow_wait(
    deliver: Deliver,
    held_pool: Any,
    calls: Calls,
    clock: Clock,
    success_of: Any,
    no_result: Any,
    texts: Callable[[Mailbox], str],
    opened: Callable[[], list[str]],
) -> None:
    """
    A disk that does not answer keeps the others waiting for a moment only: another thread asks for
    each of them then.
    """
    (first,) = deliver(ONE, [ANN])
    assert 1 == len(held_pool.jobs)
    (second,) = deliver(TWO, [BOB])
    clock.advance(0.9 * PATIENCE)
    assert 1 == len(held_pool.jobs)
    clock.advance(0.2 * PATIENCE)
    hanging, other = held_pool.jobs
    held_pool.jobs.clear()
    calls.clear()

    other()
    success_of(second)
    no_result(first)
    assert ["fsync", "rename", "fsync", "answer"] == steps(calls)

    (third,) = deliver(THREE, [CY])
    held_pool.work()
    success_of(third)

    hanging()
    held_pool.work()
    success_of(first)
    assert ("1", "2", "3") == (texts(ANN), texts(BOB), texts(CY))
    assert [] == clock.getDelayedCalls()
    assert [] == opened()


def test_one_wait_at_a_time(deliver: Deliver, held_pool: Any, clock: Clock) -> None:
    """
    Of two waits for one open file system, one would be told what both have lost: so they are made
    one after the other, however long they take.
    """
    deliver(ONE, [ANN])
    assert 1 == len(held_pool.jobs)
    deliver(TWO, [BOB])
    clock.advance(1.1 * PATIENCE)
    hanging, other = held_pool.jobs
    held_pool.jobs.clear()
    deliver(THREE, [CY])
    other()
    # The third has a file system of its own, and is waited for.
    assert 1 == len(held_pool.jobs)
    hanging()
    assert 1 == len(held_pool.jobs)


def test_lost_before_anybody_listened(
    deliver: Deliver, held_pool: Any, clock: Clock, calls: Calls
) -> None:
    """
    What was written before the file system was opened anew is asked for itself: the one that is open
    then may not hear that it was lost.
    """
    deliver(ONE, [ANN])
    assert 1 == len(held_pool.jobs)
    deliver(TWO, [BOB])
    # In the round in which patience has run out.
    clock.callLater(PATIENCE, deliver, THREE, [CY])
    clock.advance(1.1 * PATIENCE)
    held_pool.jobs.pop(0)
    held_pool.work()

    assert [("answer", "2"), ("answer", "3")] == [call for call in calls if "answer" in call]
    assert any(call == "fsync" and "bob/tmp/" in path for call, path in calls)


def test_as_its_owner(
    deliver: Deliver,
    held_pool: Any,
    calls: Calls,
    root: Path,
    success_of: Any,
    failure_of: Any,
    as_root: None,
    tmp_path: Path,
) -> None:
    """
    A mailbox with an owner is written to as that user, and with no other rights; the thread that does
    so is itself again after each step, also after one that was forbidden.
    """
    tmp_path.chmod(0o711)
    for parent in tmp_path.parents[:2]:
        parent.chmod(parent.stat().st_mode | 0o011)
    eve = Mailbox("eve", "example.net", uid=4711, gid=4712)
    for _ in range(2):
        deliver(ONE, [eve])
        held_pool.work()
    maildir = root / "example.net/eve"
    mine = tmp_path / "mine"

    def whose(path: Path) -> tuple[int, int]:
        found = path.stat()
        return found.st_uid, found.st_gid

    for step in ("all", "new", "tmp"):
        if step != "all":
            (maildir / step).chmod(0)
        calls.clear()
        (result,) = deliver(TWO, [eve])
        if step != "tmp":
            assert ["write"] == steps(calls)
        mine.touch()
        assert (os.geteuid(), os.getegid()) == whose(mine)
        mine.unlink()
        held_pool.work()
        if step == "all":
            success_of(result)
        else:
            failure_of(result, DeliveryError)
        mine.touch()
        assert (os.geteuid(), os.getegid()) == whose(mine)
        mine.unlink()

    (maildir / "new").chmod(0o700)
    assert [(4711, 4712)] * 3 == [whose(path) for path in (maildir / "new").iterdir()]


def test_very_many_names(
    deliver: Deliver,
    held_pool: Any,
    calls: Calls,
    success_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Once very many names are to be shown at the same time, threads show the others: those who talk to
    the service do not wait for so many.
    """
    monkeypatch.setattr(common_sync, "MOST_NAMES", 3)
    for _ in range(2):
        calls.clear()
        results = [*deliver(ONE, [ANN, BOB]), *deliver(TWO, [CY, DEE]), *deliver(THREE, [ANN])]
        assert ["write"] * 2 == steps(calls)
        held_pool.work()
        assert ["write"] * 3 == [call for call in steps(calls) if call == "write"]
        for result in results:
            success_of(result)

    # Nor does it count what was handed over to threads.
    calls.clear()
    deliver(ONE, [ANN, BOB, CY])
    with monkeypatch.context() as patch:
        patch.setattr(Syncing, "whole_pays", lambda *_: False)
        held_pool.work()
    deliver(TWO, [ANN])
    held_pool.work()
    assert ["write"] * 2 == [call for call in steps(calls) if call == "write"]
    calls.clear()
    deliver(TWO, [ANN])
    assert ["write"] == steps(calls)
    held_pool.work()


def test_failure_that_comes_late(
    deliver: Deliver,
    held_pool: Any,
    clock: Clock,
    break_call: Break,
    success_of: Any,
) -> None:
    """
    A wait that nobody waits for any more fails just before the next begins: what that was to be for
    is asked for one by one, and there is no wait for nothing.
    """
    (first,) = deliver(ONE, [ANN])
    assert 1 == len(held_pool.jobs)
    (second,) = deliver(TWO, [BOB])
    clock.advance(1.1 * PATIENCE)
    hanging, other = held_pool.jobs
    held_pool.jobs.clear()
    other()
    (third,) = deliver(THREE, [CY])
    break_call("syncfs", "", errno.EIO)
    hanging()
    assert 1 == len(held_pool.jobs)
    held_pool.work()

    for result in (first, second, third):
        success_of(result)


def test_no_timer_when_idle(deliver: Deliver, held_pool: Any, clock: Clock) -> None:
    """
    Where nobody waits, no clock ticks.
    """
    deliver(ONE, [ANN])
    clock.advance(0)
    assert [] == clock.getDelayedCalls()
    deliver(TWO, [BOB])
    assert 1 == len(clock.getDelayedCalls())
    held_pool.work()
    assert [] == clock.getDelayedCalls()


def test_called_off(
    deliver: Deliver,
    held_pool: Any,
    clock: Clock,
    failure_of: Any,
    success_of: Any,
    texts: Callable[[Mailbox], str],
    leftovers: Callable[[], list[str]],
) -> None:
    """
    Who is called off before the message is shown has not got it; afterwards, it is too late.
    """
    first = deliver(ONE, [ANN, BOB])
    first[0].cancel()
    clock.advance(0)
    second = deliver(TWO, [CY, DEE])
    held_pool.jobs.pop(0)()
    second[0].cancel()
    first[1].cancel()
    held_pool.work()

    failure_of(first[0], CancelledError)
    success_of(first[1])
    failure_of(second[0], CancelledError)
    success_of(second[1])
    assert ("", "1", "", "2") == tuple(texts(user) for user in USERS)
    assert [] == leftovers()


def test_all_called_off(
    deliver: Deliver, held_pool: Any, texts: Any, leftovers: Callable[[], list[str]]
) -> None:
    """
    A message that nobody wants any more is gone.
    """
    for result in deliver(ONE, [ANN, BOB]):
        result.addErrback(lambda failure: failure.trap(CancelledError))
        result.cancel()
    held_pool.work()

    assert ("", "") == (texts(ANN), texts(BOB))
    assert [] == leftovers()


@pytest.mark.parametrize("when", ["before", "written", "shown"])
@pytest.mark.parametrize("names", [["tmp"], ["new"], ["tmp", "new", "cur", ""]])
def test_removed_between(
    deliver: Deliver,
    held_pool: Any,
    root: Path,
    success_of: Any,
    failure_of: Any,
    leftovers: Callable[[], list[str]],
    when: str,
    names: list[str],
) -> None:
    """
    A mailbox that is removed while its next mail is on its way is made again, unless the mail was
    there already.
    """

    def remove() -> None:
        for number, name in enumerate(names):
            (root / "example.org/ann" / name).rename(root / f"old{number}")

    if when == "before":
        remove()
    results = [*deliver(ONE, [ANN, BOB]), *deliver(TWO, [BOB, ANN])]
    if when == "written":
        remove()
    elif when == "shown":
        held_pool.jobs.pop(0)()
        remove()
    held_pool.work()

    for result in results:
        success_of(result)
    found = sorted(
        path.read_text().strip()
        for path in (root / "example.org/ann").glob("new/*")
        if path.read_text() != "0\n"
    )
    if when != "shown":
        assert ["1", "2"] == found
    assert [] == leftovers()


def test_moved_elsewhere(
    deliver: Deliver,
    held_pool: Any,
    success_of: Any,
    texts: Callable[[Mailbox], str],
    calls: Calls,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    A message that turns out to be on another device than the one that is waited for goes the long
    way.
    """
    stat = os.fstat

    class Elsewhere:
        st_dev = 4711

    def elsewhere(descriptor: int) -> Any:
        where = os.readlink(f"/proc/self/fd/{descriptor}")
        return Elsewhere() if "/ann/tmp/" in where else stat(descriptor)

    monkeypatch.setattr(os, "fstat", elsewhere)
    (result,) = deliver(ONE, [ANN])
    assert ["write", "unlink"] == steps(calls)
    monkeypatch.setattr(os, "fstat", stat)
    held_pool.work()

    success_of(result)
    assert "1" == texts(ANN)


def test_stop_waits_for_all(
    deliver: Deliver,
    backend: MaildirBackend,
    held_pool: Any,
    calls: Calls,
    success_of: Any,
    no_result: Any,
) -> None:
    """
    A service that is stopped answers first those whose mail is on its way.
    """
    deliver(ONE, [ANN])
    deliver(TWO, [BOB])
    stopped = backend.stopService()
    assert stopped is not None
    stopped.addCallback(lambda _: calls.append(("stopped", "")))
    no_result(stopped)
    held_pool.work()

    success_of(stopped)
    assert ["answer", "answer", "stopped"] == [
        call for call in steps(calls) if call in {"answer", "stopped"}
    ]


def test_the_next_comes_with_the_answer(
    deliver: Deliver,
    backend: MaildirBackend,
    held_pool: Any,
    break_call: Break,
    success_of: Any,
    no_result: Any,
    opened: Callable[[], list[str]],
) -> None:
    """
    Who is answered may have more at once, some of which has to go the long way: the service waits
    for all of it when it stops.
    """
    results: list[Commitment] = []
    (first,) = deliver(ONE, [ANN])

    def go_on(_: object) -> None:
        break_call("open", "bob/tmp/", errno.EACCES)
        results.extend(deliver(TWO, [BOB]))
        results.extend(deliver(THREE, [CY]))

    first.addCallback(go_on)
    while not results:
        held_pool.jobs.pop(0)()
    second, third = results
    second.addErrback(lambda _: None)

    stopped = backend.stopService()
    no_result(stopped)
    held_pool.jobs.pop(0)()
    assert second.called
    no_result(third)
    no_result(stopped)
    held_pool.work()
    success_of(third)
    success_of(stopped)
    assert [] == opened()
