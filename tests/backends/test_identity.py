"""
Being another user for the time of some file work.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from lmtpsvc.backends import identity
from lmtpsvc.backends.identity import as_user

UID, GID = 54321, 54322


def owner_of_new_file(path: Path) -> tuple[int, int]:
    """
    Make a file, and see whose it is.
    """
    path.touch()
    found = path.stat()
    return found.st_uid, found.st_gid


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """
    A directory that anybody may write to.
    """
    tmp_path.chmod(0o777)
    return tmp_path


@pytest.mark.usefixtures("as_root")
def test_files_belong_to_the_user(folder: Path) -> None:
    """
    Within, files are the user's; after, the service's again.
    """
    descriptor = os.open(folder, os.O_PATH)
    within = Path(f"/proc/self/fd/{descriptor}")
    with as_user(UID, GID):
        assert (UID, GID) == owner_of_new_file(within / "a")

    assert (0, 0) == owner_of_new_file(folder / "b")
    os.close(descriptor)


@pytest.mark.usefixtures("as_root")
def test_restored_after_an_error(folder: Path) -> None:
    """
    Whatever happens within, the thread is itself again.
    """
    with pytest.raises(FileNotFoundError), as_user(UID, GID):
        os.stat("/nonexistent")

    assert (0, 0) == owner_of_new_file(folder / "a")


@pytest.mark.usefixtures("as_root")
def test_only_this_thread(folder: Path) -> None:
    """
    Another thread does not notice.
    """
    found, entered = [], threading.Event()

    def other() -> None:
        entered.wait(60)
        found.append(owner_of_new_file(folder / "a"))

    thread = threading.Thread(target=other)
    thread.start()
    with as_user(UID, GID):
        entered.set()
        thread.join()

    assert [(0, 0)] == found


@pytest.mark.usefixtures("as_root")
def test_root_files_are_closed(tmp_path: Path) -> None:
    """
    Root's right to pass over permissions is gone, too.
    """
    tmp_path.chmod(0o700)

    with as_user(UID, GID), pytest.raises(PermissionError):
        os.listdir(tmp_path)


@pytest.mark.usefixtures("as_root")
def test_not_taken(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """
    If the system keeps the identity without a word, nothing is done.
    """
    setfsuid, setfsgid = identity._calls()
    monkeypatch.setattr(identity, "_calls", lambda: (lambda _: setfsuid(-1), setfsgid))

    with pytest.raises(PermissionError), as_user(UID, GID):
        raise AssertionError

    assert (0, 0) == owner_of_new_file(folder / "a")


@pytest.mark.usefixtures("as_root")
def test_group_unknown() -> None:
    """
    A user whose group nobody knows is not served with root's.
    """
    with pytest.raises(PermissionError), as_user(UID, None):
        raise AssertionError


def test_not_root(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """
    Who is not root can only be himself.
    """
    ourselves = os.geteuid(), os.getegid()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with as_user(UID, GID):
        assert ourselves == owner_of_new_file(folder / "a")


def test_no_user(folder: Path) -> None:
    """
    A mailbox without a user is the service's own.
    """
    with as_user(None, None):
        assert (os.geteuid(), os.getegid()) == owner_of_new_file(folder / "a")
