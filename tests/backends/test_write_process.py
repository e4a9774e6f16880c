"""
The process that stores small messages: who is told what, and that threads take over from it.

The process is a real one; the reactor is not, so that each test says when it looks.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure

from lmtpsvc.backends import disk_writer_start
from lmtpsvc.backends.disk_writer_start import Started
from lmtpsvc.backends.letters import NOTHING, SAFE, UNKNOWN, Receipt
from lmtpsvc.backends.write_process import LAST_PATIENCE, PATIENCE, PAUSE, WriteProcess

#: An answer of the process is there within so many seconds, or never comes.
LONG = 60.0

#: A process that says so, and stops, where it is to wait for the disk first; SIGALRM lets it go on.
HANGS = """\
import os, signal, socket, sys
sys.path.append(sys.argv[1])
from lmtpsvc.backends import disk_writer
from lmtpsvc.backends.letters import Receipt, pack_receipt
sync = os.fsync
def fsync(descriptor):
    os.fsync = sync
    socket.socket(fileno=os.dup(1)).send(pack_receipt(Receipt([], None, None, 0)))
    signal.sigwait({signal.SIGALRM})
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
os.fsync = fsync
disk_writer.main(*map(int, sys.argv[2:]))
"""

#: One that relies on whatever file system there is.
RELIES = """\
import sys
sys.path.append(sys.argv[1])
from lmtpsvc.backends import disk_writer, file_systems
file_systems._file_system = lambda _: 0xEF53
disk_writer.main(*map(int, sys.argv[2:]))
"""

#: One that soon closes what it does not need, and tells of it.
LETS_GO = """\
import os, socket, sys
sys.path.append(sys.argv[1])
from lmtpsvc.backends import disk_writer
from lmtpsvc.backends.letters import Receipt, pack_receipt
let_go, answers = disk_writer.DiskWriter._let_go, socket.socket(fileno=os.dup(1))
def tell(*arguments):
    let_go(*arguments)
    answers.send(pack_receipt(Receipt([], None, None, 0)))
