"""
Mail for one mailbox: what is in the file, what it is called, and when the answer comes.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable
from mailbox import Maildir
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import IService
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from lmtpsvc.backends import file_systems
from lmtpsvc.backends.maildir import MaildirBackend
from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import PermanentFailure
from lmtpsvc.interfaces import IBackend
from lmtpsvc.testing import MemoryMessage

ANN = Mailbox("ann", "example.org")
BOB = Mailbox("bob", "example.org")

Make = Callable[..., MaildirBackend]

#: Holds for both ways of syncing.
WAY = pytest.mark.usefixtures("way")


def only_file(folder: Path) -> Path:
    """
    The one file in *folder*.
    """
    [path] = folder.iterdir()
    return path


def test_provides_interfaces(maildir: Make) -> None:
    """
    It is a backend, and a service that is started and stopped.
    """
    assert verifyObject(IBackend, maildir())
    assert verifyObject(IService, maildir())


@WAY
def test_first_mail(maildir: Make, message: MemoryMessage, root: Path, success_of: Any) -> None:
    """
    The first mail makes the Maildir, and any reader of Maildirs finds it.
    """
    [result] = maildir().deliver(message, [ANN])

    success_of(result)
    [item] = Maildir(root / "example.org" / "ann", create=False)
    assert "hello" == item["Subject"]
    assert "body\n" == item.get_payload()
    assert "new" == item.get_subdir()


@WAY
def test_one_copy_two_replies(
    maildir: Make, message: MemoryMessage, root: Path, success_of: Any
) -> None:
    """
    A mailbox named twice gets one copy, and each mention an answer.
    """
    detailed = Mailbox("ann", "example.org", detail="lists")

    results = maildir().deliver(message, [ANN, ANN, detailed])

    assert 3 == len(results)
    for result in results:
        success_of(result)
    assert only_file(root / "example.org/ann/new").is_file()


def test_name(maildir: Make, message: MemoryMessage, root: Path) -> None:
    """
    The name tells when, what makes it unique, where, and both sizes.
    """
    maildir().deliver(message, [ANN])

    name = only_file(root / "example.org/ann/new").name
    assert re.fullmatch(
        rf"1700000000\.M500000P{os.getpid()}Q1R[0-9a-f]{{8}}\.mx\.example\.org,S=21,W=24", name
    )


@pytest.mark.parametrize(
    ("newline", "octets"),
    [
        ("lf", b"a: b\n\nbare\nLF\rCR\n"),
        ("crlf", b"a: b\r\n\r\nbare\nLF\rCR\r\n"),
    ],
)
def test_line_endings(maildir: Make, root: Path, newline: str, octets: bytes) -> None:
    """
    Each CRLF is stored as the operator wants it; S= is the size stored, W= that with CRLF only.
    """
    message = MemoryMessage(b"a: b\r\n\r\nbare\nLF\rCR\r\n")

    maildir(newline=newline).deliver(message, [ANN])

    path = only_file(root / "example.org/ann/new")
    assert octets == path.read_bytes()
    assert path.name.endswith(f",S={len(octets)},W=21")


@pytest.mark.parametrize(("mode", "file"), [("0700", 0o600), ("0750", 0o640), ("2770", 0o660)])
def test_modes(maildir: Make, message: MemoryMessage, root: Path, mode: str, file: int) -> None:
    """
    Directories have the mode that was asked for whatever the umask, and files follow.
    """
    umask = os.umask(0o077)
    try:
        maildir(mode=mode).deliver(message, [ANN])
    finally:
        os.umask(umask)

    inbox = root / "example.org/ann"
    for path in (inbox, inbox / "tmp", inbox / "new", inbox / "cur"):
        assert int(mode, 8) == stat.S_IMODE(path.stat().st_mode)
    assert file == stat.S_IMODE(only_file(inbox / "new").stat().st_mode)


@pytest.mark.parametrize(
    ("way", "steps"),
    [
        ("one_by_one", ["write NAME", "fsync NAME", "rename NAME", "fsync new"]),
        (
            "at_once",
            ["write NAME", "syncfs tmp", "rename NAME", "syncfs tmp", "fsync tmp"],
        ),
    ],
    indirect=["way"],
)
@pytest.mark.usefixtures("no_shortcut")
def test_order(
    maildir: Make,
    message: MemoryMessage,
    root: Path,
    calls: list[tuple[str, str]],
    way: str,
    steps: list[str],
) -> None:
    """
    Text synced, then shown, then the directory synced, then answered: nothing may change places.
    """
    backend = maildir()
    backend.deliver(message, [ANN])
    calls.clear()

    [result] = backend.deliver(message, [ANN])
    result.addCallback(lambda _: calls.append(("answer", "")))

    name = max((root / "example.org/ann/new").iterdir()).name
    short = [f"{call} {os.path.basename(path)}" for call, path in calls]
    assert [*[step.replace("NAME", name) for step in steps], "answer "] == short


def test_not_answered_before_the_directory_is_synced(
    maildir: Make,
    held_pool: Any,
    message: MemoryMessage,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    """
    While file and directory are being synced, nobody has been told anything.
    """
    backend, told = maildir(held_pool), []
    backend.deliver(message, [ANN])
    held_pool.work()
    [result] = backend.deliver(message, [ANN])
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        fsync(descriptor)
        told.append(result.called)

    monkeypatch.setattr(os, "fsync", watch)
    monkeypatch.setattr(file_systems, "_syncfs", watch)
    held_pool.work()

    assert [False] * (3 if way == "at_once" else 2) == told
    assert result.called


@WAY
def test_cancelled_before(
    maildir: Make,
    held_pool: Any,
    message: MemoryMessage,
    root: Path,
    failure_of: Any,
    leftovers: Callable[[], list[str]],
) -> None:
    """
    A delivery that is cancelled in time leaves nothing behind.
    """
    backend = maildir(held_pool)
    [result] = backend.deliver(message, [ANN])

    result.cancel()
    held_pool.work()

    failure_of(result, CancelledError)
    assert not (root / "example.org/ann/new").exists()
    assert [] == leftovers()


@WAY
def test_cancelled_while_written(
    maildir: Make,
    held_pool: Any,
    message: MemoryMessage,
    root: Path,
    failure_of: Any,
    leftovers: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Cancelled while the text goes to disk: it is not shown, and removed.
    """
    backend = maildir(held_pool)
    [result] = backend.deliver(message, [ANN])
    write = os.write

    def slow(descriptor: int, octets: bytes) -> int:
        result.cancel()
        return write(descriptor, octets)

    monkeypatch.setattr(os, "write", slow)
    held_pool.work()

    failure_of(result, CancelledError)
    assert [] == list((root / "example.org/ann/new").iterdir())
    assert [] == leftovers()


