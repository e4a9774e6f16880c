"""
A users file that changes, breaks and disappears while mail comes in.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, Logger, formatEvent
from zope.interface import provider
from zope.interface.verify import verifyObject

from lmtpsvc.directory.file import FileDirectory, FileFactory
from lmtpsvc.directory.reading import look, read
from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import PermanentFailure
from lmtpsvc.interfaces import IDirectory, IDirectoryFactory, ITellsSince
from lmtpsvc.specs import directory_from_string

ANN = Mailbox("ann", "example.org")
BOB = Mailbox("bob", "example.org")


class Threads:
    """
    Calls at once, or when it is told to: then its thread is one that is stuck.
    """

    def __init__(self) -> None:
        self.is_stuck = False
        self.calls = 0
        self._left: list[tuple[Deferred[Any], Callable[[], Any]]] = []

    def __call__(self, function: Callable[[], Any], /) -> Deferred[Any]:
        self.calls += 1
        if not self.is_stuck:
            return execute(function)
        ended: Deferred[Any] = Deferred()
        self._left.append((ended, function))
        return ended

    def go_on(self) -> None:
        self.is_stuck = False
        left, self._left = self._left, []
        for ended, function in left:
            execute(function).chainDeferred(ended)


class Service:
    """
    A directory in a process that has been up for a while, and its file.
    """

    def __init__(self, path: Path, log: list[str]) -> None:
        self.path, self.log = path, log
        self.clock, self.threads = Clock(), Threads()
        self.path.write_text("ann@example.org\n")
        # Long ago, by default: what is written now has rested.
        self.wall_ahead = 60.0
        self.directory = FileDirectory(
            str(path),
            self.clock,
            self.threads,
            wall_seconds=lambda: time.time() + self.wall_ahead,
        )

    def write(self, text: str) -> None:
        """
        Put another file in place, as a good editor does.
        """
        beside = self.path.with_suffix(".new")
        beside.write_text(text)
        beside.rename(self.path)

    def resolve(self, mailbox: Mailbox) -> Deferred[Sequence[Mailbox]] | Sequence[Mailbox]:
        return self.directory.resolve(mailbox)

    def knows(self, mailbox: Mailbox, *, after: float = 0.0) -> bool:
        self.clock.advance(after)
        found: list[Any] = []
        try:
            answer = self.resolve(mailbox)
        except PermanentFailure:
            return False
        if isinstance(answer, Deferred):
            answer.addBoth(found.append)
            assert len(found) == 1, "answered later"
            return found == [[mailbox]]
        return answer == [mailbox]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """
    What a directory has logged, as ``level: text``.
    """
    lines: list[str] = []

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        lines.append(f"{event['log_level'].name}: {formatEvent(event)}")

    monkeypatch.setattr(FileDirectory, "_log", Logger("file", observer=observe))
    return lines


@pytest.fixture
def service(tmp_path: Path, log: list[str]) -> Service:
    return Service(tmp_path / "users", log)


def test_interface(service: Service) -> None:
    """
    It is a directory.
    """
    verifyObject(IDirectory, service.directory)
    verifyObject(IDirectoryFactory, FileFactory())


def test_from_memory(service: Service) -> None:
    """
    Look-ups within a second do not touch the file.
    """
    for _ in range(10):
        assert service.knows(ANN, after=0.09)
        assert not service.knows(BOB)

    assert 0 == service.threads.calls


def test_tells_since(service: Service) -> None:
    """
    RRVS is announced as long as the file says since when somebody has had a mailbox.
    """
    told = ITellsSince(service.directory)
    assert not told.tells_since

    for text, tells in (
        ("ann@example.org since=2024-05-01\n", True),
        ("ann@example.org quota=1G\n", False),
        ("@example.org domain_since=2024-05-01\n", True),
    ):
        service.write(text)
        service.knows(ANN, after=1.0)
        assert tells == told.tells_since


def test_once_a_second(service: Service) -> None:
    """
    However many look-ups there are, the file is looked at once a second, and not read.
    """
    for _ in range(100):
        service.knows(ANN, after=0.1)

    assert 9 <= service.threads.calls <= 10
    assert [] == service.log


def test_change(service: Service) -> None:
    """
    A change counts from the first look-up a second later.
    """
    service.write("bob@example.org\n@example.net\n")

    assert not service.knows(BOB, after=0.9)
    assert service.knows(BOB, after=0.1)
    assert not service.knows(ANN)
    assert [f"info: {service.path}: read again, 2 addresses"] == service.log


@pytest.mark.parametrize("same", ["size", "time"])
def test_change_in_place(service: Service, same: str) -> None:
    """
    A change that leaves the size or the time of modification as they were is seen.
    """
    before = service.path.stat()
    service.path.write_text("bob@example.org\n" + "#" * (same == "time"))
    if same == "time":
        os.utime(service.path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert service.knows(BOB, after=1)


def test_half_written(service: Service) -> None:
    """
    A file that changed just now may be half a file: it is not believed yet.
    """
    service.wall_ahead = 0
    with service.path.open("w") as file:
        assert service.knows(ANN, after=1)
        file.write("bob@example.org\n")
        file.flush()
        assert service.knows(ANN, after=1)
        file.write("ann@example.org\n")

    assert service.knows(ANN, after=1)
    assert service.knows(BOB, after=1)


def test_clock_of_another_machine(service: Service) -> None:
    """
    A file from the future has rested if it is the same a second later.
    """
    service.wall_ahead = -3600
    service.write("bob@example.org\n")

    assert not service.knows(BOB, after=1)
    assert service.knows(BOB, after=1)


def test_changes_while_it_is_read(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What was read of a file that changed meanwhile is dropped.
    """

    def read_and_write(path: str, delimiters: str) -> object:
        found = read(path, delimiters)
        service.write("ann@example.org\nbob@example.org\n")
        return found

    service.write("")
    with monkeypatch.context() as patch:
        patch.setattr("lmtpsvc.directory.reading.read", read_and_write)
        found = look(str(service.path), "+", None, None, lambda: time.time() + 60)

    assert not found.is_judged


