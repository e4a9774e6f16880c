"""
The program that stores messages for the service: none is told of before it is safe, and what goes
wrong for one goes wrong for that one.
"""

from __future__ import annotations

import errno
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from lmtpsvc.backends import disk_writer, file_systems, identity
from lmtpsvc.backends.disk_writer import KEPT, DiskWriter
from lmtpsvc.backends.file_systems import FileSystem
from lmtpsvc.backends.letters import (
    NOTHING,
    QUESTION,
    SAFE,
    SHOWN,
    WRITTEN,
    Letter,
    Outcome,
    Receipt,
)

Break = Callable[[str, str, int], None]
Calls = list[tuple[str, str]]

#: Letters that are there when the program looks, or what makes them just then; or the end.
Round = list[Letter] | Callable[[], list[Letter]] | None

USERS = ("ann", "bob", "cy", "dee")

#: What stat(2) says of Dee's Maildir in some tests; and of nothing else.
ELSEWHERE = 4711

NFS = 0x6969


def descriptors(root: Path) -> list[str]:
    """
    Which are open for what is below *root*.
    """
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the list itself
            if os.readlink(f"/proc/self/fd/{name}").startswith(f"{root}"):
                found.append(name)
    return found


class Service:
    """
    The other side: letters for Maildirs below *root*, and what is heard of them.  It adds each answer
    to *calls*, with the numbers of the letters.
    """

    def __init__(self, root: Path, calls: Calls) -> None:
        self.receipts: list[Receipt] = []
        self.hear: Callable[[Receipt], None] = self.receipts.append
        #: What raises if the service is gone.
        self.check: Callable[[], None] = lambda: None
        #: For each time that the program looked: whether it would wait for letters.
        self.waits: list[bool] = []
        self._root, self._calls = root, calls
        self._room = bytearray(1 << 17)
        self._used = 7
        self._number = 0
        for user in USERS:
            (root / user / "new").mkdir(parents=True)
            (root / user / "tmp").mkdir()
        self._device = root.stat().st_dev

    def letter(self, text: str, *users: str, **changes: Any) -> Letter:
        """
        One that asks for *text* to be stored for *users*.
        """
        begin, octets = self._used, text.encode()
        self._used += len(octets)
        self._room[begin : self._used] = octets
        self._number += 1
        name = f"{self._number}.mx"
        letter = Letter(
            number=self._number,
            device=self._device,
            together=False,
            begin=begin,
            size=len(octets),
            mode=0o600,
            uid=None,
            gid=None,
            tmp=f"{self._root}/{users[0]}/tmp/{name}",
            new=[f"{self._root}/{user}/new/{name}" for user in users],
            inode=(self._root / users[0] / "new").stat().st_ino,
        )
        return letter._replace(**changes)

    def run(self, *rounds: Round) -> dict[int, Outcome]:
        """
        Run the program, which finds these letters one round after the other, and then the end, when
        it would wait for more.  Returns what has become of each letter.
        """
        left = iter(rounds)

        def receive(seconds: float | None) -> list[Letter] | None:
            # Where nothing has been on its way for a while, the disk can be unmounted.
            assert seconds in {0, KEPT, None}
            assert bool(self.opened()) is (seconds is not None)
            found = next(left, None if seconds is None else [])
            if found != [] or seconds == 0:
                self.waits.append(seconds != 0)
            return found() if callable(found) else found

        def answer(receipt: Receipt) -> None:
            self.hear(receipt)
            numbers = [str(outcome.number) for outcome in receipt.outcomes]
            self._calls.append(("answer", " ".join(numbers)))

        self._calls.clear()
        DiskWriter(receive, answer, memoryview(self._room), self.check).run()
        outcomes = [outcome for receipt in self.receipts for outcome in receipt.outcomes]
        found = {outcome.number: outcome for outcome in outcomes}
        assert len(outcomes) == len(found)
        return found

    def opened(self) -> list[str]:
        """
        What is open below the root, so that it could not be unmounted.
        """
        return [os.readlink(f"/proc/self/fd/{name}") for name in descriptors(self._root)]

    def texts(self, *places: str) -> list[str]:
        """
        What each of these directories, or that of these users, says, in alphabetical order.
        """
        found = []
        for place in places:
            directory = self._root / (place if "/" in place else f"{place}/new")
            found.append("".join(sorted(path.read_text() for path in directory.iterdir())))
        return found

    @property
    def written(self) -> str:
        """
        All that is in any tmp, in alphabetical order.
        """
        return "".join(sorted("".join(self.texts(f"{user}/tmp")) for user in USERS))


