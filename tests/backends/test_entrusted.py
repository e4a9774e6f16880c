"""
Whatever becomes of what a process has been sent, each recipient has one file in the end, and is told
so once; and nothing waits for ever.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from lmtpsvc.backends import disk_writer_start, file_systems
from lmtpsvc.backends.maildir import MaildirBackend
from lmtpsvc.backends.syncing import Syncing
from lmtpsvc.backends.target import Target
from lmtpsvc.backends.write_process import LAST_PATIENCE
from lmtpsvc.commitment import Commitment
from lmtpsvc.envelope import Mailbox, Sender
from lmtpsvc.errors import TemporaryFailure
from lmtpsvc.testing import MemoryMessage, envelope

ANN, BOB, CY = USERS = [Mailbox(user, "example.org") for user in ("ann", "bob", "cy")]

Calls = list[tuple[str, str]]
Texts = Callable[[Mailbox], list[str]]
Deliver = Callable[..., Any]
Work = Callable[[], None]


def place(root: Path, user: Mailbox) -> Path:
    return root / user.domain / user.user


@pytest.fixture
def backend(
    maildir: Callable[..., MaildirBackend],
    held_pool: Any,
    process: Any,
    work: Work,
    at_once: None,
    root: Path,
    calls: Calls,
) -> MaildirBackend:
    """
    A backend where the users' mailboxes are in use, and empty.
    """
    backend = maildir(held_pool, process=process)
    for _ in range(2):
        for user in USERS:
            backend.deliver(MemoryMessage(b"0\r\n"), [user])
            work()
    for path in root.glob("*/*/new/*"):
        path.unlink()
    calls.clear()
    return backend


@pytest.fixture
def texts(root: Path) -> Texts:
    """
    ``texts(ANN)``: what her mail says, whether somebody has seen it or not.
    """

    def texts(user: Mailbox) -> list[str]:
        files = [*place(root, user).glob("new/*"), *place(root, user).glob("cur/*")]
        return sorted(path.read_text().strip() for path in files)

    return texts


@pytest.fixture
def deliver(backend: MaildirBackend, process: Any) -> Deliver:
    """
    ``deliver("1", ANN)``: the result of a message with that text; or the results, if there are several
    mailboxes.
    """

    def deliver(text: str, *users: Mailbox, priority: int = 0) -> Any:
        sender = Sender(None, {"MT-PRIORITY": priority})
        message = MemoryMessage(f"{text}\r\n".encode(), envelope=evolve(envelope(), sender=sender))
        results = backend.deliver(message, users)
        return results if len(users) > 1 else results[0]

    return deliver


@pytest.fixture
def fail_once(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """
    ``fail_once(os, "link", EIO, "bob/")``: the next such call, whose last path has this in it, fails;
    *later*, if it is not to be the first.
    """

    def fail_once(owner: Any, name: str, number: int, where: str = "", later: int = 0) -> None:
        original, turns = getattr(owner, name), [0]

        def call(*arguments: Any, **options: Any) -> Any:
            if where in str(arguments[-1]):
                turns[0] += 1
                if turns[0] == later + 1:
                    raise OSError(number, os.strerror(number))
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, call)

    return fail_once


@pytest.fixture(autouse=True)
def once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """
    Nobody is answered twice.
    """
    fired: list[Target] = []
    fire = Target.fire

    def note(target: Target, *outcome: Any) -> None:
        fired.append(target)
        fire(target, *outcome)

    monkeypatch.setattr(Target, "fire", note)
    yield
    assert len(fired) == len(set(map(id, fired)))


def see(root: Path) -> None:
    """
    A mail reader sees all that is there.
    """
    for path in root.glob("*/*/new/*"):
        path.rename(path.parents[1] / "cur" / f"{path.name}:2,S")


# ── what it has stored ───────────────────────────────────────────────────────────────────────────


def test_alone(
    deliver: Deliver, process: Any, held_pool: Any, calls: Calls, texts: Texts, success_of: Any
) -> None:
    """
    One message is told of as soon as its file and directory are safe; there is nothing for threads.
    """
    result = deliver("1", ANN)
    assert [] == calls
    process.work(1)

    assert [] == held_pool.jobs
    success_of(result)
    assert ["write", "fsync", "rename", "fsync"] == [call for call, _ in calls]
    assert ["1"] == texts(ANN)


def test_together(
    deliver: Deliver, process: Any, texts: Texts, calls: Calls, success_of: Any, no_result: Any
) -> None:
    """
    Several share the waits, be they for one Maildir or for many; none is told of before the second.
    """
    results = [deliver(text, user) for text, user in (("1", ANN), ("2", BOB), ("3", ANN))]
    process.work(1)
    assert ["1", "3"] == texts(ANN)
    for result in results:
        no_result(result)
    process.work(1)

    for result in results:
        success_of(result)
    assert 2 == [call for call, _ in calls].count("syncfs")
    assert ["1", "3"] == texts(ANN)
    assert ["2"] == texts(BOB)


def test_first_is_last(deliver: Deliver, work: Work, root: Path) -> None:
    """
    Of one message's replies the first is given last: the others wait for it anyway, and leave with it.
    """
    order: list[str] = []
    for user, result in zip(USERS, deliver("1", *USERS), strict=True):
        result.addCallback(lambda _, name=user.user: order.append(name))
    work()

    assert ["cy", "bob", "ann"] == order
    assert 1 == len({path.stat().st_ino for path in root.glob("*/*/new/*")})


def test_waits_are_learnt_from(
    deliver: Deliver, process: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    How long the process has waited decides which way pays.
    """
    seen: list[str] = []
    monkeypatch.setattr(Syncing, "saw_each", lambda *_: seen.append("each"))
    monkeypatch.setattr(Syncing, "saw_whole", lambda *_: seen.append("whole"))
    deliver("1", ANN)
    process.work()
    assert ["each"] == seen

    deliver("2", ANN, BOB)
    process.work()
    assert ["each", "whole"] == seen


