"""
Mail in databases: the power goes, the server dies, the database dies.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from threading import Event, Timer

import pytest

from lmtpsvc.testing.load import PATIENCE

from ..databases import Server
from .client import Load
from .disks import Disk
from .messages import Ledger, compose
from .service import Service, wait_until
from .sql_store import inspect, sound, starting


def deliver(running: Service, ledger: Ledger, seed: object) -> set[int]:
    """
    One message to many; returns the codes.
    """
    message = compose(Random(f"{seed}"), tuple(f"user{n}@example.org" for n in range(40)), 300_000)
    with running.connection() as connection:
        return {reply.code for reply in connection.deliver(message, ledger)}


@pytest.mark.parametrize("seed", range(20))
def test_sqlite_survives_a_power_cut(
    seed: int, disk: Callable[..., Disk], service: Callable[..., Service]
) -> None:
    """
    Each 250 is there, whole, and SQLite finds nothing wrong.
    """
    plugged = disk()
    path = plugged.root / "mail.db"
    random = Random(f"power/{seed}")
    ledger = Ledger()
    gone = Event()

    def cut() -> None:
        ledger.cut(plugged.cut_power)
        gone.set()

    delay = random.choice([0.0, random.uniform(0, 0.03)])
    ledger.at(random.randrange(1, 150), Timer(delay, cut).start if delay else cut)
    running = starting(service, f"sqlite:///{path}")(plugged.root)
    load = Load(running.where, ledger, seed, connections=8 if seed % 4 else 1)
    load.start()
    assert gone.wait(PATIENCE), f"no power cut; {len(ledger.replies)} replies"
    load.stop()
    assert not load.ended, f"{load.ended} connections were dropped: {load.farewells}"
    running.kill()
    running.wait()
    plugged.restart()

    assert sound(path)
    assert ledger.promised
    assert inspect(f"sqlite:///{path}", ledger).harm == [], f"seed {seed}"
    assert {reply.code // 100 for reply in ledger.refused.values()} <= {4}


@pytest.mark.parametrize("seed", range(20))
def test_sqlite_survives_a_kill(
    seed: int, directory: Path, service: Callable[..., Service]
) -> None:
    """
    ``kill -9`` of the server under load: each 250 is there, and the next server delivers.
    """
    path = directory / "mail.db"
    ledger = Ledger()
    running = starting(service, f"sqlite:///{path}")(directory)
    ledger.at(Random(f"kill/{seed}").randrange(1, 200), running.kill)
    load = Load(running.where, ledger, seed)
    load.start()
    wait_until(lambda: running.process.poll() is not None, PATIENCE, "the server is killed")
    load.stop()

    assert inspect(f"sqlite:///{path}", ledger).harm == [], f"seed {seed}"
    running.start()
    assert {250} == deliver(running, ledger, seed)
    assert sound(path)
    assert inspect(f"sqlite:///{path}", ledger).harm == [], f"seed {seed}"


@pytest.fixture(scope="session")
def killable(
    new_postgresql: Callable[[], Server], new_mariadb: Callable[[], Server]
) -> Callable[[str], Server]:
    """
    The database server of a kind that may be killed.
    """
    servers: dict[str, Server] = {}

    def get(kind: str) -> Server:
        if kind not in servers:
            servers[kind] = {"postgresql": new_postgresql, "mariadb": new_mariadb}[kind]()
        return servers[kind]

    return get


ROUNDS = [
    *(("postgresql", seed) for seed in range(20)),
    *(("mariadb", seed) for seed in range(8)),
]


@pytest.mark.parametrize(("kind", "seed"), ROUNDS)
def test_the_database_is_killed(
    kind: str,
    seed: int,
    killable: Callable[[str], Server],
    directory: Path,
    service: Callable[..., Service],
) -> None:
    """
    ``kill -9`` of the database under load: nobody is told anything but 250 or 4yz, each 250 is
    there when it is back, and the same service goes on delivering.

    What was being committed at that moment may be there although its recipient was told "later".
    """
    server = killable(kind)
    url = server.new()
    ledger = Ledger()
    running = starting(service, url)(directory)
    ledger.at(Random(f"kill/{seed}").randrange(1, 200), server.kill)
    load = Load(running.where, ledger, seed)
    load.start()
    try:
        ledger.wait_for(lambda: len(ledger.refused) > 5, PATIENCE)
    finally:
        load.stop()
    begun = time.monotonic()
    assert {451} == deliver(running, ledger, f"{seed}/dead")
    assert time.monotonic() - begun < PATIENCE

    server.start()

    assert {250} == deliver(running, ledger, seed)
    assert {451} == {reply.code for reply in ledger.refused.values()}
    assert inspect(url, ledger).harm == [], f"seed {seed}"
    running.terminate()
    running.wait()


@pytest.mark.parametrize(("kind", "seed"), ROUNDS)
def test_the_service_is_killed(
    kind: str,
    seed: int,
    request: pytest.FixtureRequest,
    directory: Path,
    service: Callable[..., Service],
) -> None:
    """
    ``kill -9`` of the service leaves no half message in a server, and no lock that lasts.
    """
    url = request.getfixturevalue(kind).new()
    ledger = Ledger()
    running = starting(service, url)(directory)
    ledger.at(Random(f"kill/{seed}").randrange(1, 200), running.kill)
    load = Load(running.where, ledger, seed)
    load.start()
    wait_until(lambda: running.process.poll() is not None, PATIENCE, "the server is killed")
    load.stop()

    running.start()
    assert {250} == deliver(running, ledger, seed)
    assert inspect(url, ledger).harm == [], f"seed {seed}"


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_the_database_hangs(
    kind: str,
    request: pytest.FixtureRequest,
    directory: Path,
    service: Callable[..., Service],
) -> None:
    """
    A database that neither answers nor hangs up: 451 in time, and mail again once it goes on.
    """
    server: Server = request.getfixturevalue(kind)
    ledger = Ledger()
    running = starting(service, server.new(), "timeout=2")(directory)
    assert {250} == deliver(running, ledger, "before")
    server.pause()
    try:
        begun = time.monotonic()
        assert {451} == deliver(running, ledger, "while")
        assert time.monotonic() - begun < PATIENCE
    finally:
        server.go_on()
    wait_until(lambda: deliver(running, ledger, "after") == {250}, PATIENCE, "it delivers again")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb"])
def test_two_processes_one_mailbox(
    kind: str,
    request: pytest.FixtureRequest,
    directory: Path,
    service: Callable[..., Service],
) -> None:
    """
    Two services deliver to the same few mailboxes: UIDs are dense and unique, nothing is refused.
    """
    if kind == "sqlite":
        url = f"sqlite:///{directory}/mail.db"
    else:
        url = request.getfixturevalue(kind).new()
    ledger = Ledger()
    (directory / "other").mkdir()
    start = starting(service, url)
    first = start(directory)
    second = Service(
        directory,
        directory / "other",
        arguments=first.words[-2:],
    )
    try:
        second.start()
        loads = [Load(each.where, ledger, each.where, connections=6) for each in (first, second)]
        for load in loads:
            load.start()
        ledger.wait_for(lambda: len(ledger.replies) > 1000, PATIENCE)
        for load in loads:
            load.stop()
    finally:
        second.close()

    assert {} == ledger.refused
    found = inspect(url, ledger)
    assert found.harm == []
    assert len(found.whole) == len(ledger.promised)
