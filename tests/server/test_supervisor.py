"""
The supervisor: starts workers, hears from them, and ends when they have.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IProcessProtocol
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.runner.procmon import ProcessMonitor
from zope.interface import implementer

from lmtpsvc.server.command import Account, Command
from lmtpsvc.server.counts import Counts
from lmtpsvc.server.crew import Crew
from lmtpsvc.server.inherited import VARIABLE, Inheritance
from lmtpsvc.server.plan import CannotReload
from lmtpsvc.server.supervisor import FIRST_DELAY_SECONDS, SHORT_LIFE_SECONDS, Supervisor

KILL_SECONDS = 40.0


class Process:
    """
    A process, as far as the reactor knows.
    """

    def __init__(
        self, protocol: IProcessProtocol, words: Sequence[str], env: Mapping[str, str]
    ) -> None:
        self.protocol, self.words, self.environment = protocol, words, env
        self.signals: list[str] = []
        self.ended = False

    def signalProcess(self, name: str) -> None:
        if self.ended:
            raise ProcessExitedAlready
        self.signals.append(name)

    def say(self, octets: bytes) -> None:
        """
        Write to standard error.
        """
        self.protocol.childDataReceived(2, octets)

    def end(self, status: int | None = None, signal: int | None = None) -> None:
        """
        End, and let it be known.
        """
        self.ended = True
        clean = not (status or signal)
        reason = ProcessDone(0) if clean else ProcessTerminated(status, signal)
        self.protocol.processEnded(Failure(reason))


class Reactor(Clock):
    """
    Starts processes that do nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[Process] = []
        self.descriptors: Mapping[int, int | str] = {}
        self.stops = 0
        self.failing: OSError | None = None

    def callWhenRunning(self, call: Callable[[], object]) -> None: ...

    def addSystemEventTrigger(self, phase: str, event: str, call: Callable[[], object]) -> None: ...

    def spawnProcess(
        self,
        protocol: Any,
        executable: str,
        args: Sequence[str],
        env: Mapping[str, str],
        *rest: object,
        childFDs: Mapping[int, int | str],
    ) -> None:
        if self.failing is not None:
            raise self.failing
        self.descriptors = childFDs
        process = Process(protocol, args, env)
        self.processes.append(process)
        protocol.makeConnection(process)

    def stop(self) -> None:
        self.stops += 1

    def callFromThread(self, function: Callable[[], None]) -> None:
        function()


@implementer(ILogObserver)
class World:
    """
    A supervisor of two workers, without sockets.
    """

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.broken: CannotReload | None = None
        self.supervisor = Supervisor(
            [],
            "mail goes nowhere",
            self.reactor,
            ProcessMonitor,
            Command(["-x"], [], os.getcwd()),
            2,
            KILL_SECONDS,
            check=self.check,
        )
        self.counts: Counts = self.supervisor._counts
        self.log: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        if event["log_namespace"].startswith("lmtpsvc"):
            self.log.append(formatEvent(event))

    def check(self) -> None:
        if self.broken is not None:
            raise self.broken

    def start(self) -> list[Process]:
        """
        Start, and let both workers begin.
        """
        self.supervisor.startService()
        for number in (1, 2):
            self.counts.take(number)
        return self.reactor.processes


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("atexit.register", lambda *_: None)
    world = World()
    globalLogPublisher.addObserver(world)
    yield world
    globalLogPublisher.removeObserver(world)
    world.supervisor._hangup.stopService()


class TestStart:
    def test_each_is_told_who_it_is(self, world: World) -> None:
        """
        The workers run the same words, and know their number and which descriptor is what.
        """
        first, second = world.start()
        assert first.words == second.words
        assert first.words[-2:] == ["lmtp", "-x"]
        environment = dict(second.environment)
        given = Inheritance(2, 2, 3, 4, ())
        assert given.environment() == {VARIABLE: environment[VARIABLE]}
        assert world.reactor.descriptors[4] == world.counts.descriptor
        assert world.reactor.descriptors[2] == "r"

    def test_cannot_be_started(self, world: World) -> None:
        """
        A system that has no room for a process is asked again later.
        """
        world.start()[0].end(signal=9)
        world.reactor.failing = OSError(11, "Resource temporarily unavailable")
        world.reactor.advance(FIRST_DELAY_SECONDS)
        world.reactor.advance(0)
        assert f"worker 1: {sys.executable}: Resource temporarily unavailable" in world.log
        world.reactor.failing = None
        world.reactor.advance(2 * FIRST_DELAY_SECONDS)
        assert len(world.reactor.processes) == 3

    def test_log_files(self, tmp_path: Path, world: World) -> None:
        """
        Log files are made while there is the right to, for those who write to them.
        """
        path = tmp_path / "log"
        world.supervisor._files = [str(path)]
        world.supervisor._account = Account(os.getuid(), os.getgid())
        world.supervisor.privilegedStartService()
        assert path.read_text() == ""

    def test_no_log_file(self, tmp_path: Path, world: World) -> None:
        """
        A log that cannot be written is one line before anything starts.
        """
        world.supervisor._files = [str(tmp_path / "nowhere" / "log")]
        with pytest.raises(SystemExit, match=r"nowhere/log: No such file or directory"):
            world.supervisor.privilegedStartService()