disk_writer.DiskWriter._let_go = tell
disk_writer.KEPT = 0.01
disk_writer.main(*map(int, sys.argv[2:]))
"""

Story = list[tuple[str, int, list[int]]]


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


class Told:
    """
    What has been told.
    """

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self.story: Story = []
        self.receipts: list[Receipt] = []

    def __call__(self, told: Story, receipt: Receipt) -> None:
        self.story += told
        self.receipts.append(receipt)

    def wait(self, count: int) -> Story:
        """
        Read until so many letters have been told of, all in all; returns what has.
        """
        while len(self.story) < count:
            self._reactor.read()
        return self.story


@pytest.fixture
def reactor() -> Reactor:
    return Reactor()


@pytest.fixture
def told(reactor: Reactor) -> Told:
    return Told(reactor)


@pytest.fixture
def process(reactor: Reactor, spot_pool: Any, told: Told) -> Iterator[WriteProcess[str]]:
    """
    Not started yet; ends with the test.
    """
    process: WriteProcess[str] = WriteProcess(reactor, spot_pool, reactor.seconds)
    process.told = told
    yield process
    process.stop()
    assert [] == reactor.readers
    assert [] == reactor.getDelayedCalls()


@pytest.fixture
def running(process: WriteProcess[str], reactor: Reactor) -> WriteProcess[str]:
    """
    It has been missed, and has said that it runs.
    """
    return begun(process, reactor)


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """
    ``program(source)``: what the process runs, if it is started now.
    """

    def program(source: str) -> None:
        words = ("-I", "-S", "-c", source, disk_writer_start.PROGRAM[-1])
        monkeypatch.setattr(disk_writer_start, "PROGRAM", words)

    return program


@pytest.fixture
def maildir(tmp_path: Path) -> Path:
    for name in ("tmp", "new", "cur"):
        (tmp_path / "ann" / name).mkdir(parents=True)
    return tmp_path / "ann"


@pytest.fixture
def send(process: WriteProcess[str], maildir: Path) -> Callable[..., bool]:
    """
    ``send("name", b"octets")``: a letter; other words of `WriteProcess.send` may be given.
    """

    def send(name: str, octets: bytes = b"text\n", **words: Any) -> bool:
        letter: dict[str, Any] = {
            "device": maildir.stat().st_dev,
            "together": False,
            "mode": 0o600,
            "uid": None,
            "gid": None,
            "tmp": f"{maildir}/tmp/{name}",
            "new": [f"{maildir}/new/{name}"],
        }
        return process.send(name, octets, **{**letter, **words})

    return send


@pytest.fixture
def hanging(
    process: WriteProcess[str],
    reactor: Reactor,
    program: Callable[[str], None],
    send: Callable[..., bool],
) -> WriteProcess[str]:
    """
    It has begun the letter "begun", and cannot go on; "second" and "third" wait in its socket.
    """
    program(HANGS)
    begun(process, reactor)
    assert send("begun")
    reactor.read()
    assert send("second")
    assert send("third")
    return process


def begun(process: WriteProcess[str], reactor: Reactor) -> WriteProcess[str]:
    """
    It is started.
    """
    assert not process.is_there
    process.start()
    # Born, but it has not said so.
    assert not process.is_there
    reactor.read()
    assert process.is_there
    return process


def started(process: WriteProcess[str]) -> Started:
    assert process._started is not None
    return process._started


def pid(process: WriteProcess[str]) -> int:
    return int(started(process).process.pid)


def stop(pid: int) -> None:
    """
    Have a process of ours stop, and wait until it has: it may be in the midst of something.
    """
    os.kill(pid, signal.SIGSTOP)
    # It is told again to whoever asks next.
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)


def opened(pid: int | str = "self") -> list[str]:
    """
    What a process has open.
    """
    links = f"/proc/{pid}/fd"
    # Not what lists them.
    paths = [f"{links}/{name}" for name in os.listdir(links)]
    return sorted(os.readlink(path) for path in paths if os.path.lexists(path))


def free(process: WriteProcess[str]) -> list[int]:
    """
    How many rooms of each size are free.
    """
    return [len(rooms) for _, rooms in started(process).free]


# ── it stores ────────────────────────────────────────────────────────────────────────────────────


def test_stores(
    running: WriteProcess[str], told: Told, send: Callable[..., bool], maildir: Path
) -> None:
    """
    What is sent is in the file, octet by octet, and has its mode; it is said when it is safe, and how
    long that took.
    """
    texts = {
        f"M{size}ä": bytes(range(256)) * (size // 256) for size in (0, 1 << 12, 1 << 17, 1 << 18)
    }
    for count, (name, octets) in enumerate(texts.items(), 1):
        assert running.is_idle
        assert send(name, octets, mode=0o640)
        assert not running.is_idle
        assert (name, SAFE, []) == told.wait(count)[-1]
        assert told.receipts[-1].each is not None
        assert told.receipts[-1].whole is None

    found = {path.name: path for path in (maildir / "new").iterdir()}
    assert texts == {name: path.read_bytes() for name, path in found.items()}
    assert {0o640} == {stat.S_IMODE(path.stat().st_mode) for path in found.values()}
    assert [] == list((maildir / "tmp").iterdir())


def test_several(
    process: WriteProcess[str],
    reactor: Reactor,
    told: Told,
    send: Callable[..., bool],
    program: Callable[[str], None],
    maildir: Path,
) -> None:
    """
    Many letters are told of together, with those who could not be given the message.
    """
    program(RELIES)
    begun(process, reactor)
    stop(pid(process))
    names = [f"M{number}" for number in range(5)]
    for name in names:
        places = ("new", "nowhere", "cur")
        assert send(name, name.encode(), new=[f"{maildir}/{place}/{name}" for place in places])
    os.kill(pid(process), signal.SIGCONT)

    assert [(name, SAFE, [1]) for name in names] == told.wait(5)
    assert 1 == len(told.receipts)
    assert told.receipts[0].whole is not None
    assert 0 == told.receipts[0].lost
    for name in names:
        for place in ("new", "cur"):
            assert name == (maildir / place / name).read_text()


def test_cannot_store(
    running: WriteProcess[str], told: Told, send: Callable[..., bool], maildir: Path
) -> None:
    """
    What cannot be written leaves nothing behind, and the next is as any.
    """
    assert send("first", tmp="/nowhere/tmp/first")
    assert send("second", device=-1)
    assert [("first", NOTHING, []), ("second", NOTHING, [])] == told.wait(2)
    assert send("third")
    assert ("third", SAFE, []) == told.wait(3)[-1]
    assert ["third"] == [path.name for path in maildir.rglob("*") if path.is_file()]


def test_rooms(
    process: WriteProcess[str],
    reactor: Reactor,
    told: Told,
    send: Callable[..., bool],
    maildir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Each message has room of its own until it has been told of; a small one may have a large one.
    """
    monkeypatch.setattr(disk_writer_start, "ROOMS", ((16, 2), (64, 2)))
    begun(process, reactor)
    stop(pid(process))
    assert [2, 2] == free(process)
    assert not send("too large", bytes(65))
    texts = {"a": b"a" * 16, "b": b"b" * 64, "c": b"c", "d": b"d" * 15}
    for name, octets in texts.items():
        assert send(name, octets)
    assert [0, 0] == free(process)
    for size in (0, 1, 64):
        assert not send("no room", bytes(size))
    os.kill(pid(process), signal.SIGCONT)

    told.wait(4)
    assert [2, 2] == free(process)
    assert send("e", b"e" * 64)
    assert send("f", b"f" * 17)
    assert not send("large ones are gone", bytes(17))
    assert [2, 0] == free(process)
    told.wait(6)
    assert [2, 2] == free(process)
    for name, what, _ in told.story:
        # Several at a time are stored only where that can be relied on.
        assert what in {SAFE, NOTHING}
        if name in texts and what == SAFE:
            assert texts[name] == (maildir / "new" / name).read_bytes()


