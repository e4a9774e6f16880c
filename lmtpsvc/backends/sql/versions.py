"""
Which tables a database has, and how it gets those of this version: Alembic, without its command.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from .engine import OLDEST_MARIADB, writes

#: Not Alembic's own name, so that a database can be shared with something else that uses it.
VERSION_TABLE: Final = "lmtpsvc_version"

_HINT: Final = "run python -m lmtpsvc.backends.sql upgrade URL, or say create=yes"

#: Any number will do, as long as everybody takes the same lock (PostgreSQL).
_LOCK: Final = 0x6C6D7470


class SchemaError(ValueError):
    """
    The tables are not those of this version; the text, one line, says what to do.

    *can_upgrade*: they are older, or there are none.
    """

    def __init__(self, text: str, *, can_upgrade: bool) -> None:
        super().__init__(text)
        self.can_upgrade = can_upgrade


def check(connection: Connection) -> None:
    """
    Make sure that the tables are those of this version.

    Raises:
        SchemaError: They are not.
    """
    _check_server(connection)
    found = _revision(connection)
    script = ScriptDirectory.from_config(_config())
    head = script.get_current_head()
    if found == head:
        return
    if found is None:
        raise SchemaError(f"the database has no tables for mail yet: {_HINT}", can_upgrade=True)
    if found not in {each.revision for each in script.walk_revisions()}:
        raise SchemaError(
            f"the tables are of version {found}, this lmtpsvc knows {head} and older:"
            " install a newer one",
            can_upgrade=False,
        )
    raise SchemaError(
        f"the tables are of version {found}, this lmtpsvc needs {head}: {_HINT}", can_upgrade=True
    )


def upgrade(engine: Engine) -> bool:
    """
    Make the tables, or bring them up to date; False if they were.  Processes that do it at the same
    time wait for each other.

    Raises:
        SchemaError: They are of a newer version than this one.
    """
    with writes(engine.connect()) as connection, connection.begin(), _locked(connection):
        try:
            check(connection)
        except SchemaError as error:
            if not error.can_upgrade:
                raise
        else:
            return False
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return True


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(files(__package__) / "migrations"))
    return config


def _revision(connection: Connection) -> str | None:
    options = {"version_table": VERSION_TABLE}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


def _check_server(connection: Connection) -> None:
    dialect = connection.dialect
    if dialect.name not in {"mysql", "mariadb"}:
        return
    version = dialect.server_version_info or ()
    if not getattr(dialect, "is_mariadb", False) or version < OLDEST_MARIADB:
        oldest = ".".join(map(str, OLDEST_MARIADB))
        raise SchemaError(f"this needs MariaDB {oldest} or newer", can_upgrade=False)


@contextmanager
def _locked(connection: Connection) -> Iterator[None]:
    """
    Only one at a time is in here.  For SQLite, the transaction is enough.
    """
    match connection.dialect.name:
        case "postgresql":
            # Let go at the end of the transaction.
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
            yield
        case "sqlite":
            yield
        case _:
            connection.execute(text("SELECT GET_LOCK('lmtpsvc', 20)"))
            try:
                yield
            finally:
                connection.execute(text("SELECT RELEASE_LOCK('lmtpsvc')"))
