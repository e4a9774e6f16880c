"""
One power cut, from the first delivery to the inspection of what is left.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from random import Random
from threading import Event, Timer

from lmtpsvc.testing.load import PATIENCE

from .client import Load
from .disks import Disk
from .messages import Ledger
from .service import Service
from .store import Findings, inspect


def cut_power_under_load(
    disk: Disk,
    start: Callable[..., Service],
    seed: object,
    *,
    connections: int = 8,
    most: int = 150,
    large: bool = True,
    sabotage: tuple[str, ...] = (),
    before: Callable[[Service], object] = lambda _: None,
) -> tuple[Ledger, Findings]:
    """
    Deliver, cut the power at some moment, and see what is still there.

    The moment is that of one of the first *most* 250s.  Half of the time the power goes just then,
    in the thread that has read the reply: nothing comes sooner after a promise.  Otherwise it goes
    some milliseconds later, wherever the server happens to be.

    What counts after that is told by `Ledger.cut`.  *large* is as in `Load`; *before* is called with the
    server when it has just been started.
    """
    random = Random(f"power/{connections}/{seed}")
    disk.format()
    ledger = Ledger()
    gone = Event()

    def cut() -> None:
        ledger.cut(disk.cut_power)
        gone.set()

    delay = random.choice([0.0, random.uniform(0, 0.03)])
    act = Timer(delay, cut).start if delay else cut
    with closing(start(disk.root, sabotage=sabotage)) as service:
        before(service)
        ledger.at(random.randrange(1, most), act)
        load = Load(service.where, ledger, seed, connections=connections, large=large)
        load.start()
        try:
            assert gone.wait(PATIENCE), f"no power cut; {len(ledger.replies)} replies"
        finally:
            load.stop()
        assert service.process.poll() is None, service.log
        assert not load.ended, f"{load.ended} connections were dropped: {load.farewells}"
        service.kill()
        service.wait()
    disk.restart()
    return ledger, inspect(disk.root, ledger)
