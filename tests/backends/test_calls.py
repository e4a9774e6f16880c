"""
Two ways to ask the system for the same.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lmtpsvc.backends.calls import PATIENT, SLOW, Calls, HastyCalls

NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class Watch:
    """
    A clock that goes on by so much each time that it is looked at, and what was said to be slow.
    """

    def __init__(self) -> None:
        self.now = self.step = 0.0
        self.blocked = 0

    def seconds(self) -> float:
        self.now += self.step
        return self.now

    def was_blocked(self) -> None:
        self.blocked += 1
        with pytest.raises(FileNotFoundError):
            # It may do what sets errno.
            os.stat("/missing")


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture(params=["patient", "hasty"])
def calls(request: pytest.FixtureRequest, watch: Watch) -> Calls:
    """
    Both ways.
    """
    return PATIENT if request.param == "patient" else HastyCalls(watch.seconds, watch.was_blocked)


def test_all(calls: Calls, tmp_path: Path) -> None:
    """
    A file is made, written to, found on its device, closed, linked and moved.
    """
    path = f"{tmp_path}/f\u00fcr \udcff"
    descriptor = calls.open(path, NEW, 0o640)
    assert not os.get_inheritable(descriptor)
    assert 5 == calls.write(descriptor, b"a\0b\r\n")
    assert os.stat(tmp_path).st_dev == calls.device(descriptor)
    calls.close(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    assert 0o640 & ~_umask() == os.stat(path).st_mode & 0o777

    calls.link(path, f"{tmp_path}/b")
    calls.rename(path, f"{tmp_path}/c")

    assert ["b", "c"] == sorted(os.listdir(tmp_path))
    assert b"a\0b\r\n" == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()


def _umask() -> int:
    umask = os.umask(0o77)
    os.umask(umask)
    return umask


@pytest.mark.parametrize("is_slow", [False, True])
def test_failures(calls: Calls, watch: Watch, tmp_path: Path, is_slow: bool) -> None:
    """
    Each says what went wrong, and where there is one, with which path; also if that took long.
    """
    watch.step = 2 * SLOW if is_slow else 0
    there, missing = f"{tmp_path}/there", f"{tmp_path}/missing/file"
    Path(there).touch()

    with pytest.raises(FileExistsError) as error:
        calls.open(there, NEW, 0o600)
    assert there == error.value.filename
    for path in (missing, missing):
        with pytest.raises(FileNotFoundError):
            calls.open(path, NEW, 0o600)
    for call in (calls.link, calls.rename):
        with pytest.raises(FileNotFoundError):
            call(there, missing)
    for fails in (lambda: calls.write(-1, b""), lambda: calls.device(-1), lambda: calls.close(-1)):
        with pytest.raises(OSError, match="Bad file descriptor") as bad:
            fails()
        assert errno.EBADF == bad.value.errno


def test_slow(watch: Watch, tmp_path: Path) -> None:
    """
    What may block is timed, and tells when it has.
    """
    calls = HastyCalls(watch.seconds, watch.was_blocked)
    watch.step = 0.9 * SLOW
    os.close(calls.open(f"{tmp_path}/a", NEW, 0o600))
    assert 0 == watch.blocked

    watch.step = 1.1 * SLOW
    descriptor = calls.open(f"{tmp_path}/b", NEW, 0o600)
    calls.write(descriptor, b"text")
    calls.close(descriptor)
    calls.link(f"{tmp_path}/b", f"{tmp_path}/c")
    calls.rename(f"{tmp_path}/b", f"{tmp_path}/d")

    assert 4 == watch.blocked