def test_unsafe_directories(
    backend: MaildirBackend, deliver: Deliver, process: Any, calls: Calls, success_of: Any
) -> None:
    """
    Where a Maildir may not be safe, even one message has a wait for all, and the Maildir is safe then.
    """
    known = backend._places.known(backend._place(ANN))
    assert known is not None
    known.is_safe, known.since = False, math.inf
    result = deliver("1", ANN)
    process.work()

    success_of(result)
    assert 2 == [call for call, _ in calls].count("syncfs")
    assert known.is_safe


@pytest.mark.parametrize("has_journal", [False, True])
def test_directories_that_nobody_would_tell_of(
    backend: MaildirBackend,
    deliver: Deliver,
    process: Any,
    held_pool: Any,
    calls: Calls,
    success_of: Any,
    monkeypatch: pytest.MonkeyPatch,
    has_journal: bool,
) -> None:
    """
    A Maildir that was found before the process has opened the file system may have been lost, and
    the process of another service been told of that: where there is no journal, its directories are
    made safe one by one before anybody is answered.
    """
    monkeypatch.setattr(file_systems, "_journal", lambda _: has_journal)
    known = backend._places.known(backend._place(ANN))
    assert known is not None
    known.is_safe = False
    result = deliver("1", ANN)
    process.work()
    assert has_journal is result.called
    assert has_journal is known.is_safe
    held_pool.work()

    success_of(result)
    directories = {"example.org/ann", "example.org"}
    synced = {path for call, path in calls if call == "fsync"}
    assert directories & synced == (set() if has_journal else directories)


def test_another_maildir_by_now(
    backend: MaildirBackend,
    deliver: Deliver,
    process: Any,
    held_pool: Any,
    calls: Calls,
    texts: Texts,
    success_of: Any,
    no_result: Any,
) -> None:
    """
    Where somebody has made the Maildir again since, a thread sees to it that that one is safe.
    """
    ann, bob = deliver("1", ANN, BOB)
    backend._places.make(backend._place(ANN), durably=False)
    process.work()
    success_of(bob)
    no_result(ann)
    calls.clear()
    held_pool.work()

    success_of(ann)
    assert ("fsync", "example.org/ann") in calls
    assert ["1"] == texts(ANN)


# ── what goes wrong ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("later", [0, 1])
@pytest.mark.parametrize("is_lost", [False, True])
def test_failed_wait(
    backend: MaildirBackend,
    deliver: Deliver,
    process: Any,
    work: Work,
    texts: Texts,
    calls: Calls,
    leftovers: Callable[[], list[str]],
    fail_once: Any,
    break_call: Any,
    success_of: Any,
    failure_of: Any,
    later: int,
    is_lost: bool,
) -> None:
    """
    What has been written (the first wait) or shown (the second) is made safe by threads, one by one,
    before anybody is told; the operator is told why.
    """
    results = [*deliver("1", ANN, BOB), deliver("2", CY)]
    fail_once(file_systems, "_syncfs", errno.EIO, later=later)
    with capturedLogs() as events:
        process.work()
        assert not any(result.called for result in results)
        if is_lost:
            break_call("fsync", "", errno.EIO)
        work()

    warning, *others = [each for each in events if "syncfs failed" in str(each.get("log_format"))]
    assert is_lost or not others
    assert os.strerror(errno.EIO) == warning["error"]
    assert warning["directory"].endswith("example.org/ann")
    assert backend._places._in_doubt
    for result in results:
        if is_lost:
            failure_of(result, TemporaryFailure)
        else:
            success_of(result)
    expected = ([], [], []) if is_lost else (["1"], ["1"], ["2"])
    assert expected == tuple(map(texts, USERS))
    assert [] == leftovers()


