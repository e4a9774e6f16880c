"""
Files belong to the owners of their mailboxes, and nothing is done as anybody else.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lmtpsvc.backends import disk_writer, identity
from lmtpsvc.backends.letters import (
    NOTHING,
    SAFE,
    Outcome,
)

from .conftest import Break, Service, break_naming


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
