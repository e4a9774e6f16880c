"""
Deliveries per second into SQL, beside what the same database does with single durable commits.

    python benchmarks/sql_store.py [--only sqlite,postgresql] [--rounds 3] [--seconds 3]
                                   [--directory DIRECTORY]

``raw`` is a loop in one thread over the driver alone: one row of the same size, one commit.  ``store``
is the backend with so many deliveries open at a time, each followed by the next when it is answered.
``lmtp`` is the whole service with so many connections, and smtp-source (Debian: postfix) as the
client.  PostgreSQL (pip install pgserver) and MariaDB (Debian) are servers of our own, in DIRECTORY.

All take turns in each round on the same disk; what counts are the ratios of one run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

SESSIONS = (1, 10, 50)
OCTETS = 4096


# ── raw ──────────────────────────────────────────────────────────────────────────────────────────


def raw(url: str, seconds: float) -> float:
    """
    Single-row commits per second, with the settings that the store has.
    """
    from sqlalchemy import text

    from lmtpsvc.backends.sql.engine import parse

    engine = parse(url).engine(1)
    row = os.urandom(OCTETS)
    kind = {"sqlite": "BLOB", "postgresql": "BYTEA"}.get(parse(url).kind, "LONGBLOB")
    serial = {"sqlite": "INTEGER", "postgresql": "BIGSERIAL"}.get(
        parse(url).kind, "BIGINT AUTO_INCREMENT"
    )
    with engine.connect() as connection, connection.begin():
        connection.execute(text("DROP TABLE IF EXISTS raw"))
        connection.execute(text(f"CREATE TABLE raw (id {serial} PRIMARY KEY, octets {kind})"))
    # The driver itself, as it was set up.
    entry = engine.raw_connection()
    driver: Any = entry.driver_connection
    mark = "?" if isinstance(driver, sqlite3.Connection) else "%s"
    statement = f"INSERT INTO raw (octets) VALUES ({mark})"
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        cursor = driver.cursor()
        # SQLite's driver is told not to begin transactions: this commits by itself.
        cursor.execute(statement, (row,))
        driver.commit()
        cursor.close()
        count += 1
    rate = count / (time.perf_counter() - begun)
    entry.close()
    engine.dispose()
    return rate


# ── store ────────────────────────────────────────────────────────────────────────────────────────


def store(url: str, sessions: int, seconds: float) -> float:
    """
    Deliveries per second, in a process of its own.
    """
    command = [sys.executable, __file__, "--store", url, str(sessions), str(seconds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


def run_store(url: str, sessions: int, seconds: float) -> None:
    """
    What that process does.
    """
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks

    from lmtpsvc.backends.sql.factory import SQLFactory
    from lmtpsvc.backends.sql.reading import Store
    from lmtpsvc.envelope import Mailbox
    from lmtpsvc.testing import MemoryMessage

    backend: Any = SQLFactory().build(reactor, *url.split(":"), create="yes")
    backend.startService()
    answered = 0
    end = 0.0

    @inlineCallbacks
    def session(number: int) -> Generator[Deferred[Any], Any, None]:
        nonlocal answered
        message = 0
        while time.perf_counter() < end:
            message += 1
            head = b"From: a@example.net\r\nSubject: %d\r\nMessage-ID: <%d.%d@x>\r\n\r\n" % (
                *(message, number, message),
            )
            text = head + os.urandom(16).hex().encode() * (OCTETS // 32)
            (result,) = backend.deliver(
                MemoryMessage(text), [Mailbox(f"user{number}", "example.org")]
            )
            yield result
            answered += 1

    @inlineCallbacks
    def main() -> Generator[Deferred[Any], Any, None]:
        nonlocal end, answered
        # The first deliveries make mailboxes, connections and statements.
        for warm in (0.5, seconds):
            answered = 0
            begun = time.perf_counter()
            end = begun + warm
            yield gatherResults([session(number) for number in range(sessions)])
            rate = answered / (time.perf_counter() - begun)
        yield backend.stopService()
        print(rate)
        reactor.stop()

    reactor.callWhenRunning(main)
    reactor.run()
    with Store.at(url) as found:
        boxes = found.mailboxes()
    assert sum(box.messages for box in boxes) >= answered, "something is missing"


# ── lmtp ─────────────────────────────────────────────────────────────────────────────────────────


def lmtp(url: str, sessions: int, seconds: float) -> float:
    """
    Deliveries per second through the service; each is looked for in the store.
    """
    from lmtpsvc.backends.sql.reading import Store

    with Store.at(url) as found, service(url) as where:
        before = sum(box.messages for box in found.mailboxes())
        send(where, sessions, 20 * sessions)
        count, taken = 20 * sessions, 0.0
        messages = 100 * sessions
        while taken < seconds:
            begun = time.perf_counter()
            send(where, sessions, messages)
            once = time.perf_counter() - begun
            taken, count = taken + once, count + messages
        after = sum(box.messages for box in found.mailboxes())
    assert after - before == count, f"{count} sent, {after - before} there"
    return (count - 20 * sessions) / taken


def send(where: str, sessions: int, messages: int) -> None:
    """
    Have smtp-source send so many.
    """
    subprocess.run(
        [
            *("smtp-source", "-L", "-d", "-s", str(sessions), "-m", str(messages)),
            *("-l", str(OCTETS), "-f", "sender@example.net", "-t", "user@example.org", "-N"),
            f"unix:{where}",
        ],
        check=True,
    )


@contextmanager
def service(url: str) -> Iterator[str]:
    """
    A running service, and its socket.
    """
    with tempfile.TemporaryDirectory() as directory:
        where = f"{directory}/lmtp"
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "twisted", "--log-level=warn", "lmtp"),
                *("--listen", f"unix:{where}", "--users", "any"),
                *("--backend", f"sql:{url.replace('=', chr(92) + '=')}"),
            ],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stderr=subprocess.DEVNULL,
        )
        try:
            end = time.monotonic() + 20
            while True:
                with socket.socket(socket.AF_UNIX) as probe:
                    if probe.connect_ex(where) == 0:
                        break
                if time.monotonic() > end or process.poll() is not None:
                    raise SystemExit("the service does not start")
                time.sleep(0.05)
            yield where
        finally:
            process.terminate()
            process.wait(30)


# ── all ──────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def database(kind: str, directory: Path) -> Iterator[Callable[[], str]]:
    """
    What makes new databases of a kind, all in *directory*.
    """
    from tests import databases

    if kind == "sqlite":
        numbers = iter(range(1000))
        yield lambda: f"sqlite:///{directory}/mail{next(numbers)}.db"
        return
    place = directory / kind
    place.mkdir()
    server: databases.Server
    if kind == "postgresql":
        found = find_spec("pgserver")
        assert found is not None, "pip install pgserver"
        assert found.origin is not None
        server = databases.PostgreSQL(place, Path(found.origin).parent / "pginstall" / "bin")
    else:
        programs = [shutil.which(name) for name in ("mariadbd", "mariadb-install-db")]
        server = databases.MariaDB(place, *(Path(program or "missing") for program in programs))
    with closing(server):
        server.start()
        yield server.new


def main() -> None:
    """
    Measure, and print a table.
    """
    parser = argparse.ArgumentParser(description="Deliveries per second into SQL.")
    parser.add_argument("--only", default="sqlite,postgresql,mariadb")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--directory", default=None, help="on the disk that is to be measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="sql-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        for kind in options.only.split(","):
            with database(kind, directory) as new:
                report(kind, new, options.rounds, options.seconds)


def report(kind: str, new: Callable[[], str], rounds: int, seconds: float) -> None:
    """
    Measure one kind.
    """
    ways: dict[str, Callable[[str], float]] = {"raw": lambda url: raw(url, seconds)}
    for sessions in SESSIONS:
        ways[f"store {sessions}"] = lambda url, n=sessions: store(url, n, seconds)  # type: ignore[misc]
    if shutil.which("smtp-source"):
        for sessions in SESSIONS:
            ways[f"lmtp {sessions}"] = lambda url, n=sessions: lmtp(url, n, seconds)  # type: ignore[misc]
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        url = new()
        subprocess.run(
            [sys.executable, "-m", "lmtpsvc", "sql", "upgrade", url],
            cwd=REPOSITORY,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        for way, measure in ways.items():
            rates[way].append(measure(url))
    base = statistics.median(rates["raw"])
    for way, found in rates.items():
        median = statistics.median(found)
        spread = f"{min(found):.0f} to {max(found):.0f}"
        print(f"{kind:11} {way:9} {median:7.0f} /s  {median / base:5.2f} of raw  ({spread})")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--store"]:
        run_store(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
    else:
        main()
