"""
The process that waits for the disk: who is told what, and that threads take over from it.

The process is a real one; the reactor is not, so that each test says when it looks.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure

from lmtpsvc.backends import sync_process
from lmtpsvc.backends.file_systems import FileSystem
from lmtpsvc.backends.sync_process import PATIENCE, PAUSE, SyncProcess
from lmtpsvc.backends.syncing import Syncing
from lmtpsvc.backends.waits import Waits

#: A message of the process is there within so many seconds, or never comes.
LONG = 60.0


class Reactor(Clock):
    """
    Reads when the test says so.
    """

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.remove(reader)

    def read(self) -> None:
        """
        Wait until there is something to read, and have it read.
        """
        (reader,) = self.readers
        poll = select.poll()
        poll.register(reader.fileno(), select.POLLIN)
        assert poll.poll(LONG * 1000), "nothing comes"
        reader.doRead()


class Somewhere:
    """
    What is to be synced: the file system of an open file.
    """

    def __init__(self, path: str, flags: int = os.O_RDONLY) -> None:
        self._descriptor = os.open(path, flags | os.O_CLOEXEC)
        self.is_reliable = True
        self.synced: list[bool] = []

    def fileno(self) -> int:
        return self._descriptor

    def needs_fsync(self, *, finally_: bool) -> bool:
        return finally_

    def sync(self, *, finally_: bool) -> None:
        """
        A thread's way.
        """
        self.synced.append(finally_)

    def close(self) -> None:
        os.close(self._descriptor)


@pytest.fixture
def reactor() -> Reactor:
    return Reactor()


@pytest.fixture
def process(reactor: Reactor, spot_pool: Any) -> Iterator[SyncProcess]:
    """
    Not started yet; ends with the test.
    """
    process = SyncProcess(reactor, spot_pool)
    yield process
    process.stop()
    assert [] == reactor.readers
    assert [] == reactor.getDelayedCalls()


@pytest.fixture
def running(process: SyncProcess, reactor: Reactor, directory: Any) -> SyncProcess:
    """
    It has been asked for, and has said that it runs.
    """
    assert not process.wait(directory, finally_=True, ended=no_end)
    reactor.read()
    return process


@pytest.fixture
def somewhere() -> Iterator[Callable[..., Somewhere]]:
    """
    ``somewhere("/proc")``: open until the test ends.
    """
    opened: list[Somewhere] = []

    def somewhere(path: str, flags: int = os.O_RDONLY) -> Somewhere:
        opened.append(Somewhere(path, flags))
        return opened[-1]

    yield somewhere
    for each in opened:
        each.close()


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[FileSystem]:
    file_system = FileSystem(str(tmp_path))
    yield file_system
    file_system.close()


@pytest.fixture
def ends() -> list[Exception | None]:
    """
    What has been told of waits.
    """
    return []


def no_end(error: Exception | None) -> None:
    raise AssertionError("the process waits for nothing")


def pid(process: SyncProcess) -> int:
    assert process._process is not None
    return process._process.pid


# ── it waits ─────────────────────────────────────────────────────────────────────────────────────


def test_waits(
    process: SyncProcess, reactor: Reactor, directory: FileSystem, ends: list[Exception | None]
) -> None:
    """
    It is started when it is asked for first, and waits as soon as it runs; one wait at a time.
    """
    wait = partial(process.wait, directory, finally_=True, ended=ends.append)
    assert not wait()
    # Born, but it has not said so.
    assert not wait()
    reactor.read()
    for count in (1, 2, 3):
        assert wait()
        assert not wait()
        reactor.read()
        assert [None] * count == ends


@pytest.mark.parametrize(
    ("path", "flags", "finally_", "expected"),
    [
        ("/proc", os.O_RDONLY, False, None),
        # It has no fsync.
        ("/proc", os.O_RDONLY, True, errno.EINVAL),
        # Nothing can be done with it.
        ("/", os.O_PATH, False, errno.EBADF),
        ("/", os.O_PATH, True, errno.EBADF),
    ],
)
def test_tells_what_went_wrong(
    running: SyncProcess,
    reactor: Reactor,
    somewhere: Callable[..., Any],
    directory: FileSystem,
    ends: list[Exception | None],
    path: str,
    flags: int,
    finally_: bool,
    expected: int | None,
) -> None:
    """
    Both of its syncs are done, the second where it is asked for; after an error it goes on.
    """
    assert running.wait(somewhere(path, flags), finally_=finally_, ended=ends.append)
    reactor.read()
    assert running.wait(directory, finally_=True, ended=ends.append)
    reactor.read()

    first, second = ends
    assert expected == (first.errno if isinstance(first, OSError) else first)
    assert second is None


def test_keeps_nothing_open(
    running: SyncProcess, reactor: Reactor, directory: FileSystem, ends: list[Exception | None]
) -> None:
    """
    When it has answered, the disk can be unmounted as far as it is concerned.
    """

    def opened() -> list[str]:
        links = f"/proc/{pid(running)}/fd"
        return sorted(os.readlink(f"{links}/{name}") for name in os.listdir(links))

    before = opened()
    assert "/" == os.readlink(f"/proc/{pid(running)}/cwd")
    for _ in range(3):
        assert running.wait(directory, finally_=True, ended=ends.append)
        reactor.read()
    assert before == opened()


def test_may_have_no_more_files(
    running: SyncProcess, reactor: Reactor, directory: FileSystem, ends: list[Exception | None]
) -> None:
    """
    A request whose descriptor does not come through has failed, as all others would: threads wait.
    """
    resource.prlimit(pid(running), resource.RLIMIT_NOFILE, (3, 3))
    assert running.wait(directory, finally_=True, ended=ends.append)
    reactor.read()

    (error,) = ends
    assert isinstance(error, OSError)
    assert errno.EIO == error.errno
    assert not running.wait(directory, finally_=True, ended=no_end)
    assert [] == reactor.readers


def test_a_defect_of_who_is_told(
    running: SyncProcess, reactor: Reactor, directory: FileSystem, ends: list[Exception | None]
) -> None:
    """
    Is in the log, and the next wait is as any.
    """
    assert running.wait(directory, finally_=True, ended=no_end)
    with capturedLogs() as events:
        reactor.read()
    assert ["the end of a wait was not taken"] == [formatEvent(event) for event in events]

    assert running.wait(directory, finally_=True, ended=ends.append)
    reactor.read()
    assert [None] == ends


# ── it ends ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2],
)
def test_signals_are_for_the_service(
    running: SyncProcess,
    reactor: Reactor,
    directory: FileSystem,
    ends: list[Exception | None],
    number: signal.Signals,
) -> None:
    """
    A signal to all processes of the service does not end a wait.
    """
    os.kill(pid(running), number)
    assert running.wait(directory, finally_=True, ended=ends.append)
    reactor.read()
    assert [None] == ends


def test_ends_with_the_socket(running: SyncProcess) -> None:
    """
    When the socket is closed, as the kernel does for who is killed, it ends by itself.
    """
    process = running._process
    assert process is not None
    assert running._socket is not None
    running._socket.shutdown(socket.SHUT_WR)
    assert 0 == process.wait(LONG)


@pytest.mark.parametrize("is_stopped", [False, True])
def test_ends_with_the_service(running: SyncProcess, reactor: Reactor, is_stopped: bool) -> None:
    """
    However it is, nobody waits for it in vain.
    """
    process = running._process
    assert process is not None
    if is_stopped:
        os.kill(process.pid, signal.SIGSTOP)
    running.stop()
    # The pool has seen its end.
    assert process.returncode is not None
    assert [] == reactor.readers


def test_the_reactor_lets_go_of_it(
    running: SyncProcess, reactor: Reactor, directory: FileSystem, ends: list[Exception | None]
) -> None:
    """
    Who waits is told, and it is not started again.
    """
    os.kill(pid(running), signal.SIGSTOP)
    assert running.wait(directory, finally_=True, ended=ends.append)
    running.connectionLost(Failure(ConnectionLost()))
    (error,) = ends
    assert isinstance(error, OSError)
    assert errno.EIO == error.errno
    reactor.advance(PAUSE)
    assert not running.wait(directory, finally_=True, ended=no_end)
    assert [] == reactor.readers


def test_stopped_while_it_waits(
    running: SyncProcess, reactor: Reactor, directory: FileSystem, ends: list[Exception | None]
) -> None:
    """
    It is not waited for for ever, but for as long as a disk may take.
    """
    wait = partial(running.wait, directory, finally_=True, ended=ends.append)
    assert wait()
    reactor.read()
    os.kill(pid(running), signal.SIGSTOP)
    reactor.advance(0.9 * PATIENCE)
    assert wait()
    # This was about the first.
    reactor.advance(0.1 * PATIENCE)
    assert [None] == ends
    reactor.advance(PATIENCE)
    reactor.read()
    _, error = ends
    assert isinstance(error, OSError)
    assert errno.EIO == error.errno
    assert [] == reactor.readers


def test_nothing_to_look_after(
    running: SyncProcess, reactor: Reactor, directory: FileSystem, ends: list[Exception | None]
) -> None:
    """
    While it waits for nothing, it may take its time.
    """
    for count in (1, 2):
        assert running.wait(directory, finally_=True, ended=ends.append)
        reactor.read()
        reactor.advance(PATIENCE)
        assert [] == reactor.getDelayedCalls()
        assert [None] * count == ends


def test_killed_while_it_waits(
    running: SyncProcess, reactor: Reactor, directory: FileSystem, ends: list[Exception | None]
) -> None:
    """
    Whether the disk has it, nobody knows: so the wait has failed.  Threads wait then, for a minute.
    """
    os.kill(pid(running), signal.SIGSTOP)
    assert running.wait(directory, finally_=True, ended=ends.append)
    os.kill(pid(running), signal.SIGKILL)
    with capturedLogs() as events:
        reactor.read()

    (error,) = ends
    assert isinstance(error, OSError)
    assert errno.EIO == error.errno
    ended = "the process that waits for the disk has ended; threads do it"
    assert [ended] == [formatEvent(event) for event in events]

    wait = partial(running.wait, directory, finally_=True, ended=ends.append)
    reactor.advance(PAUSE - 1)
    assert not wait()
    assert [] == reactor.readers
    reactor.advance(1)
    assert not wait()
    reactor.read()
    assert wait()
    reactor.read()
    assert [None] == ends[1:]


def test_killed_before_it_is_asked(
    running: SyncProcess, reactor: Reactor, directory: FileSystem
) -> None:
    """
    Nobody waits for an answer then.
    """
    process = running._process
    assert process is not None
    process.kill()
    process.wait(LONG)
    assert not running.wait(directory, finally_=True, ended=no_end)
    reactor.read()
    assert not running.wait(directory, finally_=True, ended=no_end)
    assert [] == reactor.readers


def test_a_program_that_is_not_there(
    process: SyncProcess,
    reactor: Reactor,
    directory: FileSystem,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Python starts, and ends; it is not tried again at once.
    """
    monkeypatch.setattr(sync_process, "PROGRAM", tmp_path / "nothing.py")
    assert not process.wait(directory, finally_=True, ended=no_end)
    with capturedLogs() as events:
        reactor.read()
    assert 1 == len(events)
    assert not process.wait(directory, finally_=True, ended=no_end)
    assert [] == reactor.readers


