"""
A message on its way in.
"""

from __future__ import annotations

import errno
import gc
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import binary, booleans, integers, lists, one_of, sampled_from, sets
from twisted.internet.defer import Deferred, execute
from twisted.python.failure import Failure

from lmtpsvc.delivery.content import Content
from lmtpsvc.delivery.line_endings import sizes_of
from lmtpsvc.delivery.past_cache import BLOCK, MANY, READ, ROOM, Room, many_are_taken
from lmtpsvc.delivery.spool import Spool, SpoolSettings
from lmtpsvc.interfaces import LineEnding

HEAD = b"Return-Path: <ann@example.org>\r\n"
#: In a file.
HEAD_SIZE = len(HEAD) - 1


class Disk:
    """
    A thread that writes when it is told to, and breaks when it is told to.
    """

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], Any], Deferred[Any]]] = []
        self.slow = False
        self.error: OSError | None = None

    def __call__(self, job: Callable[[], Any], /) -> Deferred[Any]:
        result: Deferred[Any] = Deferred()
        self.jobs.append((job, result))
        if not self.slow:
            self.go_on()
        return result

    def go_on(self) -> None:
        """
        Do what is waiting.
        """
        jobs, self.jobs = self.jobs, []
        for job, result in jobs:
            if self.error is not None:
                result.errback(Failure(self.error))
            else:
                execute(job).chainDeferred(result)


class Transport:
    """
    Somebody to be paused.
    """

    def __init__(self) -> None:
        self.said: list[str] = []

    def pause(self) -> None:
        self.said.append("pause")

    def resume(self) -> None:
        self.said.append("resume")


class Spooling:
    """
    A spool of ten octets of memory with all that it needs.
    """

    def __init__(
        self,
        directory: Path,
        line_ending: LineEnding = "\n",
        *,
        memory: int = 10,
        is_kept: bool = False,
        is_for_service: bool = True,
    ) -> None:
        self.disk, self.transport, self.directory = Disk(), Transport(), directory
        #: So many octets are worth being written.
        self.much = ROOM if is_kept and is_for_service else memory + 1
        self.spool = Spool(
            SpoolSettings(memory, str(directory), line_ending, self.disk, is_kept),
            HEAD,
            self.transport.pause,
            self.transport.resume,
            lambda: is_for_service,
        )


@pytest.fixture(params=[False, True], ids=["through the cache", "past the cache"])
def spooling(tmp_path: Path, request: pytest.FixtureRequest) -> Spooling:
    return Spooling(tmp_path / "spool", is_kept=request.param)


def open_files() -> Iterator[str]:
    """
    The paths of what is open, also of files that have no name.
    """
    for descriptor in os.listdir("/proc/self/fd"):
        # The directory itself was open while it was listed.
        with suppress(FileNotFoundError):
            yield os.readlink(f"/proc/self/fd/{descriptor}")


@pytest.fixture(autouse=True)
def no_leftovers(tmp_path: Path) -> Iterator[None]:
    """
    Whatever a test does, no file and no descriptor is left of it.
    """
    gc.collect()
    gc.freeze()  # what is left is no garbage of this test: nobody need look through it again
    yield
    gc.collect()
    assert [] == [path for path in open_files() if path.startswith(str(tmp_path))]
    assert [] == [path for path in tmp_path.rglob("*") if not path.is_dir()]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """
    How many octets have been written at a time.
    """
    sizes: list[int] = []
    real = os.write

    def noted(descriptor: int, octets: Any) -> int:
        sizes.append(len(octets))
        return real(descriptor, octets)

    monkeypatch.setattr(os, "write", noted)
    return sizes


def finished(spool: Spool) -> list[Any]:
    """
    What finish leads to, in a list, as soon as it has.
    """
    outcome: list[Any] = []
    result = spool.finish()
    if isinstance(result, Deferred):
        result.addBoth(outcome.append)
    else:
        outcome.append(result)
    return outcome


def waiting(count: int) -> list[Room]:
    """
    So many rooms of others, that wait for the disk.
    """
    rooms = [Room() for _ in range(count)]
    for room in rooms:
        room.close()
    return rooms


def goes_on(spooling: Spooling) -> None:
    """
    Whoever has been paused is resumed as soon as there is less to be written; then all is over.
    """
    assert ["pause"] == spooling.transport.said
    spooling.disk.go_on()
    assert ["pause", "resume"] == spooling.transport.said
    assert 1 == len(spooling.disk.jobs), "what waited is being written"
    spooling.disk.go_on()
    spooling.spool.discard()


def read(content: Content, line_ending: LineEnding = "\r\n") -> bytes:
    with content.open(line_ending) as file:
        return file.read()


