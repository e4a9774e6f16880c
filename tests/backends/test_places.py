"""
A mailbox that is made is safe on disk before its first mail is answered; whose it is, is right.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from lmtpsvc.backends import listing, places
from lmtpsvc.backends.maildir import MaildirBackend
from lmtpsvc.backends.places import Place, Places
from lmtpsvc.backends.syncing import Syncing
from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import TemporaryFailure
from lmtpsvc.testing import MemoryMessage

ANN, BOB = Mailbox("ann", "example.org"), Mailbox("bob", "example.org")

#: Nobody on any system.
UID, GID = 54321, 54322

Make = Callable[..., MaildirBackend]
Calls = list[tuple[str, str]]


#: Holds for both ways of syncing.
WAY = pytest.mark.usefixtures("way")


def synced(calls: Calls) -> list[str]:
    """
    What has been synced, of directories.
    """
    return [path for call, path in calls if call == "fsync" and ",S=" not in path]


def test_parents_are_synced(maildir: Make, message: MemoryMessage, calls: Calls) -> None:
    """
    The first mail syncs all directories that it made, from the inside out, up to the root.
    """
    backend = maildir()
    calls.clear()

    backend.deliver(message, [ANN])

    user = "example.org/ann"
    made = synced(calls)
    assert {f"{user}/tmp", f"{user}/new", f"{user}/cur"} == set(made[:3])
    assert [user, "example.org", ".", f"{user}/new"] == made[3:]


def test_parents_are_synced_once_more(maildir: Make, message: MemoryMessage, calls: Calls) -> None:
    """
    A process that finds a mailbox cannot know that its maker came to sync it; it does, once.
    """
    maildir().deliver(message, [ANN])
    other = maildir()
    calls.clear()

    other.deliver(message, [ANN])
    other.deliver(message, [ANN])

    user = "example.org/ann"
    found = synced(calls)
    assert {f"{user}/tmp", f"{user}/new", f"{user}/cur"} == set(found[:3])
    assert [user, "example.org", ".", f"{user}/new", f"{user}/new"] == found[3:]


def test_root_is_synced_at_start(
    maildir: Make, root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """
    The root is made at start, with what is above it, and is there after a power cut.
    """
    seen, fsync = [], os.fsync

    def watch(descriptor: int) -> None:
        seen.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)

    maildir(template=f"{root}/a/b/{{user}}")

    expected = [str(tmp_path / name) for name in ("", "mail", "mail/a", "mail/a/b")]
    assert set(expected) <= set(seen)
    mode = 0o711 if os.geteuid() == 0 else 0o700
    assert mode == stat.S_IMODE((root / "a/b").stat().st_mode)


def test_replaced_directory(
    maildir: Make, message: MemoryMessage, root: Path, calls: Calls, success_of: Any
) -> None:
    """
    A mailbox that somebody else has made anew is synced up to the root, too, and once.
    """
    backend = maildir()
    backend.deliver(message, [ANN])
    (root / "example.org/ann").rename(root / "example.org/old")
    for name in ("tmp", "new", "cur"):
        (root / "example.org/ann" / name).mkdir(parents=True)
    calls.clear()

    [result] = backend.deliver(message, [ANN])

    success_of(result)
    assert "." in synced(calls)
    assert 1 == len(os.listdir(root / "example.org/ann/new"))
    calls.clear()
    backend.deliver(message, [ANN])
    assert ["example.org/ann/new"] == synced(calls)


def test_first_mail_with_one_sync(maildir: Make, message: MemoryMessage, calls: Calls) -> None:
    """
    Where a link is the first mail, its own sync is the only one that the new mailbox needs.
    """
    backend = maildir()
    backend.deliver(message, [BOB])
    calls.clear()

    backend.deliver(message, [BOB, ANN])

    [first, *_] = [n for n, (call, path) in enumerate(calls) if call == "fsync" and "/ann" in path]
    assert first > [call for call, _ in calls].index("link")
    assert {"example.org/ann", "example.org", "."} <= set(synced(calls))


@pytest.mark.usefixtures("at_once", "no_shortcut")
def test_remembered_once_the_disk_has_it(
    maildir: Make, message: MemoryMessage, success_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A new mailbox is safe when the file system has been synced, and not before.
    """
    backend, seen = maildir(), []
    place = backend._place(ANN)

    def look(*_: object, **__: object) -> None:
        seen.append(backend._places.is_safe(place))

    monkeypatch.setattr(Syncing, "whole", look)

    for _ in range(2):
        [result] = backend.deliver(message, [ANN])
        success_of(result)

    assert [False, False, True, True] == seen


