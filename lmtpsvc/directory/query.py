"""
A query of the operator's own, and the database that it is asked of.  All of this blocks.

Nobody waits for ever: connecting and answering have their time, as far as the driver knows how.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, unquote

from sqlalchemy import create_engine, event, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from ..backends.sql.place import stay_at
from ..envelope import Mailbox
from .rows import NoAnswer, Row
from .table import MAX_TARGETS

#: What may stand in a query, with a colon before it.
PARAMETERS: Final = ("user", "domain", "detail", "address")

#: Whose URL means which driver, if it does not say so itself.
DRIVERS: Final[Mapping[str, str]] = {
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}

#: A connection that has been idle for so many seconds is made anew: firewalls forget them.
_RECYCLE_SECONDS: Final = 1800

#: A server that is alive gives up on a query first; we do so many seconds later, for one that is not.
SERVER_FIRST_SECONDS: Final = 2


class Query:
    """
    Asks *statement* of the database *url*, with *connections* at most, for *seconds* at most.

    Raises:
        ValueError: With one line that says what is wrong, and no password.
    """

    def __init__(self, url: str, statement: str, connections: int, seconds: float) -> None:
        self._statement = text(_cleaned(statement))
        # The only place where SQLAlchemy tells which parameters a text has.
        self._names = list(self._statement.compile().params)
        for name in self._names:
            if name not in PARAMETERS:
                raise ValueError(
                    f"query: :{name} is not known; there are"
                    f" {', '.join(':' + known for known in PARAMETERS)}"
                )
        self._url = _read(url)
        self._engine = create_engine(
            self._url,
            isolation_level="AUTOCOMMIT",
            pool_size=connections,
            max_overflow=0,
            pool_timeout=seconds,
            # A database that was started again is noticed before it is asked.
            pool_pre_ping=self._url.get_backend_name() != "sqlite",
            pool_recycle=_RECYCLE_SECONDS,
            connect_args=_patience(self._url, seconds),
        )
        if self._url.get_backend_name() == "sqlite":
            path = unquote(str(self._url.database).removeprefix("file:"))
            stay_at(self._engine, path, is_replaceable=True)
        if (statements := _STATEMENTS.get(self._url.get_backend_name())) is not None:
            event.listen(self._engine, "connect", _on_connect(statements, seconds))

    def __str__(self) -> str:
        return self._url.render_as_string(hide_password=True)

    def rows(self, mailbox: Mailbox) -> Sequence[Row]:
        """
        What the database says about *mailbox*: the columns of each row by name, in lower case.

        Raises:
            NoAnswer: It says nothing, or too much.
        """
        said = {
            "user": mailbox.user,
            "domain": mailbox.domain,
            "detail": mailbox.detail,
            "address": f"{mailbox.user}@{mailbox.domain}",
        }
        try:
            with self._engine.connect() as connection:
                result = connection.execute(
                    self._statement, {name: said[name] for name in self._names}
                )
                names = [name.lower() for name in result.keys()]  # noqa: SIM118 - no dict
                rows = result.fetchmany(MAX_TARGETS + 1)
        except SQLAlchemyError as error:
            raise NoAnswer(_in_words(error)) from error
        except UnicodeError as error:
            raise NoAnswer(str(error)) from error
        if len(rows) > MAX_TARGETS:
            raise NoAnswer(f"more than {MAX_TARGETS:,} rows for {mailbox}")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def close(self) -> None:
        """
        Give back the connections that nobody uses.
        """
        self._engine.dispose()


def _cleaned(statement: str) -> str:
    statement = statement.strip().removesuffix(";").rstrip()
    if not statement:
        raise ValueError("query: it is empty; write SELECT ... WHERE user = :user")
    return statement


def _read(text: str) -> URL:
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # What it says repeats the URL, and with it the password.
        raise ValueError("that is no URL such as postgresql://user@host/database") from None
    url = url.set(drivername=DRIVERS.get(url.drivername, url.drivername))
    try:
        url.get_dialect().import_dbapi()
    except (ImportError, NoSuchModuleError) as error:
        raise ValueError(f"{url.drivername}: no such driver here ({error})") from None
    if url.get_backend_name() != "sqlite":
        return url
    path = url.database
    if not path or path == ":memory:" or path.startswith("file:"):
        raise ValueError("the URL names no file; write sqlite:////srv/users.db")
    # The service may change its working directory later on.
    path = os.path.abspath(path)
    if not os.path.isfile(path):
        raise ValueError(f"{path}: no such file")
    # One that is gone is not to be made again, empty: everybody's mail would bounce.
    return url.set(database=f"file:{quote(path)}", query={"mode": "rw", "uri": "true"})


def _patience(url: URL, seconds: float) -> dict[str, Any]:
    """
    How the driver is told that we do not wait for ever.
    """
    whole = max(1, math.ceil(seconds))
    match url.get_backend_name():
        case "sqlite":
            return {"timeout": seconds}
        case "postgresql" if url.get_driver_name().startswith("psycopg"):
            # A host that has vanished is noticed by the system, since libpq waits for ever.
            return {
                "connect_timeout": whole,
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                "tcp_user_timeout": whole * 1000,
            }
        case "mysql" | "mariadb" if url.get_driver_name() == "pymysql":
            patience = whole + SERVER_FIRST_SECONDS
            return {"connect_timeout": whole, "read_timeout": patience, "write_timeout": patience}
        case _:
            return {}


#: What limits the time of a query; of several, the first that the server knows.
_STATEMENTS: Final = {
    "postgresql": ["SET statement_timeout = {milliseconds}"],
    "mariadb": ["SET SESSION max_statement_time = {seconds}"],
    # This name may be a MariaDB's, too.
    "mysql": [
        "SET SESSION max_statement_time = {seconds}",
        "SET SESSION max_execution_time = {milliseconds}",
    ],
}


def _on_connect(statements: Sequence[str], seconds: float) -> Any:
    def on_connect(connection: Any, entry: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        for number, statement in enumerate(statements, 1):
            try:
                cursor.execute(
                    statement.format(seconds=seconds, milliseconds=math.ceil(seconds * 1000))
                )
                break
            except Exception:
                if number == len(statements):
                    raise
        cursor.close()
        connection.commit()

    return on_connect


def _in_words(error: Exception) -> str:
    """
    One line, without the statement and its values.
    """
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return " ".join(f"{type(cause).__name__}: {cause}".split())
