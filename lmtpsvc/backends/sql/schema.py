"""
The tables; docs/sql.md says what each column means to a reader.

What is written here is what the newest migration leaves behind; a test compares the two.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.dialects.mysql import DATETIME, LONGBLOB, LONGTEXT, VARCHAR
from sqlalchemy.types import TypeDecorator, TypeEngine

#: Characters of a mailbox's name, and of a header column.
NAME_LENGTH: Final = 320
HEADER_LENGTH: Final = 255


class UTC_DateTime(TypeDecorator[datetime]):  # noqa: N801 - read as the SQL type it is
    """
    A moment, always with its time zone here; in UTC where the database keeps none.
    """

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[datetime]:
        """
        With microseconds, which MariaDB has only if it is asked for them.
        """
        if dialect.name in {"mysql", "mariadb"}:
            return dialect.type_descriptor(DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """
        On the way in.
        """
        if value is None or dialect.name == "postgresql":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """
        On the way out.
        """
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _exact(length: int) -> TypeEngine[str]:
    """
    Text of which no two spellings are the same: not in other case, not with a blank behind it.
    """
    exact = VARCHAR(length, charset="utf8mb4", collation="utf8mb4_nopad_bin")
    return String(length).with_variant(exact, "mysql", "mariadb")


_number = BigInteger().with_variant(Integer(), "sqlite")
_octets = LargeBinary().with_variant(LONGBLOB(), "mysql", "mariadb")
_text = Text().with_variant(
    LONGTEXT(charset="utf8mb4", collation="utf8mb4_nopad_bin"), "mysql", "mariadb"
)
_options: dict[str, Any] = {"mysql_engine": "InnoDB", "mariadb_engine": "InnoDB"}

metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)

#: Whose mail it is: the counter of UIDs, and the sums for quotas.
mailbox = Table(
    "mailbox",
    metadata,
    Column("id", _number, primary_key=True),
    Column("name", _exact(NAME_LENGTH), nullable=False, unique=True),
    Column("uidvalidity", BigInteger, nullable=False),
    Column("uidnext", BigInteger, nullable=False),
    Column("messages", BigInteger, nullable=False),
    Column("octets", BigInteger, nullable=False),
    CheckConstraint("uidvalidity > 0 AND uidnext > 0", name="uids"),
    **_options,
)

#: The text of a message, as the client sent it: one row, however many have it.
content = Table(
    "content",
    metadata,
    Column("id", _number, primary_key=True),
    Column("digest", _exact(64), nullable=False, unique=True),
    Column("size", BigInteger, nullable=False),
    Column("compression", _exact(8), nullable=False),
    Column("stored", UTC_DateTime, nullable=False, index=True),
    Column("header_from", _exact(HEADER_LENGTH), index=True),
    Column("header_subject", _exact(HEADER_LENGTH), index=True),
    Column("header_date", UTC_DateTime, index=True),
    Column("header_message_id", _exact(HEADER_LENGTH), index=True),
    **_options,
)

#: Its octets, in pieces, so that nobody needs a large message in memory at once.
content_part = Table(
    "content_part",
    metadata,
    Column("content_id", _number, ForeignKey(content.c.id), primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("octets", _octets, nullable=False),
    **_options,
)

#: One message in one mailbox.
delivery = Table(
    "delivery",
    metadata,
    Column("mailbox_id", _number, ForeignKey(mailbox.c.id), primary_key=True, autoincrement=False),
    Column("uid", BigInteger, primary_key=True, autoincrement=False),
    Column("content_id", _number, ForeignKey(content.c.id), nullable=False),
    Column("transaction", _exact(64), nullable=False),
    Column("sender", _text, nullable=False),
    Column("recipient", _text),
    Column("received", UTC_DateTime, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("flags", _exact(255), nullable=False),
    Column("trace", _octets, nullable=False),
    Index(None, "content_id"),
    **_options,
    sqlite_with_rowid=False,
)
