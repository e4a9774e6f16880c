"""
Programs that run beside the tests: started, waited for, and stopped whatever happens.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from attrs import define, field

from .forks import TWISTD

T = TypeVar("T")


def free_port() -> int:
    """
    A TCP port on the loopback interface that nobody listens on.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def accepts(address: tuple[str, int] | Path) -> bool:
    """
    Somebody listens at *address*.
    """
    family = socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET
    with socket.socket(family) as probe:
        try:
            probe.connect(str(address) if isinstance(address, Path) else address)
        except OSError:
            return False
    return True


def wait_until(condition: Callable[[], T], seconds: float, what: str) -> T:
    """
    What *condition* says, as soon as it is true; other programs give no better sign.

    Raises:
        TimeoutError: It was not within *seconds*.
    """
    end = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.02)
    return result


@define
class Daemon:
    """
    A program in the foreground of a process group of its own, that writes to *log*.
    """

    words: Sequence[str]
    log: Path
    cwd: Path
    environment: Mapping[str, str] = field(factory=dict)
    #: The account that it runs as, if not ours.
    user: str | None = None
    _process: subprocess.Popen[bytes] | None = None

    def start(self, ready: Callable[[], bool], seconds: float = 30.0) -> None:
        """
        Start, and return when *ready*.
        """
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.cwd,
                env={**os.environ, **self.environment},
                start_new_session=True,
                user=self.user,
                group=None if self.user is None else group_of(self.user),
                extra_groups=None if self.user is None else [],
            )

        def ready_or_dead() -> bool:
            return self.status is not None or ready()

        try:
            wait_until(ready_or_dead, seconds, f"{self.words[0]} ready")
            if self.status is not None:
                raise RuntimeError(f"{self.words[0]} ended with {self.status}")
        except BaseException as error:
            self.stop()
            error.add_note(self.log.read_text(errors="replace"))
            raise

    @property
    def status(self) -> int | None:
        """
        How it ended, or None if it did not.
        """
        return None if self._process is None else self._process.poll()

    def signal(self, number: int) -> None:
        """
        Send it a signal; its children get none.
        """
        assert self._process is not None, "start comes first"
        self._process.send_signal(number)

    def stop(self, seconds: float = 20.0) -> int | None:
        """
        Ask it to end, see to it that all its children end too, and return its status.
        """
        process = self._process
        if process is None:
            return None
        try:
            process.terminate()
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            kill_group(process.pid)
            process.wait()
        return process.returncode


def twistd(directory: Path, *words: str | Path, log: str = "log") -> Daemon:
    """
    ``twistd`` with these *words*, in *directory*, where it writes to *log*.
    """
    return Daemon(
        [sys.executable, "-c", TWISTD, "--nodaemon", "--pidfile=", *map(str, words)],
        log=directory / log,
        cwd=directory,
        environment={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


@contextmanager
def serving(daemon: Daemon, *ports: int) -> Iterator[None]:
    """
    *daemon* is started, and all *ports* are open; at the end it stops in good order.
    """
    daemon.start(lambda: all(accepts(("127.0.0.1", port)) for port in ports))
    try:
        yield
    finally:
        status = daemon.stop()
    said = daemon.log.read_text(errors="replace")
    assert status == -signal.SIGTERM, said
    assert "Traceback" not in said, said


def kill_group(leader: int) -> None:
    """
    End what is left of the process group of *leader*.
    """
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        pass


def run(
    words: Sequence[str],
    *,
    stdin: bytes = b"",
    cwd: Path | None = None,
    seconds: float = 60.0,
) -> subprocess.CompletedProcess[bytes]:
    """
    Run a program to its end, bounded, in a process group that does not outlive it.
    """
    with subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=cwd,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(stdin, timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"{words}: {error.output!r}") from error
        finally:
            kill_group(process.pid)
    return subprocess.CompletedProcess(words, process.returncode, output)


def group_of(user: str) -> int:
    """
    The primary group of an account.
    """
    import pwd

    return pwd.getpwnam(user).pw_gid