def test_socket_is_full(
    running: WriteProcess[str], reactor: Reactor, told: Told, send: Callable[..., bool]
) -> None:
    """
    Then there is no room just now, and none is lost.
    """
    stop(pid(running))
    all_free = free(running)
    sent = 0
    # A name that nothing can have, and long.
    while send(str(sent), tmp="x" * 50_000):
        sent += 1
        assert sent < sum(all_free), "the socket takes it all"
    assert sent
    assert sum(all_free) - sent == sum(free(running))
    os.kill(pid(running), signal.SIGCONT)
    assert [(str(number), NOTHING, []) for number in range(sent)] == told.wait(sent)
    assert all_free == free(running)
    assert send("next")
    assert ("next", SAFE, []) == told.wait(sent + 1)[-1]


def test_letter_is_too_long(
    running: WriteProcess[str], told: Told, send: Callable[..., bool]
) -> None:
    """
    It cannot be sent, and the next is as any.
    """
    all_free = free(running)
    with pytest.raises(OSError, match=os.strerror(errno.EMSGSIZE)):
        send("first", tmp="x" * (1 << 24))
    assert all_free == free(running)
    assert running.is_idle
    assert send("second")
    assert [("second", SAFE, [])] == told.wait(1)


def test_keeps_nothing_open(
    process: WriteProcess[str],
    program: Callable[[str], None],
    reactor: Reactor,
    told: Told,
    send: Callable[..., bool],
) -> None:
    """
    When it has had nothing to do for a while, the disk can be unmounted as far as it is concerned.
    """
    program(LETS_GO)
    begun(process, reactor)
    before = opened(pid(process))
    assert "/" == os.readlink(f"/proc/{pid(process)}/cwd")
    for count in (1, 2, 3):
        assert send(f"M{count}", together=count == 2)
        told.wait(count)
    while before != opened(pid(process)):
        reactor.read()


def test_memory_is_theirs_alone(running: WriteProcess[str]) -> None:
    """
    The process can only read it, and no other process has it.
    """
    maps = Path(f"/proc/{pid(running)}/maps").read_text().splitlines()
    (shared,) = [line for line in maps if "memfd:lmtpsvc" in line]
    assert "r--s" == shared.split()[1]
    listed = ["ls", "-l", "/proc/self/fd"]
    other = subprocess.run(listed, close_fds=False, check=True, capture_output=True, text=True)
    assert "memfd" not in other.stdout
    assert any("memfd:lmtpsvc" in link for link in opened())


def test_a_defect_of_who_is_told(
    running: WriteProcess[str], reactor: Reactor, told: Told, send: Callable[..., bool]
) -> None:
    """
    Is in the log, and the next letter is as any.
    """

    def fail(*_: object) -> None:
        raise AssertionError("a defect")

    all_free = free(running)
    running.told = fail
    assert send("first")
    with capturedLogs() as events:
        reactor.read()
    assert ["an answer was not taken"] == [formatEvent(event) for event in events]
    assert running.is_idle
    assert all_free == free(running)

    running.told = told
    assert send("second")
    assert [("second", SAFE, [])] == told.wait(1)


# ── it ends ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2],
)
def test_signals_are_for_the_service(
    running: WriteProcess[str], told: Told, send: Callable[..., bool], number: signal.Signals
) -> None:
    """
    A signal to all processes of the service does not end it.
    """
    os.kill(pid(running), number)
    assert send("M1")
    assert [("M1", SAFE, [])] == told.wait(1)


