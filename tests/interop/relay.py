"""
The relay under test, as an administrator starts it.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from ..forks import TWISTD
from ..running import Daemon, accepts, free_port

#: Attempts follow each other as fast as tests want them to.
IMPATIENT = ("--retry-after", "0.3s", "--retry-server", "0.3s")

#: What makes it try in 5 seconds, not in 60, what a relay that was killed had begun.
SHORT_LEASE = """\
from functools import partial
from lmtpsvc.relay.queue import Queue
Queue.at = partial(Queue.at, lease=5.0)
"""


class Relay:
    """
    ``twistd lmtp-relay`` on a TCP port, with its queue in *directory*; *words* are further ones, and
    *before* is Python that is run first.
    """

    def __init__(self, directory: Path, *words: str, before: str = "") -> None:
        directory.mkdir()
        self.directory = directory
        self.port = free_port()
        self.queue = directory / "queue.db"
        self._daemon = Daemon(
            [
                *(sys.executable, "-c", f"{before}{TWISTD}"),
                *("--nodaemon", "--pidfile=", "lmtp-relay"),
                *("--listen", f"tcp:{self.port}:interface=127.0.0.1"),
                *("--queue", f"sqlite:///{self.queue}", "--hostname", "relay.example.test"),
                *words,
            ],
            log=directory / "relay.log",
            cwd=directory,
            environment={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def start(self) -> None:
        """
        Start, and return when it listens.
        """
        self._daemon.start(lambda: accepts(("127.0.0.1", self.port)))

    def kill(self) -> None:
        """
        End it at once, as a power cut would.
        """
        self._daemon.signal(signal.SIGKILL)
        self._daemon.stop()

    def hang_up(self) -> None:
        """
        Have it read its configuration again.
        """
        self._daemon.signal(signal.SIGHUP)

    def stop(self) -> int | None:
        """
        Stop it as a service manager does, and return its status.
        """
        return self._daemon.stop()

    @property
    def status(self) -> int | None:
        """
        How it ended, or None if it did not.
        """
        return self._daemon.status

    @property
    def log(self) -> str:
        return self._daemon.log.read_text(errors="replace")

    def waiting(self) -> list[str]:
        """
        Who is still waited for, and what was answered last.
        """
        with closing(sqlite3.connect(self.queue, timeout=10)) as database:
            found: Sequence[tuple[str, str, str]] = database.execute(
                "SELECT address, state, reply FROM relay_recipient JOIN relay_message"
                " ON id = message_id WHERE state NOT IN ('done', 'failed')"
            ).fetchall()
            left = database.execute("SELECT count(*) FROM relay_message").fetchone()[0]
        return [" ".join(each) for each in found] or ["a message without recipients"] * left
