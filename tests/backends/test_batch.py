"""
Several messages on their way to the disk together: each fails or arrives on its own.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError
from twisted.logger import capturedLogs, formatEvent

from lmtpsvc.backends import file_systems
from lmtpsvc.backends.batch import AT_ONCE
from lmtpsvc.backends.file_systems import FileSystem
from lmtpsvc.backends.maildir import MaildirBackend
from lmtpsvc.backends.places import Places
from lmtpsvc.backends.posting import Posting
from lmtpsvc.backends.syncing import Syncing
from lmtpsvc.commitment import Commitment
from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import DeliveryError, TemporaryFailure
from lmtpsvc.testing import MemoryMessage

ANN, BOB, CY, DEE = (Mailbox(user, "example.org") for user in ("ann", "bob", "cy", "dee"))

#: Of the messages that are delivered together; each is its own text.
ONE, TWO, THREE = (MemoryMessage(f"{word}\r\n".encode(), id=word) for word in ("1", "2", "3"))

Make = Callable[..., MaildirBackend]
Break = Callable[[str, str, int], None]
Deliveries = Sequence[tuple[MemoryMessage, Sequence[Mailbox]]]
Together = Callable[[MaildirBackend, Deliveries], list[list[Commitment]]]
Leftovers = Callable[[], list[str]]
Calls = list[tuple[str, str]]


@pytest.fixture
def backend(maildir: Make, held_pool: Any, at_once: None) -> MaildirBackend:
    """
    A backend that works when the held pool does.
    """
    return maildir(held_pool)


@pytest.fixture
def texts(root: Path) -> Callable[[Mailbox], str]:
    """
    ``texts(ANN)``: all that her mail says, in alphabetical order.
    """

    def texts(mailbox: Mailbox) -> str:
        new = root / mailbox.domain / mailbox.user / "new"
        return "".join(sorted(path.read_text().strip() for path in new.glob("*")))

    return texts


def test_two_waits_for_all(
    backend: MaildirBackend,
    together: Together,
    held_pool: Any,
    calls: Calls,
    success_of: Any,
    texts: Callable[[Mailbox], str],
) -> None:
    """
    All texts, one wait, all names, one wait, all answers, whether the mailboxes are new or not.
    """
    deliveries = [(ONE, [ANN, BOB]), (TWO, [BOB]), (THREE, [CY])]
    for _ in range(2):
        results = together(backend, deliveries)
        calls.clear()
        for result in chain.from_iterable(results):
            result.addCallback(lambda _: calls.append(("answer", "")))
        held_pool.work()

        steps = [call for call, _ in calls if call != "mkdir"]
        names = ["link", "rename", "rename", "rename"]
        wait = ["syncfs", "fsync"]
        assert [*["write"] * 3, "syncfs", *names, *wait, *["answer"] * 4] == steps

    assert ("11", "1122", "33") == (texts(ANN), texts(BOB), texts(CY))
    assert success_of(results[0][0]) is None


@pytest.mark.parametrize("has_journal", [False, True])
def test_mailboxes_that_nobody_would_tell_of(
    backend: MaildirBackend,
    together: Together,
    held_pool: Any,
    calls: Calls,
    success_of: Any,
    monkeypatch: pytest.MonkeyPatch,
    has_journal: bool,
) -> None:
    """
    A mailbox that was found before the file system was opened may have been lost, and another service
    been told of that: where there is no journal, it is made safe by itself.
    """
    monkeypatch.setattr(file_systems, "_journal", lambda _: has_journal)
    backend._places.look(backend._place(BOB))
    results = together(backend, [(ONE, [ANN]), (TWO, [BOB])])
    calls.clear()
    held_pool.work()

    for result in chain.from_iterable(results):
        success_of(result)
    synced = {path for call, path in calls if call == "fsync"}
    assert "example.org/ann" not in synced
    assert ("example.org/bob" in synced) is not has_journal


@pytest.mark.parametrize("fails", [False, True])
def test_one_wait_for_one_mailbox(
    backend: MaildirBackend,
    together: Together,
    held_pool: Any,
    calls: Calls,
    break_call: Break,
    success_of: Any,
    failure_of: Any,
    texts: Callable[[Mailbox], str],
    monkeypatch: pytest.MonkeyPatch,
    fails: bool,
) -> None:
    """
    However many messages a mailbox gets at once, its names are waited for once; and all of them
    have the same answer.
    """
    monkeypatch.setattr(Syncing, "whole_pays", lambda _, count: count > 1)
    ((first,),) = together(backend, [(ONE, [ANN])])
    held_pool.work()
    success_of(first)

    results = together(backend, [(ONE, [ANN]), (TWO, [ANN]), (THREE, [ANN])])
    calls.clear()
    if fails:
        break_call("fsync", "ann/new", errno.EIO)
    held_pool.work()

    if fails:
        for (result,) in results:
            failure_of(result, TemporaryFailure)
        assert "1" == texts(ANN)
    else:
        for (result,) in results:
            success_of(result)
        assert "1123" == texts(ANN)
        names = ["write", "write", "write", "syncfs", "rename", "rename", "rename", "fsync"]
        assert names == [call for call, _ in calls]


#: What fails, and where; Ann's is the one that it fails for.
STEPS = [
    ("open", "ann/tmp/"),
    ("write", "ann/tmp/"),
    ("close", "ann/tmp/"),
    ("rename", "ann/new/"),
    ("mkdir", "ann/new"),
    ("fsync", "ann/tmp/"),
    ("fsync", "ann/new"),
]


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize(("call", "where"), STEPS)
def test_one_fails(
    backend: MaildirBackend,
    together: Together,
    held_pool: Any,
    break_call: Break,
    success_of: Any,
    failure_of: Any,
    texts: Callable[[Mailbox], str],
    leftovers: Leftovers,
    call: str,
    where: str,
    place: int,
) -> None:
    """
    Whatever fails for Ann, whichever of the messages is hers: the others get theirs.

    Where a sync fails it is syncfs that says so first, and does not tell whose fault it is.
    """
    mailboxes = [BOB, CY]
    mailboxes.insert(place, ANN)
    deliveries = [(message, [to]) for message, to in zip([ONE, TWO, THREE], mailboxes, strict=True)]
    results = together(backend, deliveries)
    break_call(call, where, errno.EDQUOT)
    held_pool.work()

    for (message, [mailbox]), [result] in zip(deliveries, results, strict=True):
        if mailbox == ANN:
            reply = str(failure_of(result, DeliveryError).value.reply)
            assert "452 4.2.2 Mailbox full" == reply
            assert not texts(ANN)
        else:
            success_of(result)
            assert message.id == texts(mailbox)
    assert [] == leftovers()


@pytest.mark.parametrize(
    ("call", "where"),
    [
        ("open", "ann/tmp/"),
        ("write", "ann/tmp/"),
        ("close", "ann/tmp/"),
        ("rename", "ann/new/"),
        ("link", "ann/new/"),
        ("fsync", "ann/tmp/"),
        ("fsync", "ann/new"),
    ],
)
def test_one_fails_in_haste(
    backend: MaildirBackend,
    together: Together,
    held_pool: Any,
    break_call: Break,
    success_of: Any,
    failure_of: Any,
    texts: Callable[[Mailbox], str],
    leftovers: Leftovers,
    call: str,
    where: str,
) -> None:
    """
    The same holds for mailboxes that are in use, and so are written to in haste.
    """
    others = [BOB, ANN] if call == "link" else [ANN]
    for result in chain.from_iterable(together(backend, [(ONE, [ANN, BOB, CY])])):
        held_pool.work()
        success_of(result)
    results = together(backend, [(TWO, others), (THREE, [CY])])
    break_call(call, where, errno.EDQUOT)
    held_pool.work()

    failure_of(results[0][others.index(ANN)], DeliveryError)
    success_of(results[1][0])
    assert ("1", "13") == (texts(ANN), texts(CY))
    assert [] == leftovers()


@pytest.mark.parametrize(
    ("call", "where", "missing"),
    [
        ("open", "ann/tmp/", "ann"),
        ("write", "ann/tmp/", "ann"),
        ("fsync", "ann/tmp/", "ann"),
        ("rename", "ann/new/", "ann"),
        ("fsync", "ann/new", "ann"),
        ("link", "bob/new/", "bob"),
        ("mkdir", "bob/new", "bob"),
        ("fsync", "bob/new", "bob"),
    ],
)
def test_one_of_several_fails(
    backend: MaildirBackend,
    together: Together,
    held_pool: Any,
    break_call: Break,
    success_of: Any,
    failure_of: Any,
    texts: Callable[[Mailbox], str],
    leftovers: Leftovers,
    call: str,
    where: str,
    missing: str,
) -> None:
    """
    The mailbox that a message comes from may fail, and the next takes its part; or one linked to.
    """
    mailboxes = [ANN, BOB, CY]
    results = together(backend, [(ONE, [DEE]), (TWO, mailboxes), (THREE, [DEE])])
    break_call(call, where, errno.EIO)
    held_pool.work()

    for mailbox, result in zip(mailboxes, results[1], strict=True):
        if mailbox.user == missing:
            failure_of(result, TemporaryFailure)
            assert not texts(mailbox)
        else:
            success_of(result)
            assert "2" == texts(mailbox)
    success_of(results[0][0])
    success_of(results[2][0])
    assert "13" == texts(DEE)
    assert [] == leftovers()


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EACCES])
def test_syncfs_fails_for_nobody(
    backend: MaildirBackend,
    together: Together,
    held_pool: Any,
    break_call: Break,
    calls: Calls,
    success_of: Any,
    number: int,
) -> None:
    """
    If it was somebody else's file that is lost, each of ours is synced, and nothing is refused.
    """
    results = together(backend, [(ONE, [ANN]), (TWO, [BOB, CY])])
    break_call("syncfs", "", number)
    calls.clear()
    with capturedLogs() as events:
        held_pool.work()

    for result in chain.from_iterable(results):
        success_of(result)
    steps = [
        (call, path.split(",")[0]) for call, path in calls if call in {"fsync", "rename", "link"}
    ]
    shown = [call for call, _ in steps].index("rename")
    assert ["ann/tmp", "bob/tmp"] == [os.path.dirname(path)[12:] for _, path in steps[:shown]]
    synced = {path for call, path in steps[shown:] if call == "fsync"}
    # The mailboxes are new, so all that they are in must be safe, too.
    assert {f"example.org/{user}/new" for user in ("ann", "bob", "cy")} < synced
    assert {"example.org/ann", "example.org/bob", "example.org/cy", "example.org", "."} < synced
    texts = [formatEvent(event) for event in events]
    assert 2 == len(texts)
    assert all("syncing one by one" in text for text in texts)


def test_syncfs_is_no_promise(
    backend: MaildirBackend,
    together: Together,
    held_pool: Any,
    calls: Calls,
    success_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    On FUSE and its like syncfs says yes to anything: each file is synced, and nobody is warned.
    """
    monkeypatch.setattr(file_systems, "_file_system", lambda _: 0x65735546)
    results = together(backend, [(ONE, [ANN]), (TWO, [BOB])])
    calls.clear()
    with capturedLogs() as events:
        held_pool.work()

    for result in chain.from_iterable(results):
        success_of(result)
    assert [] == events
    steps = [call for call, _ in calls if call != "mkdir"]
    assert [*["write"] * 2, *["fsync"] * 2, *["rename"] * 2, "fsync"] == steps[:7]
    assert "syncfs" not in steps