def test_broken_lines(service: Service) -> None:
    """
    Each broken line is logged, once, and the old contents stay in force until all are mended.
    """
    service.write("bob@example.org\nx\na@y: b@y\n")

    for _ in range(5):
        assert service.knows(ANN, after=1)
        assert not service.knows(BOB)
    told = [
        "line 2: a name without a domain needs a target: 'x: ann@example.org'",
        "line 3: a@y: b@y is not known here: list it too (LMTP cannot forward elsewhere)",
    ]
    assert [
        f"error: {service.path}: {problem} (the old contents stay in force)" for problem in told
    ] == service.log

    service.write("bob@example.org\n")
    assert service.knows(BOB, after=1)


def test_very_many_broken_lines(service: Service) -> None:
    """
    A file of another kind does not flood the log.
    """
    service.write("x\n" * 5000)

    assert service.knows(ANN, after=1)
    assert 21 == len(service.log)
    assert "and 4,980 more" in service.log[-1]


def test_disappears(service: Service) -> None:
    """
    Without a file, the old contents stay in force; that is logged when it begins and ends.
    """
    away = service.path.with_suffix(".away")
    service.path.rename(away)
    for _ in range(5):
        assert service.knows(ANN, after=1)
    away.rename(service.path)
    for _ in range(5):
        assert service.knows(ANN, after=1)

    assert [
        f"error: {service.path}: No such file or directory (the old contents stay in force)",
        f"info: {service.path}: can be read again",
    ] == [line for line in service.log if "read again," not in line]


def test_becomes_a_directory(service: Service) -> None:
    """
    Something else of that name is no reason to stop, or to use up file descriptors.
    """
    service.path.unlink()
    service.path.mkdir()
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0

    for _ in range(5):
        assert service.knows(ANN, after=1)

    after = len(os.listdir("/proc/self/fd")) if before else 0
    assert before == after
    assert 1 == len(service.log)
    assert "irectory" in service.log[0]


