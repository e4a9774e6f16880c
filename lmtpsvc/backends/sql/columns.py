"""
What columns are made of, the same in all databases.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import BigInteger, DateTime, Dialect, Integer, LargeBinary, String, Text
from sqlalchemy.dialects.mysql import DATETIME, LONGBLOB, LONGTEXT, VARCHAR
from sqlalchemy.types import TypeDecorator, TypeEngine


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


def exact(length: int) -> TypeEngine[str]:
    """
    Text of which no two spellings are the same: not in other case, not with a blank behind it.
    """
    exact = VARCHAR(length, charset="utf8mb4", collation="utf8mb4_nopad_bin")
    return String(length).with_variant(exact, "mysql", "mariadb")


NUMBER: Final = BigInteger().with_variant(Integer(), "sqlite")
OCTETS: Final = LargeBinary().with_variant(LONGBLOB(), "mysql", "mariadb")
TEXT: Final = Text().with_variant(
    LONGTEXT(charset="utf8mb4", collation="utf8mb4_nopad_bin"), "mysql", "mariadb"
)
#: Words for each table.
OPTIONS: Final[dict[str, Any]] = {"mysql_engine": "InnoDB", "mariadb_engine": "InnoDB"}

#: What constraints and indexes are called.
NAMING: Final[dict[str, str]] = {
    "ix": "%(table_name)s_%(column_0_N_name)s",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ck": "%(table_name)s_%(constraint_name)s",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    "pk": "%(table_name)s_pkey",
}
