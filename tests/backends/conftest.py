"""
What the tests of backends share: pools without threads, a process that is none, a Maildir backend, a
disk that fails.

Nothing here waits for the disk: that it is asked, and when, is what counts.
"""

from __future__ import annotations

import mmap
import os
import select
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, TypeVar

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock

from lmtpsvc.backends import disk_writer_start, file_systems, mbox_settings, write_process
from lmtpsvc.backends import maildir as maildir_module
from lmtpsvc.backends.calls import HastyCalls
from lmtpsvc.backends.disk_writer import DiskWriter
from lmtpsvc.backends.disk_writer_start import Started
from lmtpsvc.backends.letter_box import MOST
from lmtpsvc.backends.letters import LONGEST, Letter, Receipt, pack_receipt, unpack_letter
from lmtpsvc.backends.maildir import MaildirBackend
from lmtpsvc.backends.mbox import MboxBackend
from lmtpsvc.backends.names import Names
from lmtpsvc.backends.posting import Posting
from lmtpsvc.backends.settings import from_words
from lmtpsvc.backends.shortcut import Shortcut
from lmtpsvc.backends.syncing import Syncing
from lmtpsvc.backends.write_process import WriteProcess
from lmtpsvc.commitment import Commitment
from lmtpsvc.envelope import Mailbox
from lmtpsvc.testing import MemoryMessage

from ..pools import SpotPool

T = TypeVar("T")

#: What statfs(2) calls it.
EXT4 = 0xEF53

#: A time of day, so that nothing is older than 36 hours by itself.
NOW = 1_700_000_000.5