def test_not_known_as_safe_when_made_again(root: Path) -> None:
    """
    What is made again and not synced yet is not what was safe before.
    """
    some = Places(str(root), 0o700, lambda: 0.0)
    place = Place(f"{root}/a", f"{root}/a", str(root))
    some.make(place)
    assert some.is_safe(place)

    known = some.make(place, durably=False)
    assert not some.is_safe(place)

    some.have_become_safe(place, known)
    assert some.is_safe(place)


def test_made_by_another_meanwhile(root: Path, calls: Calls) -> None:
    """
    What has been made again since is not what the disk has been waited for.
    """
    some = Places(str(root), 0o700, lambda: 0.0)
    place = Place(f"{root}/a", f"{root}/a", str(root))
    known = some.make(place, durably=False)
    some.make(place, durably=False)
    calls.clear()

    some.have_become_safe(place, known)
    assert some.is_safe(place)
    assert {"a/cur", "a/new", "a/tmp", "a", "."} == set(synced(calls))


def test_folder_is_synced(maildir: Make, message: MemoryMessage, calls: Calls) -> None:
    """
    A new folder is synced, and the INBOX it is in.
    """
    backend = maildir(detail="folder")
    backend.deliver(message, [ANN])
    calls.clear()

    backend.deliver(message, [evolve(ANN, detail="lists")])

    found = synced(calls)
    leaves = [f"{name}/{leaf}" for name in ("ann", "ann/.lists") for leaf in ("tmp", "new", "cur")]
    assert {f"example.org/{leaf}" for leaf in leaves} == set(found[:6])
    assert ["example.org/ann/.lists", "example.org/ann", "example.org", "."] == found[6:-1]


@WAY
def test_bounded_memory(
    maildir: Make, message: MemoryMessage, monkeypatch: pytest.MonkeyPatch, success_of: Any
) -> None:
    """
    Of more mailboxes than are remembered, the oldest is looked at again.
    """
    monkeypatch.setattr(places, "REMEMBERED", 2)
    backend = maildir()

    for number in (1, 2, 3, 1):
        [result] = backend.deliver(message, [Mailbox(f"user{number}", "example.org")])
        success_of(result)

    assert 2 == len(backend._places._known)


@WAY
def test_home(maildir: Make, message: MemoryMessage, tmp_path: Path, success_of: Any) -> None:
    """
    A Maildir in the home directory that the users' directory tells.
    """
    home = tmp_path / "home"
    home.mkdir()
    backend = maildir(template="{home}/Maildir")

    [result] = backend.deliver(message, [evolve(ANN, home=f"{home}/")])

    success_of(result)
    assert 1 == len(os.listdir(home / "Maildir/new"))
    assert backend.capabilities.spool_directory is None


@WAY
def test_home_is_not_made(
    maildir: Make, message: MemoryMessage, tmp_path: Path, failure_of: Any
) -> None:
    """
    A home directory that is missing may be a mount that failed: the mail waits.
    """
    backend = maildir(template="{home}/Maildir")

    [result] = backend.deliver(message, [evolve(ANN, home=f"{tmp_path}/home")])

    failure_of(result, TemporaryFailure)
    assert [] == os.listdir(tmp_path)


