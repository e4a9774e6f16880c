"""
The server is asked to stop while it is busy.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from lmtpsvc.testing.load import PATIENCE

from .client import Farewell, Load, connect
from .messages import KIB, Ledger, compose
from .service import Service, wait_until
from .store import inspect
from .test_full_disk import THREE

#: twistd shuts everything down and then ends by the signal that it was sent, as is the custom; for
#: systemd, that is a success.
CLEAN = {0, -signal.SIGTERM}


def test_finishes_what_has_begun(
    directory: Path, service: Callable[..., Service], port: int
) -> None:
    """
    SIGTERM under load: who has sent a message, or is sending one, gets all replies, and each 250
    is true.  Who is idle gets 421, and nobody new is let in.
    """
    root = directory / "mail"
    running = service(root, port=port)
    ledger = Ledger()
    idle, busy = running.connection(), running.connection()
    message = compose(Random(0), THREE, 600 * KIB)
    ledger.will_send(message)
    middle = len(message.stuffed) // 2
    busy.begin(message.recipients)
    busy.send(message.stuffed[:middle])
    load = Load(running.where, ledger, "stop")
    load.start()
    ledger.wait_for(lambda: len(ledger.promised) > 50, PATIENCE)

    running.terminate()

    with pytest.raises(Farewell), idle:
        idle.reply()
    with pytest.raises(ConnectionRefusedError):
        connect(running.where)
    busy.send(message.stuffed[middle:])
    for recipient in message.recipients:
        reply = busy.reply()
        assert reply.code == 250
        ledger.record(message, recipient, reply)
    with pytest.raises(ConnectionError), busy:
        busy.reply()
    load.stop()
    assert running.wait() in CLEAN
    assert ledger.unanswered == set()
    assert load.ended == 8
    assert inspect(root, ledger).harm == []


def test_stops_at_once_when_idle(
    directory: Path, service: Callable[..., Service], port: int
) -> None:
    """
    Clients that have nothing under way, not even a recipient, do not hold up the stop.
    """
    root = directory / "mail"
    running = service(root, port=port)
    early = running.connection()
    assert early.command("MAIL FROM:<>").code == 250
    running.terminate()
    with pytest.raises(Farewell), early:
        early.reply()
    assert running.wait(20) in CLEAN


def test_does_not_wait_for_ever(
    directory: Path, service: Callable[..., Service], port: int
) -> None:
    """
    A client that never ends its text holds up the stop no longer than the operator allows.
    """
    root = directory / "mail"
    running = service(root, port=port, arguments=("--stop-timeout", "0.5"))
    with running.connection() as stuck:
        message = compose(Random(0), THREE, 600 * KIB)
        stuck.begin(message.recipients)
        stuck.send(message.stuffed[: 400 * KIB])
        running.terminate()
        assert running.wait(20) in CLEAN
    assert [path for path in root.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("workers", ["1", "2"])
def test_asked_again_and_again(
    directory: Path, service: Callable[..., Service], port: int, workers: str
) -> None:
    """
    An operator who asks again, or a signal that goes to the process and to all of its group, spoils
    nothing, and is no error in the log.
    """
    root = directory / "mail"
    running = service(root, port=port, arguments=("--workers", workers))
    ledger = Ledger()
    message = compose(Random(0), THREE, 600 * KIB)
    ledger.will_send(message)
    with running.connection() as busy:
        busy.begin(message.recipients)
        busy.send(message.stuffed[:1000])
        for number, says in (
            (signal.SIGTERM, "Received SIGTERM"),
            (signal.SIGINT, "SIGINT: stopping already"),
            (signal.SIGTERM, "SIGTERM: stopping already"),
        ):
            running.process.send_signal(number)
            wait_until(lambda says=says: says in running.log, PATIENCE, says)  # type: ignore[misc]
        busy.send(message.stuffed[1000:])
        for recipient in message.recipients:
            ledger.record(message, recipient, busy.reply())
    assert running.wait() in CLEAN
    assert ledger.unanswered == set()
    assert inspect(root, ledger).harm == []
    assert "Traceback" not in running.log