@pytest.mark.parametrize("python", ["/nowhere/python", "", None])
def test_cannot_be_started(
    process: SyncProcess,
    reactor: Reactor,
    directory: FileSystem,
    monkeypatch: pytest.MonkeyPatch,
    python: str | None,
) -> None:
    """
    It is said once a minute, and leaves nothing open.
    """
    monkeypatch.setattr(sys, "executable", python)
    before = os.listdir("/proc/self/fd")
    with capturedLogs() as events:
        for _ in range(3):
            assert not process.wait(directory, finally_=True, ended=no_end)
        reactor.advance(PAUSE)
        assert not process.wait(directory, finally_=True, ended=no_end)
    assert 2 == len(events)
    assert "no process that waits for the disk can be started" in str(formatEvent(events[0]))
    assert before == os.listdir("/proc/self/fd")


@pytest.mark.parametrize("works_first", [False, True])
def test_stop_while_it_starts(
    reactor: Reactor, held_pool: Any, directory: FileSystem, works_first: bool
) -> None:
    """
    It ends, and the pool has done all of it.
    """
    process = SyncProcess(reactor, held_pool)
    assert not process.wait(directory, finally_=True, ended=no_end)
    if works_first:
        held_pool.jobs.pop(0)()
    process.stop()
    held_pool.work()
    assert [] == reactor.readers
    assert not process.wait(directory, finally_=True, ended=no_end)
    assert [] == held_pool.jobs