def test_ends_with_the_socket(running: WriteProcess[str]) -> None:
    """
    When the socket is closed, as the kernel does for who is killed, it ends by itself.
    """
    started(running).letters.shutdown(socket.SHUT_WR)
    assert 0 == started(running).process.wait(LONG)


@pytest.mark.parametrize("is_stopped", [False, True])
def test_ends_with_the_service(
    running: WriteProcess[str], reactor: Reactor, is_stopped: bool
) -> None:
    """
    However it is, nobody waits for it in vain.
    """
    process = started(running).process
    if is_stopped:
        stop(process.pid)
    running.stop()
    # The pool has seen its end.
    assert process.returncode is not None
    assert [] == reactor.readers
    assert not running.is_there
    assert [] == reactor.readers


def test_the_reactor_lets_go_of_it(
    hanging: WriteProcess[str], reactor: Reactor, told: Told
) -> None:
    """
    Who waits is told, and it is not started again.
    """
    hanging.connectionLost(Failure(ConnectionLost()))
    assert {("begun", UNKNOWN), ("second", NOTHING), ("third", NOTHING)} == {
        (name, what) for name, what, _ in told.story
    }
    assert 3 == len(told.story)
    reactor.advance(PAUSE)
    assert not hanging.is_there
    assert [] == reactor.readers


def test_the_reactor_lets_go_of_what_has_ended(
    running: WriteProcess[str], reactor: Reactor
) -> None:
    """
    Some reactors do so with whoever has closed its descriptor: it is started again all the same.
    """
    os.kill(pid(running), signal.SIGKILL)
    reactor.read()
    running.connectionLost(Failure(ConnectionLost()))
    reactor.advance(PAUSE)
    begun(running, reactor)


def test_killed_while_it_works(
    hanging: WriteProcess[str],
    reactor: Reactor,
    told: Told,
    send: Callable[..., bool],
    maildir: Path,
) -> None:
    """
    What it has begun, nobody knows; the rest is as it was.  Threads do it then, for a minute.
    """
    assert ["begun"] == [path.name for path in maildir.rglob("*") if path.is_file()]
    os.kill(pid(hanging), signal.SIGKILL)
    with capturedLogs() as events:
        reactor.read()
    expected: Story = [("second", NOTHING, []), ("third", NOTHING, []), ("begun", UNKNOWN, [])]
    assert expected == told.story
    ended = "the process that stores mail has ended; threads do it"
    assert [ended] == [formatEvent(event) for event in events]
    assert hanging.is_idle

    reactor.advance(PAUSE - 1)
    assert not hanging.is_there
    assert [] == reactor.readers
    reactor.advance(1)
    begun(hanging, reactor)
    assert send("again", b"again")
    reactor.read()
    os.kill(pid(hanging), signal.SIGALRM)
    assert [("again", SAFE, [])] == told.wait(4)[3:]
    assert b"again" == (maildir / "new" / "again").read_bytes()


def test_killed_while_nothing_is_to_do(
    running: WriteProcess[str], reactor: Reactor, told: Told, send: Callable[..., bool]
) -> None:
    """
    What is sent before anybody hears of it comes back.
    """
    process = started(running).process
    process.kill()
    process.wait(LONG)
    assert running.is_there
    assert send("late")
    reactor.read()
    assert [("late", NOTHING, [])] == told.story
    assert not running.is_there
    assert [] == reactor.readers


def test_told_first(
    running: WriteProcess[str], reactor: Reactor, told: Told, send: Callable[..., bool]
) -> None:
    """
    What it has said before it was killed counts.
    """
    process = started(running).process
    assert send("M1")
    poll = select.poll()
    poll.register(running.fileno(), select.POLLIN)
    assert poll.poll(LONG * 1000)
    process.kill()
    process.wait(LONG)
    reactor.read()
    assert [("M1", SAFE, [])] == told.story
    reactor.read()
    assert 1 == len(told.story)
    assert [] == reactor.readers


# ── it does not get on ───────────────────────────────────────────────────────────────────────────


def test_nothing_to_look_after(
    running: WriteProcess[str], reactor: Reactor, told: Told, send: Callable[..., bool]
) -> None:
    """
    While it has nothing to do, it may take its time.
    """
    for count in (1, 2):
        assert send(f"M{count}")
        told.wait(count)
        reactor.advance(PATIENCE)
        assert [] == reactor.getDelayedCalls()
        assert running.is_there