def test_nothing_stored(
    deliver: Deliver, process: Any, work: Work, root: Path, texts: Texts, success_of: Any
) -> None:
    """
    Where somebody has removed the Maildir, it is made again; nobody else has to wait for that.
    """
    shutil.rmtree(place(root, ANN))
    ann, bob = deliver("1", ANN), deliver("2", BOB)
    process.work()
    success_of(bob)
    work()

    success_of(ann)
    assert ["1"] == texts(ANN)
    assert ["2"] == texts(BOB)


@pytest.mark.parametrize("refused", USERS)
def test_refused(
    deliver: Deliver,
    process: Any,
    work: Work,
    texts: Texts,
    leftovers: Callable[[], list[str]],
    fail_once: Any,
    success_of: Any,
    no_result: Any,
    refused: Mailbox,
) -> None:
    """
    Who cannot be shown the file, be it the first or another, gets it another way.
    """
    results = dict(zip(USERS, deliver("1", *USERS), strict=True))
    fail_once(os, "link", errno.EIO, f"/{refused.user}/new/")
    process.work()
    no_result(results.pop(refused))
    for result in results.values():
        success_of(result)
    work()

    assert [["1"]] * 3 == [texts(user) for user in USERS]
    assert [] == leftovers()


def test_refused_by_all(
    deliver: Deliver, process: Any, work: Work, texts: Texts, fail_once: Any, success_of: Any
) -> None:
    """
    Nothing is left of a message, that is alone, and cannot be shown.
    """
    result = deliver("1", ANN)
    fail_once(os, "rename", errno.EIO)
    process.work()
    assert [] == texts(ANN)
    work()

    success_of(result)
    assert ["1"] == texts(ANN)


@pytest.mark.parametrize("is_seen", [False, True])
@pytest.mark.parametrize(
    "step", ["at once", "_write", "_wait", "_show", "last name", "shown", "answered"]
)
def test_ended(
    deliver: Deliver,
    process: Any,
    work: Work,
    root: Path,
    texts: Texts,
    leftovers: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    calls: Calls,
    success_of: Any,
    no_result: Any,
    step: str,
    is_seen: bool,
) -> None:
    """
    Whenever the process ends, somebody finds out what it has stored, even if a mail reader has already
    seen that, and stores the rest.
    """
    results = [*deliver("1", ANN, BOB), deliver("2", CY), deliver("3", ANN)]
    if step == "shown":
        process.work_unheard(1)
    elif step == "answered":
        process.work_unheard()
    shown = len(list(root.glob("*/*/new/*")))
    if is_seen:
        see(root)
    if step == "last name":
        with monkeypatch.context() as patch:
            end_before_last_name(process, patch)
        shown = len(list(root.glob("*/*/new/*")))
        if is_seen:
            see(root)
        process.end()
    elif step.startswith("_"):
        process.end_before(step)
    else:
        process.end()
    assert {"at once": 0, "shown": 4, "answered": 4, "last name": 1}.get(step, 0) == shown
    for result in results:
        no_result(result)
    calls.clear()
    work()

    for result in results:
        success_of(result)
    assert [["1", "3"], ["1"], ["2"]] == [texts(user) for user in USERS]
    assert [] == leftovers()
    # Whatever was there, the disk has been waited for since.
    synced = {path for call, path in calls if call in {"fsync", "syncfs"}}
    assert synced


def end_before_last_name(process: Any, patch: pytest.MonkeyPatch) -> None:
    """
    Its first message, which is for two, is shown to one of them only.
    """

    class Killed(BaseException):
        pass

    real = os.link
    names: list[str] = []

    def link(*arguments: Any, **options: Any) -> None:
        if names:
            raise Killed
        names.append(arguments[1])
        real(*arguments, **options)

    patch.setattr(os, "link", link)
    with pytest.raises(Killed):
        process.work()