def test_a_defect(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A defect of ours is logged, and does not end the looking.
    """

    def fail(*args: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr("lmtpsvc.directory.file.look", fail)
        assert service.knows(ANN, after=1)
    service.write("bob@example.org\n")

    assert service.knows(BOB, after=1)
    assert f"critical: cannot look at {service.path}" == service.log[0]


def test_slow_disk(service: Service) -> None:
    """
    While the file is looked at, the old contents answer: nobody waits for a second look at once.
    """
    service.threads.is_stuck = True
    service.write("bob@example.org\n")

    assert service.knows(ANN, after=1)
    assert service.knows(ANN, after=1)
    assert 1 == service.threads.calls
    service.threads.go_on()
    assert service.knows(BOB)


def test_after_a_quiet_time(
    service: Service, no_result: Callable[..., None], success_of: Callable[..., Any]
) -> None:
    """
    What was changed an hour ago counts for the first look-up: it waits for the file.
    """
    service.clock.advance(3600)
    service.threads.is_stuck = True
    service.write("bob@example.org\n")

    first, second = service.resolve(BOB), service.resolve(BOB)
    assert isinstance(first, Deferred)
    assert isinstance(second, Deferred)
    no_result(first)
    service.threads.go_on()

    assert [BOB] == success_of(first) == success_of(second)
    assert 1 == service.threads.calls
    assert [] == service.clock.getDelayedCalls()


def test_unknown_after_a_quiet_time(service: Service, failure_of: Callable[..., Any]) -> None:
    """
    Who has waited may be unknown all the same.
    """
    service.clock.advance(3600)
    service.threads.is_stuck = True
    answer = service.resolve(BOB)
    service.threads.go_on()

    failure_of(answer, PermanentFailure)


def test_disk_hangs(service: Service, success_of: Callable[..., Any]) -> None:
    """
    Nobody waits longer than two seconds for a disk that hangs, and after that nobody waits.
    """
    service.clock.advance(3600)
    service.threads.is_stuck = True
    answer = service.resolve(ANN)
    service.clock.advance(2)

    assert [ANN] == success_of(answer)
    for _ in range(10):
        assert service.knows(ANN, after=10)
    assert [f"warn: {service.path}: cannot be looked at in time, going on"] == service.log

    service.write("bob@example.org\n")
    service.threads.go_on()
    assert service.knows(BOB, after=1)
    assert [] == service.clock.getDelayedCalls()


class TestTheFactory:
    @pytest.fixture
    def refused(self) -> Callable[[str], str]:
        def refused(text: str) -> str:
            with pytest.raises(ValueError) as caught:
                directory_from_string(Clock(), text)
            return str(caught.value)

        return refused

    def test_build(self, tmp_path: Path) -> None:
        """
        The words are the path, and what stands between user and detail.
        """
        path = tmp_path / "users"
        path.write_text("ann-work@x")
        work = Mailbox("ann", "x", "work")

        assert [work] == directory_from_string(Clock(), f"file:{path}:delimiter=-").resolve(work)
        with pytest.raises(PermanentFailure):
            directory_from_string(Clock(), f"file:{path}").resolve(work)

    def test_relative(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        The path is one of the directory where the service was started, wherever it goes later.
        """
        (tmp_path / "users").write_text("ann@example.org")
        monkeypatch.chdir(tmp_path)
        clock = Clock()
        directory = directory_from_string(clock, "file:users")
        assert isinstance(directory, FileDirectory)

        assert str(tmp_path / "users") == directory._path

    @pytest.mark.parametrize("words", ["", ":", ":a:b", ":a:delimeter=+"])
    def test_wrong_words(self, refused: Callable[[str], str], words: str) -> None:
        """
        Wrong words are answered with the right ones.
        """
        assert "file: expected file:PATH[:delimiter=+]" == refused(f"file{words}")

    def test_no_file(self, refused: Callable[[str], str], tmp_path: Path) -> None:
        """
        What cannot be read is told when the service starts.
        """
        os.mkfifo(tmp_path / "pipe")

        assert f"file:{tmp_path}/x: No such file or directory" == refused(f"file:{tmp_path}/x")
        assert f"file:{tmp_path}: Is a directory" == refused(f"file:{tmp_path}")
        assert f"file:{tmp_path}/pipe: not a regular file" == refused(f"file:{tmp_path}/pipe")

    def test_broken_lines(self, refused: Callable[[str], str], tmp_path: Path) -> None:
        """
        All broken lines are told when the service starts, on one line.
        """
        path = tmp_path / "users"
        path.write_text("a@x: b@x\n\nbob\n")

        assert (
            f"file:{path}: line 1: a@x: b@x is not known here: list it too (LMTP cannot forward"
            " elsewhere); line 3: a name without a domain needs a target: 'bob: ann@example.org'"
        ) == refused(f"file:{path}")
