"""
What is in the store, for those who read mail: a POP3 server, an export, a program of yours.

All methods block, and may be called from any thread; each is a transaction of its own, and none
holds a lock between two calls.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from types import TracebackType
from typing import BinaryIO, Final, Self

from attrs import frozen
from sqlalchemy import Connection, delete, func, select, update
from sqlalchemy.exc import SQLAlchemyError

from ...commitment import Commitment
from ...interfaces import IMessage
from . import versions
from .engine import Database, parse, writes
from .failures import in_words
from .posting import Posting, Source, Target
from .retention import Removed, remove_unreferenced
from .schema import content, content_part, delivery, mailbox
from .text import EXPAND
from .writing import Writing

#: Messages that are asked for at a time.
_PAGE: Final = 500

#: Characters of the column ``flags``.
_MOST_FLAGS: Final = 255


class StoreError(Exception):
    """
    The database does not answer, or not as it should; trying again later may help.
    """


class NoSuchMailboxError(LookupError):
    """
    There is no mailbox of that name: no mail has ever come for it.
    """


class NoSuchMessageError(LookupError):
    """
    There is no message with that UID, perhaps not any more.
    """


@frozen
class StoredMailbox:
    """
    A mailbox: its name is an address, without a detail.
    """

    name: str
    #: UIDs mean the same as long as this number is the same (RFC 3501 §2.3.1.1).
    uidvalidity: int
    #: What the next message gets.
    uidnext: int
    messages: int
    #: The sum of all sizes.
    octets: int


@frozen
class StoredMessage:
    """
    All that is known of a message in a mailbox but its text.
    """

    #: Strictly increasing; never given twice.
    uid: int
    #: Octets of what `Store.open` yields.
    size: int
    #: ``\\Seen``, ``\\Flagged`` (RFC 3501 §2.3.2) or a keyword of yours.
    flags: frozenset[str]
    received: datetime
    #: The envelope sender, empty for the null reverse-path.
    sender: str
    #: What the client said in RCPT, if it is known which.
    recipient: str | None
    #: Of the transaction, as in Received and in the log.
    transaction: str
    #: SHA-256 of the text without trace headers, in hex.
    digest: str
    # Headers: decoded, cut after 255 characters, None if they are not there.
    from_: str | None
    subject: str | None
    date: datetime | None
    message_id: str | None
    #: Return-Path, Delivered-To and Received, as they stand on top of it.
    trace: bytes


class Store:
    """
    Reads what `lmtpsvc.backends.sql.backend.SQLBackend` has written.

    Use it in a ``with`` statement, or `close` it.
    """

    def __init__(self, database: Database, connections: int = 4) -> None:
        self._engine = database.engine(connections)

    @classmethod
    def at(cls, url: str, connections: int = 4) -> Self:
        """
        The store at *url*, such as ``sqlite:////srv/mail.db``, for as many threads as there are
        *connections*.

        Raises:
            ValueError: It is no such URL, or its tables are not those of this version.
            StoreError: The database does not answer.
        """
        store = cls(parse(url), connections)
        try:
            with store._connection() as connection:
                versions.check(connection)
        except BaseException:
            store.close()
            raise
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """
        Close all connections.
        """
        self._engine.dispose()

    # ── looking ──────────────────────────────────────────────────────────────────────────────────

    def mailboxes(self) -> list[StoredMailbox]:
        """
        All mailboxes, by name.
        """
        with self._connection() as connection:
            return [StoredMailbox(*tuple(row)) for row in connection.execute(_mailboxes)]

    def mailbox(self, name: str) -> StoredMailbox:
        """
        One of them.

        Raises:
            NoSuchMailboxError: There is none.
        """
        with self._connection() as connection:
            row = connection.execute(_mailboxes.where(mailbox.c.name == name)).one_or_none()
        if row is None:
            raise NoSuchMailboxError(name)
        return StoredMailbox(*tuple(row))

    def messages(self, name: str, after: int = 0) -> Iterator[StoredMessage]:
        """
        The messages of the mailbox *name* whose UID is larger than *after*, by UID.  None of that
        name has none.

        They are asked for in pages, so that those of a large mailbox need not fit into memory;
        what comes or goes meanwhile may or may not be seen.
        """
        while True:
            query = _messages.where(mailbox.c.name == name, delivery.c.uid > after).limit(_PAGE)
            with self._connection() as connection:
                page = [_message(*tuple(row)) for row in connection.execute(query)]
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1].uid

    def message(self, name: str, uid: int) -> StoredMessage:
        """
        One of them.

        Raises:
            NoSuchMessageError: It is not there.
        """
        query = _messages.where(mailbox.c.name == name, delivery.c.uid == uid)
        with self._connection() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NoSuchMessageError(name, uid)
        return _message(*tuple(row))

    def open(self, name: str, uid: int) -> BinaryIO:
        """
        The message as it was delivered: trace headers, then the octets that the client sent, with
        CRLF line endings.  Close it after use.

        It is read in pieces of 256 KiB.  Reading fails with an OSError if it was deleted meanwhile
        and its text removed.

        Raises:
            NoSuchMessageError: It is not there.
        """
        query = (
            select(delivery.c.trace, content.c.id, content.c.compression, content.c.size)
            .join(mailbox, delivery.c.mailbox_id == mailbox.c.id)
            .join(content, delivery.c.content_id == content.c.id)
            .where(mailbox.c.name == name, delivery.c.uid == uid)
        )
        with self._connection() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NoSuchMessageError(name, uid)
        return io.BufferedReader(_Parts(self, *row))

    # ── changing ─────────────────────────────────────────────────────────────────────────────────

    def set_flags(self, name: str, uid: int, flags: Collection[str]) -> None:
        """
        Give the message exactly these flags.

        Raises:
            NoSuchMessageError: It is not there.
            ValueError: A flag has white space in it or is empty, or they are too many.
        """
        said = _joined(flags)
        box = select(mailbox.c.id).where(mailbox.c.name == name).scalar_subquery()
        here = (delivery.c.mailbox_id == box) & (delivery.c.uid == uid)
        with self._connection(write=True) as connection:
            # An UPDATE that changes nothing counts no rows in MariaDB, depending on the driver.
            if connection.scalar(select(delivery.c.uid).where(here).with_for_update()) is None:
                raise NoSuchMessageError(name, uid)
            connection.execute(update(delivery).where(here).values(flags=said))

    def delete(self, name: str, uids: Collection[int]) -> int:
        """
        Take messages out of a mailbox, those that are there; returns how many were.

        The text stays until `remove_unreferenced`: others may have it, too.
        """
        removed = 0
        wanted = sorted(set(uids))
        for start in range(0, len(wanted), _PAGE):
            with self._connection(write=True) as connection:
                removed += _delete(connection, name, wanted[start : start + _PAGE])
        return removed

    def append(
        self,
        name: str,
        message: IMessage,
        received: datetime | None = None,
        flags: Collection[str] = (),
    ) -> int:
        """
        Put *message* into the mailbox *name*, which is made if need be; returns its UID.

        It is committed then.  No quota holds it up.  Deliveries go another way, the backend's,
        where many share a commit.

        Raises:
            OSError: The message cannot be read.
            ValueError: As for `set_flags`.
        """
        recipients = message.envelope.recipients
        only = str(recipients[0]) if len(recipients) == 1 else None
        target = Target(name, None, only)
        target.waiting.append(Commitment())
        posting = Posting(Source(message), [target], received, _joined(flags))
        with self._connection(write=True) as connection:
            writing = Writing(connection, "none")
            writing.write([posting])
        return writing.written[target]

    def remove_unreferenced(self, older_than: timedelta) -> Removed:
        """
        Delete texts that no mailbox has any more, and that were first stored so long ago.

        Deliveries go on meanwhile: what one of them is about to refer to stays.
        """
        with _as_store_error():
            return remove_unreferenced(self._engine, older_than)

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _connection(self, *, write: bool = False) -> Iterator[Connection]:
        """
        A connection, in a transaction that is committed in the end.
        """
        with _as_store_error(), self._engine.connect() as connection:
            if write:
                writes(connection)
            with connection.begin():
                yield connection

    def part(self, content_id: int, number: int) -> bytes | None:
        """
        One piece of a text as it is stored; None behind the last.
        """
        query = select(content_part.c.octets).where(
            content_part.c.content_id == content_id, content_part.c.number == number
        )
        with self._connection() as connection:
            return connection.scalar(query)


class _Parts(io.RawIOBase):
    """
    A stored message as a file.
    """

    def __init__(
        self, store: Store, trace: bytes, content_id: int, compression: str, size: int
    ) -> None:
        self._store, self._content_id = store, content_id
        self._expand = EXPAND[compression]
        # What is in memory, and how much there is behind it.
        self._left, self._size = memoryview(trace), size
        self._number = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]  # typeshed: any buffer
        if not self._left and self._size > 0:
            part = self._store.part(self._content_id, self._number)
            if part is None:
                # Half a message must not look like a whole one.
                raise OSError("the message was removed while it was read")
            self._left = memoryview(self._expand(part))
            self._size -= len(self._left)
            self._number += 1
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size


def _joined(flags: Collection[str]) -> str:
    said = " ".join(sorted(set(flags)))
    if said.split() != sorted(set(flags)) or len(said) > _MOST_FLAGS:
        raise ValueError(f"these cannot be flags: {said}")
    return said


def _delete(connection: Connection, name: str, uids: Collection[int]) -> int:
    # The mailbox first, as deliveries lock it.
    box = connection.scalar(select(mailbox.c.id).where(mailbox.c.name == name).with_for_update())
    here = (delivery.c.mailbox_id == box) & delivery.c.uid.in_(uids)
    count, octets = connection.execute(
        select(func.count(), func.coalesce(func.sum(delivery.c.size), 0)).where(here)
    ).one()
    if count:
        connection.execute(delete(delivery).where(here))
        connection.execute(
            update(mailbox)
            .where(mailbox.c.id == box)
            .values(messages=mailbox.c.messages - count, octets=mailbox.c.octets - int(octets))
        )
    return int(count)


def _message(
    uid: int,
    size: int,
    flags: str,
    received: datetime,
    sender: str,
    recipient: str | None,
    transaction: str,
    digest: str,
    from_: str | None,
    subject: str | None,
    date: datetime | None,
    message_id: str | None,
    trace: bytes,
) -> StoredMessage:
    return StoredMessage(
        uid,
        size,
        frozenset(flags.split()),
        received,
        sender,
        recipient,
        transaction,
        digest,
        from_,
        subject,
        date,
        message_id,
        trace,
    )


@contextmanager
def _as_store_error() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise StoreError(in_words(error)) from error


_mailboxes = select(
    mailbox.c.name,
    mailbox.c.uidvalidity,
    mailbox.c.uidnext,
    mailbox.c.messages,
    mailbox.c.octets,
).order_by(mailbox.c.name)

_messages = (
    select(
        delivery.c.uid,
        delivery.c.size,
        delivery.c.flags,
        delivery.c.received,
        delivery.c.sender,
        delivery.c.recipient,
        delivery.c.transaction,
        content.c.digest,
        content.c.header_from,
        content.c.header_subject,
        content.c.header_date,
        content.c.header_message_id,
        delivery.c.trace,
    )
    .join(mailbox, delivery.c.mailbox_id == mailbox.c.id)
    .join(content, delivery.c.content_id == content.c.id)
    .order_by(delivery.c.uid)
)