@pytest.mark.usefixtures("as_root", "passable")
@pytest.mark.parametrize("detail", ["inbox", "folder"])
@WAY
def test_owner(
    maildir: Make,
    message: MemoryMessage,
    root: Path,
    success_of: Any,
    detail: str,
) -> None:
    """
    What is in a user's mailbox is the user's; what is above is the service's, and no obstacle.
    """
    backend = maildir(detail=detail)
    mailbox = evolve(ANN, uid=UID, gid=GID, detail="lists")

    for result in backend.deliver(message, [mailbox, Mailbox("bob", "example.org")]):
        success_of(result)

    found = [root / "example.org/ann", *(root / "example.org/ann").rglob("*")]
    assert (5 if detail == "inbox" else 10) == len(found)
    assert {(UID, GID)} == {(path.stat().st_uid, path.stat().st_gid) for path in found}
    for path in (root, root / "example.org"):
        assert 0 == path.stat().st_uid
        assert 0o711 == stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("as_root", "passable")
@pytest.mark.parametrize("name", ["tmp", "new", ""])
@WAY
def test_symbolic_links(
    maildir: Make,
    message: MemoryMessage,
    tmp_path: Path,
    failure_of: Any,
    name: str,
) -> None:
    """
    A user cannot have root write where only root may.
    """
    secret, home = tmp_path / "secret", tmp_path / "home"
    for path in (secret / "tmp", secret / "new", secret / "cur", home):
        path.mkdir(parents=True)
    secret.chmod(0o700)
    os.chown(home, UID, GID)
    if name:
        (home / "Maildir").mkdir()
        os.chown(home / "Maildir", UID, GID)
    (home / "Maildir" / name).symlink_to(secret / name)
    mailbox = evolve(ANN, home=str(home), uid=UID, gid=GID)

    [result] = maildir(template="{home}/Maildir").deliver(message, [mailbox])

    failure = failure_of(result, TemporaryFailure)
    assert "451 4.2.0 " == str(failure.value.reply)[:10]
    assert ["cur", "new", "tmp"] == sorted(path.name for path in secret.rglob("*"))


@pytest.mark.parametrize(("mode", "before"), [(0o700, 0o2700), (0o2770, 0o770)])
def test_modes_of_the_inbox(root: Path, mode: int, before: int) -> None:
    """
    A folder's first message makes what is missing of the INBOX with the mode that was asked for, too,
    whatever each inherits from the directory that it is in.
    """
    inbox = root / "example.org/ann"
    folder = inbox / ".lists"
    folder.mkdir(parents=True)
    inbox.chmod(before)
    folder.chmod(mode)
    place = Place(str(folder), str(inbox), str(root / "example.org"))
    Places(str(root), mode, lambda: 0.0).make(place)

    leaves = [path / leaf for path in (inbox, folder) for leaf in ("tmp", "new", "cur")]
    assert {mode} == {stat.S_IMODE(leaf.stat().st_mode) for leaf in leaves}


def test_removed_for_two(root: Path) -> None:
    """
    Two threads may find that a directory of many Maildirs has been removed; both make it again.
    """
    known = Places(str(root), 0o700, lambda: 0.0)
    domain = str(root / "example.org")
    known.make(Place(f"{domain}/ann", f"{domain}/ann", domain))
    shutil.rmtree(domain)
    make = known._make

    def lose(directory: str, mode: int, made: set[str]) -> None:
        try:
            make(directory, mode, made)
        except FileNotFoundError:
            # What the other thread does in this moment.
            known._there.discard(domain)
            raise

    known._make = lose  # type: ignore[method-assign]
    known.make(Place(f"{domain}/bob", f"{domain}/bob", domain))
    assert os.path.isdir(f"{domain}/bob/new")


@pytest.mark.parametrize("said", [None, lambda *_: -1])
def test_read_by_other_means(root: Path, said: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where the C library cannot read a directory, Python does.
    """
    read: list[Any] = []
    scandir = os.scandir

    def scan(path: Any) -> Any:
        read.append(path)
        return scandir(path)

    monkeypatch.setattr(listing, "_getdents", lambda: said)
    monkeypatch.setattr(os, "scandir", scan)
    root.mkdir()
    listing.read_some(str(root))
    assert len(read) == 1