class TestSmall:
    """
    What fits into memory.
    """

    def test_nothing(self, spooling: Spooling) -> None:
        """
        An empty text is a message of headers only.
        """
        (content,) = finished(spooling.spool)

        assert HEAD == read(content)
        assert hashlib.sha256().hexdigest() == content.digest

    def test_fits(self, spooling: Spooling) -> None:
        """
        As much as the limit never touches the disk: not even the directory is made.
        """
        spooling.spool.write(b"12345")
        spooling.spool.write(b"67\r\n\r\n"[:5])
        (content,) = finished(spooling.spool)

        assert HEAD + b"1234567\r\n\r" == read(content)
        assert content.path is None
        assert not spooling.directory.exists()


class TestLarge:
    """
    What does not.
    """

    @pytest.mark.parametrize("line_ending", ["\n", "\r\n"])
    def test_rolls_over(self, line_ending: LineEnding, tmp_path: Path) -> None:
        """
        A larger message is a file, headers first, in the form that the backend wants.
        """
        spooling = Spooling(tmp_path / "a" / "b", line_ending)
        text = b"one\r\ntwo\r\nthree\r\n"

        for octet in text:
            spooling.spool.write(bytes([octet]))
        (content,) = finished(spooling.spool)

        assert content.path is not None
        stored = HEAD + text
        if line_ending == "\n":
            stored = stored.replace(b"\r\n", b"\n")
        with open(content.path, "rb") as file:
            assert stored == file.read()
        assert HEAD + text == read(content)
        assert hashlib.sha256(text).hexdigest() == content.digest
        assert sizes_of(stored) == content.sizes(line_ending)

    def test_has_no_name(self, spooling: Spooling) -> None:
        """
        A spooled file stands in its directory under no name: a crash leaves nothing.
        """
        spooling.spool.write(b"x" * 11)
        (content,) = finished(spooling.spool)

        assert content.path is not None
        assert [] == list(spooling.directory.iterdir())
        assert 0o700 == spooling.directory.stat().st_mode & 0o777

    def test_without_o_tmpfile(self, spooling: Spooling, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Nor where the file system cannot make a file without a name.
        """
        real = os.open

        def no_tmpfile(path: str, flags: int, mode: int = 0o777, **words: Any) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, "not supported", path)
            return real(path, flags, mode, **words)

        spooling.directory.mkdir()
        monkeypatch.setattr(os, "open", no_tmpfile)
        spooling.spool.write(b"x" * 11)
        (content,) = finished(spooling.spool)

        assert [] == list(spooling.directory.iterdir())
        assert HEAD + b"x" * 11 == read(content)

    def test_short_writes(self, spooling: Spooling, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A disk that takes a few octets at a time gets all of them.
        """
        real = os.write
        monkeypatch.setattr(os, "write", lambda fd, octets: real(fd, bytes(octets[:3])))
        spooling.spool.write(b"0123456789abc")
        (content,) = finished(spooling.spool)

        assert HEAD + b"0123456789abc" == read(content)

    def test_last_octet_is_a_cr(self, spooling: Spooling) -> None:
        """
        A CR whose LF never came is not lost.
        """
        spooling.spool.write(b"0123456789\r")
        (content,) = finished(spooling.spool)

        assert content.path is not None
        with open(content.path, "rb") as file:
            assert file.read().endswith(b"0123456789\r")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    text=one_of(
        binary(max_size=60),
        lists(sampled_from([b"\r", b"\n", b"\r\n", b"abc"]), max_size=30).map(b"".join),
    ),
    places=sets(integers(1, 60)),
    slow=sets(integers(0, 10)),
    line_ending=sampled_from(["\n", "\r\n"]),
    is_kept=booleans(),
)
def test_any_cut(
    text: bytes,
    places: set[int],
    slow: set[int],
    line_ending: LineEnding,
    is_kept: bool,
    tmp_path: Path,
) -> None:
    """
    However the text is cut, and however slow the disk, message, digest and sizes are the same.
    """
    spooling = Spooling(tmp_path, line_ending, is_kept=is_kept)
    edges = [0, *sorted(place for place in places if place < len(text)), len(text)]

    for number, (start, end) in enumerate(pairwise(edges)):
        spooling.disk.slow = number in slow
        if number not in slow:
            spooling.disk.go_on()
        spooling.spool.write(text[start:end])
    outcome = finished(spooling.spool)
    while spooling.disk.jobs:
        spooling.disk.go_on()
    (content,) = outcome

    assert hashlib.sha256(text).hexdigest() == content.digest
    expected = HEAD + text
    if line_ending == "\n":
        expected = expected.replace(b"\r\n", b"\n")
    assert expected == read(content, line_ending)
    assert sizes_of(expected) == content.sizes(line_ending)
    assert spooling.transport.said in (
        [],
        ["pause", "resume"] * (len(spooling.transport.said) // 2),
    )


class TestPastTheCache:
    """
    What nobody is going to read before it is the mail.
    """

    @pytest.mark.parametrize(
        ("is_kept", "is_for_service", "expected"),
        [(True, True, True), (True, False, False), (False, True, False)],
    )
    def test_which(
        self,
        is_kept: bool,
        is_for_service: bool,
        expected: bool,
        tmp_path: Path,
        past_cache: list[int],
    ) -> None:
        """
        It is written past the kernel's cache; not so what is going to be copied.
        """
        spooling = Spooling(tmp_path, is_kept=is_kept, is_for_service=is_for_service)
        spooling.spool.write(b"x" * 11)
        finished(spooling.spool)

        assert expected == bool(past_cache)

    def test_digest_in_the_middle(self, tmp_path: Path) -> None:
        """
        A digest that has to be made from the file finds all of it there.
        """
        text = [b"one\r\n" * 4000, b"two\r\n" * 4000, b"a\nb\r", b"\n" * 5000, b"\r"]
        spooling = Spooling(tmp_path, is_kept=True)
        for octets in text:
            spooling.spool.write(octets)
        (content,) = finished(spooling.spool)

        whole = b"".join(text)
        assert hashlib.sha256(whole).hexdigest() == content.digest
        assert (HEAD + whole).replace(b"\r\n", b"\n") == read(content, "\n")

    def test_digest_within_a_portion(self, tmp_path: Path) -> None:
        """
        So does one if a bare LF is the last of several pieces that are written together.
        """
        text = [b"one\r\n", b"two\r\n", b"th\nree\r", b"\nfour\r\n"]
        spooling = Spooling(tmp_path, is_kept=True, memory=12)
        for octets in text:
            spooling.spool.write(octets)
        (content,) = finished(spooling.spool)

        assert hashlib.sha256(b"".join(text)).hexdigest() == content.digest


class TestBackpressure:
    """
    A client that is faster than the disk.
    """

    @pytest.fixture
    def spooling(self, tmp_path: Path) -> Spooling:
        return Spooling(tmp_path / "spool")

    def test_paused(self, spooling: Spooling) -> None:
        """
        It is paused when as much as memory may hold waits behind what is being written.
        """
        spooling.disk.slow = True
        spooling.spool.write(b"x" * 11)
        spooling.spool.write(b"y" * 10)
        assert [] == spooling.transport.said

        spooling.spool.write(b"z")
        spooling.spool.write(b"z")
        goes_on(spooling)

    def test_one_write_at_a_time(self, spooling: Spooling) -> None:
        """
        Pieces are written one after the other, and what comes meanwhile goes in one.
        """
        spooling.disk.slow = True
        for piece in (b"1" * 11, b"2" * 6, b"3" * 6, b"4"):
            spooling.spool.write(piece)
        assert 1 == len(spooling.disk.jobs)

        outcome = finished(spooling.spool)
        assert 1 == len(spooling.disk.jobs)
        spooling.disk.go_on()
        assert [] == outcome
        spooling.disk.go_on()

        (content,) = outcome
        assert HEAD + b"1" * 11 + b"2" * 6 + b"3" * 6 + b"4" == read(content)


class TestRooms:
    """
    The same, where what is written past the cache waits in rooms.
    """

    @pytest.fixture
    def spooling(self, tmp_path: Path) -> Spooling:
        return Spooling(tmp_path / "spool", is_kept=True)

    def test_full(self, spooling: Spooling, written: list[int]) -> None:
        """
        Nothing is written as long as there is room for a further read; then whole blocks are, and
        what is left goes with the next.
        """
        spooling.spool.write(b"1" * (ROOM - READ - HEAD_SIZE))
        assert [] == written
        spooling.spool.write(b"2" * 100)
        assert [ROOM - READ] == written
        spooling.spool.write(b"3" * (ROOM - READ - 100))
        assert [ROOM - READ] == written
        spooling.spool.write(b"4")
        assert [ROOM - READ] * 2 == written
        (content,) = finished(spooling.spool)

        expected = HEAD + b"1" * (ROOM - READ - HEAD_SIZE) + b"2" * 100
        expected += b"3" * (ROOM - READ - 100) + b"4"
        assert expected == read(content)

    def test_ends_with_a_room(self, spooling: Spooling, written: list[int]) -> None:
        """
        What is left when nothing more comes is written behind it.
        """
        spooling.spool.write(b"1" * (ROOM - HEAD_SIZE - 1))
        assert [ROOM - BLOCK] == written
        (content,) = finished(spooling.spool)

        assert [ROOM - BLOCK, BLOCK - 1] == written
        assert HEAD + b"1" * (ROOM - HEAD_SIZE - 1) == read(content)

    def test_several(self, spooling: Spooling, written: list[int]) -> None:
        """
        What comes at once may fill several.
        """
        spooling.spool.write(b"x" * 3 * ROOM)
        assert [ROOM] * 3 == written
        (content,) = finished(spooling.spool)

        assert HEAD + b"x" * 3 * ROOM == read(content)

    def test_paused(self, spooling: Spooling) -> None:
        """
        Who sends is paused when there is another one behind that which is being written: no message
        has more than two.
        """
        spooling.disk.slow = True
        spooling.spool.write(b"x" * (ROOM - HEAD_SIZE))
        spooling.spool.write(b"y" * (ROOM - READ))
        assert [] == spooling.transport.said

        spooling.spool.write(b"z")
        goes_on(spooling)

    def test_full_among_many(self, spooling: Spooling, written: list[int]) -> None:
        """
        Where there are many, no more is kept than may be in memory: who stalls then may do so for long.
        """
        others = [Room() for _ in range(MANY - 1)]
        spooling.spool.write(b"1" * (BLOCK - HEAD_SIZE))
        assert [] == written
        spooling.spool.write(b"2" * 10)
        assert [BLOCK] == written

        others.clear()
        spooling.spool.write(b"3" * BLOCK)
        assert [BLOCK] == written
        (content,) = finished(spooling.spool)

        assert HEAD + b"1" * (BLOCK - HEAD_SIZE) + b"2" * 10 + b"3" * BLOCK == read(content)

    def test_paused_among_many(self, spooling: Spooling, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Where there are many, a message has to do with one.
        """
        others = waiting(MANY - 1)
        spooling.disk.slow = True
        spooling.spool.write(b"x" * (BLOCK - HEAD_SIZE))
        assert [] == spooling.transport.said
        spooling.spool.write(b"y")
        assert ["pause"] == spooling.transport.said

        others.clear()
        spooling.disk.go_on()
        assert ["pause", "resume"] == spooling.transport.said
        spooling.spool.discard()

    def test_stalled_others(self, spooling: Spooling) -> None:
        """
        Those that stop in the middle of a message, as many as they are, do not slow the others down.
        """
        others = [Spooling(spooling.directory, memory=10, is_kept=True) for _ in range(MANY)]
        for other in others:
            other.spool.write(b"x" * (ROOM - READ - HEAD_SIZE))
        spooling.disk.slow = True
        spooling.spool.write(b"y" * (ROOM - HEAD_SIZE))
        assert 1 == len(spooling.disk.jobs)
        assert [] == spooling.transport.said

        for other in (spooling, *others):
            other.spool.discard()
        spooling.disk.go_on()

    @pytest.mark.parametrize("call", ["open", "write"])
    def test_let_go_by_failure(
        self, call: str, spooling: Spooling, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        A disk that is full has no rooms, though the failure is remembered as long as the text comes.
        """
        others = waiting(MANY - 1)

        def full(*_: Any, **__: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        spooling.disk.slow = True
        spooling.spool.write(b"x" * ROOM)
        with monkeypatch.context() as patch:
            patch.setattr(os, call, full)
            spooling.disk.go_on()
        spooling.spool.write(b"y" * ROOM)
        assert not many_are_taken()

        [failure] = finished(spooling.spool)
        assert isinstance(failure.value, OSError)
        others.clear()

    def test_full_meanwhile(self, spooling: Spooling) -> None:
        """
        A room that has become full while another one was written is next.
        """
        spooling.disk.slow = True
        spooling.spool.write(b"x" * ROOM)
        spooling.spool.write(b"y" * ROOM)
        spooling.disk.go_on()
        assert 1 == len(spooling.disk.jobs)
        outcome = finished(spooling.spool)
        spooling.disk.go_on()
        spooling.disk.go_on()

        (content,) = outcome
        assert HEAD + b"x" * ROOM + b"y" * ROOM == read(content)

    @pytest.mark.parametrize("line_ending", ["\n", "\r\n"])
    @pytest.mark.parametrize("at", [0, 300_000, ROOM - 1, ROOM + 300_000])
    def test_bare(self, at: int, line_ending: LineEnding, tmp_path: Path) -> None:
        """
        A text that can not be made from the file any more is whole, as is its digest, wherever that
        begins, and whatever was in the same piece.
        """
        lines = b"one\r\n" * (2 * ROOM // 5)
        text = lines[:at] + b"\n\r" + lines[at:] + b"\r"
        spooling = Spooling(tmp_path, line_ending, is_kept=True)
        for start in range(0, len(text), READ):
            spooling.spool.write(text[start : start + READ])
        (content,) = finished(spooling.spool)

        expected = HEAD + text
        if line_ending == "\n":
            expected = expected.replace(b"\r\n", b"\n")
        assert expected == read(content, line_ending)
        assert sizes_of(expected) == content.sizes(line_ending)
        assert hashlib.sha256(text).hexdigest() == content.digest


class TestFailure:
    """
    A disk that does not take it.
    """

    NO_ROOM = OSError(errno.ENOSPC, "No space left on device")

    def test_at_the_end(self, spooling: Spooling) -> None:
        """
        A text that could not be written fails as the disk did.
        """
        spooling.disk.slow = True
        spooling.spool.write(b"x" * 11)
        outcome = finished(spooling.spool)
        spooling.disk.error = self.NO_ROOM
        spooling.disk.go_on()

        assert [self.NO_ROOM] == [failure.value for failure in outcome]

    def test_in_the_middle(self, spooling: Spooling) -> None:
        """
        What comes after an error is read and forgotten; the end fails as the disk did.
        """
        spooling.spool.write(b"x" * spooling.much)
        spooling.disk.error = self.NO_ROOM
        spooling.spool.write(b"y" * spooling.much)
        spooling.disk.error = None
        spooling.spool.write(b"z" * spooling.much)
        outcome = finished(spooling.spool)

        assert [self.NO_ROOM] == [getattr(each, "value", each) for each in outcome]
        assert [] == spooling.disk.jobs

    def test_resumes(self, spooling: Spooling) -> None:
        """
        A client that was paused for a disk that then broke is not left waiting.
        """
        spooling.disk.slow = True
        spooling.spool.write(b"x" * spooling.much)
        spooling.spool.write(b"y" * spooling.much)
        spooling.disk.error = self.NO_ROOM
        spooling.disk.go_on()

        assert ["pause", "resume"] == spooling.transport.said

    def test_no_directory(self, spooling: Spooling) -> None:
        """
        A spool directory that cannot be made is an error of this message, not of the service.
        """
        spooling.directory.write_bytes(b"in the way")
        spooling.spool.write(b"x" * 11)
        outcome = finished(spooling.spool)
        spooling.directory.unlink()

        assert [NotADirectoryError] == [getattr(each, "type", each) for each in outcome]

    def test_headers_do_not_fit(self, spooling: Spooling, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A disk that is full from the first octet on leaves no open file behind.
        """

        def full(fd: int, octets: bytes) -> int:
            raise self.NO_ROOM

        monkeypatch.setattr(os, "write", full)
        spooling.disk.slow = True
        spooling.spool.write(b"x" * 11)
        outcome = finished(spooling.spool)
        while spooling.disk.jobs:
            spooling.disk.go_on()

        assert [self.NO_ROOM] == [failure.value for failure in outcome]


class TestDiscard:
    """
    A message that is not wanted any more.
    """

    @pytest.mark.parametrize("size", [0, 5, 11, 30])
    def test_written(self, size: int, spooling: Spooling) -> None:
        """
        Nothing is left of what was in memory or in a file.
        """
        spooling.spool.write(b"x" * size)

        spooling.spool.discard()

        assert [] == spooling.disk.jobs

    @pytest.mark.parametrize("broken", [False, True])
    def test_while_writing(self, broken: bool, spooling: Spooling) -> None:
        """
        What is being written is removed when that has ended, well or not; a paused client goes on.
        """
        spooling.disk.slow = True
        spooling.spool.write(b"x" * spooling.much)
        spooling.spool.write(b"y" * spooling.much)
        spooling.spool.discard()
        if broken:
            spooling.disk.error = TestFailure.NO_ROOM
        spooling.disk.go_on()

        assert ["pause", "resume"] == spooling.transport.said
        assert [] == spooling.disk.jobs

    @pytest.mark.parametrize("broken", [False, True])
    def test_while_finishing(self, broken: bool, spooling: Spooling) -> None:
        """
        Nobody is told of a message that is discarded while its last octets are written.
        """
        spooling.disk.slow = True
        spooling.spool.write(b"x" * 11)
        outcome = finished(spooling.spool)
        spooling.spool.discard()
        if broken:
            spooling.disk.error = TestFailure.NO_ROOM
        while spooling.disk.jobs:
            spooling.disk.go_on()

        assert [] == outcome
