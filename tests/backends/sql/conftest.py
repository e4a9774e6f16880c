"""
What the tests of the SQL store share: a database of each kind, and a backend that has just it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from lmtpsvc.backends.sql.backend import SQLBackend
from lmtpsvc.backends.sql.engine import parse
from lmtpsvc.backends.sql.reading import Store
from lmtpsvc.backends.sql.settings import from_words
from lmtpsvc.backends.sql.versions import MAIL
from lmtpsvc.commitment import Commitment
from lmtpsvc.envelope import Mailbox
from lmtpsvc.testing import MemoryMessage

from ...pools import HeldPool

KINDS = ("sqlite", "postgresql", "mariadb")


class Bench:
    """
    A backend over the database at *url*, worked by hand, and what is in it.
    """

    def __init__(self, url: str, **options: str) -> None:
        self.url = url
        self.pool, self.clock = HeldPool(), Clock()
        settings = from_words([url], {"create": "yes", **options})
        self.backend = SQLBackend(settings, parse(url), self.pool, self.clock)
        self.backend.startService()
        self.store = Store.at(url)

    @property
    def engine(self) -> Engine:
        return self.backend._engine

    def begin(self, text: bytes, *mailboxes: Mailbox | str, **message: Any) -> list[Commitment]:
        """
        Hand a message to the backend; nothing is stored before the pool is told to `work`.
        """
        return self.backend.deliver(
            MemoryMessage(text, **message), [_mailbox(each) for each in mailboxes]
        )

    def deliver(self, text: bytes, *mailboxes: Mailbox | str, **message: Any) -> list[object]:
        """
        The whole delivery; returns None or the exception for each mailbox.
        """
        results = self.begin(text, *mailboxes, **message)
        self.pool.work()
        return [outcome(result) for result in results]

    def uids(self, name: str) -> list[int]:
        return [message.uid for message in self.store.messages(name)]

    def texts(self, name: str) -> list[bytes]:
        """
        Messages of a mailbox, in their order.
        """
        return [self.read(name, uid) for uid in self.uids(name)]

    def read(self, name: str, uid: int) -> bytes:
        with self.store.open(name, uid) as file:
            return file.read()

    def count(self, table: str) -> int:
        with self.engine.connect() as connection:
            return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())

    def sums(self, name: str) -> tuple[int, int]:
        """
        What the row of the mailbox says.
        """
        box = self.store.mailbox(name)
        return box.messages, box.octets

    def close(self) -> None:
        self.store.close()
        self.backend.stopService()


def _mailbox(name: Mailbox | str) -> Mailbox:
    if isinstance(name, Mailbox):
        return name
    user, _, domain = name.partition("@")
    return Mailbox(user, domain)


def outcome(result: Deferred[Any]) -> object:
    """
    What a Deferred has: a result, or an exception.
    """
    found: list[object] = []
    result.addBoth(found.append)
    assert found, "no result yet"
    return found[0].value if isinstance(found[0], Failure) else found[0]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """
    The test holds for every kind of database.
    """
    return str(request.param)


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """
    A new database, an empty one.
    """
    if kind == "sqlite":
        return f"sqlite:///{tmp_path}/mail.db"
    return str(request.getfixturevalue(kind).new())


@pytest.fixture
def make_bench() -> Iterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def make(url: str, **options: str) -> Bench:
        bench = Bench(url, **options)
        benches.append(bench)
        return bench

    yield make
    for bench in benches:
        bench.close()


@pytest.fixture
def bench(
    url: str,
    kind: str,
    make_bench: Callable[..., Bench],
    sqlite_with: Callable[..., str],
    tmp_path: Path,
) -> Bench:
    """
    A backend over an empty database of each kind.
    """
    if kind == "sqlite":
        assert sqlite_with(MAIL, tmp_path / "mail.db") == url
    return make_bench(url)
