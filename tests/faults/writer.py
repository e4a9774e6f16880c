"""
The process that stores small messages on behalf of a server, seen from outside.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from random import Random

from lmtpsvc.testing.load import PATIENCE

from .messages import compose
from .service import Service, wait_until
from .store import messages

_PROGRAM = "disk_writer"

#: For `Service`: the process has all that it can have, and is started anew at once when it has ended.
ALWAYS = ("process-always",)

#: The process has all that it can have, and is not ended, however long it does not get on.
AWAITED = ("process-awaited",)


def writers(service: Service) -> list[int]:
    """
    The processes that store messages on behalf of *service*.
    """
    tasks = Path(f"/proc/{service.process.pid}/task").glob("*/children")
    children = [int(word) for task in tasks for word in _text(task).split()]
    return [pid for pid in children if is_writer(pid)]


def is_writer(pid: int) -> bool:
    """
    Whether *pid* is such a process, and runs.
    """
    return _PROGRAM in _text(Path(f"/proc/{pid}/cmdline"))


def written(pid: int) -> int:
    """
    The octets that *pid* has written to files so far, or tried to; 0 if it is no more.
    """
    lines = _text(Path(f"/proc/{pid}/io")).splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("wchar:"))


def begin_writing(service: Service) -> int:
    """
    Deliver until the process stores what comes, and remove it all; returns the process.
    """
    found: list[int] = []
    message = compose(Random(0), ("user1@example.org",), 1000)

    def writes() -> bool:
        # Together: no process is started for one that is alone.
        for connection in connections:
            connection.begin(message.recipients)
        for connection in connections:
            connection.send(message.stuffed)
        assert {250} == {connection.reply().code for connection in connections}
        for path in messages(service.root):
            path.unlink()
        found[:] = writers(service)
        return any(map(written, found))

    with ExitStack() as stack:
        connections = [stack.enter_context(service.connection()) for _ in range(4)]
        wait_until(writes, PATIENCE, "the process stores what comes")
    (pid,) = found
    return pid


def _text(path: Path) -> str:
    """
    What /proc says; nothing about who is no more.
    """
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
