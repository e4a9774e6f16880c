"""
Files and directories that survive a power cut.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from lmtpsvc.backends import files
from lmtpsvc.backends.files import create, make_directory_durably

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
