"""
The tables of the queue; docs/queue.md says what they mean to a reader.

Times are seconds since the epoch.  What is written here is what the newest migration leaves behind;
a test compares the two.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Integer,
    MetaData,
    Table,
)

from ..backends.sql.columns import NAMING, OCTETS, OPTIONS, TEXT, exact
from ..backends.sql.versions import Tables

#: Which migrations they have.
QUEUE: Final = Tables(
    "lmtpsvc.relay", "relay_version", "a queue", "run lmtpsvc queue create, or start the relay"
)

ID_LENGTH: Final = 64
#: As much of a reply is kept.
REPLY_LENGTH: Final = 512

metadata = MetaData(naming_convention=NAMING)

#: A message that has not arrived everywhere.  *due* is when somebody should look at it: when a
#: recipient is to be tried, or, while somebody does (*owner*), when that one counts as lost.  It is
#: null if all recipients are held.
message = Table(
    "relay_message",
    metadata,
    Column("id", exact(ID_LENGTH), primary_key=True),
    Column("sender", TEXT, nullable=False),
    Column("parameters", TEXT, nullable=False),
    Column("arrived", Double, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("ascii", Boolean, nullable=False),
    Column("due", Double, index=True),
    Column("owner", exact(ID_LENGTH), index=True),
    **OPTIONS,
)

#: Its octets, in pieces, so that nobody needs a large message in memory at once.
text = Table(
    "relay_text",
    metadata,
    Column("message_id", exact(ID_LENGTH), ForeignKey(message.c.id), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("octets", OCTETS, nullable=False),
    **OPTIONS,
)

#: Who it is for, and how far that is.  *report* is what the sender is to be told of and has not been.
recipient = Table(
    "relay_recipient",
    metadata,
    Column("message_id", exact(ID_LENGTH), ForeignKey(message.c.id), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("address", TEXT, nullable=False),
    Column("parameters", TEXT, nullable=False),
    Column("state", exact(8), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due", Double, nullable=False),
    Column("tried", Double),
    Column("reply", exact(REPLY_LENGTH), nullable=False),
    Column("destination", exact(255), nullable=False),
    Column("server", exact(255), nullable=False),
    Column("report", exact(16)),
    Column("warned", Boolean, nullable=False),
    **OPTIONS,
)
