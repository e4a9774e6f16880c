"""
Writing past the kernel's cache.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import integers, lists

from lmtpsvc.delivery.past_cache import BLOCK, LEAST_RATE, LEEWAY, ROOM, PastCache

Write = Callable[[int, Any], int]


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    number = os.open(tmp_path, os.O_RDWR | os.O_TMPFILE, 0o600)
    yield number
    os.close(number)


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """
    How many octets have been written past the cache at a time; where the disk would take them.
    """
    sizes: list[int] = []
    write, control = os.write, fcntl.fcntl
    flags: dict[int, int] = {}

    def noted_control(number: int, command: int, flag: int) -> int:
        assert command == fcntl.F_SETFL
        flags[number] = flag
        return control(number, command, 0)

    def noted_write(number: int, octets: Any) -> int:
        if flags.get(number) == os.O_DIRECT:
            assert os.lseek(number, 0, os.SEEK_CUR) % BLOCK == 0, "it begins with a block"
            assert len(octets) % BLOCK == 0, "and ends with one"
            sizes.append(len(octets))
        return write(number, octets)

    monkeypatch.setattr(fcntl, "fcntl", noted_control)
    monkeypatch.setattr(os, "write", noted_write)
    return sizes


def stored(descriptor: int) -> bytes:
    with open(f"/proc/self/fd/{descriptor}", "rb") as file:
        return file.read()


def test_whole_blocks(descriptor: int, direct: list[int]) -> None:
    """
    What is no whole block waits for more, and goes through the cache at the end.
    """
    file = PastCache(descriptor)
    pieces = [b"1" * 5000, b"2" * 5000, b"", b"3" * 100]
    text = b"".join(pieces)

    file.write(pieces[:2])
    assert [2 * BLOCK] == direct
    file.write(pieces[2:])
    assert [2 * BLOCK] == direct
    file.flush()

    assert text == stored(descriptor)


def test_nothing_is_kept(descriptor: int) -> None:
    """
    The memory of what is written is free when that is so.
    """
    pieces = [b"1" * 5000]
    PastCache(descriptor).write(pieces)
    assert [] == pieces


def test_larger_than_the_room(descriptor: int, direct: list[int]) -> None:
    """
    A piece of any size is written.
    """
    text = os.urandom(2 * ROOM + 10)
    file = PastCache(descriptor)

    file.write([text])
    file.flush()

    assert [ROOM, ROOM] == direct
    assert text == stored(descriptor)


def test_many_pieces(descriptor: int, direct: list[int]) -> None:
    """
    What came in small packets is written at once.
    """
    file = PastCache(descriptor)
    file.write([b"%07d\n" % number for number in range(1024)])
    file.flush()

    assert [2 * BLOCK] == direct
    assert b"".join(b"%07d\n" % number for number in range(1024)) == stored(descriptor)


def test_goes_on_through_the_cache(descriptor: int, direct: list[int]) -> None:
    """
    Behind a flush, as before somebody reads, nothing has to be whole.
    """
    file = PastCache(descriptor)
    file.write([b"1" * 5000])
    file.flush()
    assert b"1" * 5000 == stored(descriptor)
    file.write([b"2" * 5000])
    file.write([b"3"])

    assert [BLOCK] == direct
    assert b"1" * 5000 + b"2" * 5000 + b"3" == stored(descriptor)


def test_no_such_thing(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A file system that has no way past the cache is written to through it.
    """

    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    file = PastCache(descriptor)
    file.write([b"1" * 5000])
    assert b"1" * 5000 == stored(descriptor)


@pytest.mark.parametrize("odd", [0, 100], ids=["at once", "behind a write that ended in a block"])
def test_not_taken(descriptor: int, odd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where a disk has larger blocks, or has taken but a part of one, the rest goes through the cache.
    """
    write, calls = os.write, []

    def refuse(number: int, octets: Any) -> int:
        calls.append(len(octets))
        if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_DIRECT:
            if odd and len(calls) == 1:
                fcntl.fcntl(number, fcntl.F_SETFL, 0)
                try:
                    return write(number, bytes(octets[:odd]))
                finally:
                    fcntl.fcntl(number, fcntl.F_SETFL, os.O_DIRECT)
            raise OSError(errno.EINVAL, "Invalid argument")
        return write(number, octets)

    file = PastCache(descriptor)
    monkeypatch.setattr(os, "write", refuse)
    file.write([b"1" * 5000])
    file.write([b"2" * 5000])
    file.flush()

    assert b"1" * 5000 + b"2" * 5000 == stored(descriptor)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_errors(descriptor: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A full or broken disk is told of; nobody tries to get around it.
    """

    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    file = PastCache(descriptor)
    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(OSError, match=os.strerror(number)):
        file.write([b"1" * 5000])


def test_slow(descriptor: int, direct: list[int]) -> None:
    """
    A disk that takes long for each piece has the kernel put them together.
    """
    # It takes a bit longer than it may; as the leeway is used up, it is found to be slow.
    now, step = 0.0, 1.5 * BLOCK / LEAST_RATE

    def seconds() -> float:
        nonlocal now
        now += step
        return now

    file, written = PastCache(descriptor, seconds), 0
    while written == len(direct):
        file.write([b"x" * BLOCK])
        written += 1
    file.write([b"y" * 10])
    file.flush()

    assert len(direct) == written - 1 == int(LEEWAY / (0.5 * BLOCK / LEAST_RATE)) + 1
    assert written * BLOCK + 10 == len(stored(descriptor))


def test_quick(descriptor: int, direct: list[int]) -> None:
    """
    One write that takes long is no reason, after many that did not.
    """
    times = iter([0.0, *[0.0] * 2000, LEEWAY, *[LEEWAY] * 10])
    file = PastCache(descriptor, lambda: next(times))
    for _ in range(1003):
        file.write([b"x" * BLOCK])
    assert 1003 == len(direct)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=50,
)
@given(sizes=lists(integers(0, 3 * BLOCK), max_size=12))
def test_any_cut(sizes: list[int], tmp_path: Path) -> None:
    """
    However the text is cut, it is in the file.
    """
    pieces = [bytes([number]) * size for number, size in enumerate(sizes)]
    text = b"".join(pieces)
    descriptor = os.open(tmp_path, os.O_RDWR | os.O_TMPFILE, 0o600)
    try:
        file = PastCache(descriptor)
        for start in range(0, len(pieces), 3):
            file.write(pieces[start : start + 3])
        file.flush()
        assert text == stored(descriptor)
    finally:
        os.close(descriptor)