class TestEnd:
    def test_replaced(self, world: World) -> None:
        """
        A worker that ends is replaced at once if it lived long, and its connections do not count.
        """
        first, _second = world.start()
        world.counts.set(1, 5)
        world.reactor.advance(SHORT_LIFE_SECONDS)
        first.end(signal=9)
        assert world.counts.total() == 0
        assert "worker 1 has ended (SIGKILL); it is started again" in world.log
        world.reactor.advance(0)
        assert len(world.reactor.processes) == 3

    def test_what_it_says(self, world: World) -> None:
        """
        Its standard error is in the log, line by line, the last one even without an end.
        """
        first, _second = world.start()
        first.say(b"one\ntw")
        first.say(b"o\n\n")
        first.say(b"\xff")
        first.end(status=1)
        lines = [line for line in world.log if line.startswith("worker 1:")]
        assert ["worker 1: one", "worker 1: two", "worker 1: \\xff"] == lines

    def test_said_once(self, world: World) -> None:
        """
        A worker that cannot start is tried again with longer and longer pauses, and says so once.
        """
        world.start()[1].end(status=1)
        for _ in range(4):
            world.reactor.pump([1] * 10)
            process = world.reactor.processes[-1]
            process.say(b"twistd lmtp: no disk\n")
            process.end(status=1)
        assert len(world.reactor.processes) == 6
        said = [line for line in world.log if "no disk" in line]
        assert ["worker 2: twistd lmtp: no disk"] == said
        ended = [line for line in world.log if "has ended" in line]
        assert ["worker 2 has ended (status 1); it is started again"] * 2 == ended

    def test_none_can_start(self, world: World) -> None:
        """
        If not one worker ever began, none will: the service ends.
        """
        world.supervisor.startService()
        for process in world.reactor.processes:
            process.say(b"twistd lmtp: /nowhere: No such file or directory\n")
        for process in world.reactor.processes:
            process.end(status=1)
        assert world.reactor.stops == 1
        assert world.log[-1] == "cannot start: /nowhere: No such file or directory"

    def test_killed_before_it_began(self, world: World) -> None:
        """
        That somebody killed it says nothing of the next one.
        """
        world.supervisor.startService()
        world.reactor.processes[0].end(signal=9)
        assert world.reactor.stops == 0


class TestHangup:
    def test_passed_on(self, world: World) -> None:
        """
        All workers that run are told to reload; one that is just gone is started anew anyway.
        """
        first, second = world.start()
        second.ended = True
        os.kill(os.getpid(), signal.SIGHUP)
        assert [first.signals, second.signals] == [["HUP"], []]
        assert "SIGHUP: workers reload" in world.log

    def test_broken(self, world: World) -> None:
        """
        A broken file is one line, and not one from each worker.
        """
        processes = world.start()
        world.broken = CannotReload("x.toml: line 1: wrong")
        os.kill(os.getpid(), signal.SIGHUP)
        assert [[], []] == [process.signals for process in processes]
        assert "x.toml: line 1: wrong (the old configuration stays in force)" == world.log[-1]

    def test_until_the_end(self, world: World) -> None:
        """
        While workers come to their end it is still nothing to die of; then all is as it was.
        """
        # Under nohup(1) it was ignored before, elsewhere it kills.
        before = signal.getsignal(signal.SIGHUP)
        processes = world.start()
        world.supervisor.stopService()
        assert before != signal.getsignal(signal.SIGHUP)
        for process in processes:
            process.end()
        assert before == signal.getsignal(signal.SIGHUP)


class TestStop:
    def test_waits_for_all(
        self,
        world: World,
        success_of: Callable[[Deferred[None]], None],
        no_result: Callable[[Deferred[None]], None],
    ) -> None:
        """
        All are told to end, and it ends when the last one has.
        """
        first, second = world.start()
        stopped = world.supervisor.stopService()
        assert world.counts.stopping
        assert [first.signals, second.signals] == [["TERM"], ["TERM"]]
        first.end()
        world.reactor.advance(KILL_SECONDS - 1)
        no_result(stopped)
        assert second.signals == ["TERM"]
        second.end()
        success_of(stopped)
        assert world.reactor.getDelayedCalls() == []

    def test_hangs(self, world: World) -> None:
        """
        One that does not end in time is killed.
        """
        first, second = world.start()
        world.supervisor.stopService()
        first.end()
        world.reactor.advance(KILL_SECONDS)
        assert second.signals == ["TERM", "KILL"]

    def test_while_one_waits_to_be_started(
        self, world: World, success_of: Callable[[Deferred[None]], None]
    ) -> None:
        """
        Nothing is started any more.
        """
        first, second = world.start()
        first.end(signal=9)
        stopped = world.supervisor.stopService()
        second.end()
        success_of(stopped)
        world.reactor.advance(100)
        assert len(world.reactor.processes) == 2


def test_crew_is_a_clock() -> None:
    """
    ProcessMonitor takes it for a reactor, which tells the time too.
    """
    reactor = Reactor()
    crew = Crew(reactor, lambda *_: None, lambda *_: None)
    call = crew.callLater(1, list)
    assert list(crew.getDelayedCalls()) == [call]
    reactor.advance(3)
    assert crew.seconds() == 3