def test_ended_when_it_hung(
    deliver: Deliver,
    process: Any,
    held_pool: Any,
    clock: Clock,
    texts: Texts,
    success_of: Any,
    no_result: Any,
) -> None:
    """
    What has not begun goes another way at once; the rest when the process has been ended.
    """
    begun = [deliver("1", ANN), deliver("2", BOB)]
    process.work_unheard(1)
    waiting = deliver("3", CY)
    process.let_time_pass()
    held_pool.work()
    success_of(waiting)
    for result in begun:
        no_result(result)

    clock.advance(LAST_PATIENCE)
    process.hear()
    held_pool.work()
    for result in begun:
        success_of(result)
    assert [["1"], ["2"], ["3"]] == [texts(user) for user in USERS]


def test_unreadable_when_it_has_ended(
    deliver: Deliver,
    process: Any,
    work: Work,
    root: Path,
    success_of: Any,
    failure_of: Any,
) -> None:
    """
    Where nobody can find out, the client is to try again; all others are told the truth.
    """
    ann, bob = deliver("1", ANN), deliver("2", BOB)
    process.work_unheard(1)
    shutil.rmtree(place(root, ANN))
    place(root, ANN).touch()
    process.end()
    work()

    failure_of(ann, TemporaryFailure)
    success_of(bob)


def test_without_a_place_for_what_is_read(
    deliver: Deliver, process: Any, work: Work, root: Path, texts: Texts, success_of: Any
) -> None:
    """
    Where there is no cur, nobody has put anything there; and it is made.
    """
    result = deliver("1", ANN)
    (place(root, ANN) / "cur").rmdir()
    process.end_before("_store_alone")
    work()

    success_of(result)
    assert ["1"] == texts(ANN)


def test_a_defect(
    backend: MaildirBackend,
    deliver: Deliver,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
    failure_of: Any,
    success_of: Any,
) -> None:
    """
    Where one answer cannot be gone on with, those who wait for it are told, and all others are.
    """
    one, two, three = deliver("1", ANN), deliver("2", BOB), deliver("3", CY)
    take_for_safe = backend._places.take_for_safe
    defects = iter([RuntimeError("a defect")])

    def fail_once(*arguments: Any) -> bool:
        for defect in defects:
            raise defect
        return take_for_safe(*arguments)

    monkeypatch.setattr(backend._places, "take_for_safe", fail_once)
    work()

    failure_of(one, RuntimeError)
    success_of(two)
    success_of(three)


def test_a_letter_that_is_too_long(
    backend: MaildirBackend,
    deliver: Deliver,
    process: Any,
    work: Work,
    texts: Texts,
    success_of: Any,
) -> None:
    """
    What cannot be sent is stored by threads.
    """
    many = [Mailbox("u" * 100 + str(number), "example.org") for number in range(60)]
    for _ in range(2):
        deliver("0", *many)
        work()
    process.started.letters.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    results = deliver("1", *many)
    assert process.is_idle
    work()

    for result in results:
        success_of(result)
    assert all(["0", "0", "1"] == texts(user) for user in many)


# ── called off ───────────────────────────────────────────────────────────────────────────────────


def test_called_off_too_late(
    deliver: Deliver, process: Any, texts: Texts, success_of: Any, no_result: Any
) -> None:
    """
    The process asks nobody any more.
    """
    result = deliver("1", ANN)
    result.cancel()
    no_result(result)
    process.work()

    success_of(result)
    assert ["1"] == texts(ANN)


