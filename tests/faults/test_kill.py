"""
The server dies at once, and another takes its place; or the process that waits for the disk does.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from lmtpsvc.backends.sync_process import PROGRAM
from lmtpsvc.testing.load import PATIENCE

from .client import Load
from .messages import Ledger, compose
from .service import Service, wait_until
from .store import inspect, is_temporary, leftovers


@pytest.mark.parametrize("seed", range(20))
def test_nothing_lost(seed: int, directory: Path, service: Callable[..., Service]) -> None:
    """
    ``kill -9`` under load from eight clients: each 250 is there, nothing partial is in ``new``.

    The next server starts beside what the first has left behind, and delivers.
    """
    random = Random(f"kill/{seed}")
    root = directory / "mail"
    root.mkdir()
    ledger = Ledger()
    running = service(root)
    ledger.at(random.randrange(1, 200), running.kill)
    load = Load(running.where, ledger, seed)
    load.start()
    wait_until(lambda: running.process.poll() is not None, PATIENCE, "the server is killed")
    load.stop()

    assert inspect(root, ledger).harm == [], f"seed {seed}"
    assert [path for path in leftovers(root) if not is_temporary(path)] == []

    running.start()
    again = compose(random, tuple(f"user{n}@example.org" for n in range(40)), 300_000)
    with running.connection() as connection:
        replies = connection.deliver(again, ledger)
    assert {reply.code for reply in replies} == {250}
    assert inspect(root, ledger).harm == [], f"seed {seed}"


def waiters(service: Service) -> list[int]:
    """
    The processes that wait for the disk on behalf of *service*.
    """
    tasks = Path(f"/proc/{service.process.pid}/task").glob("*/children")
    children = [int(word) for task in tasks for word in task.read_text().split()]
    return [pid for pid in children if PROGRAM.name in program(pid)]


def program(pid: int) -> str:
    """
    What *pid* runs; nothing if it runs no more.
    """
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@pytest.fixture
def busy(directory: Path, service: Callable[..., Service]) -> tuple[Service, Load]:
    """
    A server for which a process waits for the disk, and what keeps it busy.
    """
    root = directory / "mail"
    root.mkdir()
    running = service(root)
    load = Load(running.where, Ledger(), "busy", large=False)
    load.start()
    wait_until(lambda: waiters(running), PATIENCE, "a process waits for the disk")
    return running, load


def test_nobody_waits_for_the_disk(busy: tuple[Service, Load]) -> None:
    """
    The process that waits is killed under load: each 250 is there, and nobody is refused, as it is
    done again another way.
    """
    running, load = busy
    ledger = load.ledger
    (pid,) = waiters(running)
    os.kill(pid, signal.SIGSTOP)
    promised = len(ledger.promised)
    ledger.wait_for(lambda: len(ledger.promised) > promised + 50, PATIENCE)
    os.kill(pid, signal.SIGKILL)
    ledger.wait_for(lambda: len(ledger.promised) > promised + 200, PATIENCE)
    load.stop()

    assert {250} == {reply.code for reply in ledger.replies.values()}
    assert inspect(running.root, load.ledger).harm == []
    said = "the process that waits for the disk has ended; threads do it"
    wait_until(lambda: said in running.log, PATIENCE, said)
    assert [] == waiters(running)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nobody_is_left(busy: tuple[Service, Load], number: signal.Signals) -> None:
    """
    However the server ends, the process that waits does with it.
    """
    running, load = busy
    (pid,) = waiters(running)
    running.process.send_signal(number)
    running.process.wait(PATIENCE)
    wait_until(lambda: PROGRAM.name not in program(pid), PATIENCE, "nobody waits any more")
    load.stop()
    assert inspect(running.root, load.ledger).harm == []
