"""
The program that stores messages for the service: none is told of before it is safe.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from lmtpsvc.backends import disk_writer, file_systems
from lmtpsvc.backends.file_systems import FileSystem
from lmtpsvc.backends.letters import (
    NOTHING,
    QUESTION,
    SAFE,
    Letter,
    Outcome,
    Receipt,
)

from .conftest import USERS, Calls, Round, Service, descriptors, steps


def test_alone(service: Service, calls: Calls) -> None:
    """
    One message is synced itself, and so is the directory that its name is in: nobody waits for what
    others write.
    """
    letter = service.letter("1", "ann")
    outcomes = service.run([letter])

    name = f"{letter.number}.mx"
    assert [
        ("write", f"ann/tmp/{name}"),
        ("fsync", f"ann/tmp/{name}"),
        ("rename", f"ann/new/{name}"),
        ("fsync", "ann/new"),
        ("answer", "1"),
    ] == calls
    assert {1: Outcome(1, SAFE, [])} == outcomes
    assert ["1"] == service.texts("ann")
    assert [True, True] == service.waits


def test_together(service: Service, calls: Calls) -> None:
    """
    What is there at the same time is waited for together: first its texts, then its names.
    """
    letters = [service.letter("1", "ann"), service.letter("22", "bob"), service.letter("", "ann")]
    outcomes = service.run(letters)

    wait = ["syncfs", *["name"] * 3, "syncfs", "fsync"]
    assert [*["write"] * 3, *wait, "answer"] == steps(calls)
    assert ("answer", "1 2 3") == calls[-1]
    assert {number: Outcome(number, SAFE, []) for number in (1, 2, 3)} == outcomes
    assert ["1", "22"] == service.texts("ann", "bob")
    assert 2 == len(os.listdir(os.path.dirname(letters[0].new[0])))
    assert not service.written


def test_links(service: Service, calls: Calls) -> None:
    """
    Several mailboxes get one file, once it is safe; that from whose tmp the others are linked is the
    last.
    """
    letter = service.letter("1", *USERS)
    outcomes = service.run([letter])

    assert [
        "write",
        "syncfs",
        *["name"] * 4,
        "syncfs",
        "fsync",
        "answer",
    ] == steps(calls)
    assert "ann/new/1.mx" == calls[-4][1]
    assert {1: Outcome(1, SAFE, [])} == outcomes
    assert 1 == len({os.stat(path).st_ino for path in letter.new})
    assert ["1"] * 4 == service.texts(*USERS)
    assert not service.written


def test_directories_that_are_not_safe(service: Service, calls: Calls) -> None:
    """
    Where a directory above may be lost, only a wait for all will do, also for one message.
    """
    service.run([service.letter("1", "ann", together=True)])

    assert ["write", "syncfs", "name", "syncfs", "fsync", "answer"] == steps(calls)


def test_each_wait_is_for_all(service: Service, calls: Calls) -> None:
    """
    What has come during a wait is written before the next, which is for its text, and for the names
    of those before; they are told of at once, before what has been written gets its names.
    """
    service.run(
        [service.letter("1", "ann", "bob")],
        [service.letter("2", "cy")],
        [service.letter("3", "dee"), service.letter("4", "ann")],
    )

    last = ["syncfs", "fsync"]
    assert ["write", "syncfs", "name", "name"] == steps(calls[:4])
    assert ["write", *last, "answer", "name"] == steps(calls[4:9])
    assert ["write", "write", *last, "answer", "name", "name"] == steps(calls[9:16])
    assert [*last, "answer"] == steps(calls[16:])
    assert ["1", "2", "3 4"] == [what for call, what in calls if call == "answer"]
    assert [True, False, False, False, True] == service.waits


def test_alone_again(service: Service, calls: Calls) -> None:
    """
    When nothing is on its way any more, one message is alone.
    """
    both = [service.letter("1", "ann"), service.letter("2", "bob")]
    service.run(both, [], [service.letter("3", "cy")], [service.letter("4", "dee")])

    alone = ["write", "fsync", "name", "fsync", "answer"]
    assert alone * 2 == steps(calls)[-10:]
    assert [True, False, True, True, True] == service.waits


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
@pytest.mark.parametrize("users", [["ann"], ["ann", "bob"]])
def test_mode(service: Service, users: list[str], mode: int) -> None:
    """
    The file may be read by whom the operator says, whatever the umask is.
    """
    letter = service.letter("1", *users, mode=mode)
    before = os.umask(0o027)
    try:
        service.run([letter])
    finally:
        os.umask(before)

    assert [mode] * len(users) == [os.stat(path).st_mode & 0o7777 for path in letter.new]


def test_how_long_it_took(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The service hears how long it takes to wait for all, of two waits the longer one, and to wait for
    one file.
    """
    now = [0.0]
    waits = iter([1.0, 1.0, 3.0, 1.0])

    def wait(_: int) -> None:
        now[0] += next(waits)

    def ask(_: int) -> None:
        now[0] += 0.125

    monkeypatch.setattr(disk_writer, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(file_systems, "_syncfs", wait)
    monkeypatch.setattr(os, "fsync", ask)
    service.run([service.letter("1", "ann")], [service.letter("2", "ann", "bob")])
    service.run([service.letter("3", "ann", "bob")])

    alone, together, slow = service.receipts
    assert (None, 0.125, 0) == alone[1:4]
    assert (1.125, None, 0) == together[1:4]
    assert (3.0, None, 0) == slow[1:4]


def test_end(service: Service, calls: Calls) -> None:
    """
    At the end of the letters the program ends, and waits for nothing more: nobody would hear of it.
    """
    both = [service.letter("1", "ann"), service.letter("2", "bob")]
    assert {} == service.run(both, None)

    assert ["write", "write", "syncfs", "name", "name"] == steps(calls)


@pytest.mark.parametrize(
    ("users", "done"),
    [(["ann"], ["write", "fsync"]), (["ann", "bob"], ["write", "syncfs"])],
)
def test_service_has_gone(
    service: Service, calls: Calls, users: list[str], done: list[str]
) -> None:
    """
    That is looked for at the last moment: nothing may be shown that nobody will be told of.
    """

    def check() -> None:
        assert done == steps(calls)
        raise ConnectionResetError

    service.check = check
    with pytest.raises(ConnectionResetError):
        service.run([service.letter("1", *users)])

    assert done == steps(calls)
    assert [] == service.receipts


def test_question(service: Service, calls: Calls) -> None:
    """
    One that asks for nothing is answered, and nothing else is done.
    """
    outcomes = service.run([QUESTION])
    assert [("answer", "0")] == calls
    assert {0: Outcome(0, NOTHING, [])} == outcomes

    service.receipts.clear()
    outcomes = service.run(
        [service.letter("1", "ann", "bob")], [QUESTION, QUESTION._replace(number=7)]
    )
    assert ("answer", "0 7 1") == calls[-1]
    assert SAFE == outcomes[1].what


def test_kept_open(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A file system is opened anew only when nothing has come for a while.
    """
    opened: list[str] = []

    class Counted(FileSystem):
        def __init__(self, directory: str) -> None:
            super().__init__(directory)
            opened.append(directory)

    monkeypatch.setattr(disk_writer, "FileSystem", Counted)
    lots: list[Round] = [[service.letter(str(number), "ann", "bob")] for number in range(4)]
    alone = [service.letter("4", "ann")]
    service.run(lots[0], [], lots[1], [], alone, lots[2], [], [], lots[3])

    assert 2 == len(opened)
    assert [] == service.opened()


@pytest.mark.parametrize("has_journal", [False, True])
def test_since_when_the_waits_tell(
    service: Service, monkeypatch: pytest.MonkeyPatch, has_journal: bool
) -> None:
    """
    The service hears since when the waits tell of directories that are lost: where there is no
    journal, since the file system was opened.
    """
    monkeypatch.setattr(file_systems, "_journal", lambda _: has_journal)
    before = time.monotonic()
    service.run([service.letter("1", "ann")], [service.letter("2", "ann", together=True)])
    after = time.monotonic()

    alone, together = [receipt.tells_since for receipt in service.receipts]
    assert -math.inf == alone
    if has_journal:
        assert -math.inf == together
    else:
        assert before <= together <= after


class Disk:
    """
    One that keeps what it was asked to keep, and no more: below *root*, files are known by their
    inode, and names by what they are.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.texts: set[int] = set()
        self.names: set[tuple[str, int]] = set()
        self._on_their_way: tuple[set[int], set[tuple[str, int]]] = set(), set()

    def _there(self) -> tuple[set[int], set[tuple[str, int]]]:
        names = {
            (found.path, found.inode())
            for mailbox in os.scandir(self._root)
            for place in os.scandir(mailbox.path)
            for found in os.scandir(place.path)
        }
        # What has no name yet is open.
        opened = [os.stat(f"/proc/self/fd/{name}") for name in descriptors(self._root)]
        return {inode for _, inode in names} | {each.st_ino for each in opened}, names

    def syncfs(self, _: int) -> None:
        self._on_their_way = self._there()
        self.texts |= self._on_their_way[0]

    def fsync(self, descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        texts, names = self._there()
        self.texts |= {inode for inode in texts if inode == os.stat(path).st_ino}
        self.names |= {name for name in names if os.path.dirname(name[0]) == path}
        # The disk's own cache, behind what syncfs has written.
        self.names |= self._on_their_way[1]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_comes(
    service: Service, root: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """
    Nothing is shown before its text is safe, and nothing is told of as safe before its names are.
    """
    random, disk = Random(seed), Disk(root)
    letters: dict[int, Letter] = {}

    def some(most: int) -> list[Letter]:
        found = []
        for _ in range(random.randint(0, most)):
            users = random.sample(USERS, random.choice([1, 1, 2, 4]))
            found.append(service.letter("1", *users, together=random.random() < 0.2))
        letters.update((letter.number, letter) for letter in found)
        return found

    def shown(call: Callable[..., None]) -> Callable[..., None]:
        def check(old: str, new: str, **options: Any) -> None:
            assert os.stat(old).st_ino in disk.texts
            call(old, new, **options)

        return check

    told: list[int] = []

    def told_of(receipt: Receipt) -> None:
        for number, what, refused in receipt.outcomes:
            assert (SAFE, []) == (what, refused)
            told.append(number)
            for path in letters[number].new:
                assert (path, os.stat(path).st_ino) in disk.names

    monkeypatch.setattr(file_systems, "_syncfs", disk.syncfs)
    monkeypatch.setattr(os, "fsync", disk.fsync)
    monkeypatch.setattr(os, "link", shown(os.link))
    monkeypatch.setattr(os, "rename", shown(os.rename))
    rounds: list[Round] = [lambda: some(random.choice([0, 1, 3]))] * 15
    service.hear = told_of
    service.run(*rounds)

    assert sorted(letters) == sorted(told)