@WAY
def test_cancelled_too_late(
    maildir: Make,
    held_pool: Any,
    message: MemoryMessage,
    root: Path,
    success_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Cancelled once it can be seen: it is finished, and answered as if nothing had been said.
    """
    backend = maildir(held_pool)
    [result] = backend.deliver(message, [ANN])
    rename = os.rename

    def slow(source: str, target: str) -> None:
        result.cancel()
        rename(source, target)

    monkeypatch.setattr(os, "rename", slow)
    held_pool.work()

    success_of(result)
    assert only_file(root / "example.org/ann/new").is_file()


@pytest.mark.parametrize("user", ["..", "../ann", "/etc", "ann/new", "", ".ann", "a\0", "a\n"])
def test_climbing_out(
    maildir: Make, message: MemoryMessage, root: Path, failure_of: Any, user: str
) -> None:
    """
    A local part is never a path: refused at RCPT, and at delivery too.
    """
    backend, mailbox = maildir(), Mailbox(user, "example.org")

    with pytest.raises(PermanentFailure) as refused:
        backend.verify(mailbox)
    [result] = backend.deliver(message, [mailbox])

    assert 553 == refused.value.reply.code
    failure_of(result, PermanentFailure)
    assert [".spool"] == os.listdir(root)


def test_verify_takes_anybody(maildir: Make) -> None:
    """
    Who lives here is not its business; a mailbox need not exist.
    """
    maildir().verify(ANN)


@WAY
def test_folder(maildir: Make, message: MemoryMessage, root: Path, success_of: Any) -> None:
    """
    With detail=folder, the detail is a Maildir++ folder, which Python's reader finds.
    """
    mailbox = Mailbox("ann", "example.org", detail="lists.python")

    [result] = maildir(detail="folder").deliver(message, [mailbox])

    success_of(result)
    inbox = Maildir(root / "example.org/ann", create=False)
    assert ["lists.python"] == inbox.list_folders()
    assert 1 == len(inbox.get_folder("lists.python"))
    assert 0 == len(inbox)
    assert (root / "example.org/ann/.lists.python/maildirfolder").exists()


@WAY
@pytest.mark.usefixtures("no_shortcut")
@pytest.mark.parametrize(
    "names", [["tmp"], ["new"], ["tmp", "new", "cur"], ["tmp", "new", "cur", ""]]
)
@pytest.mark.parametrize("mailboxes", [[ANN], [ANN, BOB], [BOB, ANN]])
def test_removed_mailbox(
    maildir: Make,
    message: MemoryMessage,
    root: Path,
    success_of: Any,
    leftovers: Callable[[], list[str]],
    names: list[str],
    mailboxes: list[Mailbox],
) -> None:
    """
    A mailbox that somebody removes, in part or whole, is made again by the next mail.
    """
    backend = maildir()
    backend.deliver(message, mailboxes)
    for name in names:
        shutil.rmtree(root / "example.org/ann" / name)

    for result in backend.deliver(message, mailboxes):
        success_of(result)

    assert 1 + ("new" not in names) == len(os.listdir(root / "example.org/ann/new"))
    assert {"tmp", "new", "cur"} >= set(os.listdir(root / "example.org/ann"))
    assert [] == leftovers()


def test_leftovers_are_removed(
    maildir: Make, message: MemoryMessage, root: Path, clock: Clock
) -> None:
    """
    What nobody has touched for 36 hours goes from tmp/, at the first delivery and then daily.
    """
    hour = 3600
    backend, tmp = maildir(), root / "example.org/ann/tmp"
    tmp.mkdir(parents=True)

    def leave(name: str, hours: int) -> None:
        (tmp / name).touch()
        then = clock.seconds() - hours * hour
        os.utime(tmp / name, (then, then))

    leave("old", 37)
    leave("young", 35)
    backend.deliver(message, [ANN])
    assert ["young"] == os.listdir(tmp)

    clock.advance(2 * hour)
    backend.deliver(message, [ANN])
    assert ["young"] == os.listdir(tmp)

    clock.advance(23 * hour)
    backend.deliver(message, [ANN])
    assert [] == os.listdir(tmp)


@pytest.mark.parametrize(
    ("options", "expected"), [({}, True), ({"mode": "0770"}, False), ({"newline": "crlf"}, True)]
)
def test_links_what_is_spooled(maildir: Make, options: dict[str, str], expected: bool) -> None:
    """
    The spooled file itself becomes the mail, unless it is to be for others as well.
    """
    assert expected == maildir(**options).capabilities.links_spooled


def test_leftovers_in_the_spool(maildir: Make, root: Path, clock: Clock) -> None:
    """
    A restart removes what has been in the spool for 36 hours.
    """
    backend = maildir()
    assert str(root / ".spool") == backend.capabilities.spool_directory
    for name, hours in (("old", 37), ("young", 1)):
        then = clock.seconds() - hours * 3600
        (root / ".spool" / name).touch()
        os.utime(root / ".spool" / name, (then, then))

    backend.startService()

    assert ["young"] == os.listdir(root / ".spool")
