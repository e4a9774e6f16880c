"""
One transaction, statement by statement: several messages into several mailboxes.

Rows are locked in one order by everybody (contents by digest, then mailboxes by name), so that
processes wait for each other but not in a circle.  What happens in a transaction that fails is as
if it had not been: UIDs too are given again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from attrs import define
from sqlalchemy import Connection, delete

from .posting import Posting, Target
from .schema import content, content_part
from .statements import Row, Statements, statements_for
from .text import COMPRESS, PART, Text

#: Octets of parts that go to the database in one statement.
AT_ONCE: Final = 4 * PART


class VanishedError(Exception):
    """
    A content was removed between two statements, twice.
    """


@define
class _Box:
    """
    A mailbox whose row is locked; in the order of its columns.
    """

    id: int
    name: str
    uidvalidity: int
    uidnext: int
    messages: int
    octets: int

    @property
    def row(self) -> Row:
        """
        As it is now.
        """
        return self.id, self.name, self.uidvalidity, self.uidnext, self.messages, self.octets


class Writing:
    """
    In a transaction of *connection*.  `write` does it all but the commit.
    """

    def __init__(self, connection: Connection, compression: str) -> None:
        self._connection, self._compression = connection, compression
        self._say: Statements = statements_for(connection)
        #: Whose mailbox is full; they have nothing in the tables.
        self.full: list[Target] = []
        #: Who will have it after the commit, under which UID.
        self.written: dict[Target, int] = {}

    def write(self, postings: Sequence[Posting]) -> None:
        """
        Whoever still wants it when the rows are locked gets it: that is the point of no return.
        """
        now = datetime.now(UTC)
        texts = {posting.text.digest: posting.text for posting in postings}
        contents, new = self._contents(texts, now)
        boxes = self._boxes({target.name for each in postings for target in each.targets}, now)
        rows: list[Row] = []
        wanted: set[int] = set()
        changed: dict[int, _Box] = {}
        for posting in postings:
            text, message = posting.text, posting.message
            content_id, size = contents[text.digest], len(text.trace) + text.size
            id, sender = message.id[:64], str(message.envelope.sender)
            received = self._say.moment(posting.received or now)
            for target in posting.targets:
                box = boxes[target.name]
                uid = self._take(target, box, size)
                if uid is None:
                    continue
                wanted.add(content_id)
                changed[box.id] = box
                rows.append(
                    (
                        *(box.id, uid, content_id, id, sender, target.recipient),
                        *(received, size, posting.flags, text.trace),
                    )
                )
        if rows:
            self._say.add_deliveries.run(self._connection, rows)
            self._update(list(changed.values()))
        self._remove(new - wanted)

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
        self.written[target] = uid
        return uid

    # ── contents ─────────────────────────────────────────────────────────────────────────────────

    def _contents(
        self, texts: Mapping[str, Text], now: datetime
    ) -> tuple[dict[str, int], set[int]]:
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
            inserted = self._insert_contents([texts[digest] for digest in missing], now)
            added |= inserted
            found |= inserted
            others = [(digest,) for digest in missing if digest not in inserted]
            if others:
                found |= dict(self._say.hold_contents.run(self._connection, others))
        else:
            raise VanishedError
        self._insert_parts([(id, texts[digest]) for digest, id in added.items()])
        return found, set(added.values())

    def _insert_contents(self, texts: Sequence[Text], now: datetime) -> dict[str, int]:
        moment = self._say.moment
        stored = moment(now)
        rows = []
        for text in texts:
            headers = text.headers
            date = None if headers.date is None else moment(headers.date)
            rows.append(
                (
                    *(text.digest, text.size, self._compression, stored),
                    *(headers.from_, headers.subject, date, headers.message_id),
                )
            )
        return dict(self._say.add_contents.run(self._connection, rows))

    def _insert_parts(self, texts: Iterable[tuple[int, Text]]) -> None:
        compress = COMPRESS[self._compression]
        rows: list[Row] = []
        octets = 0
        for id, text in texts:
            for number, part in enumerate(text.parts()):
                rows.append((id, number, compress(part)))
                octets += len(part)
                if octets >= AT_ONCE:
                    self._say.add_parts.run(self._connection, rows)
                    rows, octets = [], 0
        if rows:
            self._say.add_parts.run(self._connection, rows)

    def _remove(self, ids: Iterable[int]) -> None:
        """
        Nobody has got these after all.
        """
        for id in ids:
            self._connection.execute(delete(content_part).where(content_part.c.content_id == id))
            self._connection.execute(delete(content).where(content.c.id == id))

    # ── mailboxes ────────────────────────────────────────────────────────────────────────────────

    def _boxes(self, names: set[str], now: datetime) -> dict[str, _Box]:
        """
        The mailboxes, locked; those that are not there are made.
        """
        boxes = self._lock(sorted(names))
        missing = sorted(names - set(boxes))
        if missing:
            uidvalidity = int(now.timestamp())
            rows = [(name, uidvalidity, 1, 0, 0) for name in missing]
            self._say.add_mailboxes.run(self._connection, rows)
            boxes |= self._lock(missing)
        return boxes

    def _lock(self, names: Sequence[str]) -> dict[str, _Box]:
        rows = self._say.lock_mailboxes.run(self._connection, [(name,) for name in names])
        return {row.name: _Box(*row) for row in rows}

    def _update(self, boxes: Sequence[_Box]) -> None:
        self._say.change_mailboxes.run(self._connection, [box.row for box in boxes])
