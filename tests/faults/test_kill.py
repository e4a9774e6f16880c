"""
The server dies at once, and another takes its place.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

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
