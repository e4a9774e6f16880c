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

from lmtpsvc.delivery import past_cache
from lmtpsvc.delivery.past_cache import (
    BLOCK,
    LEAST_RATE,
    LEEWAY,
    MANY,
    ROOM,
    PastCache,
    Room,
    many_are_taken,
    many_wait,
)

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


def room(octets: bytes) -> Room:
    made = Room()
    assert b"" == made.fill(octets)
    return made


def test_whole_blocks(descriptor: int, direct: list[int]) -> None:
    """
    What is no whole block goes through the cache.
    """
    file = PastCache(descriptor)
    file.write(room(b"1" * 2 * BLOCK))
    file.write(room(b"2" * BLOCK + b"3" * 100))

    assert [2 * BLOCK, BLOCK] == direct
    assert b"1" * 2 * BLOCK + b"2" * BLOCK + b"3" * 100 == stored(descriptor)


def test_less_than_a_block(descriptor: int, direct: list[int]) -> None:
    """
    So does a room that has none, or nothing at all.
    """
    file = PastCache(descriptor)
    file.write(room(b""))
    file.write(room(b"1" * 100))

    assert [] == direct
    assert b"1" * 100 == stored(descriptor)


def test_fill() -> None:
    """
    A room takes what there is room for.
    """
    made = Room()
    assert b"" == made.fill(b"1" * (ROOM - 1))
    assert ROOM - 1 == made.filled
    assert b"3" == made.fill(b"23")
    assert b"4" == made.fill(b"4")
    assert b"1" * (ROOM - 1) + b"2" == made.octets


@pytest.mark.parametrize("rest", [b"", b"2", b"2" * (BLOCK - 1)])
def test_cut(rest: bytes) -> None:
    """
    What is less than a block is taken out again, for the next room.
    """
    made = room(b"1" * 2 * BLOCK + rest)
    assert rest == made.cut()
    assert b"1" * 2 * BLOCK == made.octets
    assert b"" == made.cut()


class TestMemory:
    """
    Memory for rooms, which is used again.
    """

    @pytest.fixture(autouse=True)
    def stock(self, monkeypatch: pytest.MonkeyPatch) -> list[memoryview]:
        """
        What is kept for later.
        """
        kept: list[memoryview] = []
        monkeypatch.setattr(past_cache, "_stock", kept)
        monkeypatch.setattr(past_cache, "_taken", [])
        monkeypatch.setattr(past_cache, "_full", [])
        return kept

    def test_written(self, descriptor: int, stock: list[memoryview]) -> None:
        """
        That of what is written is there for the next one, with nothing in it.
        """
        written = room(b"1" * 10)
        memory = written.octets.obj
        PastCache(descriptor).write(written)
        again = Room()

        assert memory is again.octets.obj
        assert 0 == again.filled
        assert [] == stock

    def test_forgotten(self, stock: list[memoryview]) -> None:
        """
        So is that of a room which nobody has any more, once.
        """
        made = Room()
        made.let_go()
        made.let_go()
        assert 1 == len(stock)
        del made
        assert 1 == len(stock)
        made = Room()
        del made
        assert 1 == len(stock)
        assert not many_are_taken()
        assert [] == past_cache._taken

    def test_many(self, stock: list[memoryview]) -> None:
        """
        Of many, some are kept; it is known when many are taken, and when many wait for the disk.
        """
        rooms = [Room() for _ in range(MANY - 1)]
        assert not many_are_taken()
        rooms += [Room(), Room()]
        assert many_are_taken()
        for room in rooms[1:]:
            assert not many_wait()
            room.close()
        assert many_wait()
        del room
        rooms.clear()
        assert not many_wait()
        assert not many_are_taken()
        assert MANY == len(stock)

    def test_none_is_left(self, stock: list[memoryview], monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Where there is no memory, there is no room, and nothing is counted.
        """

        def refuse(*_: object) -> None:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

        monkeypatch.setattr(past_cache, "mmap", refuse)
        with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
            Room()
        assert [] == stock == past_cache._taken == past_cache._full


def test_goes_on_through_the_cache(descriptor: int, direct: list[int]) -> None:
    """
    Behind what is no whole block, or when it is asked for, as before somebody reads, nothing has to be
    whole.
    """
    file = PastCache(descriptor)
    file.write(room(b"1" * BLOCK))
    file.go_through_cache()
    file.write(room(b"2" * 5000))
    file.write(room(b"3"))

    assert [BLOCK] == direct
    assert b"1" * BLOCK + b"2" * 5000 + b"3" == stored(descriptor)


def test_no_such_thing(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A file system that has no way past the cache is written to through it.
    """

    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    file = PastCache(descriptor)
    file.write(room(b"1" * 5000))
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
    file.write(room(b"1" * 5000))
    file.write(room(b"2" * 5000))

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
        file.write(room(b"1" * 5000))


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
        file.write(room(b"x" * BLOCK))
        written += 1
    file.write(room(b"y" * 10))

    assert len(direct) == written - 1 == int(LEEWAY / (0.5 * BLOCK / LEAST_RATE)) + 1
    assert written * BLOCK + 10 == len(stored(descriptor))


def test_quick(descriptor: int, direct: list[int]) -> None:
    """
    One write that takes long is no reason, after many that did not.
    """
    times = iter([0.0, *[0.0] * 2000, LEEWAY, *[LEEWAY] * 10])
    file = PastCache(descriptor, lambda: next(times))
    for _ in range(1003):
        file.write(room(b"x" * BLOCK))
    assert 1003 == len(direct)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=50,
)
@given(sizes=lists(integers(0, 3 * BLOCK), max_size=12))
def test_any_cut(sizes: list[int], tmp_path: Path) -> None:
    """
    However much is in each room, it is in the file.
    """
    pieces = [bytes([number]) * size for number, size in enumerate(sizes)]
    descriptor = os.open(tmp_path, os.O_RDWR | os.O_TMPFILE, 0o600)
    try:
        file = PastCache(descriptor)
        for piece in pieces:
            file.write(room(piece))
        assert b"".join(pieces) == stored(descriptor)
    finally:
        os.close(descriptor)
