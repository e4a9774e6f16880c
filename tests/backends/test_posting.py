"""
One message for several mailboxes: one file, as many names, and each answered on its own.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import CancelledError

from lmtpsvc.backends import batch
from lmtpsvc.backends.maildir import MaildirBackend
from lmtpsvc.backends.posting import Posting
from lmtpsvc.backends.target import Target
from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import TemporaryFailure
from lmtpsvc.testing import MemoryMessage

ANN, BOB, CY = (Mailbox(user, "example.org") for user in ("ann", "bob", "cy"))

#: So many are shown, and answered, at once here: as many directories are soon made.
AT_ONCE = 16
MANY = [Mailbox(f"user{number}", "example.org") for number in range(2 * AT_ONCE + 10)]

Make = Callable[..., MaildirBackend]


@pytest.fixture(autouse=True)
def _few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "AT_ONCE", AT_ONCE)


#: Holds for both ways of syncing.
WAY = pytest.mark.usefixtures("way")


def files(root: Path, *mailboxes: Mailbox) -> list[os.stat_result]:
    """
    What is the one file in each mailbox.
    """
    found = []
    for mailbox in mailboxes:
        [path] = (root / mailbox.domain / mailbox.user / "new").iterdir()
        found.append(path.stat())
    return found


@pytest.fixture
def spooled(root: Path) -> Iterator[Callable[..., MemoryMessage]]:
    """
    ``spooled(message)``: the same, with a file that has no name, as the spool makes it.
    """
    descriptors = []

    def spooled(message: MemoryMessage, mode: int = 0o600) -> MemoryMessage:
        flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
        descriptor = os.open(root / ".spool", flags, 0o600)
        descriptors.append(descriptor)
        os.fchmod(descriptor, mode)
        with message.open("\n") as source:
            os.write(descriptor, source.read())
        return evolve(message, path=f"/proc/self/fd/{descriptor}")

    yield spooled
    for descriptor in descriptors:
        os.close(descriptor)


@WAY
@pytest.mark.parametrize("mailboxes", [[ANN, BOB], [ANN, BOB, CY], MANY])
def test_one_file(
    maildir: Make,
    message: MemoryMessage,
    root: Path,
    success_of: Any,
    leftovers: Callable[[], list[str]],
    mailboxes: list[Mailbox],
) -> None:
    """
    The text is on the disk once, however many mailboxes it is in.
    """
    for result in maildir().deliver(message, mailboxes):
        success_of(result)

    found = files(root, *mailboxes)
    assert {found[0].st_ino} == {file.st_ino for file in found}
    assert len(mailboxes) == found[0].st_nlink
    assert [] == leftovers()


def test_order(
    maildir: Make, message: MemoryMessage, calls: list[tuple[str, str]], success_of: Any
) -> None:
    """
    One sync of the text before anybody is shown it; the one whose tmp/ it is in has it moved.
    """
    backend = maildir()
    backend.deliver(message, [ANN, BOB])
    calls.clear()
    for result in backend.deliver(message, [ANN, BOB]):
        success_of(result)

    short = [(call, "/".join(path.split("/")[1:3])) for call, path in calls]

    assert [
        ("write", "ann/tmp"),
        ("fsync", "ann/tmp"),
        ("link", "bob/new"),
        ("rename", "ann/new"),
        ("fsync", "bob/new"),
        ("fsync", "ann/new"),
    ] == short


@pytest.mark.usefixtures("at_once", "no_shortcut")
def test_order_at_once(
    maildir: Make, message: MemoryMessage, calls: list[tuple[str, str]], success_of: Any
) -> None:
    """
    Two waits for the disk, however many mailboxes: one for the text, one for the names.
    """
    backend = maildir()
    backend.deliver(message, [ANN, BOB, CY])
    calls.clear()
    for result in backend.deliver(message, [ANN, BOB, CY]):
        success_of(result)

    short = [(call, "/".join(path.split("/")[1:3])) for call, path in calls]

    assert [
        ("write", "ann/tmp"),
        ("syncfs", "ann/tmp"),
        ("link", "bob/new"),
        ("link", "cy/new"),
        ("rename", "ann/new"),
        ("syncfs", "ann/tmp"),
        ("fsync", "ann/tmp"),
    ] == short


def test_answered_one_by_one(
    maildir: Make, message: MemoryMessage, monkeypatch: pytest.MonkeyPatch, held_pool: Any
) -> None:
    """
    Whoever is synced has the answer while the disk is still busy with the next.
    """
    backend = maildir(held_pool)
    backend.deliver(message, [ANN, BOB, CY])
    held_pool.work()
    results = backend.deliver(message, [ANN, BOB, CY])
    fsync, seen = os.fsync, []

    def watch(descriptor: int) -> None:
        seen.append([result.called for result in results])
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    held_pool.work()

    assert [[False] * 3, [False] * 3, [False, True, False], [False, True, True]] == seen


def test_many_are_answered_before_all_are_shown(
    maildir: Make,
    message: MemoryMessage,
    monkeypatch: pytest.MonkeyPatch,
    held_pool: Any,
    success_of: Any,
    way: str,
) -> None:
    """
    Where there are very many, the first have their answers while the last are still to be linked.
    """
    backend = maildir(held_pool)
    results = backend.deliver(message, MANY)
    link, seen = os.link, []

    def watch(source: str, target: str) -> None:
        seen.append(sum(result.called for result in results))
        link(source, target)

    monkeypatch.setattr(os, "link", watch)
    held_pool.work()

    assert [0] * AT_ONCE + [AT_ONCE] * AT_ONCE + [2 * AT_ONCE] * 9 == seen
    for result in results:
        success_of(result)


def test_failures_do_not_hold_up_the_answers(
    maildir: Make,
    message: MemoryMessage,
    break_call: Callable[[str, str, int], None],
    held_pool: Any,
    success_of: Any,
    failure_of: Any,
    way: str,
) -> None:
    """
    Among very many, each of those that fail has its own answer, too, and the file is elsewhere.
    """
    backend = maildir(held_pool)
    break_call("link", "7/new", errno.EACCES)

    results = backend.deliver(message, MANY)
    held_pool.work()

    for mailbox, result in zip(MANY, results, strict=True):
        if mailbox.user.endswith("7"):
            failure_of(result, TemporaryFailure)
        else:
            success_of(result)


@WAY
def test_first_cancelled(
    maildir: Make,
    message: MemoryMessage,
    root: Path,
    held_pool: Any,
    failure_of: Any,
    success_of: Any,
    leftovers: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Who has called off his copy does not get one, even if the others' came by way of his tmp/.
    """
    backend = maildir(held_pool)
    ann, bob = backend.deliver(message, [ANN, BOB])
    write = os.write

    def slow(descriptor: int, octets: bytes) -> int:
        ann.cancel()
        return write(descriptor, octets)

    monkeypatch.setattr(os, "write", slow)
    held_pool.work()

    failure_of(ann, CancelledError)
    success_of(bob)
    assert [] == os.listdir(root / "example.org/ann/new")
    assert 1 == files(root, BOB)[0].st_nlink
    assert [] == leftovers()


