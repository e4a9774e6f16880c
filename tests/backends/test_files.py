"""
Files and directories that survive a power cut.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from lmtpsvc.backends import files
from lmtpsvc.backends.files import (
    can_give_names,
    create,
    create_nameless,
    give_name,
    make_directory_durably,
    remove_older,
)

Calls = list[tuple[str, str]]


def test_file_in_the_way(tmp_path: Path) -> None:
    """
    Where a file is, there can be no directory.
    """
    (tmp_path / "file").touch()

    with pytest.raises(NotADirectoryError):
        make_directory_durably(str(tmp_path / "file/a"), 0o700)


@pytest.mark.parametrize("durably", [False, True])
def test_create(root: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch, durably: bool) -> None:
    """
    All is written, in pieces; the caller says whether to wait for the disk, and learns which it is.
    """
    monkeypatch.setattr(files, "CHUNK", 4)
    root.mkdir()
    calls.clear()

    device = create(f"{root}/a", BytesIO(b"0123456789"), 0o600, durably=durably)

    assert b"0123456789" == (root / "a").read_bytes()
    assert os.stat(root).st_dev == device
    assert [("write", "a")] * 3 + [("fsync", "a")] * durably == calls


def test_create_takes_the_mode_as_it_is(tmp_path: Path) -> None:
    """
    The umask does not take away what the operator asked for.
    """
    umask = os.umask(0o077)
    try:
        create(f"{tmp_path}/a", BytesIO(b""), 0o640, durably=False)
    finally:
        os.umask(umask)

    assert 0o640 == stat.S_IMODE((tmp_path / "a").stat().st_mode)


@pytest.mark.parametrize("call", ["fchmod", "write", "fsync", "fstat", "close"])
def test_create_fails(
    tmp_path: Path, break_call: Callable[[str, str, int], None], call: str
) -> None:
    """
    Half a file does not stay.
    """
    break_call(call, "half", errno.EIO)

    with pytest.raises(OSError, match="Input/output"):
        create(f"{tmp_path}/half", BytesIO(b"text"), 0o640, durably=True)

    assert [] == os.listdir(tmp_path)


def test_create_overwrites_nothing(tmp_path: Path) -> None:
    """
    A file that is there stays as it is, even if that is a miracle of names.
    """
    (tmp_path / "a").write_bytes(b"mail")

    with pytest.raises(FileExistsError):
        create(f"{tmp_path}/a", BytesIO(b"other"), 0o600, durably=True)

    assert b"mail" == (tmp_path / "a").read_bytes()


def test_nameless(tmp_path: Path) -> None:
    """
    It is in no directory before it is given names, as many as are wanted; and it has the mode that was
    asked for.
    """
    assert can_give_names()
    umask = os.umask(0o077)
    try:
        descriptor = create_nameless(f"{tmp_path}", memoryview(b"text"), 0o640)
    finally:
        os.umask(umask)
    try:
        assert [] == os.listdir(tmp_path)
        for name in ("a", "b"):
            give_name(descriptor, f"{tmp_path}/{name}")
    finally:
        os.close(descriptor)

    assert b"text" == (tmp_path / "a").read_bytes()
    assert 0o640 == stat.S_IMODE((tmp_path / "a").stat().st_mode)
    assert os.path.samefile(tmp_path / "a", tmp_path / "b")


def test_name_of_another(tmp_path: Path) -> None:
    """
    No name is taken from another file.
    """
    (tmp_path / "a").write_text("mail")
    descriptor = create_nameless(f"{tmp_path}", memoryview(b"text"), 0o600)
    try:
        with pytest.raises(FileExistsError):
            give_name(descriptor, f"{tmp_path}/a")
    finally:
        os.close(descriptor)

    assert "mail" == (tmp_path / "a").read_text()


@pytest.mark.parametrize("call", ["fchmod", "write"])
def test_nameless_fails(
    tmp_path: Path, break_call: Callable[[str, str, int], None], call: str
) -> None:
    """
    Nothing stays, and nothing stays open.
    """
    before = os.listdir("/proc/self/fd")
    break_call(call, f"{tmp_path}/#", errno.EIO)

    with pytest.raises(OSError, match="Input/output"):
        create_nameless(f"{tmp_path}", memoryview(b"text"), 0o640)

    assert [] == os.listdir(tmp_path)
    assert before == os.listdir("/proc/self/fd")


def test_what_cannot_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Is in nobody's way, whatever the reason, and does not keep other leftovers; nor is a directory that
    cannot be read.
    """
    for name in ("a", "b", "c"):
        (tmp_path / name).touch()
    unlink = os.unlink

    def forbid(path: str) -> None:
        if path.endswith("b"):
            raise PermissionError(errno.EPERM, "Operation not permitted", path)
        unlink(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", forbid)
        assert remove_older(str(tmp_path), time.time() + 60) == 2

    assert os.listdir(tmp_path) == ["b"]
    assert remove_older(str(tmp_path / "none"), time.time()) == 0
    assert remove_older(str(tmp_path / "b"), time.time()) == 0
