"""
The promise: what was answered 250 survives a power cut, whole.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .disks import Disk
from .power import cut_power_under_load
from .service import Service
from .store import is_temporary, leftovers
from .writer import ALWAYS, begin_writing


@pytest.mark.parametrize(
    ("connections", "seed"),
    [*((8, seed) for seed in range(20)), *((1, seed) for seed in range(10))],
)
def test_nothing_lost(
    connections: int, seed: int, disk: Callable[..., Disk], service: Callable[..., Service]
) -> None:
    """
    Clients deliver, the power goes: each 250 is there, and nothing partial is in ``new``.

    What was on its way may be left in ``tmp`` and nowhere else.  Many clients make all things
    happen at the same time; but their syncs help each other, and what one has forgotten another
    makes good a moment later.  A single client has no such luck.
    """
    plugged = disk()
    most = 150 if connections > 1 else 40
    ledger, found = cut_power_under_load(plugged, service, seed, connections=connections, most=most)

    assert found.harm == [], f"seed {seed}, {connections} connections"
    assert ledger.promised
    assert {reply.code // 100 for reply in ledger.refused.values()} <= {4}
    astray = [path for path in leftovers(plugged.root) if not is_temporary(path)]
    assert astray == []


@pytest.mark.parametrize(("connections", "seed"), [(8, 0), (8, 1), (8, 2), (1, 3), (1, 4), (1, 5)])
def test_nothing_lost_at_once(
    connections: int,
    seed: int,
    disk: Callable[..., Disk],
    service: Callable[..., Service],
    directory: Path,
) -> None:
    """
    The same where everything is left to the sync of the file system as a whole.

    With a journal, nothing else is asked of the disk.
    """
    always = ("record-file-systems", str(directory / "syncs"))
    most = 150 if connections > 1 else 40
    ledger, found = cut_power_under_load(
        disk(), service, seed, connections=connections, most=most, sabotage=always
    )

    assert found.harm == [], f"seed {seed}, {connections} connections"
    assert ledger.promised


@pytest.mark.parametrize(("connections", "seed"), [(8, n) for n in range(6)] + [(1, 6), (1, 7)])
def test_nothing_lost_of_the_writer(
    connections: int, seed: int, disk: Callable[..., Disk], service: Callable[..., Service]
) -> None:
    """
    The same where a process stores what is small: with some messages in ``tmp``, others in ``new``,
    and others still in its socket.
    """
    plugged = disk()
    most = 400 if connections > 1 else 60
    ledger, found = cut_power_under_load(
        plugged,
        service,
        seed,
        connections=connections,
        most=most,
        large=False,
        sabotage=ALWAYS,
        before=begin_writing,
    )

    assert found.harm == [], f"seed {seed}, {connections} connections"
    assert ledger.promised
    assert {reply.code // 100 for reply in ledger.refused.values()} <= {4}
    astray = [path for path in leftovers(plugged.root) if not is_temporary(path)]
    assert astray == []
