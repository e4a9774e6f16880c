"""
Supervisor: listens for workers, starts them, and starts another where one ends.

It takes no connection itself.  The sockets are open before privileges are shed, and workers inherit
them: nobody is turned away while a worker is replaced.
"""

from __future__ import annotations

import atexit
import os
import signal
import stat
import sys
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.error import ProcessTerminated
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from .command import Account, Command
from .counts import Counts
from .crew import Crew
from .hangup import Hangup
from .inherited import Inheritance
from .listening import Listener, Listening
from .plan import CannotReload
from .stop_once import StopOnce

#: A worker that lives shorter than this is started again with a delay, doubled each time.
SHORT_LIFE_SECONDS: Final = 10.0
FIRST_DELAY_SECONDS: Final = 0.2
LONGEST_DELAY_SECONDS: Final = 60.0

#: The first descriptor of a worker that is not one of the standard three; systemd's begin here.
_FIRST: Final = 3


class Monitor(Protocol):
    """
    What `twisted.runner.procmon.ProcessMonitor` does.  It is handed in, because importing it
    chooses a reactor.
    """

    threshold: Any
    killTime: Any
    minRestartDelay: Any
    maxRestartDelay: Any

    def addProcess(
        self,
        name: str,
        args: list[str],
        uid: int | None = None,
        gid: int | None = None,
        env: dict[str, str] = ...,
        cwd: str | None = None,
    ) -> None: ...
    def startService(self) -> None: ...
    def stopService(self) -> object: ...


