"""
What a delivery says to each database: for many rows at once, in the words of its driver.

Everything else is left to SQLAlchemy to say.  But these run for every message, and for them its way
from values to a statement takes longer than the database does.  So the text is put together here,
and the values go to the driver as they are; connections, transactions and errors stay SQLAlchemy's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import chain
from typing import Any, Final

from attrs import frozen
from sqlalchemy import Connection, Table

from .schema import content, content_part, delivery, mailbox

Row = Sequence[Any]

#: Rows of one statement; with ten values each, this is well below all databases' limits.
ROWS: Final = 500


@frozen
class Statement:
    """
    *head*, then *row* once for each row or name, then *tail*.
    """

    head: str
    row: str
    tail: str = ""

    def run(self, connection: Connection, rows: Iterable[Row]) -> list[Any]:
        """
        Say it for all *rows*, in statements of `ROWS`; returns what the database says to it.
        """
        left = list(rows)
        said: list[Any] = []
        for start in range(0, len(left), ROWS):
            some = left[start : start + ROWS]
            text = f"{self.head}{','.join([self.row] * len(some))}{self.tail}"
            result = connection.exec_driver_sql(text, tuple(chain.from_iterable(some)))
            if result.returns_rows:
                said += result.fetchall()
        return said


@frozen
class Statements:
    """
    Those of one kind of database.  Columns have the order of the tables, without an *id* that the
    database gives.
    """

    #: How a driver takes a moment.
    moment: Callable[[datetime], object]
    #: Adds what is not there; says the digest and id of what it has added.
    add_contents: Statement
    #: The digest and id of those that are there, and keeps them there.
    hold_contents: Statement
    add_parts: Statement
    #: Adds those that are not there, all of them empty.
    add_mailboxes: Statement
    #: Says all columns, and locks the rows in the order of their names.
    lock_mailboxes: Statement
    #: Of locked mailboxes: changes all columns that can change.
    change_mailboxes: Statement
    add_deliveries: Statement


def statements_for(connection: Connection) -> Statements:
    """
    Those that the database behind *connection* understands.
    """
    return _statements(connection.dialect.name)


@cache
def _statements(dialect: str) -> Statements:
    kind = _KINDS[dialect]
    mark = kind.mark
    return Statements(
        kind.moment,
        kind.adding(content, "digest", tail=" RETURNING digest, id"),
        Statement(
            "SELECT digest, id FROM content WHERE digest IN (",
            mark,
            f") ORDER BY digest{kind.hold}",
        ),
        kind.inserting(content_part),
        kind.adding(mailbox, "name"),
        Statement(
            f"SELECT {_COLUMNS} FROM mailbox{kind.by_name} WHERE name IN (",  # noqa: S608 - no value
            mark,
            f") ORDER BY name{kind.lock}",
        ),
        kind.changing,
        kind.inserting(delivery),
    )


# ── each kind ────────────────────────────────────────────────────────────────────────────────────


_BOX: Final = [column.name for column in mailbox.c]
_COLUMNS: Final = ", ".join(_BOX)


def _row(mark: str, columns: Sequence[str]) -> str:
    return f"({','.join([mark] * len(columns))})"


def _sums(new: str) -> str:
    """
    Of a mailbox, what changes with each message.
    """
    return ", ".join(f"{name} = {new.format(name)}" for name in ("uidnext", "messages", "octets"))


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)


@frozen
class _Kind:
    """
    Where databases differ.
    """

    mark: str
    moment: Callable[[datetime], object]
    changing: Statement
    quote: str = '"'
    insert: str = "INSERT"
    unless_there: str = ""
    hold: str = ""
    by_name: str = ""
    lock: str = ""

    def inserting(self, table: Table, *, verb: str = "INSERT", tail: str = "") -> Statement:
        # In quotes: "transaction" is a word of SQL.
        columns = [f"{self.quote}{name}{self.quote}" for name, _ in table.c.items() if name != "id"]
        head = f"{verb} INTO {table.name} ({', '.join(columns)}) VALUES "
        return Statement(head, _row(self.mark, columns), tail)

    def adding(self, table: Table, key: str, *, tail: str = "") -> Statement:
        """
        An INSERT that leaves alone what is there.
        """
        return self.inserting(
            table, verb=self.insert, tail=self.unless_there.format(key=key) + tail
        )


def _upserting(mark: str, meets: str, new: str) -> Statement:
    """
    The rows are there and are locked: an INSERT that meets them is an UPDATE of many in one
    statement, where UPDATE would be a statement each.
    """
    return Statement(
        f"INSERT INTO mailbox ({_COLUMNS}) VALUES ",  # noqa: S608 - no value
        _row(mark, _BOX),
        f" {meets} {_sums(new)}",
    )


_ON_CONFLICT: Final = " ON CONFLICT ({key}) DO NOTHING"

_SQLITE: Final = _Kind(
    mark="?",
    # As SQLAlchemy's DateTime writes it, and reads it.
    moment=lambda moment: _utc(moment).isoformat(" ", "microseconds"),
    changing=_upserting("?", "ON CONFLICT (id) DO UPDATE SET", "excluded.{}"),
    unless_there=_ON_CONFLICT,
)
_POSTGRESQL: Final = _Kind(
    mark="%s",
    moment=lambda moment: moment,
    changing=Statement(
        f"UPDATE mailbox SET {_sums('new.{}')} FROM (VALUES ",  # noqa: S608 - no value
        _row("%s", _BOX),
        f") AS new ({_COLUMNS}) WHERE mailbox.id = new.id",
    ),
    unless_there=_ON_CONFLICT,
    hold=" FOR SHARE",
    lock=" FOR UPDATE",
)
_MARIADB: Final = _Kind(
    mark="%s",
    moment=_utc,
    changing=_upserting("%s", "ON DUPLICATE KEY UPDATE", "VALUES({})"),
    quote="`",
    insert="INSERT IGNORE",
    hold=" LOCK IN SHARE MODE",
    # It locks rows in the order in which it reads them, and must be kept from reading all.
    by_name=" FORCE INDEX (mailbox_name_key)",
    lock=" FOR UPDATE",
)
_KINDS: Final = {
    "sqlite": _SQLITE,
    "postgresql": _POSTGRESQL,
    "mariadb": _MARIADB,
    "mysql": _MARIADB,
}
