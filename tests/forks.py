"""
Commands that are each a process of its own, without the start of Python and of all that it imports.

One process has imported Twisted and the wiring; for each command it forks, as if it had just begun.
Neither a reactor nor Twisted's package of plugins is there yet, nor, unless somebody wants that, what
the wiring imports by wish.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Final

import pytest
from attrs import frozen

_ROOT: Final = Path(__file__).parent.parent
# For what it imports, which every command comes to.
_PLUGINS: Final = _ROOT / "twisted" / "plugins" / "lmtpsvc_plugin.py"

TWISTD: Final = "from twisted.scripts.twistd import run; run()"
TWIST: Final = (
    "import sys; from twisted.application.twist._twist import Twist; sys.exit(Twist.main())"
)
LMTPSVC: Final = "import sys; from lmtpsvc.__main__ import main; sys.exit(main())"


def script(path: Path) -> str:
    """
    What runs a file as a program.
    """
    return f"import runpy; runpy.run_path({str(path)!r}, run_name='__main__')"


# Told a command, it says the number of the new process; told a number, how that process has ended.
# The child goes on behind the loop and ends as any other process, but that nobody takes apart what
# was imported, nor looks for garbage in it: that took longer than most commands.
_PROGRAM: Final = """\
import atexit, gc, importlib, json, os, runpy, sys, threading
import twisted.application.runner._runner, twisted.internet.epollreactor, twisted.scripts.twistd
import lmtpsvc.tap
for name in sys.argv[2:]:
    importlib.import_module(name)
assert "twisted.internet.reactor" not in sys.modules
runpy.run_path(sys.argv[1])
gc.collect()
gc.freeze()
for line in sys.stdin:
    asked = json.loads(line)
    if isinstance(asked, int):
        print(os.waitstatus_to_exitcode(os.waitpid(asked, 0)[1]), flush=True)
        continue
    child = os.fork()
    if child == 0:
        break
    print(child, flush=True)
else:
    sys.exit()
source, words, directory, output = asked
os.setsid()
os.chdir(directory)
for to, path, flags in (0, os.devnull, os.O_RDONLY), (1, output, os.O_WRONLY | os.O_APPEND | os.O_CREAT):
    opened = os.open(path, flags)
    os.dup2(opened, to)
    os.close(opened)
os.dup2(1, 2)
sys.argv[1:] = words
sys.path.insert(0, directory)
status = 0
try:
    exec(source, {"__name__": "__main__"})
except SystemExit as end:
    if isinstance(end.code, int):
        status = end.code
    elif end.code is not None:
        print(end.code, file=sys.stderr)
        status = 1
except Exception:
    sys.excepthook(*sys.exc_info())
    status = 1
threading._shutdown()
atexit._run_exitfuncs()
sys.stdout.flush()
sys.stderr.flush()
os._exit(status)
"""


@frozen
class Ended:
    """
    How a command ended, and all that it wrote to the terminal.
    """

    status: int
    said: str


class Fork:
    """
    A process that goes on, with those words of `subprocess.Popen` that our tests ask for.
    """

    def __init__(self, forks: Forks, pid: int) -> None:
        self.pid: Final = pid
        self.returncode: int | None = None
        self._forks = forks
        self._ending = Lock()

    def poll(self) -> int | None:
        """
        How it ended, or None if it did not.
        """
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """
        Wait for its end; the exit status, or the negative number of a signal.
        """
        with self._ending:
            if self.returncode is None:
                if not self._ended(timeout):
                    raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
                self.returncode = self._forks.ask(self.pid)
            return self.returncode

    def _ended(self, seconds: float | None) -> bool:
        descriptor = os.pidfd_open(self.pid)
        try:
            end = select.poll()
            end.register(descriptor, select.POLLIN)
            return bool(end.poll(None if seconds is None else seconds * 1000))
        finally:
            os.close(descriptor)

    def send_signal(self, number: int) -> None:
        # Until we have asked how it ended, nobody else gets its number.
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Forks:
    """
    The process that the commands are forked from.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._asking = Lock()

    def run(self, source: str, *words: str, directory: Path) -> Ended:
        """
        Run the Python *source* with the *words* of a command line in *directory*, from which it
        imports, too; it hears nothing.
        """
        with tempfile.NamedTemporaryFile("r", encoding="utf-8") as output:
            status = self.begin(source, words, directory, Path(output.name)).wait()
            return Ended(status, output.read())

    def begin(self, source: str, words: Sequence[str], directory: Path, output: Path) -> Fork:
        """
        Begin to run it, as the leader of a session of its own; what it says is added to *output*.
        """
        return Fork(self, self.ask((source, tuple(words), str(directory), str(output))))

    def ask(self, what: Any) -> int:
        """
        What the process answers.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._asking:
            self._process.stdin.write(f"{json.dumps(what)}\n")
            self._process.stdin.flush()
            return int(self._process.stdout.readline())


@contextmanager
def begun(*modules: str) -> Iterator[Forks]:
    """
    A process that has begun already, and has imported these *modules* besides.
    """
    path = os.pathsep.join(filter(None, [str(_ROOT), *sys.path]))
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(_PLUGINS), *modules],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Forks(process)


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """
    ``forks.run(source, *words, directory=...)``: a process that has begun already.
    """
    with begun() as forks:
        yield forks
