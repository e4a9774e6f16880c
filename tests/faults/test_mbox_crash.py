"""
A server that delivers to mboxes dies, or loses its disk: what was answered 250 is there, and the
next server leaves nothing in part.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import pytest

from lmtpsvc.testing.load import PATIENCE

from .client import Load
from .disks import Disk
from .mbox_store import files, inspect, marked
from .messages import KIB, Ledger, compose
from .power import cut_power_under_load
from .service import Service, wait_until


def _start(service: Callable[..., Service], root: Path, **options: object) -> Service:
    backend = f"mbox:{root}/{{domain}}/{{user}}"
    return service(root, arguments=("--backend", backend), **options)


def _mend_and_go_on(running: Service, root: Path, ledger: Ledger, random: Random) -> None:
    """
    The server that has just been started mends what it finds, and then delivers to everybody.
    """
    wait_until(lambda: not marked(root), PATIENCE, "all is mended")
    assert inspect(root, ledger).harm == []
    everybody = tuple(f"{path.name}@{path.parent.name}" for path in files(root))
    with running.connection() as connection:
        for first in range(0, len(everybody), 50):
            again = compose(random, everybody[first : first + 50], 20 * KIB)
            replies = connection.deliver(again, ledger)
            assert {reply.code for reply in replies} == {250}, replies
    assert inspect(root, ledger).harm == []
    assert list(root.glob("*/*.lock")) == []


@pytest.mark.parametrize("seed", range(20))
def test_kill(seed: int, directory: Path, service: Callable[..., Service]) -> None:
    """
    ``kill -9`` under load: when the next server has mended what it found, each 250 is there, and
    each mailbox has whole messages only.
    """
    random = Random(f"mbox/kill/{seed}")
    root = directory / "mail"
    root.mkdir()
    ledger = Ledger()
    running = _start(service, root)
    ledger.at(random.randrange(1, 200), running.kill)
    load = Load(running.where, ledger, seed)
    load.start()
    wait_until(lambda: running.process.poll() is not None, PATIENCE, "the server is killed")
    load.stop()

    running.start()
    _mend_and_go_on(running, root, ledger, random)


@pytest.mark.parametrize(
    ("connections", "seed"),
    [*((8, seed) for seed in range(20)), *((1, seed) for seed in range(5))],
)
def test_power_cut(
    connections: int, seed: int, disk: Callable[..., Disk], service: Callable[..., Service]
) -> None:
    """
    The power goes: when the next server has mended what it found, each 250 is there, and each
    mailbox has whole messages only.

    Before that, zeros may stand behind the last message: the file has become longer, and what was to
    come is not on the disk.
    """
    plugged = disk()
    most = 150 if connections > 1 else 40
    start = partial(_start, service)
    ledger, _ = cut_power_under_load(plugged, start, seed, connections=connections, most=most)

    assert ledger.promised
    assert {reply.code // 100 for reply in ledger.refused.values()} <= {4}

    running = _start(service, plugged.root)
    _mend_and_go_on(running, plugged.root, ledger, Random(seed))
