"""
Texts that nobody has any more.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import Connection, Engine, delete, exists, select

from .engine import writes
from .schema import content, content_part, delivery

#: Texts in one transaction: deliveries wait for it in SQLite.
AT_ONCE: Final = 100


class Removed(NamedTuple):
    """
    How much was removed.
    """

    texts: int
    #: Of the messages, whatever room their compressed form took.
    octets: int


def remove_unreferenced(engine: Engine, older_than: timedelta) -> Removed:
    """
    Delete the texts that no delivery refers to and that were first stored so long ago.

    A delivery locks the text that it is going to refer to before it does.  So those that can be
    locked here are looked at once more, and nobody can come to want them from then on: a delivery
    of the same text waits, and finds it gone.
    """
    before = datetime.now(UTC) - older_than
    texts = octets = 0
    while True:
        with writes(engine.connect()) as connection, connection.begin():
            seen, removed = _remove_some(connection, before)
        texts, octets = texts + removed.texts, octets + removed.octets
        # Those that somebody wanted after all are seen no more, or their turn comes another day.
        if seen < AT_ONCE or not removed.texts:
            return Removed(texts, octets)


def _remove_some(connection: Connection, before: datetime) -> tuple[int, Removed]:
    is_wanted = exists().where(delivery.c.content_id == content.c.id)
    query = (
        select(content.c.id)
        .where(content.c.stored < before, ~is_wanted)
        .order_by(content.c.digest)
        .limit(AT_ONCE)
        .with_for_update(skip_locked=True, of=content)
    )
    locked = list(connection.scalars(query))
    # Another look, since the first may be older than the lock.
    unwanted = select(content.c.id, content.c.size).where(content.c.id.in_(locked), ~is_wanted)
    sizes = {row[0]: row[1] for row in connection.execute(unwanted)}
    if sizes:
        connection.execute(delete(content_part).where(content_part.c.content_id.in_(sizes)))
        connection.execute(delete(content).where(content.c.id.in_(sizes)))
    return len(locked), Removed(len(sizes), sum(sizes.values()))
