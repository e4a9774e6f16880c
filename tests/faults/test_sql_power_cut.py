"""
PostgreSQL on a disk that loses its power, twenty times in a row.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from random import Random
from threading import Event, Timer
from typing import NoReturn

import pytest

from lmtpsvc.testing.load import PATIENCE

from ..databases import NOBODY, PostgreSQL
from .client import Load
from .disks import MIB, Disk
from .messages import Ledger
from .service import Service
from .sql_store import inspect, starting

ROUNDS = 20


class PostgreSQLOnDisk(PostgreSQL):
    """
    A server whose data, and nothing else, is on *disk*.
    """

    def __init__(self, directory: Path, programs: Path, disk: Disk) -> None:
        self.disk = disk
        data = disk.root / "data"
        data.mkdir(mode=0o700)
        os.chown(data, NOBODY, NOBODY)
        (directory / "data").symlink_to(data)
        super().__init__(directory, programs)

    def restart(self) -> None:
        """
        The power is back.
        """
        self.kill()
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.disk.restart()
            except RuntimeError as error:
                # Its children die when they notice that it is gone.
                if "busy" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                break
        self.start()


@pytest.fixture
def plugged(
    disk: Callable[..., Disk], directory: Path, unavailable: Callable[[str], NoReturn]
) -> Iterator[PostgreSQLOnDisk]:
    """
    The server, started.
    """
    spec = find_spec("pgserver")
    if spec is None or spec.origin is None:
        unavailable("pgserver (pip)")
    place = directory / "postgresql"
    place.mkdir(mode=0o755)
    programs = Path(spec.origin).parent / "pginstall" / "bin"
    with closing(PostgreSQLOnDisk(place, programs, disk(768 * MIB))) as server:
        server.start()
        yield server


def test_survives_power_cuts(
    plugged: PostgreSQLOnDisk, directory: Path, service: Callable[..., Service]
) -> None:
    """
    Each 250 is there, whole, when the server is back; so are those of all rounds before.
    """
    before: list[tuple[str, Ledger]] = []
    for number in range(ROUNDS):
        random = Random(f"postgresql/power/{number}")
        ledger = Ledger()
        gone = Event()

        def cut(ledger: Ledger = ledger, gone: Event = gone) -> None:
            ledger.cut(plugged.disk.cut_power)
            gone.set()

        delay = random.choice([0.0, random.uniform(0, 0.03)])
        act = Timer(delay, cut).start if delay else cut
        url = plugged.new()
        running = starting(service, url)(directory)
        ledger.at(random.randrange(1, 150), act)
        load = Load(running.where, ledger, number, connections=8 if number % 4 else 1)
        load.start()
        try:
            assert gone.wait(PATIENCE), f"no power cut; {len(ledger.replies)} replies"
        finally:
            load.stop()
        assert not load.ended, f"{load.ended} connections were dropped: {load.farewells}"
        running.kill()
        running.wait()
        plugged.restart()

        assert ledger.promised
        assert {reply.code // 100 for reply in ledger.refused.values()} <= {4}
        assert inspect(url, ledger).harm == [], f"round {number}"
        before.append((url, ledger))
    # What a later cut has taken does not come back.
    for number, (url, ledger) in enumerate(before):
        assert inspect(url, ledger).harm == [], f"round {number}, after all"
