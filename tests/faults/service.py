"""
The server under test: a real ``twistd lmtp`` in a process of its own, forked from one that has begun.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lmtpsvc.testing.load import PATIENCE

from ..forks import TWISTD, Fork, Forks, script
from .client import Connection, Where, connect

PROJECT = Path(__file__).parents[2]
_SABOTAGE = script(Path(__file__).with_name("sabotage.py"))


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """
    Look again and again until *condition* is true.

    Raises:
        TimeoutError: It did not become true in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.005)


class Service:
    """
    A server that stores in Maildirs below *root*.

    *directory* gets its log and its socket.  With *port*, it listens there on loopback instead.
    *sabotage* are the arguments of ``sabotage.py``, *twistd* further options of twistd itself, and
    *arguments* those of its command ``lmtp``.  *log* is where it logs to instead.  Without *forks* it
    starts anew: what is measured is what an administrator's server takes.
    """

    def __init__(
        self,
        root: Path,
        directory: Path,
        *,
        port: int | None = None,
        sabotage: Sequence[str] = (),
        twistd: Sequence[str] = (),
        arguments: Sequence[str] = (),
        log: Path | None = None,
        forks: Forks | None = None,
    ) -> None:
        self.root = root
        self._directory = directory
        self.where: Where
        if port is None:
            self.where = str(directory / "lmtp.sock")
            listen = f"unix:{self.where}"
        else:
            self.where = "127.0.0.1", port
            listen = f"tcp:{port}:interface=127.0.0.1"
        before = [*sabotage, "--"] if sabotage else []
        words = ["-n", "--pidfile=", *twistd, "lmtp", "--listen", listen]
        words += ["--backend", f"maildir:{root}/{{domain}}/{{user}}", *arguments]
        self._program = _SABOTAGE if sabotage else TWISTD
        #: The words of its command line.
        self.words = [*before, *words]
        self._log = log or directory / "server.log"
        self._forks = forks
        self._process: Fork | subprocess.Popen[bytes] | None = None

    def start(self, seconds: float = PATIENCE) -> None:
        """
        Start, and wait until it greets.
        """
        if self._forks is None:
            path = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", self._program, *self.words],
                    cwd=self._directory,
                    env={**os.environ, "PYTHONPATH": path},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        else:
            self._process = self._forks.begin(self._program, self.words, self._directory, self._log)
        wait_until(self._answers, seconds, "the server listens")

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"the server ended: {self.log[-2000:]}")
        try:
            connect(self.where).close()
        except (ConnectionError, FileNotFoundError):
            return False
        return True

    @property
    def process(self) -> Fork | subprocess.Popen[bytes]:
        """
        The running, or last, process.
        """
        assert self._process is not None, "not started"
        return self._process

    @property
    def log(self) -> str:
        """
        What the server wrote to its log.
        """
        if not self._log.is_file():
            return "not kept"
        return self._log.read_text(errors="replace")

    def connection(self) -> Connection:
        """
        A new conversation with this server.
        """
        return Connection(self.where)

    def kill(self) -> None:
        """
        Kill it on the spot; `wait` for it afterwards.
        """
        self.process.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """
        Ask it to stop; `wait` for it afterwards.
        """
        self.process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float = PATIENCE) -> int:
        """
        Wait for its end, and return the exit status as `subprocess` has it.
        """
        return self.process.wait(seconds)

    def memory(self, which: str) -> int:
        """
        ``VmRSS`` or ``VmHWM`` of the process, in octets.
        """
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith(f"{which}:"))
        return int(line.split()[1]) * 1024

    def open_files(self, below: Path) -> list[str]:
        """
        Files and directories below *below* that the process has open, unlinked ones too.
        """
        found = []
        for link in Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                target = os.readlink(link)
            except FileNotFoundError:
                continue
            if target.startswith(f"{below}/"):
                found.append(target)
        return found

    def close(self) -> None:
        """
        Be gone, however it stands.
        """
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(PATIENCE)
