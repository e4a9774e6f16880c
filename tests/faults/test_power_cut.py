"""
The promise: what was answered 250 survives a power cut, whole.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .disks import Disk
from .power import cut_power_under_load
from .service import Service
from .store import is_temporary, leftovers


@pytest.mark.parametrize("seed", range(20))
def test_nothing_lost(
    seed: int, disk: Callable[..., Disk], service: Callable[..., Service]
) -> None:
    """
    Eight clients deliver, the power goes: each 250 is there, and nothing partial is in ``new``.

    What was on its way may be left in ``tmp`` and nowhere else.
    """
    plugged = disk()
    ledger, found = cut_power_under_load(plugged, service, seed)

    assert found.harm == [], f"seed {seed}"
    assert ledger.promised
    assert {reply.code // 100 for reply in ledger.refused.values()} <= {4}
    astray = [path for path in leftovers(plugged.root) if not is_temporary(path)]
    assert astray == []
