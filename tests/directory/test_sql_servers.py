"""
Servers that answer, stop answering, die, and come back.
"""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any

import pytest

from lmtpsvc.directory.query import Query
from lmtpsvc.directory.rows import NoAnswer
from lmtpsvc.envelope import Mailbox

ANN = Mailbox("ann", "example.org")


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Iterator[Any]:
    """
    A server of this test's own.
    """
    made = request.getfixturevalue(f"new_{request.param}")()
    yield made
    made.close()


@pytest.fixture
def query(server: Any) -> Iterator[Callable[..., Query]]:
    """
    ``query(sql, seconds)``.
    """
    made: list[Query] = []

    def query(statement: str, seconds: float = 30.0) -> Query:
        made.append(Query(server.new(), statement, 2, seconds))
        return made[-1]

    yield query
    for each in made:
        each.close()


def test_silence(server: Any, query: Callable[..., Query]) -> None:
    """
    A server that says nothing for a while costs a thread for so long, and is well again afterwards.
    """
    asked = query("SELECT CAST(:user AS CHAR(3)) AS x_name")
    said: list[object] = []

    def ask() -> None:
        try:
            said.append(asked.rows(ANN))
        except NoAnswer as error:
            said.append(error)

    ask()
    server.pause()
    thread = Thread(target=ask)
    thread.start()
    thread.join(0.5)
    server.go_on()
    thread.join(60)
    ask()

    assert 3 == len(said)
    assert [{"x_name": "ann"}] == said[0] == said[2]


def test_death(server: Any, query: Callable[..., Query]) -> None:
    """
    A server that was killed and started again needs nothing of us.
    """
    asked = query("SELECT 1 AS x_one")
    asked.rows(ANN)
    server.kill()
    with warnings.catch_warnings():
        # PyMySQL leaves a socket that could not be connected to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        with pytest.raises(NoAnswer):
            asked.rows(ANN)
        gc.collect()

    server.start()
    assert [{"x_one": 1}] == asked.rows(ANN)


def test_slow(server: Any, query: Callable[..., Query]) -> None:
    """
    A query that takes too long is ended, and its thread is free again.
    """
    sleep = "pg_sleep(100)" if type(server).__name__ == "PostgreSQL" else "sleep(100)"
    asked = query(f"SELECT {sleep} AS x_slept", 1.0)
    began = time.monotonic()
    with pytest.raises(NoAnswer):
        asked.rows(ANN)

    assert time.monotonic() - began < 60