@WAY
@pytest.mark.parametrize(
    "number", [errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.ENOENT]
)
@pytest.mark.parametrize("where", ["", "/ann/", "/bob/", "/cy/"])
def test_no_links(
    maildir: Make,
    message: MemoryMessage,
    root: Path,
    break_call: Callable[[str, str, int], None],
    success_of: Any,
    leftovers: Callable[[], list[str]],
    where: str,
    number: int,
) -> None:
    """
    Where there can be no link, there is a copy.
    """
    break_call("link", where, number)

    for result in maildir().deliver(message, [ANN, BOB, CY]):
        success_of(result)

    assert 3 == len(files(root, ANN, BOB, CY))
    assert [] == leftovers()


@WAY
def test_spooled_file_is_taken(
    maildir: Make,
    message: MemoryMessage,
    root: Path,
    spooled: Callable[..., MemoryMessage],
    success_of: Any,
) -> None:
    """
    A large message is in the right place already, and needs only names.
    """
    backend = maildir()
    large = spooled(message)
    assert large.path is not None

    for result in backend.deliver(large, [ANN, BOB]):
        success_of(result)

    assert {os.stat(large.path).st_ino} == {file.st_ino for file in files(root, ANN, BOB)}


@pytest.mark.parametrize("mailboxes", [[ANN], [ANN, BOB]])
def test_spooled_file_is_synced_with_a_name(
    maildir: Make,
    message: MemoryMessage,
    spooled: Callable[..., MemoryMessage],
    calls: list[tuple[str, str]],
    way: str,
    mailboxes: list[Mailbox],
) -> None:
    """
    It is synced before it is shown, and not before it has a name at all.
    """
    backend = maildir()
    backend.deliver(message, mailboxes)
    large = spooled(message)
    calls.clear()

    backend.deliver(large, mailboxes)

    sync = "fsync" if way == "one_by_one" else "syncfs"
    assert ["link", sync] == [call for call, _ in calls[:2]]
    for _, path in calls[:2]:
        assert path.startswith("example.org/ann/tmp")
    assert "write" not in [call for call, _ in calls]


