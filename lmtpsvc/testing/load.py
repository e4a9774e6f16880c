"""
A real ``twistd lmtp``, and clients that remember what they were promised.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Final

#: How long anything may take, in seconds.
PATIENCE: Final = 60.0


class Server:
    """
    ``twistd lmtp --backend SPEC`` in a process of its own, on a UNIX socket in *directory*.
    """

    def __init__(self, spec: str, directory: Path) -> None:
        self.socket = str(directory / "lmtp.sock")
        self._directory = directory
        run = "from twisted.scripts.twistd import run; run()"
        self._command = [
            *(sys.executable, "-c", run, "-n", "--pidfile=", "lmtp"),
            *("--listen", f"unix:{self.socket}", "--backend", spec),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """
        Start it, and wait until it answers.

        Raises:
            RuntimeError: It did not; the text has its log.
        """
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own words
                self._command,
                # What the tests can import, it can.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + PATIENCE
        while True:
            try:
                Client(self.socket).close()
            except OSError:
                if self._process.poll() is not None or time.monotonic() > end:
                    self.kill()
                    raise RuntimeError(f"it does not start: {self.log[-2000:]}") from None
                time.sleep(0.01)
            else:
                return

    @property
    def log(self) -> str:
        """
        What it has said.
        """
        return (self._directory / "log").read_text(errors="replace")

    def kill(self) -> None:
        """
        ``kill -9``, if it is there.
        """
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(PATIENCE)
            self._process = None


class Client:
    """
    One LMTP conversation.
    """

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(PATIENCE)
            self._socket.connect(path)
            self._lines = self._socket.makefile("rb")
            self._reply()
            self._say(b"LHLO client.example.net\r\n")
            self._reply()
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """
        Go without a word.
        """
        self._lines.close()
        self._socket.close()

    def deliver(
        self, text: bytes, recipients: Sequence[str], told: Callable[[int, int], None]
    ) -> None:
        """
        Send a message; *told* gets position and code of each final reply as it is read.

        Raises:
            ConnectionError: The server went away.
        """
        said = b"MAIL FROM:<sender@example.net>\r\n"
        said += b"".join(b"RCPT TO:<%s>\r\n" % each.encode() for each in recipients)
        self._say(said + b"DATA\r\n")
        self._reply()
        codes = [self._reply() for _ in recipients]
        if self._reply() == 354:
            self._say(text.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        for position, code in enumerate(codes):
            told(position, self._reply() if code == 250 else code)

    def _say(self, octets: bytes) -> None:
        self._socket.sendall(octets)

    def _reply(self) -> int:
        while True:
            line = self._lines.readline()
            if not line.endswith(b"\n") or line.startswith(b"421"):
                raise ConnectionResetError(f"the server went away: {line!r}")
            if line[3:4] != b"-":
                return int(line[:3])


class Load:
    """
    Clients that deliver to *recipients* without a pause, until they are told to stop or the server
    is gone.  *act* is called, once, at the moment when 250 number *count* has been read.

    *promised* has message and recipient of each 250 that was read.  *doubtful* are those of them that
    were read after *act* had begun, if the message was on its way before *act* had ended.
    """

    def __init__(
        self,
        path: str,
        recipients: Sequence[str],
        random: Random,
        count: int,
        act: Callable[[], None],
        clients: int = 4,
    ) -> None:
        self.sent: dict[str, bytes] = {}
        self.promised: set[tuple[str, str]] = set()
        self.doubtful: set[tuple[str, str]] = set()
        self.acted = threading.Event()
        self.faults: list[BaseException] = []
        self._path, self._recipients, self._count, self._act = path, recipients, count, act
        self._lock = threading.Lock()
        self._acting = False
        self._stopping = threading.Event()
        seeds = [random.random() for _ in range(clients)]
        self._threads = [
            threading.Thread(target=self._run, args=(seed,), daemon=True) for seed in seeds
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """
        Let each client end what it has begun.
        """
        self._stopping.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        for fault in self.faults:
            raise fault

    def _run(self, seed: float) -> None:
        random = Random(seed)  # noqa: S311 - the same each time
        try:
            client = Client(self._path)
            try:
                while not self._stopping.is_set():
                    self._one(client, random)
            finally:
                client.close()
        except (ConnectionError, FileNotFoundError):
            pass
        except BaseException as error:
            self.faults.append(error)

    def _one(self, client: Client, random: Random) -> None:
        name, text = compose(random)
        some = random.sample(self._recipients, random.randint(1, len(self._recipients)))
        is_after = self.acted.is_set()
        with self._lock:
            self.sent[name] = text

        def told(position: int, code: int) -> None:
            if code != 250:
                return
            promise = name, some[position]
            with self._lock:
                self.promised.add(promise)
                if self._acting and not is_after:
                    self.doubtful.add(promise)
                act = len(self.promised) == self._count
                self._acting |= act
            if act:
                self._act()
                self.acted.set()

        client.deliver(text, some, told)


def compose(random: Random) -> tuple[str, bytes]:
    """
    A message that can be recognised, whole or cut: its name, and the text.
    """
    name = random.randbytes(8).hex()
    body = (random.randbytes(32).hex().encode() + b"\r\n") * random.choice([1, 20, 500, 5000])
    head = b"Message-ID: <%s@crash>\r\nSubject: crash\r\n\r\n" % name.encode()
    return name, head + body + b"end of %s\r\n" % name.encode()