# ── who waits ────────────────────────────────────────────────────────────────────────────────────


def test_threads_wait_until_it_does(
    reactor: Reactor,
    process: SyncProcess,
    held_pool: Any,
    somewhere: Callable[..., Any],
    ends: list[Exception | None],
) -> None:
    """
    What the process does not do, threads do; how long each wait took is learned.
    """
    times = iter(range(100))
    syncing = Syncing(lambda: next(times))
    waits = Waits(held_pool, syncing, process)
    target = somewhere("/proc")
    begin = partial(waits.begin, target, finally_=False, ended=ends.append)

    begin()
    assert [] == ends
    held_pool.work()
    assert [False] == target.synced
    assert [None] == ends
    assert syncing._waiting == {}

    reactor.read()
    begin()
    assert 1 == len(syncing._waiting)
    assert syncing.takes_longer_than(0)
    begin()
    assert 1 == len(held_pool.jobs)
    held_pool.work()
    reactor.read()
    assert [False] * 2 == target.synced
    assert [None] * 3 == ends
    assert syncing._waiting == {}
    assert not syncing.whole_pays(2)
    waits.stop()


def test_thread_fails(
    held_pool: Any, somewhere: Callable[..., Any], ends: list[Exception | None]
) -> None:
    """
    What goes wrong in a thread is told as well.
    """
    target = somewhere("/")
    failure = OSError(errno.EIO, "a write was lost")

    def sync(*, finally_: bool) -> None:
        raise failure

    target.sync = sync
    waits = Waits(held_pool, Syncing(lambda: 0.0), None)
    waits.begin(target, finally_=True, ended=ends.append)
    held_pool.work()
    assert [failure] == ends
    waits.stop()


def test_what_is_no_promise(
    running: SyncProcess,
    held_pool: Any,
    somewhere: Callable[..., Any],
    ends: list[Exception | None],
) -> None:
    """
    Where syncfs cannot be relied on, the process is not asked for it.
    """
    target = somewhere("/")
    target.is_reliable = False
    Waits(held_pool, Syncing(lambda: 0.0), running).begin(target, finally_=True, ended=ends.append)
    held_pool.work()
    assert [True] == target.synced
    assert [None] == ends
