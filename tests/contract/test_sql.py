"""
The SQL backend keeps the contract, in each kind of database.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text as sql

from lmtpsvc.backends.sql.engine import parse
from lmtpsvc.backends.sql.reading import Store
from lmtpsvc.envelope import Mailbox
from lmtpsvc.interfaces import IBackend
from lmtpsvc.specs import backend_from_string
from lmtpsvc.testing import BackendContract

from ..databases import MariaDB, PostgreSQL


class SQLContract(BackendContract):
    """
    What the three have in common; *url* is an empty database, made anew for each test.
    """

    url: str
    #: What makes each row that comes into the mailbox fail.
    breaking: tuple[str, ...]
    mending: str

    def make(self, reactor: Any, directory: Path) -> IBackend:
        return backend_from_string(reactor, f"sql:{self.escaped}:create=yes")

    @property
    def escaped(self) -> str:
        return self.url.replace("=", "\\=")

    def stored(self, directory: Path, mailbox: Mailbox) -> list[bytes]:
        with closing(Store.at(self.url)) as store:
            name = str(mailbox)
            texts = []
            for message in store.messages(name):
                with store.open(name, message.uid) as file:
                    texts.append(file.read())
            return texts

    @contextmanager
    def broken(self, directory: Path, mailbox: Mailbox) -> Iterator[None]:
        """
        A trigger of the operator's does not like this mailbox.
        """
        self.run(*(each.format(recipient=mailbox) for each in self.breaking))
        yield
        self.run(self.mending)

    def run(self, *statements: str) -> None:
        engine = parse(self.url).engine(1)
        with engine.connect() as connection, connection.begin():
            for statement in statements:
                connection.execute(sql(statement.replace(":", "\\:")))
        engine.dispose()


_OWNER = "(SELECT name FROM mailbox WHERE id = NEW.mailbox_id) = '{recipient}'"


class TestSQLite(SQLContract):
    breaking = (
        (
            f"CREATE TRIGGER broken BEFORE INSERT ON delivery WHEN {_OWNER}"
            " BEGIN SELECT RAISE(ABORT, 'broken'); END"
        ),
    )
    mending = "DROP TRIGGER broken"

    def make(self, reactor: Any, directory: Path) -> IBackend:
        self.url = f"sqlite:///{directory}/mail.db"
        return super().make(reactor, directory)


class TestPostgreSQL(SQLContract):
    breaking = (
        (
            "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN IF {_OWNER} THEN RAISE check_violation; END IF; RETURN NEW; END $$"
        ),
        "CREATE TRIGGER broken BEFORE INSERT ON delivery FOR EACH ROW EXECUTE FUNCTION broken()",
    )
    mending = "DROP FUNCTION broken() CASCADE"

    @pytest.fixture(autouse=True)
    def _database(self, postgresql: PostgreSQL) -> None:
        self.url = postgresql.new()


class TestMariaDB(SQLContract):
    breaking = (
        (
            "CREATE TRIGGER broken BEFORE INSERT ON delivery FOR EACH ROW"
            f" BEGIN IF {_OWNER} THEN SIGNAL SQLSTATE '45000'; END IF; END"
        ),
    )
    mending = "DROP TRIGGER broken"

    @pytest.fixture(autouse=True)
    def _database(self, mariadb: MariaDB) -> None:
        self.url = mariadb.new()
