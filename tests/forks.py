"""
Commands that are each a process of its own, without the start of Python and of all that it imports.

One process has imported Twisted and the wiring; for each command it forks, as if it had just begun.
Neither a reactor nor Twisted's package of plugins is there yet, nor what the wiring imports by wish.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

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

# The child goes on behind the loop and ends as any other process: by the end of the program.
_PROGRAM: Final = """\
import json, os, runpy, sys
import twisted.application.runner._runner, twisted.internet.epollreactor, twisted.scripts.twistd
import lmtpsvc.tap
runpy.run_path(sys.argv[1])
for line in sys.stdin:
    source, words, directory, output = json.loads(line)
    child = os.fork()
    if child == 0:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
os.chdir(directory)
for to, path, flags in (0, os.devnull, os.O_RDONLY), (1, output, os.O_WRONLY | os.O_APPEND):
    opened = os.open(path, flags)
    os.dup2(opened, to)
    os.close(opened)
os.dup2(1, 2)
sys.argv[1:] = words
sys.path.insert(0, directory)
exec(source, {"__name__": "__main__"})
"""


@frozen
class Ended:
    """
    How a command ended, and all that it wrote to the terminal.
    """

    status: int
    said: str


class Forks:
    """
    The process that the commands are forked from.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, source: str, *words: str, directory: Path) -> Ended:
        """
        Run the Python *source* with the *words* of a command line in *directory*, from which it
        imports, too; it hears nothing.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.NamedTemporaryFile("r", encoding="utf-8") as output:
            job = json.dumps((source, words, str(directory), output.name))
            self._process.stdin.write(f"{job}\n")
            self._process.stdin.flush()
            status = int(self._process.stdout.readline())
            return Ended(status, output.read())


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """
    ``forks.run(source, *words, directory=...)``: a process that has begun already.
    """
    path = os.pathsep.join(filter(None, [str(_ROOT), *sys.path]))
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(_PLUGINS)],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Forks(process)
