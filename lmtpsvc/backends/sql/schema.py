"""
The tables; docs/sql.md says what each column means to a reader.

What is written here is what the newest migration leaves behind; a test compares the two.
"""

from __future__ import annotations

import re
from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
)

from .columns import NAMING, NUMBER, OCTETS, OPTIONS, TEXT, UTC_DateTime, exact

#: Characters of a mailbox's name, and of a header column.
NAME_LENGTH: Final = 320
HEADER_LENGTH: Final = 255

# Control characters (C0, DEL, C1) make a mess of every listing, and nobody takes half a surrogate.
_unsafe: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]").search


def is_name(text: str) -> bool:
    """
    Whether a mailbox may be called so.
    """
    return 0 < len(text) <= NAME_LENGTH and not _unsafe(text)


metadata = MetaData(naming_convention=NAMING)

#: Whose mail it is: the counter of UIDs, and the sums for quotas.
mailbox = Table(
    "mailbox",
    metadata,
    Column("id", NUMBER, primary_key=True),
    Column("name", exact(NAME_LENGTH), nullable=False, unique=True),
    Column("uidvalidity", BigInteger, nullable=False),
    Column("uidnext", BigInteger, nullable=False),
    Column("messages", BigInteger, nullable=False),
    Column("octets", BigInteger, nullable=False),
    CheckConstraint("uidvalidity > 0 AND uidnext > 0", name="uids"),
    **OPTIONS,
)

#: The text of a message, as the client sent it: one row, however many have it.
content = Table(
    "content",
    metadata,
    Column("id", NUMBER, primary_key=True),
    Column("digest", exact(64), nullable=False, unique=True),
    Column("size", BigInteger, nullable=False),
    Column("compression", exact(8), nullable=False),
    Column("stored", UTC_DateTime, nullable=False, index=True),
    Column("header_from", exact(HEADER_LENGTH), index=True),
    Column("header_subject", exact(HEADER_LENGTH), index=True),
    Column("header_date", UTC_DateTime, index=True),
    Column("header_message_id", exact(HEADER_LENGTH), index=True),
    **OPTIONS,
)

#: Its octets, in pieces, so that nobody needs a large message in memory at once.
content_part = Table(
    "content_part",
    metadata,
    Column("content_id", NUMBER, ForeignKey(content.c.id), primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("octets", OCTETS, nullable=False),
    **OPTIONS,
)

#: One message in one mailbox.
delivery = Table(
    "delivery",
    metadata,
    Column("mailbox_id", NUMBER, ForeignKey(mailbox.c.id), primary_key=True, autoincrement=False),
    Column("uid", BigInteger, primary_key=True, autoincrement=False),
    Column("content_id", NUMBER, ForeignKey(content.c.id), nullable=False),
    Column("transaction", exact(64), nullable=False),
    Column("sender", TEXT, nullable=False),
    Column("recipient", TEXT),
    Column("received", UTC_DateTime, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("flags", exact(255), nullable=False),
    Column("trace", OCTETS, nullable=False),
    Index(None, "content_id"),
    **OPTIONS,
    sqlite_with_rowid=False,
)