def test_removed_and_made_again_is_synced_whole(
    backend: MaildirBackend,
    together: Together,
    held_pool: Any,
    root: Path,
    break_call: Break,
    calls: Calls,
    success_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    A mailbox that was safe, removed, and made again is not safe, not even under the same number.
    """
    backend.deliver(ONE, [ANN])
    held_pool.work()
    seen = (root / "example.org/ann/new").stat()
    results = together(backend, [(ONE, [ANN]), (TWO, [BOB])])
    (root / "example.org/ann").rename(root / "old")
    fstat = os.fstat
    monkeypatch.setattr(
        os, "fstat", lambda file: seen if _names(file).endswith("ann/new") else fstat(file)
    )
    break_call("syncfs", "", errno.EIO)
    calls.clear()
    held_pool.work()

    for result in chain.from_iterable(results):
        success_of(result)
    assert ("fsync", "example.org/ann") in calls


def _names(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")


def test_new_mailbox_is_gone_again(
    backend: MaildirBackend,
    together: Together,
    held_pool: Any,
    break_call: Break,
    success_of: Any,
    failure_of: Any,
    texts: Callable[[Mailbox], str],
) -> None:
    """
    A new mailbox that cannot be looked at after the sync is its owner's problem only.
    """
    results = together(backend, [(ONE, [ANN]), (TWO, [BOB])])
    break_call("stat", "ann/new", errno.ENOENT)
    held_pool.work()

    failure_of(results[0][0], TemporaryFailure)
    success_of(results[1][0])
    assert ("", "2") == (texts(ANN), texts(BOB))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_cancelled_before(
    backend: MaildirBackend,
    together: Together,
    held_pool: Any,
    success_of: Any,
    failure_of: Any,
    texts: Callable[[Mailbox], str],
    leftovers: Leftovers,
    place: int,
) -> None:
    """
    Whose turn never came, because nobody waits any more: nothing is written for them.
    """
    results = together(backend, [(ONE, [ANN]), (TWO, [ANN]), (THREE, [ANN])])
    [cancelled] = results.pop(place)
    cancelled.cancel()
    held_pool.work()

    failure_of(cancelled, CancelledError)
    for [result] in results:
        success_of(result)
    assert "123".replace(str(place + 1), "") == texts(ANN)
    assert [] == leftovers()


@pytest.mark.parametrize("who", [[0], [1], [2], [0, 1], [1, 2], [0, 1, 2]])
def test_cancelled_while_the_disk_is_busy(
    backend: MaildirBackend,
    together: Together,
    held_pool: Any,
    success_of: Any,
    failure_of: Any,
    texts: Callable[[Mailbox], str],
    leftovers: Leftovers,
    monkeypatch: pytest.MonkeyPatch,
    who: list[int],
) -> None:
    """
    Cancelled after the text has been written: it is not shown to them, and gone from tmp/.
    """
    mailboxes = [ANN, BOB, CY]
    [[*others], results] = together(backend, [(ONE, [ANN]), (TWO, mailboxes)])

    def cancel(*_: object, **__: object) -> None:
        for each in who:
            results[each].cancel()

    monkeypatch.setattr(Syncing, "whole", cancel)
    held_pool.work()

    success_of(others[0])
    for number, (mailbox, result) in enumerate(zip(mailboxes, results, strict=True)):
        if number in who:
            failure_of(result, CancelledError)
        else:
            success_of(result)
        assert (number not in who) == ("2" in texts(mailbox))
    assert [] == leftovers()


def test_cancelled_too_late(
    backend: MaildirBackend,
    together: Together,
    held_pool: Any,
    success_of: Any,
    texts: Callable[[Mailbox], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Cancelled while the names go to disk: they arrive, and the answer says so.
    """
    results = together(backend, [(ONE, [ANN, BOB]), (TWO, [CY])])

    def cancel(self: Syncing, file_system: FileSystem, *, finally_: bool) -> None:
        if finally_:
            for result in chain.from_iterable(results):
                result.cancel()

    monkeypatch.setattr(Syncing, "whole", cancel)
    held_pool.work()

    for result in chain.from_iterable(results):
        success_of(result)
    assert ("1", "1", "2") == (texts(ANN), texts(BOB), texts(CY))


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EMLINK, errno.EPERM])
@pytest.mark.parametrize("where", ["example.org", "bob/new"])
def test_no_links(
    backend: MaildirBackend,
    together: Together,
    held_pool: Any,
    root: Path,
    break_call: Break,
    success_of: Any,
    texts: Callable[[Mailbox], str],
    leftovers: Leftovers,
    where: str,
    number: int,
) -> None:
    """
    Where there can be no link there is a copy, which is as safe before anybody sees it.
    """
    break_call("link", where, number)
    results = together(backend, [(ONE, [ANN, BOB]), (TWO, [BOB, CY, ANN])])
    held_pool.work()

    for result in chain.from_iterable(results):
        success_of(result)
    assert ("12", "12", "2") == (texts(ANN), texts(BOB), texts(CY))
    assert [] == leftovers()
    if where == "example.org":
        files = [path.stat() for path in root.glob("example.org/*/new/*")]
        assert {1} == {file.st_nlink for file in files}