def test_gets_on_slowly(
    running: WriteProcess[str], reactor: Reactor, told: Told, send: Callable[..., bool]
) -> None:
    """
    Each answer gives it time anew.
    """
    assert send("M1")
    told.wait(1)
    reactor.advance(0.9 * PATIENCE)
    stop(pid(running))
    assert send("M2")
    # This was about the first.
    reactor.advance(0.1 * PATIENCE)
    assert running.is_there
    assert 1 == len(told.story)
    reactor.advance(PATIENCE)
    assert not running.is_there
    assert [("M2", NOTHING, [])] == told.story[1:]


def test_hangs(hanging: WriteProcess[str], reactor: Reactor, told: Told) -> None:
    """
    What it has not begun is taken back; the rest is told of when it gets on, and it is used again.
    """
    # The notice that it hangs was an answer.
    reactor.advance(PATIENCE)
    assert hanging.is_there
    reactor.advance(PATIENCE)
    assert hanging.is_late
    assert not hanging.is_there
    assert [("second", NOTHING, []), ("third", NOTHING, [])] == told.story
    assert not hanging.is_idle

    os.kill(pid(hanging), signal.SIGALRM)
    assert [("begun", SAFE, [])] == told.wait(3)[2:]
    assert hanging.is_there
    assert hanging.is_idle


def test_hangs_for_good(hanging: WriteProcess[str], reactor: Reactor, told: Told) -> None:
    """
    It is waited for as long as a disk may take, and no longer.
    """
    stop(pid(hanging))
    reactor.advance(PATIENCE)
    reactor.advance(PATIENCE)
    assert 2 == len(told.story)
    reactor.advance(0.9 * LAST_PATIENCE)
    assert started(hanging).process.poll() is None
    reactor.advance(0.1 * LAST_PATIENCE)
    reactor.read()
    assert [("begun", UNKNOWN, [])] == told.story[2:]
    assert [] == reactor.readers
    assert not hanging.is_there


def test_stopped_while_nothing_is_to_do(
    running: WriteProcess[str], reactor: Reactor, told: Told, send: Callable[..., bool]
) -> None:
    """
    All is taken back; it is used again as soon as it gets on, and looked after as before.
    """
    stop(pid(running))
    for count in (1, 2):
        assert send(f"M{count}")
        for _ in range(count):
            # The second time, it has just got on.
            assert running.is_there
            reactor.advance(PATIENCE)
        assert not running.is_there
        assert (f"M{count}", NOTHING, []) == told.story[-1]
        assert running.is_idle
        os.kill(pid(running), signal.SIGCONT)
        reactor.read()
        assert running.is_there
        stop(pid(running))
    reactor.advance(PATIENCE)
    os.kill(pid(running), signal.SIGCONT)
    assert send("M3")
    assert [("M3", SAFE, [])] == told.wait(3)[2:]


def test_stopped_for_good(
    running: WriteProcess[str], reactor: Reactor, told: Told, send: Callable[..., bool]
) -> None:
    """
    One that has nothing to do any more is not kept, either.
    """
    stop(pid(running))
    assert send("M1")
    reactor.advance(PATIENCE)
    reactor.advance(LAST_PATIENCE)
    reactor.read()
    assert [("M1", NOTHING, [])] == told.story
    assert [] == reactor.readers
    reactor.advance(PAUSE)
    begun(running, reactor)


# ── it cannot be started ─────────────────────────────────────────────────────────────────────────


def test_a_program_that_is_not_there(
    process: WriteProcess[str], reactor: Reactor, program: Callable[[str], None]
) -> None:
    """
    Python starts, and ends; it is not tried again at once.
    """
    program("import nothing_of_that_name")
    process.start()
    with capturedLogs() as events:
        reactor.read()
    assert 1 == len(events)
    assert not process.is_there
    assert [] == reactor.readers


def test_a_program_that_never_says_that_it_runs(
    process: WriteProcess[str], reactor: Reactor, program: Callable[[str], None]
) -> None:
    """
    It is ended; another one is tried later.
    """
    program("import signal; signal.pause()")
    process.start()
    reactor.advance(LAST_PATIENCE)
    with capturedLogs() as events:
        reactor.read()
    assert 1 == len(events)
    assert not process.is_there
    assert [] == reactor.readers
    assert [] == reactor.getDelayedCalls()