class ClockPool(SpotPool):
    """
    A pool that keeps the jobs until `work`; what the reactor is to do when it comes round is done
    first, by *clock*.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._jobs: list[Callable[[], object]] = []

    @property
    def jobs(self) -> list[Callable[[], object]]:
        self._clock.advance(0)
        return self._jobs

    def run(self, job: Callable[[], object], priority: int = 0) -> None:
        self._jobs.append(job)

    def work(self) -> None:
        while self.jobs:
            self.jobs.pop(0)()


class Program:
    """
    What `WriteProcess` takes for a process: the program is run here, when it is told to.
    """

    def __init__(self, letters: socket.socket, answers: socket.socket, memory: int) -> None:
        # As a process has its own.
        self._letters, self._answers = letters.dup(), answers.dup()
        self._letters.setblocking(False)
        shared = mmap.mmap(memory, disk_writer_start.SIZE, prot=mmap.PROT_READ)
        self._cycles = 0
        self._told: Callable[[], object] = lambda: None
        self.writer = DiskWriter(self._receive, self._answer, memoryview(shared))
        self._answer(Receipt([], None, None, 0))

    def run(self, cycles: int, told: Callable[[], object]) -> None:
        """
        Take so many lots of letters; *told* is called behind each answer.
        """
        self._cycles, self._told = cycles, told
        self.writer.run()

    def _receive(self, seconds: float | None) -> list[Letter] | None:
        letters: list[Letter] = []
        if self._cycles == 0 or self._letters.fileno() < 0:
            return None
        self._cycles -= 1
        try:
            while len(letters) < MOST:
                letters.append(unpack_letter(self._letters.recv(LONGEST)))
        except BlockingIOError:
            pass
        return None if seconds != 0 and not letters else letters

    def _answer(self, receipt: Receipt) -> None:
        self._answers.send(pack_receipt(receipt))
        self._told()

    def kill(self) -> None:
        self._letters.close()
        self._answers.close()
        while self.writer._file_systems:
            self.writer._file_systems.popitem()[1].close()

    def wait(self) -> int:
        return 0


class _Killed(BaseException):
    """
    The program ends in the middle.
    """


class ProcessHere(WriteProcess[Posting]):
    """
    A process that is none, and does nothing but when the test says `work`.  All else is as it is: there
    is `disk_writer_start.ROOMS` for letters; *clock* makes it late, `end` ends it.
    """

    def __init__(self, clock: Clock) -> None:
        reactor = SimpleNamespace(
            seconds=clock.seconds,
            callLater=clock.callLater,
            addReader=lambda _: None,
            removeReader=lambda _: None,
        )
        super().__init__(reactor, SpotPool(), clock.seconds)
        self._clock = clock
        #: Or when the test says `hear`, for what is started from now on.
        self.starts_at_once = True

    @property
    def program(self) -> Any:
        """
        If it has been started.
        """
        return None if self._started is None else self._started.process

    @property
    def started(self) -> Started:
        """
        What leads to it.
        """
        assert self._started is not None, "it has been started"
        return self._started

    @property
    def letters(self) -> int:
        """
        That it has been sent and has not answered.
        """
        return len(self._sent)

    def _start(self) -> None:
        super()._start()
        if self.starts_at_once:
            self.hear()

    def work(self, cycles: int = -1) -> None:
        """
        Store so many lots of letters, or all; the answers are taken at once.
        """
        if self.program is not None:
            self.program.run(cycles, self.hear)

    def work_unheard(self, cycles: int = -1) -> None:
        """
        The same, but the answers are still to `hear`.
        """
        if self.program is not None:
            self.program.run(cycles, lambda: None)

    def hear(self) -> None:
        """
        Take what it has answered, or that it has ended.
        """
        while self.fileno() >= 0 and select.select([self], [], [], 0)[0]:
            self.doRead()

    def let_time_pass(self) -> None:
        """
        Until it is late.
        """
        # The first may be for what was before.
        for _ in range(2):
            if not self.is_late:
                self._clock.advance(write_process.PATIENCE)
        assert self.is_late

    def end(self) -> None:
        """
        End it, so that answers that were not taken are lost.
        """
        while select.select([self], [], [], 0)[0]:
            self.started.answers.recv(LONGEST)
        self.program.kill()
        self.hear()

    def end_before(self, step: str) -> None:
        """
        End it when it has taken what there is, before this step: ``"_write"``, ``"_wait"``, ``"_show"``.
        """

        def end(*_: object, **__: object) -> None:
            raise _Killed

        setattr(self.program.writer, step, end)
        with pytest.raises(_Killed):
            self.work()
        self.end()


@pytest.fixture
def process(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProcessHere]:
    """
    A process that runs, and stores mail when the test says so.
    """

    def run(letters: socket.socket, answers: socket.socket, _words: int, memory: int) -> Program:
        return Program(letters, answers, memory)

    monkeypatch.setattr(disk_writer_start, "_run", run)
    process = ProcessHere(clock)
    process.start()
    yield process
    process.stop()


@pytest.fixture
def work(held_pool: ClockPool, process: ProcessHere) -> Callable[[], None]:
    """
    ``work()``: all that is left to do, by threads and the process.
    """

    def work() -> None:
        while held_pool.jobs or not process.is_idle:
            held_pool.work()
            process.work()

    return work


@pytest.fixture
def spot_pool() -> SpotPool:
    return SpotPool()


@pytest.fixture
def held_pool(clock: Clock) -> ClockPool:
    return ClockPool(clock)


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.advance(NOW)
    return clock


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """
    Where the mail is; the backend makes it.
    """
    return tmp_path / "mail"


@pytest.fixture(autouse=True)
def real(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[int], object]]:
    """
    ``real["syncfs"](descriptor)``: the system calls that are pretended otherwise, as fsync is: a
    disk that others write to must not hold up the tests.
    """
    real: dict[str, Callable[[int], object]] = {
        "syncfs": file_systems._syncfs,
        "file_system": file_systems._file_system,
        "journal": file_systems._journal,
    }
    stat = os.fstat

    def pretend(descriptor: int) -> None:
        stat(descriptor)

    monkeypatch.setattr(file_systems, "_syncfs", pretend)
    monkeypatch.setattr(os, "fsync", pretend)
    # Wherever the temporary files are.
    monkeypatch.setattr(file_systems, "_file_system", lambda _: EXT4)
    # Without a journal, unless a test says otherwise.
    monkeypatch.setattr(file_systems, "_journal", lambda _: False)
    return real


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Each file and directory is synced by itself.
    """
    monkeypatch.setattr(Syncing, "whole_pays", lambda *_: False)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Whatever is to be synced, the whole file system is.
    """
    monkeypatch.setattr(Syncing, "whole_pays", lambda *_: True)


@pytest.fixture(params=["one_by_one", "at_once"])
def way(request: pytest.FixtureRequest) -> str:
    """
    The test holds for both ways of syncing, and is told which it is.
    """
    request.getfixturevalue(request.param)
    return str(request.param)


@pytest.fixture
def maildir(
    request: pytest.FixtureRequest,
    root: Path,
    clock: Clock,
    spot_pool: SpotPool,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., MaildirBackend]:
    """
    ``maildir(mode="0750")``: a started backend with these options; without a process, unless the test
    gives it one.

    It syncs one by one, if the test does not say otherwise: what pays is a matter of chance.  No call
    takes any time, so that none is found slow: how fast this machine is must not choose the way.
    """
    monkeypatch.setattr(maildir_module, "time", SimpleNamespace(monotonic=lambda: NOW))
    if not {"way", "at_once"} & set(request.fixturenames):
        request.getfixturevalue("one_by_one")

    def make(
        pool: SpotPool = spot_pool,
        template: str | None = None,
        process: ProcessHere | None = None,
        **options: str,
    ) -> MaildirBackend:
        settings = from_words(template or f"{root}/{{domain}}/{{user}}", options)
        names = Names("mx.example.org", clock.seconds)
        backend = MaildirBackend(settings, pool, names, clock, process)
        backend.startService()
        return backend

    return make


@pytest.fixture
def mbox(root: Path, clock: Clock, spot_pool: SpotPool) -> Callable[..., MboxBackend]:
    """
    ``mbox(mode="0660")``: a started backend with these options.
    """

    def make(
        pool: SpotPool = spot_pool, template: str | None = None, **options: str
    ) -> MboxBackend:
        settings = mbox_settings.from_words(template or f"{root}/{{user}}", options)
        backend = MboxBackend(settings, pool, clock)
        backend.startService()
        return backend

    return make


@pytest.fixture
def message() -> MemoryMessage:
    return MemoryMessage(b"Subject: hello\r\n\r\nbody\r\n")


@pytest.fixture
def leftovers(root: Path) -> Callable[[], list[str]]:
    """
    ``leftovers()``: the files in any tmp/ or spool.
    """

    def leftovers() -> list[str]:
        return [
            os.path.join(folder, name)
            for folder, _, names in os.walk(root)
            for name in names
            if os.path.basename(folder) in {"tmp", ".spool"}
        ]

    return leftovers


def _place(subject: int | str | Path) -> str:
    """
    The path that a call is about, also if it is given a descriptor.
    """
    if isinstance(subject, int):
        return os.readlink(f"/proc/self/fd/{subject}")
    return os.fspath(subject)


def _subject(owner: Any, name: str, args: tuple[Any, ...]) -> str:
    """
    The path that counts: of what is linked, which is the same everywhere, where to.
    """
    if owner is HastyCalls:
        args = args[1:]
    return _place(args[1] if name in {"rename", "link"} else args[0])


@pytest.fixture
def calls(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """
    What is asked of the disk below the root, in order: the call, and the path, the new one if there
    are two, relative to root.
    """
    seen: list[tuple[str, str]] = []

    def record(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            path = _subject(owner, name, args)
            if path.startswith(f"{root}"):
                seen.append((name.removeprefix("_"), os.path.relpath(path, root)))
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    for name in ("mkdir", "write", "fsync", "rename", "link", "unlink"):
        record(os, name)
        if hasattr(HastyCalls, name):
            record(HastyCalls, name)
    record(file_systems, "_syncfs")
    return seen


# What open(2) makes a new file with, with a name or without.
_MAKES = os.O_CREAT | (os.O_TMPFILE & ~os.O_DIRECTORY)


@pytest.fixture
def break_call(tmp_path: Path) -> Iterator[Callable[[str, str, int], None]]:
    """
    ``break_call("fsync", "ann/new", EIO)``: from now on, that call fails where the path it is about
    has these names in it.  A sync that fails does so for all that it is to make safe: syncfs does,
    too.
    """
    # Whole again before the directory is removed.
    patch = pytest.MonkeyPatch()

    def break_call(name: str, where: str, number: int) -> None:
        def replace(owner: Any, name: str) -> None:
            original = getattr(owner, name)

            def call(*args: Any, **kwargs: Any) -> Any:
                path = _subject(owner, name, args)
                is_new = name != "open" or args[2 if owner is HastyCalls else 1] & _MAKES
                if where in path and is_new:
                    raise OSError(number, os.strerror(number), path)
                return original(*args, **kwargs)

            patch.setattr(owner, name, call)

        if name in {"syncfs", "sync_file_range"}:
            replace(file_systems, f"_{name}")
        else:
            replace(os, name)
        if hasattr(HastyCalls, name):
            replace(HastyCalls, name)
        if name == "fsync":
            break_call("syncfs", "", number)

    yield break_call
    patch.undo()


#: What is delivered together: messages, each with its mailboxes.
Deliveries = Sequence[tuple[MemoryMessage, Sequence[Mailbox]]]


@pytest.fixture
def no_shortcut(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    All messages go the long way, as those do that are large, or on a disk elsewhere.
    """
    monkeypatch.setattr(Shortcut, "take", lambda *_: False)