def test_copies_are_safe_before_they_are_shown(
    backend: MaildirBackend,
    together: Together,
    held_pool: Any,
    break_call: Break,
    calls: Calls,
) -> None:
    """
    The second round, for copies, keeps to the same order.
    """
    results = together(backend, [(ONE, [ANN, BOB])])
    break_call("link", "", errno.EXDEV)
    calls.clear()
    results[0][1].addCallback(lambda _: calls.append(("answer", "")))
    held_pool.work()

    steps = [call for call, _ in calls if call != "mkdir"]
    # What fails is not recorded.
    round_ = ["write", "syncfs", "rename", "syncfs", "fsync"]
    assert [*round_, *round_, "answer"] == steps


def test_two_file_systems(
    backend: MaildirBackend,
    together: Together,
    held_pool: Any,
    root: Path,
    mounted: Callable[[Path], None],
    calls: Calls,
    success_of: Any,
    texts: Callable[[Mailbox], str],
    leftovers: Leftovers,
) -> None:
    """
    Each file system is waited for, and neither more than once for the texts and once for the names.
    """
    eve, fay = Mailbox("eve", "example.net"), Mailbox("fay", "example.net")
    (root / "example.net").mkdir(parents=True)
    mounted(root / "example.net")
    results = together(backend, [(ONE, [ANN]), (TWO, [eve]), (THREE, [BOB]), (ONE, [fay])])
    calls.clear()
    held_pool.work()

    for result in chain.from_iterable(results):
        success_of(result)
    assert ("1", "2", "3", "1") == (texts(ANN), texts(eve), texts(BOB), texts(fay))
    synced = [path for call, path in calls if call == "syncfs"]
    assert [".", "example.net/eve/tmp"] * 2 == synced
    assert [] == leftovers()


