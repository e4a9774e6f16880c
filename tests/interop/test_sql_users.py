"""
The service, with its users in a database that is locked for a while, and well again.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .lmtp import Client
from .service import DOMAIN, Service

ANN, NOBODY = f"ann@{DOMAIN}", f"nobody@{DOMAIN}"


@pytest.fixture
def database(top: Path) -> Iterator[sqlite3.Connection]:
    """
    Ann is in it.
    """
    (top / "users").mkdir(mode=0o755)
    with sqlite3.connect(top / "users" / "users.db", isolation_level=None) as database:
        database.execute("CREATE TABLE users (name, quota)")
        database.execute("INSERT INTO users VALUES ('ann', '1K')")
        yield database
    database.close()


@pytest.fixture
def service(top: Path, database: sqlite3.Connection) -> Iterator[Service]:
    """
    Looks its users up there, and waits for no more than a second.
    """
    directory = top / "users"
    (directory / "users.sql").write_text("SELECT quota FROM users WHERE name = :user\n")
    words = f"sql:sqlite:///{directory}/users.db:query=@{directory}/users.sql:cache=0:timeout=2"
    service = Service(directory, [], listed=words)
    service.start()
    try:
        yield service
    finally:
        service.stop()
    assert "Traceback" not in service.log, service.log
    assert "stopped" in service.log


def test_trouble(service: Service, database: sqlite3.Connection) -> None:
    """
    Who is known is known, who is not is refused; while the database is locked, everybody is told to
    come back, in time; and then all is well, without a restart.
    """
    with Client(service.tcp) as client:
        assert client.command("MAIL FROM:<> SIZE=1000").startswith("250 ")
        assert client.command(f"RCPT TO:<{ANN}>").startswith("250 ")
        assert client.command(f"RCPT TO:<{NOBODY}>").startswith("550 5.1.1 ")

        database.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        assert client.command(f"RCPT TO:<{ANN}>").startswith("451 4.3.0 ")
        assert client.command(f"RCPT TO:<{NOBODY}>").startswith("451 4.3.0 ")
        assert time.monotonic() - began < 60

        database.execute("ROLLBACK")
        assert client.command(f"RCPT TO:<{ANN}>").startswith("250 ")
        client.command("RSET")
        # The quota comes from there, too.
        assert client.command("MAIL FROM:<> SIZE=1025").startswith("250 ")
        assert client.command(f"RCPT TO:<{ANN}>").startswith("452 4.2.2 ")

    assert "mail has to wait" in service.log
    assert "answers again" in service.log
