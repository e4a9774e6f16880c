"""
One transaction, statement by statement: several messages into several mailboxes.

Rows are locked in one order by everybody (contents by digest, then mailboxes by name), so that
processes wait for each other but not in a circle.  What happens in a transaction that fails is as
if it had not been: UIDs too are given again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from attrs import define, field
from sqlalchemy import (
    Connection,
    Insert,
    Table,
    delete,
    insert,
    select,
)
from sqlalchemy import (
    text as sql,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite

from .posting import Posting, Target
from .schema import content, content_part, delivery, mailbox
from .text import COMPRESS, PART, Text

#: Octets of parts that go to the database in one statement.
AT_ONCE: Final = 4 * PART

#: Values in one IN (...); the databases' own limits are well above.
_NAMES: Final = 500

#: Of a mailbox, what changes with each message.
_SUMS: Final = ("uidnext", "messages", "octets")


class VanishedError(Exception):
    """
    A content was removed between two statements, twice.
    """


@define
class _Box:
    """
    A mailbox whose row is locked.
    """

    name: str
    id: int
    uidvalidity: int
    uidnext: int
    messages: int
    octets: int
    changed: bool = False


@define(eq=False)
class Writing:
    """
    In a transaction of *connection*.  `write` does it all but the commit.
    """

    connection: Connection
    compression: str
    #: Whose mailbox is full; they have nothing in the tables.
    full: list[Target] = field(factory=list)
    #: Who will have it after the commit, under which UID.
    written: dict[Target, int] = field(factory=dict)

    def write(self, postings: Sequence[Posting]) -> None:
        """
        Whoever still wants it when the rows are locked gets it: that is the point of no return.
        """
        texts = {posting.text.digest: posting.text for posting in postings}
        contents, new = self._contents(texts)
        boxes = self._boxes({target.name for each in postings for target in each.targets})
        now = datetime.now(UTC)
        rows: list[dict[str, Any]] = []
        for posting in postings:
            text, message = posting.text, posting.message
            size = len(text.trace) + text.size
            common = {
                "content_id": contents[text.digest],
                "transaction": message.id[:64],
                "sender": str(message.envelope.sender),
                "received": posting.received or now,
                "size": size,
                "flags": posting.flags,
                "trace": text.trace,
            }
            for target in posting.targets:
                uid = self._take(target, boxes[target.name], size)
                if uid is not None:
                    rows.append(
                        {
                            "mailbox_id": boxes[target.name].id,
                            "uid": uid,
                            "recipient": target.recipient,
                            **common,
                        }
                    )
        if rows:
            self.connection.execute(_insert_deliveries, rows)
            self._update([box for box in boxes.values() if box.changed])
        self._remove(new - {row["content_id"] for row in rows})

    def _take(self, target: Target, box: _Box, size: int) -> int | None:
        """
        A UID for *target*; None if it is called off or over quota.
        """
        if not target.begin():
            return None
        if target.quota is not None and not target.quota.has_room(
            box.octets + size, box.messages + 1
        ):
            self.full.append(target)
            return None
        uid = box.uidnext
        box.uidnext, box.messages, box.octets = uid + 1, box.messages + 1, box.octets + size
        box.changed = True
        self.written[target] = uid
        return uid

    # ── contents ─────────────────────────────────────────────────────────────────────────────────

    def _contents(self, texts: Mapping[str, Text]) -> tuple[dict[str, int], set[int]]:
        """
        The ids of all *texts*, each locked against being removed; and those that are new.
        """
        found: dict[str, int] = {}
        added: dict[str, int] = {}
        # What was removed between the two statements is added in the second round.
        for _ in range(3):
            missing = [digest for digest in sorted(texts) if digest not in found]
            if not missing:
                break
            inserted = self._insert_contents([texts[digest] for digest in missing])
            added |= inserted
            found |= inserted
            others = [digest for digest in missing if digest not in inserted]
            if others:
                query = _existing_contents.where(content.c.digest.in_(others))
                found |= {digest: id for id, digest in self.connection.execute(query)}
        else:
            raise VanishedError
        self._insert_parts([(id, texts[digest]) for digest, id in added.items()])
        return found, set(added.values())

    def _insert_contents(self, texts: Sequence[Text]) -> dict[str, int]:
        now = datetime.now(UTC)
        rows = [
            {
                "digest": text.digest,
                "size": text.size,
                "compression": self.compression,
                "stored": now,
                "header_from": text.headers.from_,
                "header_subject": text.headers.subject,
                "header_date": text.headers.date,
                "header_message_id": text.headers.message_id,
            }
            for text in texts
        ]
        statement = _insert_new_contents[_kind(self.connection)]
        return {digest: id for id, digest in self.connection.execute(statement, rows)}

    def _insert_parts(self, texts: Iterable[tuple[int, Text]]) -> None:
        compress = COMPRESS[self.compression]
        rows: list[dict[str, Any]] = []
        octets = 0
        for id, text in texts:
            for number, part in enumerate(text.parts()):
                rows.append({"content_id": id, "number": number, "octets": compress(part)})
                octets += len(part)
                if octets >= AT_ONCE:
                    self.connection.execute(_insert_parts, rows)
                    rows, octets = [], 0
        if rows:
            self.connection.execute(_insert_parts, rows)

    def _remove(self, ids: Iterable[int]) -> None:
        """
        Nobody has got these after all.
        """
        for id in ids:
            self.connection.execute(delete(content_part).where(content_part.c.content_id == id))
            self.connection.execute(delete(content).where(content.c.id == id))

    # ── mailboxes ────────────────────────────────────────────────────────────────────────────────

    def _boxes(self, names: set[str]) -> dict[str, _Box]:
        """
        The mailboxes, locked; those that are not there are made.
        """
        boxes = self._lock(sorted(names))
        missing = sorted(names - set(boxes))
        if missing:
            uidvalidity = int(datetime.now(UTC).timestamp())
            rows = [
                {
                    "name": name,
                    "uidvalidity": uidvalidity,
                    "uidnext": 1,
                    "messages": 0,
                    "octets": 0,
                }
                for name in missing
            ]
            self.connection.execute(_insert_new_mailboxes[_kind(self.connection)], rows)
            boxes |= self._lock(missing)
        return boxes

    def _lock(self, names: Sequence[str]) -> dict[str, _Box]:
        boxes: dict[str, _Box] = {}
        for start in range(0, len(names), _NAMES):
            query = _locked_mailboxes.where(mailbox.c.name.in_(names[start : start + _NAMES]))
            for row in self.connection.execute(query):
                box = _Box(*tuple(row))
                boxes[box.name] = box
        return boxes

    def _update(self, boxes: Sequence[_Box]) -> None:
        rows = [
            {
                "id": box.id,
                "name": box.name,
                "uidvalidity": box.uidvalidity,
                "uidnext": box.uidnext,
                "messages": box.messages,
                "octets": box.octets,
            }
            for box in boxes
        ]
        if _kind(self.connection) == "postgresql":
            arrays = {name: [row[name] for row in rows] for name in ("id", *_SUMS)}
            self.connection.execute(_update_by_arrays, arrays)
        else:
            self.connection.execute(_update_mailboxes[_kind(self.connection)], rows)


# ── statements, made once ────────────────────────────────────────────────────────────────────────


def _kind(connection: Connection) -> str:
    name = connection.dialect.name
    return "mariadb" if name == "mysql" else name


def _ignoring(table: Table, key: str) -> dict[str, Insert]:
    """
    INSERT that leaves alone what is there.
    """
    return {
        "sqlite": sqlite.insert(table).on_conflict_do_nothing(index_elements=[key]),
        "postgresql": postgresql.insert(table).on_conflict_do_nothing(index_elements=[key]),
        "mariadb": insert(table).prefix_with("IGNORE"),
    }


_insert_new_contents = {
    kind: statement.returning(content.c.id, content.c.digest)
    for kind, statement in _ignoring(content, "digest").items()
}
_existing_contents = (
    select(content.c.id, content.c.digest).order_by(content.c.digest).with_for_update(read=True)
)
_insert_parts = insert(content_part)
_insert_new_mailboxes = _ignoring(mailbox, "name")
# MariaDB locks rows in the order in which it reads them, and must be kept from reading all.
_locked_mailboxes = (
    select(
        mailbox.c.name,
        mailbox.c.id,
        mailbox.c.uidvalidity,
        mailbox.c.uidnext,
        mailbox.c.messages,
        mailbox.c.octets,
    )
    .with_hint(mailbox, "FORCE INDEX (mailbox_name_key)", "mysql")
    .with_hint(mailbox, "FORCE INDEX (mailbox_name_key)", "mariadb")
    .order_by(mailbox.c.name)
    .with_for_update()
)
_insert_deliveries = insert(delivery)


def _updating() -> dict[str, Insert]:
    """
    The rows are there and are locked: an INSERT that meets them is an UPDATE of many in one
    statement, where UPDATE would be a statement each.
    """
    on_sqlite, on_mariadb = sqlite.insert(mailbox), mysql.insert(mailbox)
    return {
        "sqlite": on_sqlite.on_conflict_do_update(
            index_elements=["id"], set_={name: on_sqlite.excluded[name] for name in _SUMS}
        ),
        "mariadb": on_mariadb.on_duplicate_key_update(
            {name: on_mariadb.inserted[name] for name in _SUMS}
        ),
    }


_update_mailboxes = _updating()
# PostgreSQL's own way for that.
_update_by_arrays = sql(
    "UPDATE mailbox SET uidnext = new.uidnext, messages = new.messages, octets = new.octets"
    " FROM unnest(CAST(:id AS bigint[]), CAST(:uidnext AS bigint[]), CAST(:messages AS bigint[]),"
    " CAST(:octets AS bigint[])) AS new (id, uidnext, messages, octets) WHERE mailbox.id = new.id"
)