def test_one_of_two_file_systems_fails(
    backend: MaildirBackend,
    together: Together,
    held_pool: Any,
    root: Path,
    mounted: Callable[[Path], None],
    break_call: Break,
    success_of: Any,
    failure_of: Any,
    texts: Callable[[Mailbox], str],
    leftovers: Leftovers,
) -> None:
    """
    A disk that breaks takes its own mail with it, and no other.
    """
    eve = Mailbox("eve", "example.net")
    (root / "example.net").mkdir(parents=True)
    mounted(root / "example.net")
    results = together(backend, [(ONE, [ANN, eve]), (TWO, [eve, ANN])])
    break_call("fsync", "example.net", errno.EIO)
    break_call("syncfs", "example.net", errno.EIO)
    held_pool.work()

    for to_ann, to_eve in (results[0], results[1][::-1]):
        success_of(to_ann)
        failure_of(to_eve, TemporaryFailure)
    assert ("12", "") == (texts(ANN), texts(eve))
    assert [] == leftovers()


@pytest.mark.parametrize("step", ["write", "link", "rename", "device", "_sync_whole", "tidy"])
def test_defect(
    backend: MaildirBackend,
    together: Together,
    held_pool: Any,
    failure_of: Any,
    success_of: Any,
    monkeypatch: pytest.MonkeyPatch,
    leftovers: Leftovers,
    step: str,
) -> None:
    """
    A defect of ours, in the middle of a batch: everybody has an answer, and no yes is taken back.
    """

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    results = together(backend, [(ONE, [ANN, BOB]), (TWO, [CY])])
    if step in {"write", "link", "rename"}:
        monkeypatch.setattr(Posting, step, fail)
    elif step == "device":
        monkeypatch.setattr("lmtpsvc.backends.batch._by_device", fail)
    elif step == "_sync_whole":
        monkeypatch.setattr(Syncing, "whole", fail)
    else:
        monkeypatch.setattr(Places, "is_untidy", fail)
    held_pool.work()

    [[ann, bob], [cy]] = results
    if step == "link":
        success_of(ann)
        failure_of(bob, ZeroDivisionError)
        success_of(cy)
    elif step == "rename":
        failure_of(ann, ZeroDivisionError)
        success_of(bob)
        failure_of(cy, ZeroDivisionError)
    else:
        for result in (ann, bob, cy):
            assert result.called
            result.addErrback(lambda failure: failure.trap(ZeroDivisionError))


