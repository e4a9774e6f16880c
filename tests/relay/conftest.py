"""
What the tests of the relay share: a queue whose jobs are done on the spot, and messages for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from lmtpsvc.backends.sql.engine import parse
from lmtpsvc.client import address
from lmtpsvc.envelope import Recipient, Sender
from lmtpsvc.relay.entries import Result, State
from lmtpsvc.relay.queue import Queue
from lmtpsvc.relay.tables import QUEUE

from ..pools import HeldPool

#: When the tests begin.
START = 1_000_000.0

TEXT = b"Subject: Hello\r\n\r\nHello, all.\r\n"


class Bench:
    """
    Queues over one database, and a clock for all of them.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.clock = Clock()
        self.clock.advance(START)
        self.queues: list[Queue] = []
        self.pools: list[HeldPool] = []

    def queue(self, lease: float = 60.0) -> Queue:
        """
        One more relay's queue.
        """
        pool = HeldPool(is_held=False)
        queue = Queue(parse(self.url), pool, self.clock.seconds, lease=lease)
        queue.privilegedStartService()
        queue.startService()
        self.queues.append(queue)
        self.pools.append(pool)
        return queue

    def close(self) -> None:
        for queue in self.queues:
            queue.stopService()


def sender(text: str = "me@example.net", **parameters: Any) -> Sender:
    return Sender(address(text) if text else None, parameters)


def recipients(*texts: str, **parameters: Any) -> list[Recipient]:
    return [Recipient(address(each), parameters) for each in texts]


def done(number: int, reply: str = "250 2.0.0 OK", **more: Any) -> Result:
    return Result(number, State.DONE, START, reply, **more)


def waits(number: int, due: float, reply: str = "451 4.2.0 Later", **more: Any) -> Result:
    return Result(number, State.WAITING, START, reply, due=due, **more)


def failed(number: int, reply: str = "550 5.1.1 Nobody", **more: Any) -> Result:
    return Result(number, State.FAILED, START, reply, **more)


@pytest.fixture
def words() -> Any:
    """
    What makes values for tests: ``words.sender()``, ``words.done(0)`` and so on.
    """
    from types import SimpleNamespace

    return SimpleNamespace(
        sender=sender, recipients=recipients, done=done, waits=waits, failed=failed, text=TEXT
    )


@pytest.fixture
def bench(tmp_path: Path, sqlite_with: Callable[..., str]) -> Iterator[Bench]:
    """
    Over an SQLite file.
    """
    bench = Bench(sqlite_with(QUEUE, tmp_path / "queue.db"))
    yield bench
    bench.close()


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def any_bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """
    Over each kind of database; those with a server are marked ``interop``.
    """
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/queue.db"
    else:
        url = request.getfixturevalue(request.param).new()
    bench = Bench(url)
    yield bench
    bench.close()


Make = Callable[..., Sequence[Any]]