@pytest.mark.parametrize("python", ["/nowhere/python", "", None])
def test_cannot_be_started(
    process: WriteProcess[str],
    reactor: Reactor,
    monkeypatch: pytest.MonkeyPatch,
    python: str | None,
) -> None:
    """
    It is said once a minute, and leaves nothing open.
    """
    monkeypatch.setattr(sys, "executable", python)
    before = opened()
    with capturedLogs() as events:
        for _ in range(3):
            process.start()
            assert not process.is_there
        reactor.advance(PAUSE)
        process.start()
        assert not process.is_there
        assert before == opened()
    assert 2 == len(events)
    assert "no process that stores mail can be started" in str(formatEvent(events[0]))


def test_another_time_of_day(
    reactor: Reactor, spot_pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    How long a minute takes is nothing to the clock on the wall.
    """
    now = [0.0]
    process: WriteProcess[str] = WriteProcess(reactor, spot_pool, lambda: now[0])
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", None)
        process.start()
    reactor.rightNow += 2 * PAUSE
    process.start()
    assert [] == reactor.readers

    reactor.rightNow -= 9 * PAUSE
    now[0] += PAUSE
    begun(process, reactor)
    process.stop()


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ("raise OSError('first\\n\\nthe last')", ": the last"),
        ("sys.stderr.write('x' * 9000 + 'no end')", f": {'x' * 4090}no end"),
        ("pass", ""),
    ],
)
def test_last_words(
    process: WriteProcess[str],
    reactor: Reactor,
    program: Callable[[str], None],
    ending: str,
    words: str,
) -> None:
    """
    The operator is told what the process has said at its end, in one line.
    """
    program(f"import sys; {ending}")
    process.start()
    with capturedLogs() as events:
        reactor.read()

    expected = f"the process that stores mail has ended{words}; threads do it"
    assert [expected] == [formatEvent(event) for event in events]


def test_no_memory(
    process: WriteProcess[str], reactor: Reactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The same without memory to share; it can be as soon as there is some.
    """

    def fail(*_: object) -> int:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    before = opened()
    with monkeypatch.context() as patch, capturedLogs() as events:
        patch.setattr(os, "memfd_create", fail)
        process.start()
        assert not process.is_there
        assert before == opened()
    assert os.strerror(errno.ENOMEM) in str(formatEvent(events[0]))
    reactor.advance(PAUSE)
    begun(process, reactor)


def test_no_descriptors(process: WriteProcess[str], reactor: Reactor) -> None:
    """
    However many are missing, nothing is left open.
    """
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = opened()
    # Of the numbers up to there, none is free.
    taken = [os.open("/", os.O_RDONLY)]
    while taken[-1] < len(before) + len(taken) - 1:
        taken.append(os.open("/", os.O_RDONLY))
    all_taken = opened()
    failures = 0
    try:
        while not reactor.readers:
            assert failures < 20, "it cannot be started at all"
            resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1] + 1 + failures, allowed[1]))
            with capturedLogs() as events:
                process.start()
            resource.setrlimit(resource.RLIMIT_NOFILE, allowed)
            if not reactor.readers:
                failures += 1
                assert 1 == len(events)
                assert all_taken == opened()
                reactor.advance(PAUSE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, allowed)
        for descriptor in taken:
            os.close(descriptor)
    # Two pairs of sockets, and two files in memory.
    assert failures > 5
    reactor.read()
    assert process.is_there


@pytest.mark.parametrize("works_first", [False, True])
def test_stop_while_it_starts(reactor: Reactor, held_pool: Any, works_first: bool) -> None:
    """
    It ends, and the pool has done all of it.
    """
    before = opened()
    process: WriteProcess[str] = WriteProcess(reactor, held_pool, reactor.seconds)
    process.start()
    if works_first:
        held_pool.jobs.pop(0)()
    process.stop()
    held_pool.work()
    assert [] == reactor.readers
    assert not process.is_there
    assert [] == held_pool.jobs
    assert before == opened()


def test_leaves_nothing_open(
    process: WriteProcess[str], reactor: Reactor, told: Told, send: Callable[..., bool]
) -> None:
    """
    However often the process ends, nothing of it stays open.
    """
    before = opened()
    for count in (1, 2, 3):
        begun(process, reactor)
        assert send(f"M{count}")
        told.wait(count)
        os.kill(pid(process), signal.SIGKILL)
        reactor.read()
        assert before == opened()
        reactor.advance(PAUSE)
