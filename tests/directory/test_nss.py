"""
The system's users: known, unknown and unknowable.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from lmtpsvc.directory import nss

ROOT = Path(__file__).parent.parent.parent


def test_known() -> None:
    """
    Who runs the tests is a user.
    """
    me = pwd.getpwuid(os.getuid())

    assert me == nss.look_up(me.pw_name)


def test_unknown() -> None:
    """
    A name that nobody has is nobody's.
    """
    assert nss.look_up("nobody-of-that-name") is None


def test_no_descriptor_left() -> None:
    """
    A process that can open no file does not know who lives here, whatever Python's pwd says.
    """
    source = (
        "import resource\n"
        "from lmtpsvc.directory.nss import look_up\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "try:\n"
        "    look_up('nobody-of-that-name')\n"
        "except OSError as error:\n"
        "    print(error.errno)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", source],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout

    assert f"{errno.EMFILE}\n" == said


class Library:
    """
    A C library whose getpwnam_r(3) fails as it is told to.
    """

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.sizes: list[int] = []

    def getpwnam_r(self, name: bytes, record: Any, space: Any, size: Any, found: Any) -> int:
        self.sizes.append(size.value)
        return self.statuses.pop(0)


@pytest.mark.parametrize("status", [0, errno.ENOENT, errno.ESRCH])
def test_not_found(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """
    The manual lists several ways to say "not found".
    """
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library(status))

    assert nss.look_up("nobody-of-that-name") is None


@pytest.mark.parametrize("status", [errno.EIO, errno.EMFILE, errno.ECONNREFUSED, errno.EAGAIN])
def test_failed(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """
    Everything else is an error.
    """
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library(status))

    with pytest.raises(OSError, match=os.strerror(status)):
        nss.look_up("nobody-of-that-name")


def test_large_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A record that does not fit gets more space, within reason.
    """
    library = Library(*[errno.ERANGE] * 7)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)

    with pytest.raises(OSError, match=os.strerror(errno.ERANGE)):
        nss.look_up("nobody-of-that-name")
    assert [16 * 1024 << power for power in range(7)] == library.sizes


def test_found_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A user who was not there, and then is, is asked for again later.
    """

    def not_found(name: str) -> NoReturn:
        raise KeyError(name)

    me = pwd.getpwuid(os.getuid()).pw_name
    monkeypatch.setattr(pwd, "getpwnam", not_found)

    with pytest.raises(OSError, match=os.strerror(errno.EAGAIN)):
        nss.look_up(me)


def test_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    For want of memory, it cannot be known.
    """

    def no_memory(name: str) -> NoReturn:
        raise MemoryError

    monkeypatch.setattr(pwd, "getpwnam", no_memory)

    with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
        nss.look_up("ann")
