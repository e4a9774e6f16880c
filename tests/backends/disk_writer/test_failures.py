"""
What goes wrong for one message goes wrong for that one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lmtpsvc.backends import disk_writer, file_systems
from lmtpsvc.backends.file_systems import FileSystem
from lmtpsvc.backends.letters import (
    NOTHING,
    SAFE,
    SHOWN,
    WRITTEN,
    Letter,
    Outcome,
)

from .conftest import USERS, Break, Calls, Service, break_naming, steps


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
