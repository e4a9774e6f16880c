"""
Which tables a database has, and how it gets those of this version: Alembic, without its command.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.resources import files
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from attrs import frozen
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from .engine import OLDEST_MARIADB, SMALLEST_PACKET, writes

#: Not Alembic's own name, so that a database can be shared with something else that uses it.
VERSION_TABLE: Final = "lmtpsvc_version"


@frozen
class Tables:
    """
    Tables that go together.  The *package* has their folder ``migrations``, *version_table* remembers
    the version, *what* says what they are for, and *hint* how they are made.
    """

    package: str
    version_table: str
    what: str
    hint: str


#: Those of the backend sql.
MAIL: Final = Tables(
    "lmtpsvc.backends.sql", VERSION_TABLE, "mail", "run lmtpsvc sql upgrade URL, or say create=yes"
)

# How everybody takes the same lock, and gives it back.
_POSTGRESQL: Final = (
    "SELECT pg_advisory_lock(1819112560)",
    "SELECT pg_advisory_unlock(1819112560)",
)
_MARIADB: Final = ("SELECT GET_LOCK('lmtpsvc', 60)", "SELECT RELEASE_LOCK('lmtpsvc')")
_LOCKS: Final = {"postgresql": _POSTGRESQL, "mysql": _MARIADB, "mariadb": _MARIADB}


class SchemaError(ValueError):
    """
    The tables are not those of this version; the text, one line, says what to do.

    *can_upgrade*: they are older, or there are none.
    """

    def __init__(self, text: str, *, can_upgrade: bool) -> None:
        super().__init__(text)
        self.can_upgrade = can_upgrade


def check(connection: Connection, tables: Tables = MAIL) -> None:
    """
    Make sure that the tables are those of this version.

    Raises:
        SchemaError: They are not.
    """
    _check_server(connection)
    found = _revision(connection, tables)
    script = _scripts(tables)
    head = script.get_current_head()
    if found == head:
        return
    if found is None:
        raise SchemaError(
            f"the database has no tables for {tables.what} yet: {tables.hint}", can_upgrade=True
        )
    if found not in {each.revision for each in script.walk_revisions()}:
        raise SchemaError(
            f"the tables are of version {found}, this lmtpsvc knows {head} and older:"
            " install a newer one",
            can_upgrade=False,
        )
    raise SchemaError(
        f"the tables are of version {found}, this lmtpsvc needs {head}: {tables.hint}",
        can_upgrade=True,
    )


def upgrade(engine: Engine, tables: Tables = MAIL) -> bool:
    """
    Make the tables, or bring them up to date; False if they were.  Processes that do it at the same
    time wait for each other.

    Raises:
        SchemaError: They are of a newer version than this one.
    """
    with writes(engine.connect()) as connection, _locked(connection), connection.begin():
        try:
            check(connection, tables)
        except SchemaError as error:
            if not error.can_upgrade:
                raise
        else:
            return False
        config = _config(tables)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return True


@cache
def _scripts(tables: Tables) -> ScriptDirectory:
    """
    The versions that this lmtpsvc knows, which are Python files: each is read and run once.
    """
    return ScriptDirectory.from_config(_config(tables))


def _config(tables: Tables = MAIL) -> Config:
    config = Config()
    config.set_main_option("script_location", str(files(tables.package) / "migrations"))
    return config


def _revision(connection: Connection, tables: Tables) -> str | None:
    options = {"version_table": tables.version_table}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


def _check_server(connection: Connection) -> None:
    dialect = connection.dialect
    if dialect.name not in {"mysql", "mariadb"}:
        return
    version = dialect.server_version_info or ()
    if not getattr(dialect, "is_mariadb", False) or version < OLDEST_MARIADB:
        oldest = ".".join(map(str, OLDEST_MARIADB))
        raise SchemaError(f"this needs MariaDB {oldest} or newer", can_upgrade=False)
    packet = connection.execute(text("SELECT @@max_allowed_packet")).scalar_one()
    if packet < SMALLEST_PACKET:
        raise SchemaError(
            f"max_allowed_packet is {packet}; set it to {SMALLEST_PACKET} or more",
            can_upgrade=False,
        )


@contextmanager
def _locked(connection: Connection) -> Iterator[None]:
    """
    Only one at a time is in here, from before the transaction until after it: MariaDB commits with
    each table that it makes.  For SQLite, the transaction is enough.
    """
    statements = _LOCKS.get(connection.dialect.name)
    if statements is None:
        yield
        return
    take, give = statements
    connection.execute(text(take))
    connection.commit()
    try:
        yield
    finally:
        # Whose connection is broken has no lock any more.
        with suppress(SQLAlchemyError):
            connection.execute(text(give))
            connection.commit()