@pytest.fixture
def one_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    There is room for one message at a time.
    """
    monkeypatch.setattr(disk_writer_start, "ROOMS", ((1 << 14, 1),))


@pytest.mark.usefixtures("one_room")
def test_called_off_in_time(
    deliver: Deliver, work: Work, texts: Texts, success_of: Any, failure_of: Any
) -> None:
    """
    What waits for room is stored for those only who still want it.
    """
    first = deliver("1", ANN)
    ann, bob = deliver("2", ANN, BOB)
    cy = deliver("3", CY)
    ann.cancel()
    cy.cancel()
    work()

    failure_of(ann, CancelledError)
    failure_of(cy, CancelledError)
    success_of(first)
    success_of(bob)
    assert [["1"], ["2"], []] == [texts(user) for user in USERS]


# ── what waits ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("one_room")
def test_most_urgent_first(deliver: Deliver, process: Any, texts: Texts) -> None:
    """
    Who waits for room is sent in order, and those first that are urgent (RFC 6710).
    """
    order: list[str] = []
    for text, priority in (("a", 0), ("b", -3), ("c", 4), ("d", 0), ("e", 4), ("f", 4)):
        result = deliver(text, ANN, priority=priority)
        result.addCallback(lambda _, text=text: order.append(text))
    assert 1 == process.letters
    process.work()

    assert list("acefdb") == order
    assert list("abcdef") == texts(ANN)


def test_nobody_overtakes(
    deliver: Deliver, process: Any, monkeypatch: pytest.MonkeyPatch, success_of: Any
) -> None:
    """
    What would have room waits behind what has none.
    """
    process.end()
    monkeypatch.setattr(disk_writer_start, "ROOMS", ((16, 9), (1 << 14, 1)))
    process._not_before = 0.0
    process.start()
    results = [
        deliver(text, user) for text, user in zip(("x" * 17, "y" * 17, "z"), USERS, strict=True)
    ]
    assert 1 == process.letters
    process.work()

    for result in results:
        success_of(result)


@pytest.mark.usefixtures("one_room")
@pytest.mark.parametrize("what", ["safe", "written", "shown", "nothing", "refused"])
def test_room_comes_back(
    backend: MaildirBackend,
    deliver: Deliver,
    process: Any,
    work: Work,
    root: Path,
    texts: Texts,
    fail_once: Any,
    success_of: Any,
    what: str,
) -> None:
    """
    Whatever becomes of one, the next is sent.
    """
    known = backend._places.known(backend._place(ANN))
    assert known is not None
    # It has a wait for all.
    known.is_safe = False
    if what in {"written", "shown"}:
        fail_once(file_systems, "_syncfs", errno.EIO, later=int(what == "shown"))
    elif what == "refused":
        fail_once(os, "link", errno.EIO)
    elif what == "nothing":
        shutil.rmtree(place(root, ANN))
    first, second = deliver("1", ANN), deliver("2", BOB)
    process.work()
    success_of(second)
    work()

    success_of(first)
    assert [["1"], ["2"]] == [texts(user) for user in (ANN, BOB)]


@pytest.mark.usefixtures("one_room")
@pytest.mark.parametrize("is_late", [True, False])
def test_no_process_to_wait_for(
    deliver: Deliver,
    process: Any,
    held_pool: Any,
    texts: Texts,
    success_of: Any,
    no_result: Any,
    is_late: bool,
) -> None:
    """
    If the process does not get on, or has ended, threads store what waits for room.
    """
    first = deliver("1", ANN)
    process.work_unheard()
    results = [deliver(text, ANN) for text in "23"]
    if is_late:
        process.let_time_pass()
    else:
        process.end()
    no_result(first)
    held_pool.work()
    for result in results:
        success_of(result)

    process.hear()
    success_of(first)
    assert ["1", "2", "3"] == texts(ANN)


@pytest.mark.usefixtures("one_room")
@pytest.mark.parametrize("ends", [False, True])
def test_stop(
    backend: MaildirBackend,
    deliver: Deliver,
    process: Any,
    work: Work,
    fail_once: Any,
    no_result: Any,
    success_of: Any,
    ends: bool,
) -> None:
    """
    The service stops when all is answered: what the process has, what waits for it, and what threads
    have to find out or to do again; the process is ended then.
    """
    results: list[Commitment] = [
        deliver(text, user) for text, user in zip("123", USERS, strict=True)
    ]
    fail_once(os, "rename", errno.EIO, "/ann/new/")
    stopped = backend.stopService()
    no_result(stopped)
    if ends:
        process.work_unheard()
        process.end()
    else:
        process.work()
    no_result(stopped)
    work()

    success_of(stopped)
    for result in results:
        success_of(result)
    assert process.fileno() < 0


def test_started_again(
    backend: MaildirBackend, deliver: Deliver, process: Any, work: Work, success_of: Any
) -> None:
    """
    A backend that is started after a stop can have a process again.
    """
    success_of(backend.stopService())
    process.start()
    assert not process.is_there

    backend.startService()
    process.start()
    assert process.is_there
    result = deliver("1", ANN)
    assert 1 == process.letters
    work()
    success_of(result)


def test_stop_while_threads_find_out(
    backend: MaildirBackend,
    deliver: Deliver,
    process: Any,
    held_pool: Any,
    no_result: Any,
    success_of: Any,
) -> None:
    """
    Nor does it stop before somebody has found out what has become of the last message.
    """
    result = deliver("1", ANN)
    process.work_unheard()
    process.end()
    stopped = backend.stopService()
    no_result(stopped)
    held_pool.work()

    success_of(stopped)
    success_of(result)


def test_nothing_to_stop(backend: MaildirBackend, success_of: Any) -> None:
    """
    Where nothing is on its way, nothing is waited for.
    """
    assert backend._entrusted.is_idle
    success_of(backend.stopService())
