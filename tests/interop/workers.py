"""
The service in several processes, each of which can be looked at and killed.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from ..forks import TWISTD
from ..running import kill_group, wait_until
from .store import Store


def _heed_interrupts() -> None:
    """
    What a shell starts in the background ignores SIGINT, and hands that down to all below it.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)


PROGRAM = (sys.executable, "-c", TWISTD)
SECONDS = 30.0
#: So many connections are for every worker, be it ever so slow.
MANY = 50

#: What stands for a connection.
C = TypeVar("C")


class Workers:
    """
    ``twistd lmtp --workers 2`` with a Maildir below *directory*, in a process group of its own.
    """

    def __init__(
        self,
        directory: Path,
        words: Sequence[str],
        *,
        twistd: Sequence[str] = (),
        program: Sequence[str] = PROGRAM,
        environment: Mapping[str, str] | None = None,
        descriptors: Sequence[int] = (),
    ) -> None:
        self.directory = directory
        self.store = Store(directory / "mail")
        self._said = directory / "said"
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(
                [
                    *(*program, "--nodaemon", "--pidfile=", *twistd),
                    *("lmtp", "--workers", "2", "--users", "any"),
                    *("--backend", f"maildir:{self.store.root}/{{domain}}/{{user}}", *words),
                ],
                cwd=directory,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                    **(environment or {}),
                },
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
                pass_fds=descriptors,
                preexec_fn=_heed_interrupts,  # noqa: PLW1509 - no threads here
            )

    @property
    def log(self) -> str:
        """
        All that all processes have said.
        """
        files = [self._said, *sorted(self.directory.glob("*.log"))]
        return "".join(file.read_text(errors="replace") for file in files)

    @property
    def pids(self) -> list[int]:
        """
        The processes of those workers that have begun, and live.
        """
        found = map(int, re.findall(r"takes connections \(process (\d+)\)", self.log))
        return [pid for pid in found if is_alive(pid)]

    def wait_for(self, number: int = 2) -> list[int]:
        """
        The processes of the workers, when so many have begun.
        """

        def begun() -> bool:
            assert self.process.poll() is None, self.log
            return len(self.pids) == number

        wait_until(begun, SECONDS, f"{number} workers")
        return self.pids

    def connections(self) -> list[int]:
        """
        How many connections each has.
        """
        return [len(sockets_of(pid)) - self._ports for pid in self.pids]

    def share(self, connect: Callable[[], C]) -> list[C]:
        """
        Connect until every worker has a connection; all of them.

        How many that takes depends on the machine: who cannot take his turn within some milliseconds
        leaves it to the others.
        """
        clients: list[C] = []
        while len(clients) < MANY:
            clients.append(connect())
            if all(self.connections()):
                return clients
        raise AssertionError(f"{MANY} connections, and not one for each: {self.connections()}")

    def count_ports(self) -> None:
        """
        Take the sockets that are open now for those that listen.
        """
        [self._ports] = {len(sockets_of(pid)) for pid in self.pids}

    def end(self, seconds: float = SECONDS) -> int:
        """
        Ask it to end, as a service manager does, and return its status.
        """
        self.process.terminate()
        return self.process.wait(seconds)


@contextmanager
def running(directory: Path, *words: str, **options: object) -> Iterator[Workers]:
    """
    Workers that take connections, and are gone at the end.
    """
    workers = Workers(directory, words, **options)  # type: ignore[arg-type]  # handed through
    try:
        workers.wait_for()
        workers.count_ports()
        yield workers
    finally:
        if workers.process.poll() is None:
            workers.process.kill()
        kill_group(workers.process.pid)
        workers.process.wait()


def is_alive(pid: int) -> bool:
    """
    Whether there is such a process, and it is no zombie.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def sockets_of(pid: int) -> list[str]:
    """
    The sockets that a process has open.
    """
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(link)
        except FileNotFoundError:
            continue
        if target.startswith("socket:"):
            found.append(target)
    return found


#: What twistd ends with when it has been told to end.
CLEAN = -signal.SIGTERM