@WAY
@pytest.mark.parametrize("reason", ["mode", "link"])
def test_spooled_file_is_copied(
    maildir: Make,
    message: MemoryMessage,
    root: Path,
    spooled: Callable[..., MemoryMessage],
    break_call: Callable[[str, str, int], None],
    success_of: Any,
    reason: str,
) -> None:
    """
    A spooled file that is not as ours would be, or cannot be linked, is copied.
    """
    backend = maildir()
    large = spooled(message, mode=0o644 if reason == "mode" else 0o600)
    if reason == "link":
        break_call("link", "ann/tmp", errno.EXDEV)

    [result] = backend.deliver(large, [ANN])

    success_of(result)
    [file] = files(root, ANN)
    assert 0o600 == stat.S_IMODE(file.st_mode)
    assert large.path is not None
    assert os.stat(large.path).st_ino != file.st_ino


@WAY
def test_sync_of_the_spooled_file_fails(
    maildir: Make,
    message: MemoryMessage,
    root: Path,
    spooled: Callable[..., MemoryMessage],
    break_call: Callable[[str, str, int], None],
    failure_of: Any,
    leftovers: Callable[[], list[str]],
) -> None:
    """
    A file that the disk does not take is not answered with a yes.
    """
    backend = maildir()
    large = spooled(message)
    break_call("fsync", "ann/tmp/", errno.EIO)

    [result] = backend.deliver(large, [ANN])

    failure_of(result)
    assert [] == leftovers()


@WAY
def test_other_file_system(
    maildir: Make,
    message: MemoryMessage,
    root: Path,
    mounted: Callable[[Path], None],
    success_of: Any,
    leftovers: Callable[[], list[str]],
) -> None:
    """
    Mailboxes on another disk share a copy of their own there.
    """
    other = [Mailbox(user, "example.net") for user in ("dee", "eve")]
    (root / "example.net").mkdir(parents=True)
    mounted(root / "example.net")

    for result in maildir().deliver(message, [ANN, other[0], BOB, other[1]]):
        success_of(result)

    found = files(root, ANN, BOB, *other)
    assert [2, 2, 2, 2] == [file.st_nlink for file in found]
    assert found[0].st_dev != found[2].st_dev
    assert [] == leftovers()


def begun(backend: MaildirBackend, message: MemoryMessage) -> tuple[Posting, Target]:
    """
    A posting that is about to be written for Ann, whose Maildir has been made.
    """
    place = backend._place(ANN)
    backend._places.make(place)
    target = Target(place, ANN)
    posting = Posting(message, [target], backend._settings, backend._places, backend._names)
    posting.begin_in(target)
    return posting, target


@pytest.mark.parametrize(
    ("there", "is_shown"),
    [
        ([], False),
        (["new/{name}"], True),
        (["cur/{name}"], True),
        (["cur/{name}:2,S"], True),
        (["cur/{name}:2,"], True),
        (["tmp/{name}"], False),
        (["cur/1.M1P1.host,S=6:2,S", "new/1.M1P1.host,S=6"], False),
    ],
)
def test_is_shown(
    maildir: Make, message: MemoryMessage, root: Path, there: list[str], is_shown: bool
) -> None:
    """
    A message is in the mailbox as long as it is in new, or a mail reader has moved it to cur.
    """
    posting, target = begun(maildir(), message)
    for path in there:
        (root / "example.org/ann" / path.format(name=posting.name)).touch()

    assert is_shown == posting.is_shown(target)


def test_without_cur(maildir: Make, message: MemoryMessage, root: Path) -> None:
    """
    Then nobody has moved it there.
    """
    posting, target = begun(maildir(), message)
    (root / "example.org/ann/cur").rmdir()

    assert not posting.is_shown(target)


@pytest.mark.parametrize("missing", [["."], ["cur", "new"]])
def test_nobody_knows_whether_it_is_shown(
    maildir: Make, message: MemoryMessage, root: Path, missing: list[str]
) -> None:
    """
    Where the mailbox cannot be read, nobody can tell.
    """
    posting, target = begun(maildir(), message)
    for each in missing:
        shutil.rmtree(root / "example.org/ann" / each)

    with pytest.raises(FileNotFoundError):
        posting.is_shown(target)