@pytest.fixture
def patch(tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """
    As `monkeypatch`, but all is whole again before the directory is removed.
    """
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(params=[True, False], ids=["nameless", "in-tmp"])
def is_nameless(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """
    Whether a message that is not alone has no name before it is in new; or it is in tmp, as all are
    where that cannot be.
    """
    if not request.param:
        monkeypatch.setattr(disk_writer, "can_give_names", lambda: False)
    return bool(request.param)


@pytest.fixture
def service(root: Path, calls: Calls, is_nameless: bool) -> Service:
    return Service(root, calls)


def steps(calls: Calls) -> list[str]:
    """
    What was done, in order; a "name" is given by a rename or a link.
    """
    return ["name" if call in {"rename", "link"} else call for call, _ in calls]


# ── the steps ────────────────────────────────────────────────────────────────────────────────────


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
    of those before; they are told of before the program looks for more.
    """
    service.run(
        [service.letter("1", "ann", "bob")],
        [service.letter("2", "cy")],
        [service.letter("3", "dee"), service.letter("4", "ann")],
    )

    last = ["syncfs", "fsync"]
    assert ["write", "syncfs", "name", "name"] == steps(calls[:4])
    assert ["write", *last, "name", "answer"] == steps(calls[4:9])
    assert ["write", "write", *last, "name", "name", "answer"] == steps(calls[9:16])
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


# ── what fails ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def break_close(patch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """
    ``break_close("ann/tmp/")``: what is closed there is closed, but the system tells of an error.
    """

    def break_close(where: str) -> None:
        close = os.close

        def fail(descriptor: int) -> None:
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            close(descriptor)
            if where in path:
                raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

        patch.setattr(os, "close", fail)

    return break_close


@pytest.mark.parametrize(
    ("call", "where"),
    [
        ("open", "ann/tmp/"),
        ("fchmod", "ann/tmp/"),
        ("write", "ann/tmp/"),
        ("fsync", "ann/tmp/"),
        ("close", "ann/tmp/"),
        ("rename", "ann/new/"),
        ("fsync", "ann/new"),
        ("close", "ann/new"),
    ],
)
def test_alone_fails(
    service: Service,
    break_call: Break,
    break_close: Callable[[str], None],
    call: str,
    where: str,
) -> None:
    """
    Whatever fails: nothing is there, and the next is stored.
    """
    letters = [service.letter(str(number), "ann", mode=0o640) for number in (1, 2)]
    letters += [service.letter("3", "bob")]
    if call == "close":
        break_close(where)
    else:
        break_call(call, where, errno.EIO)
    outcomes = service.run(*[[letter] for letter in letters])

    failed = (SAFE, [0]) if call == "rename" else (NOTHING, [])
    assert [failed, failed, (SAFE, [])] == [outcome[1:] for outcome in outcomes.values()]
    assert ["", "3"] == service.texts("ann", "bob")
    assert not service.written
    assert [None, None] == [receipt.each for receipt in service.receipts[:2]]
    assert {0} == {receipt.lost for receipt in service.receipts}
    # Those that are refused are told of, too.
    assert 3 == len(service.receipts)


def test_directory_that_cannot_be_opened(
    service: Service, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    It cannot be synced then, and so the name may not be safe: it is removed.
    """
    real = os.open

    def fail(path: str, *arguments: int) -> int:
        if path.endswith("/new"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, *arguments)

    monkeypatch.setattr(os, "open", fail)
    outcomes = service.run([service.letter("1", "ann")])

    assert {1: Outcome(1, NOTHING, [])} == outcomes
    assert ["write", "fsync", "name", "unlink", "answer"] == steps(calls)
    assert ["", "", ""] == [*service.texts("ann", "bob"), service.written]


def break_naming(break_call: Break, where: str, number: int) -> None:
    """
    Whichever call gives the name to what is alone, or in the source's new.
    """
    for call in ("rename", "link"):
        break_call(call, where, number)


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize(
    ("call", "where"),
    [
        ("open", "ann/tmp"),
        ("fchmod", "ann/tmp/"),
        ("write", "ann/tmp/"),
        ("close", "ann/tmp/"),
        ("rename", "ann/new/"),
    ],
)
def test_one_fails(
    service: Service,
    is_nameless: bool,
    break_call: Break,
    break_close: Callable[[str], None],
    call: str,
    where: str,
    place: int,
    begun: bool,
) -> None:
    """
    Whatever fails for Ann, the others get theirs, those before and those in the same round; and
    nothing is left in tmp.
    """
    users = ["bob", "cy"]
    users.insert(place, "ann")
    # What has no name is closed when it is safe.
    is_safe = call == "close" and is_nameless
    letters = [service.letter(user, user, mode=0o640) for user in users]
    if call == "close":
        break_close(where)
    elif call == "rename":
        break_naming(break_call, where, errno.EDQUOT)
    else:
        break_call(call, where, errno.EDQUOT)
    before = [service.letter("0", "bob", "dee")] if begun else []
    outcomes = service.run(*([before] if begun else []), letters)

    for user, letter in zip(users, letters, strict=True):
        _, what, refused = outcomes[letter.number]
        if user != "ann" or is_safe:
            assert (SAFE, []) == (what, refused)
        elif call == "rename":
            assert (SAFE, [0]) == (what, refused)
        else:
            assert (NOTHING, []) == (what, refused)
    for letter in before:
        assert (SAFE, []) == outcomes[letter.number][1:]
    first = "0" * len(before)
    assert ["ann" if is_safe else "", f"{first}bob", "cy", first] == service.texts(*USERS)
    assert not service.written


@pytest.mark.parametrize(
    ("broken", "refused", "texts"),
    [
        (["bob/new/"], [1], ["1", "", "1"]),
        (["cy/new/"], [2], ["1", "1", ""]),
        (["ann/new/"], [0], ["", "1", "1"]),
        (["bob/new/", "ann/new/"], [0, 1], ["", "", "1"]),
        (["/new/"], [0, 1, 2], ["", "", ""]),
    ],
)
def test_one_of_several_fails(
    service: Service,
    break_call: Break,
    broken: list[str],
    refused: list[int],
    texts: list[str],
) -> None:
    """
    Of the mailboxes of one message, those that cannot be shown it are named; the others have it.
    """
    for where in broken:
        break_naming(break_call, where, errno.EMLINK)
    outcomes = service.run([service.letter("1", "ann", "bob", "cy")])

    assert SAFE == outcomes[1].what
    assert refused == sorted(outcomes[1].refused)
    assert texts == service.texts("ann", "bob", "cy")
    assert not service.written


@pytest.mark.parametrize("index", [0, 1])
def test_name_that_cannot_be(service: Service, index: int) -> None:
    """
    One that is no path, not even a wrong one, is refused as others are.
    """
    letter = service.letter("1", "ann", "bob")
    letter.new[index] += "\0"
    alone = service.letter("2", "cy")
    alone.new[0] += "\0"
    outcomes = service.run([letter], [], [alone])

    assert (SAFE, [index]) == outcomes[1][1:]
    assert (SAFE, [0]) == outcomes[2][1:]
    assert not service.written


@pytest.mark.parametrize("place", ["new", "tmp"])
def test_removed_meanwhile(
    service: Service, is_nameless: bool, root: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """
    Of a Maildir that somebody removes during the wait nothing is told as if it were there.
    """
    # Where nothing is in tmp, nothing of it is missed.
    from_tmp: list[int] = [] if is_nameless else [0, 1]
    refused = [0] if place == "new" else from_tmp

    def remove(_: int) -> None:
        monkeypatch.setattr(file_systems, "_syncfs", lambda _: None)
        (root / "ann" / place).rename(root / "old")

    monkeypatch.setattr(file_systems, "_syncfs", remove)
    outcomes = service.run([service.letter("1", "ann", "bob"), service.letter("2", "cy")])

    assert (SAFE, refused) == (outcomes[1].what, sorted(outcomes[1].refused))
    assert (SAFE, []) == outcomes[2][1:]
    assert ["" if 1 in refused else "1", "2"] == service.texts("bob", "cy")


def test_name_that_is_taken(service: Service, is_nameless: bool) -> None:
    """
    What is there stays: it is somebody's mail.
    """
    letter = service.letter("1", "ann", "bob")
    for path in letter.new[not is_nameless :]:
        Path(path).write_text("0")
    outcomes = service.run([letter])

    refused = [0, 1] if is_nameless else [1]
    assert (SAFE, refused) == (outcomes[1].what, sorted(outcomes[1].refused))
    assert ["0" if is_nameless else "1", "0"] == service.texts("ann", "bob")
    assert not service.written


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EISDIR])
def test_all_files_have_names(
    service: Service, calls: Calls, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """
    Where a file system knows none without, it is in tmp until it is shown.
    """
    real = os.open

    def nothing_nameless(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(number, os.strerror(number))
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", nothing_nameless)
    letter = service.letter("1", "ann", "bob")
    outcomes = service.run([letter])

    assert ("write", f"ann/tmp/{letter.number}.mx") == calls[0]
    assert "rename" in [call for call, _ in calls]
    assert {1: Outcome(1, SAFE, [])} == outcomes
    assert ["1", "1", ""] == [*service.texts("ann", "bob"), service.written]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_names_that_are_forbidden(
    service: Service, is_nameless: bool, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """
    Where the system allows nobody to give a file its first name, that is tried once; not if it forbids it
    for one mailbox.
    """
    real = os.link
    tried: list[str] = []

    def forbidden(old: str, new: str, **options: Any) -> None:
        if old.startswith("/proc/") and (both or "/bob/" in new):
            tried.append(new)
            raise OSError(number, os.strerror(number))
        real(old, new, **options)

    monkeypatch.setattr(os, "link", forbidden)
    both = False
    outcomes = service.run([service.letter("1", "ann", "bob")])
    both = True
    outcomes |= service.run(
        [service.letter("2", "ann", "bob")], [], [service.letter("3", "ann", "bob")]
    )

    assert len(tried) == (3 if is_nameless else 0)
    refused = [[1], [0, 1], []] if is_nameless else [[]] * 3
    assert refused == [sorted(outcomes[number].refused) for number in (1, 2, 3)]
    assert not service.written


@pytest.mark.parametrize("users", [["ann"], ["ann", "bob"]])
def test_short_write(service: Service, users: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A disk that takes a part only has got nothing.
    """
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, octets: write(descriptor, octets[:1]))
    outcomes = service.run([service.letter("12", *users)])

    assert {1: Outcome(1, NOTHING, [])} == outcomes
    assert ["", "", ""] == [*service.texts("ann", "bob"), service.written]


@pytest.mark.parametrize("others", [[], ["bob"]])
def test_full_disk(
    service: Service, root: Path, mounted: Callable[[Path], None], others: list[str]
) -> None:
    """
    One that is really full: nothing is there, and what is small still finds its place.
    """
    mounted(root / "ann")
    for name in ("new", "tmp"):
        (root / "ann" / name).mkdir()
    device = (root / "ann").stat().st_dev
    with open(root / "ann/ballast", "wb", buffering=0) as ballast, suppress(OSError):
        while ballast.write(bytes(4096)):
            pass
    os.truncate(root / "ann/ballast", os.stat(root / "ann/ballast").st_size - 3 * 4096)
    large = service.letter("1" * 60_000, "ann", device=device)
    small = service.letter("2", "ann", device=device)
    outcomes = service.run([large, *[service.letter("3", user) for user in others]], [small])

    assert {1: NOTHING, 2: SAFE} == {number: outcomes[number].what for number in (1, 2)}
    assert ["2", ""] == [*service.texts("ann"), service.written]


# ── a wait that fails ────────────────────────────────────────────────────────────────────────────


def test_wait_for_texts_fails(
    service: Service, break_call: Break, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    None of them is shown, and the service hears that they are in tmp, but may not be safe.
    """
    broken = [service.letter("1", "ann", "bob"), service.letter("2", "cy")]

    def heal() -> list[Letter]:
        monkeypatch.setattr(file_systems, "_syncfs", real)
        return [service.letter("3", "dee"), service.letter("4", "ann")]

    real = file_systems._syncfs
    break_call("syncfs", "", errno.ENOSPC)
    outcomes = service.run(broken, heal)

    assert [WRITTEN, WRITTEN, SAFE, SAFE] == [outcome.what for outcome in outcomes.values()]
    assert [[]] * 4 == [outcome.refused for outcome in outcomes.values()]
    assert ["4", "", "", "3", "12"] == [*service.texts(*USERS), service.written]
    assert [errno.ENOSPC, 0] == [receipt.lost for receipt in service.receipts]
    assert None not in {receipt.whole for receipt in service.receipts}
    assert [True] * 2 == service.waits[:2]


def test_texts_that_cannot_be_left(service: Service, is_nameless: bool, break_call: Break) -> None:
    """
    If the disk may have lost them, and there is no name in tmp for them either, nothing of them is there.
    """
    break_call("syncfs", "", errno.EIO)
    break_call("link", "ann/tmp/", errno.EIO)
    outcomes = service.run([service.letter("1", "ann", "bob"), service.letter("2", "cy")])

    assert [NOTHING if is_nameless else WRITTEN, WRITTEN] == [
        outcome.what for outcome in outcomes.values()
    ]
    assert service.written == ("2" if is_nameless else "12")
    assert ["", "", ""] == service.texts("ann", "bob", "cy")


@pytest.mark.parametrize("call", ["syncfs", "fsync"])
@pytest.mark.parametrize("others", [[], ["ann", "cy"]])
def test_wait_for_names_fails(
    service: Service,
    break_call: Break,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    others: list[str],
) -> None:
    """
    They are in new, but may not be safe; what came meanwhile is in tmp, and may not be, either.
    """

    def lose() -> list[Letter]:
        if call == "syncfs":
            break_call("syncfs", "", errno.EIO)
        else:
            # The last, which is of the disk's own cache.
            monkeypatch.setattr(os, "fsync", fail)
        return [service.letter("3", user) for user in others]

    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    break_call("link", "bob/new/", errno.EMLINK)
    outcomes = service.run([service.letter("1", "ann", "bob"), service.letter("2", "dee")], lose)

    (receipt,) = service.receipts
    assert errno.EIO == receipt.lost
    shown, rest = receipt.outcomes[:2], receipt.outcomes[2:]
    assert [(1, SHOWN, [1]), (2, SHOWN, [])] == shown
    assert [(WRITTEN, [])] * len(others) == [outcome[1:] for outcome in rest]
    assert ["1", "", "", "2"] == service.texts(*USERS)
    assert "3" * len(others) == service.written
    assert len(outcomes) == 2 + len(others)


def test_failure_without_a_number(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An error of which nothing is known is one.
    """

    def fail(_: int) -> None:
        raise OSError

    monkeypatch.setattr(file_systems, "_syncfs", fail)
    service.run([service.letter("1", "ann", "bob")])

    assert [errno.EIO] == [receipt.lost for receipt in service.receipts]


class Losing(FileSystem):
    """
    A file system whose writes are lost, now and then: as in the kernel, each descriptor is told of it
    once, if it was open at that time.
    """

    lost = 0

    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        self._seen = Losing.lost

    def sync(self, *, finally_: bool) -> None:
        super().sync(finally_=finally_)
        seen, self._seen = self._seen, Losing.lost
        if seen != self._seen:
            raise OSError(errno.EIO, "a write was lost")


@pytest.mark.parametrize(
    ("call", "whats"),
    [
        ("write", [WRITTEN, WRITTEN, SAFE, SAFE]),
        ("link", [SHOWN, WRITTEN, SAFE, SAFE]),
        ("the last name", [SHOWN, WRITTEN, SAFE, SAFE]),
    ],
)
def test_each_loss_is_heard_of(
    service: Service,
    is_nameless: bool,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    whats: list[int],
) -> None:
    """
    The file system is open before the first write, and stays so until nothing is on its way: a loss
    at any time is heard of in the next wait, and in no other.
    """
    when = 1
    if call == "the last name":
        call, when = ("link", 2) if is_nameless else ("rename", 1)
    original, times = getattr(os, call), [0]

    def lose(*arguments: Any, **options: Any) -> Any:
        times[0] += 1
        if times[0] == when:
            Losing.lost += 1
        return original(*arguments, **options)

    monkeypatch.setattr(os, call, lose)
    monkeypatch.setattr(disk_writer, "FileSystem", Losing)
    first = [service.letter("1", "ann", "bob")]
    if call == "write":
        first.append(service.letter("2", "cy"))
    second = [] if call == "write" else [service.letter("2", "cy")]
    last = [service.letter("3", "dee"), service.letter("4", "dee")]
    outcomes = service.run(first, second, last)

    assert whats == [outcomes[number].what for number in sorted(outcomes)]


# ── other disks ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def dee_elsewhere(patch: pytest.MonkeyPatch) -> None:
    """
    Dee's Maildir is on another device.
    """
    real = os.fstat

    def fstat(descriptor: int) -> Any:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        return SimpleNamespace(st_dev=ELSEWHERE) if "/dee/" in path else real(descriptor)

    patch.setattr(os, "fstat", fstat)


@pytest.mark.usefixtures("dee_elsewhere")
@pytest.mark.parametrize("others", [[], ["ann"], ["ann", "bob"]])
def test_moved_elsewhere(service: Service, others: list[str]) -> None:
    """
    A mailbox that is not where it is said to be gets nothing, and the others get theirs.
    """
    letters = [*[service.letter("1", user) for user in others], service.letter("2", "dee")]
    outcomes = service.run(letters, [])

    *stored, dee = [outcomes[letter.number].what for letter in letters]
    assert NOTHING == dee
    assert {SAFE} >= set(stored)
    assert ["1"] * len(others) == service.texts(*others)
    assert ["", ""] == [*service.texts("dee"), service.written]


@pytest.mark.usefixtures("dee_elsewhere")
def test_all_have_moved(service: Service, calls: Calls) -> None:
    """
    Nothing is written to a file system that we would hear nothing of, and nothing is waited for.
    """
    outcomes = service.run([service.letter("1", "dee"), service.letter("2", "dee")])

    assert [NOTHING, NOTHING] == [outcome.what for outcome in outcomes.values()]
    assert [("answer", "1 2")] == calls
    assert None is service.receipts[0].whole


@pytest.mark.parametrize("kind", [NFS, "unknown"])
def test_file_system_without_a_promise(
    service: Service, monkeypatch: pytest.MonkeyPatch, calls: Calls, kind: Any
) -> None:
    """
    Where a wait for all says nothing, it is not relied upon; to sync one file is a promise anywhere.
    """

    def file_system(_: int) -> int:
        if kind == "unknown":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return int(kind)

    monkeypatch.setattr(file_systems, "_file_system", file_system)
    both = [service.letter("1", "ann"), service.letter("2", "bob")]
    outcomes = service.run(both, [service.letter("3", "cy")])

    assert [NOTHING, NOTHING, SAFE] == [outcome.what for outcome in outcomes.values()]
    assert "syncfs" not in steps(calls)
    assert ["", "", "3", ""] == [*service.texts("ann", "bob", "cy"), service.written]


@pytest.mark.usefixtures("dee_elsewhere")
@pytest.mark.parametrize("when", ["texts", "names"])
def test_one_of_two_disks_fails(service: Service, break_call: Break, when: str) -> None:
    """
    What is on the other is safe.
    """
    letters = [service.letter("1", "ann"), service.letter("2", "dee", device=ELSEWHERE)]

    def lose() -> list[Letter]:
        break_call("syncfs", "/dee/", errno.EIO)
        return []

    if when == "texts":
        lose()
        outcomes = service.run(letters)
    else:
        outcomes = service.run(letters, lose)

    assert {1: SAFE, 2: WRITTEN if when == "texts" else SHOWN} == {
        number: outcome.what for number, outcome in outcomes.items()
    }
    assert {errno.EIO} == {receipt.lost for receipt in service.receipts} - {0}


@pytest.mark.usefixtures("dee_elsewhere")
def test_a_disk_with_nothing_on_its_way(service: Service, calls: Calls) -> None:
    """
    It can be unmounted, and nobody waits for it, however busy the other is.
    """
    opened = []

    def more() -> list[Letter]:
        opened.append(sorted(Path(path).parts[-2] for path in service.opened()))
        return [service.letter("3", "ann"), service.letter("4", "bob")]

    letters = [service.letter("1", "ann"), service.letter("2", "dee", device=ELSEWHERE)]
    service.run(letters, more, more, more)

    assert [["ann", "dee"], ["ann", "dee"], ["ann"]] == opened
    waits = [path for call, path in calls if call == "syncfs"]
    assert ["ann/tmp", "dee/tmp"] * 2 == waits[:4]
    assert ["ann/tmp"] * 3 == waits[4:]


# ── whose files they are ─────────────────────────────────────────────────────────────────────────


def whose(path: str | Path) -> tuple[int, int]:
    """
    User and group of a file.
    """
    found = os.stat(path)
    return found.st_uid, found.st_gid


@pytest.fixture
def identities(root: Path, patch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """
    Each call for a name below the root, and sync of a directory, with the user as whom it was made.
    """
    seen: list[tuple[str, int]] = []

    def record(name: str) -> None:
        original = getattr(os, name)

        def call(*arguments: Any, **options: Any) -> Any:
            subject = arguments[1] if name == "link" else arguments[0]
            if isinstance(subject, int):
                subject = os.readlink(f"/proc/self/fd/{subject}")
            path = os.fspath(subject)
            if path.startswith(f"{root}"):
                seen.append((name, identity._calls()[0](identity._ASK)))
            return original(*arguments, **options)

        patch.setattr(os, name, call)

    for name in ("open", "link", "rename", "unlink", "fsync"):
        record(name)
    return seen


@pytest.mark.usefixtures("as_root", "passable")
@pytest.mark.parametrize("users", [["ann"], ["ann", "bob"]])
@pytest.mark.parametrize("broken", ["", "write", "rename", "fsync"])
def test_as_its_owner(
    service: Service,
    root: Path,
    tmp_path: Path,
    identities: list[tuple[str, int]],
    break_call: Break,
    users: list[str],
    broken: str,
) -> None:
    """
    All that is done in a mailbox with an owner is done as that user; the program is itself again
    after that, also where something has failed.
    """
    for user in users:
        for place in ("", "new", "tmp"):
            os.chown(root / user / place, 4711, 4712)
            (root / user / place).chmod(0o700)
    letter = service.letter("1", *users, uid=4711, gid=4712)
    # The last fsync of one that is alone; the other has no part in it.
    where = "ann/new" if broken == "fsync" else "ann/"
    if broken == "rename":
        break_naming(break_call, where, errno.EIO)
    elif broken:
        break_call(broken, where, errno.EIO)
    service.run([letter])

    names = {("open", 4711), ("rename", 4711), ("link", 4711), ("unlink", 4711), ("fsync", 4711)}
    if len(users) > 1:
        # It is the disk's own cache that is emptied, not the directory.
        names.add(("fsync", 0))
    assert {("open", 4711)} <= set(identities) <= names
    if not broken:
        assert [(4711, 4712)] * len(users) == [whose(path) for path in letter.new]
    (tmp_path / "mine").touch()
    assert (os.geteuid(), os.getegid()) == whose(tmp_path / "mine")


@pytest.mark.usefixtures("as_root", "passable")
@pytest.mark.parametrize("others", [[], ["bob"]])
def test_forbidden_to_its_owner(service: Service, others: list[str]) -> None:
    """
    The program has no more rights there than the owner has.
    """
    outcomes = service.run(
        [
            service.letter("1", "ann", uid=4711, gid=4712),
            *[service.letter("2", user) for user in others],
        ]
    )

    assert NOTHING == outcomes[1].what
    assert ["", *["2"] * len(others), ""] == [*service.texts("ann", *others), service.written]


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("others", [[], ["bob"]])
def test_identity_that_cannot_be_taken(service: Service, others: list[str]) -> None:
    """
    Who is not known completely gets nothing, and the others get theirs.
    """
    outcomes = service.run(
        [
            service.letter("1", "ann", uid=4711, gid=None),
            *[service.letter("2", user) for user in others],
        ]
    )

    assert NOTHING == outcomes[1].what
    assert ["", *["2"] * len(others), ""] == [*service.texts("ann", *others), service.written]


def test_identity_that_cannot_be_taken_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    It cannot be shown then, to nobody; but it was not lost, either.
    """
    times = [0]

    @contextmanager
    def as_user(uid: int | None, gid: int | None) -> Iterator[None]:
        times[0] += 1
        if times[0] == 2:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        yield

    monkeypatch.setattr(disk_writer, "as_user", as_user)
    outcomes = service.run([service.letter("1", "ann", "bob")])

    assert {1: Outcome(1, SAFE, [0, 1])} == outcomes
    assert ["", ""] == service.texts("ann", "bob")


@pytest.mark.parametrize("users", [["ann"], ["ann", "bob"]])
@pytest.mark.parametrize("after", [1, 2])
def test_identity_that_cannot_be_left(
    service: Service, monkeypatch: pytest.MonkeyPatch, users: list[str], after: int
) -> None:
    """
    A program that cannot be itself again ends: it would go on as somebody else.
    """
    times = [0]

    @contextmanager
    def as_user(uid: int | None, gid: int | None) -> Iterator[None]:
        yield
        times[0] += 1
        if times[0] == after:
            raise RuntimeError("cannot be 0:0 again")

    monkeypatch.setattr(disk_writer, "as_user", as_user)
    letters = [[service.letter("1", *users)], [service.letter("2", *users)]]
    with pytest.raises(RuntimeError, match="cannot be 0:0 again"):
        service.run(*letters)

    assert after == times[0]


# ── whatever comes ───────────────────────────────────────────────────────────────────────────────


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
