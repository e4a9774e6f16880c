"""
The server dies at once, and another takes its place; or the process that stores small messages does.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from time import sleep

import pytest

from lmtpsvc.testing.load import PATIENCE

from .client import Load
from .messages import Ledger, compose
from .service import Service, wait_until
from .store import inspect, is_temporary, leftovers
from .writer import ALWAYS, AWAITED, begin_writing, is_writer, writers, written

ENDED = "the process that stores mail has ended; threads do it"


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


@pytest.fixture
def busy(directory: Path, service: Callable[..., Service]) -> tuple[Service, Load]:
    """
    A server for which a process stores small messages, and what keeps it busy.
    """
    root = directory / "mail"
    root.mkdir()
    running = service(root)
    load = Load(running.where, Ledger(), "busy", large=False)
    load.start()
    wait_until(
        lambda: any(map(written, writers(running))), PATIENCE, "a process stores small messages"
    )
    return running, load


@pytest.mark.parametrize("seed", range(8))
def test_writer_is_killed(seed: int, directory: Path, service: Callable[..., Service]) -> None:
    """
    ``kill -9`` of the process that stores small messages, again and again, wherever it happens to be:
    nobody is refused, as it is done again another way, and nobody has a message twice.
    """
    random = Random(f"writer/{seed}")
    root = directory / "mail"
    running = service(root, sabotage=ALWAYS)
    begin_writing(running)
    ledger = Ledger()
    load = Load(running.where, ledger, seed, large=seed % 2 == 0)
    load.start()
    try:
        for count in range(1, 13):
            wait_until(
                lambda: any(map(written, writers(running))), PATIENCE, "a process stores messages"
            )
            (pid,) = writers(running)
            enough = len(ledger.replies) + random.randrange(1, 100)
            ledger.wait_for(partial(_has_replies, ledger, enough), PATIENCE)
            sleep(random.uniform(0, 0.02))
            os.kill(pid, signal.SIGKILL)
            wait_until(partial(_has_ended, running, count), PATIENCE, ENDED)
    finally:
        load.stop()

    assert not load.ended
    assert ledger.unanswered == set()
    assert {250} == {reply.code for reply in ledger.replies.values()}
    assert inspect(root, ledger).harm == [], f"seed {seed}"
    assert leftovers(root) == []


def _has_replies(ledger: Ledger, count: int) -> bool:
    return len(ledger.replies) >= count


def _has_ended(service: Service, times: int) -> bool:
    return service.log.count(ENDED) >= times


@pytest.mark.parametrize("number", [signal.SIGCONT, signal.SIGKILL])
def test_writer_is_stopped(
    directory: Path, service: Callable[..., Service], number: signal.Signals
) -> None:
    """
    The process that stores small messages does not get on for a while: threads store what it has not
    begun, and go on, until it gets on again, or for good.
    """
    root = directory / "mail"
    running = service(root, sabotage=AWAITED)
    pid = begin_writing(running)
    ledger = Ledger()
    load = Load(running.where, ledger, "before", large=False)
    load.start()
    so_far = written(pid)
    wait_until(lambda: written(pid) > so_far + 10_000, PATIENCE, "the process stores messages")
    os.kill(pid, signal.SIGSTOP)
    # All who were there may wait for what it has begun.
    others = Load(running.where, ledger, "behind", large=False)
    others.start()
    promised = len(ledger.promised)
    ledger.wait_for(lambda: len(ledger.promised) > promised + 50, PATIENCE)
    so_far = written(pid)
    os.kill(pid, number)
    if number == signal.SIGCONT:
        wait_until(lambda: written(pid) > so_far + 100_000, PATIENCE, "it is used again")
    else:
        promised = len(ledger.promised)
        ledger.wait_for(lambda: len(ledger.promised) > promised + 200, PATIENCE)
        wait_until(lambda: ENDED in running.log, PATIENCE, ENDED)
        assert [] == writers(running)
    load.stop()
    others.stop()

    assert {250} == {reply.code for reply in ledger.replies.values()}
    assert inspect(root, ledger).harm == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("is_stopped", [False, True])
def test_nobody_is_left(
    busy: tuple[Service, Load], number: signal.Signals, is_stopped: bool
) -> None:
    """
    However the server ends, the process that stores small messages does with it.
    """
    running, load = busy
    (pid,) = writers(running)
    if is_stopped:
        os.kill(pid, signal.SIGSTOP)
    running.process.send_signal(number)
    running.process.wait(PATIENCE)
    if is_stopped and number == signal.SIGKILL:
        # Nobody could end it then; it does so when it gets on.
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not is_writer(pid), PATIENCE, "nobody stores anything any more")
    load.stop()
    assert inspect(running.root, load.ledger).harm == []