class Supervisor(Listening):
    """
    Runs *workers* processes of *command* with a monitor that *monitored* makes.

    When it stops, it stops listening first, for all of them; each may then take *kill_seconds*.
    *files* are those that workers write to; they belong to *account* from the beginning.

    At SIGHUP, *check* may raise CannotReload.  If it does not, the workers get the signal too.
    """

    def __init__(
        self,
        listeners: Sequence[Listener],
        summary: str,
        reactor: Any,
        monitored: Callable[[Any], Monitor],
        command: Command,
        workers: int,
        kill_seconds: float,
        files: Sequence[str] = (),
        account: Account | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        connections = Factory()
        connections.noisy = False
        super().__init__(listeners, connections)
        self._summary, self._reactor = summary, reactor
        self._command, self._workers = command, workers
        self._files, self._account = files, account
        self._crew = Crew(reactor, self._said, self._ended)
        self._monitor = monitored(self._crew)
        self._monitor.threshold = SHORT_LIFE_SECONDS
        self._monitor.killTime = kill_seconds
        self._monitor.minRestartDelay = FIRST_DELAY_SECONDS
        self._monitor.maxRestartDelay = LONGEST_DELAY_SECONDS
        self._counts = Counts.create(workers)
        self._hangup, self._check = Hangup(reactor, self._reload), check
        self._stop_once = StopOnce(reactor)
        self._begun = self._given_up = False
        # What each worker has said in this life, and in one before that came to nothing.
        self._lines: dict[str, list[str]] = {}
        self._lines_before: dict[str, list[str]] = {}

    def privilegedStartService(self) -> None:
        """
        Listen, and make what workers may have no right to make.

        Raises:
            CannotStart: Some endpoint cannot be listened on, or some log not be written.
        """
        super().privilegedStartService()
        for listener, port in zip(self._listeners, self._ports, strict=True):
            if not hasattr(port, "fileno"):
                self._refuse(f"{listener.words} cannot be shared; take --workers 1")
            port.stopReading()  # type: ignore[attr-defined]  # every port with a descriptor has it
        for path in self._files:
            try:
                self._hand_over(path)
            except OSError as error:
                self._refuse(f"{path}: {error.strerror}")

    def startService(self) -> None:
        super().startService()
        self._stop_once.startService()
        self._hangup.startService()
        self._say_where()
        self._log.info("{summary}", summary=self._summary)
        self._log.info("starting {count} workers", count=self._workers)
        self._add_processes()
        self._monitor.startService()

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """
        Fires when all workers have ended.
        """
        yield maybeDeferred(super().stopService)
        self._log.info("stopping: no new connections, waiting for the workers")
        self._counts.stop()
        yield self._stop_listening()
        self._monitor.stopService()
        yield self._crew.all_gone()
        self._hangup.stopService()
        self._log.info("all workers have stopped")

    def _add_processes(self) -> None:
        lifeline, _never_closed = os.pipe()
        given: dict[int, int | str] = {0: 0, 1: 1, 2: "r"}
        if self._command.systemd:
            # Endpoints make sure of systemd's descriptors; what they stand for is given below.
            null = os.open(os.devnull, os.O_RDWR)
            given.update((_FIRST + each, null) for each in range(self._command.systemd))

        def give(descriptor: int) -> int:
            given[len(given)] = descriptor
            return len(given) - 1

        # One after the other, as they are evaluated: each gets the next number.
        theirs = give(lifeline), give(self._counts.descriptor)
        sockets = tuple([give(port.fileno()) for port in self._ports])  # type: ignore[attr-defined]  # see above
        self._crew.descriptors = given
        here = os.getcwd()
        for number in range(1, self._workers + 1):
            inheritance = Inheritance(number, self._workers, *theirs, sockets)
            self._monitor.addProcess(
                f"worker {number}",
                self._command.arguments(number),
                env={**self._command.environment(), **inheritance.environment()},
                cwd=None if self._command.directory == here else self._command.directory,
            )

    def _hand_over(self, path: str) -> None:
        """
        Make a log file, as the user that will write to it.
        """
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            found = os.fstat(descriptor)
            if self._account is not None and found.st_uid == 0 and stat.S_ISREG(found.st_mode):
                os.fchown(descriptor, self._account.uid, self._account.gid)
        finally:
            os.close(descriptor)

    def _reload(self) -> None:
        if not self.running:
            return
        try:
            self._check()
        except CannotReload as error:
            self._log.error("{reason} (the old configuration stays in force)", reason=str(error))
        else:
            self._log.info("SIGHUP: workers reload")
            self._crew.signal_all("HUP")

    # ── what becomes of workers ──────────────────────────────────────────────────────────────────

    def _said(self, name: str, line: str) -> None:
        self._lines.setdefault(name, []).append(line)
        if line not in self._lines_before.get(name, ()):
            self._log.warn("{name}: {line}", name=name, line=line)

    def _ended(self, name: str, reason: Failure) -> None:
        number = int(name.split()[1])
        began = self._counts.begun(number)
        self._begun = self._begun or any(
            self._counts.begun(each) for each in range(1, self._workers + 1)
        )
        self._counts.clear(number)
        lines, before = self._lines.pop(name, []), self._lines_before.pop(name, None)
        if not self.running or self._given_up:
            return
        if not self._begun and _exit_code(reason):
            self._give_up(lines[-1] if lines else f"{name} has ended ({_how(reason)})")
            return
        if not began:
            self._lines_before[name] = lines
        if began or lines != before:
            self._log.warn(
                "{name} has ended ({how}); it is started again", name=name, how=_how(reason)
            )

    def _give_up(self, reason: str) -> None:
        """
        No worker has ever begun, and none will: what is wrong concerns all of them.
        """
        self._given_up = True
        reason = reason.removeprefix("twistd lmtp: ")
        self._log.critical("cannot start: {reason}", reason=reason)
        # twistd ends with status 0 once the reactor has run, whatever happened.
        atexit.register(_fail, reason)
        self._reactor.stop()


def _fail(reason: str) -> None:
    sys.stdout.flush()
    os.write(2, f"twistd lmtp: {reason}\n".encode(errors="backslashreplace"))
    os._exit(1)


def _exit_code(reason: Failure) -> int:
    return getattr(reason.value, "exitCode", None) or 0


def _how(reason: Failure) -> str:
    if not isinstance(reason.value, ProcessTerminated):
        return "status 0"
    if reason.value.signal is not None:
        return signal.Signals(reason.value.signal).name
    return f"status {reason.value.exitCode}"