def test_answered_stays_answered(
    maildir: Make,
    held_pool: Any,
    one_by_one: None,
    success_of: Any,
    failure_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    A defect after the first have been told yes: they are not told anything else.
    """
    backend = maildir(held_pool)
    many = [Mailbox(f"user{number}", "example.org") for number in range(AT_ONCE + 50)]
    results = backend.deliver(ONE, many)
    link, count = os.link, 0

    def defect(source: str, target: str) -> None:
        nonlocal count
        count += 1
        if count > AT_ONCE + 10:
            raise MemoryError
        link(source, target)

    monkeypatch.setattr(os, "link", defect)
    held_pool.work()

    # The first is the one that all are linked from.
    for result in results[: AT_ONCE + 11]:
        success_of(result)
    for result in results[AT_ONCE + 11 :]:
        failure_of(result, MemoryError)


@pytest.mark.parametrize("way", ["one_by_one", "at_once"], indirect=True)
def test_very_many(
    maildir: Make,
    held_pool: Any,
    root: Path,
    success_of: Any,
    leftovers: Leftovers,
    way: str,
) -> None:
    """
    Six hundred mailboxes among others, in both ways.
    """
    backend = maildir(held_pool)
    many = [Mailbox(f"user{number}", "example.org") for number in range(600)]
    results = [
        *backend.deliver(ONE, [ANN]),
        *backend.deliver(TWO, many),
        *backend.deliver(THREE, [ANN, *many[::2]]),
    ]
    held_pool.work()

    for result in results:
        success_of(result)
    found = list(root.glob("example.org/user*/new/*"))
    assert 900 == len(found)
    assert 2 == len({path.stat().st_ino for path in found})
    assert [] == leftovers()


@pytest.mark.parametrize("names", [["tmp"], ["new"], ["tmp", "new", "cur", ""]])
def test_removed_between(
    backend: MaildirBackend,
    together: Together,
    held_pool: Any,
    root: Path,
    success_of: Any,
    texts: Callable[[Mailbox], str],
    leftovers: Leftovers,
    names: list[str],
) -> None:
    """
    A mailbox that is removed while its next mail waits is made again.
    """
    backend.deliver(ONE, [ANN, BOB])
    held_pool.work()
    results = together(backend, [(TWO, [ANN, BOB]), (THREE, [BOB, ANN])])
    for number, name in enumerate(names):
        (root / "example.org/ann" / name).rename(root / f"old{number}")
    held_pool.work()

    for result in chain.from_iterable(results):
        success_of(result)
    assert "123" == texts(BOB)
    assert ("123" if names == ["tmp"] else "23") == texts(ANN)
    assert [] == leftovers()