@pytest.fixture
def together(
    maildir: Callable[..., MaildirBackend], held_pool: ClockPool, at_once: None, no_shortcut: None
) -> Callable[..., list[list[Commitment]]]:
    """
    ``together(backend, [(message, [ANN]), ...])``: the results of what came while the disk was
    busy, and so is one batch, on the long way; the backend has the held pool, which has still to work.
    """

    def together(backend: MaildirBackend, deliveries: Deliveries) -> list[list[Commitment]]:
        held_pool.work()
        backend.deliver(MemoryMessage(b"first\r\n"), [Mailbox("first", "example.org")])
        results = [backend.deliver(message, mailboxes) for message, mailboxes in deliveries]
        assert 1 == len(held_pool.jobs)
        held_pool.jobs.pop(0)()
        return results

    return together


@pytest.fixture
def timeout_of() -> Callable[[Deferred[T]], Deferred[T]]:
    """
    ``timeout_of(d)``: *d*, which fails if it takes as long as nothing should; in the reactor.
    """

    def timeout_of(result: Deferred[T]) -> Deferred[T]:
        from twisted.internet import reactor

        return result.addTimeout(60, IReactorTime(reactor))

    return timeout_of


@pytest.fixture
def as_root(unavailable: Callable[[str], NoReturn]) -> None:
    """
    The test needs to be root.
    """
    if os.geteuid() != 0:
        unavailable("root")


@pytest.fixture
def mounted(
    as_root: None, unavailable: Callable[[str], NoReturn]
) -> Iterator[Callable[[Path], None]]:
    """
    ``mounted(path)``: from now on, another file system is there.
    """
    paths: list[Path] = []

    def mount(path: Path) -> None:
        command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)]
        if subprocess.run(command, check=False, capture_output=True).returncode != 0:
            unavailable("the right to mount")
        paths.append(path)

    yield mount
    for path in reversed(paths):
        subprocess.run(["umount", str(path)], check=True)
