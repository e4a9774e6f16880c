"""
What an operator does to the queue by hand, while relays run or not.

A message that a relay is just delivering is changed all the same: what its servers have answered counts,
and everything else is as the operator wants it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from attrs import frozen
from sqlalchemy import Connection, delete, func, select, update

from . import ledger
from .entries import Entry, State, Waypoint
from .tables import message, recipient

#: Messages that are read at a time.
PAGE: Final = 500


@frozen
class Selection:
    """
    Which messages, and which of their recipients: those of *ids* if there are any, from the address
    *sender* (empty for reports), and to an address or a domain *to*, if that is said.
    """

    ids: tuple[str, ...] = ()
    sender: str | None = None
    to: str | None = None

    def has(self, each: Waypoint) -> bool:
        """
        Whether a recipient is meant.
        """
        if self.to is None:
            return True
        address = each.recipient.address
        if "@" in self.to:
            return str(address).lower() == self.to.lower()
        return address.domain.lower() == self.to.lower()


def find(connection: Connection, selection: Selection) -> Iterator[Entry]:
    """
    The messages of a *selection*, the oldest first; those of whose recipients none is meant left
    out.
    """
    query = select(message.c.id).order_by(message.c.arrived, message.c.id)
    if selection.ids:
        query = query.where(message.c.id.in_(selection.ids))
    if selection.sender is not None:
        query = query.where(func.lower(message.c.sender) == selection.sender.lower())
    ids = list(connection.scalars(query))
    for start in range(0, len(ids), PAGE):
        for entry in ledger.read(connection, ids[start : start + PAGE]):
            if any(map(selection.has, entry.recipients)):
                yield entry


def hold(connection: Connection, entry: Entry, numbers: Sequence[int], now: float) -> int:
    """
    Try the recipients *numbers* of a message no more; returns how many that concerns.
    """
    return _change(connection, entry, numbers, State.WAITING, {"state": State.HELD})


def release(connection: Connection, entry: Entry, numbers: Sequence[int], now: float) -> int:
    """
    Try those who are held, at once.
    """
    values = {"state": State.WAITING, "due": now}
    return _change(connection, entry, numbers, State.HELD, values)


def retry(connection: Connection, entry: Entry, numbers: Sequence[int], now: float) -> int:
    """
    Try those who wait at once, and not when it would be their time.
    """
    return _change(connection, entry, numbers, State.WAITING, {"due": now})


def discard(connection: Connection, entry: Entry, numbers: Sequence[int], now: float) -> int:
    """
    Delete recipients, and a message that has none left; nobody is told.
    """
    _lock(connection, entry.id)
    open_ = recipient.c.state.in_([State.WAITING, State.HELD])
    gone = connection.execute(
        delete(recipient).where(
            recipient.c.message_id == entry.id, recipient.c.number.in_(numbers), open_
        )
    )
    _settle(connection, entry.id)
    return gone.rowcount


def _change(
    connection: Connection,
    entry: Entry,
    numbers: Sequence[int],
    before: State,
    values: dict[str, object],
) -> int:
    _lock(connection, entry.id)
    changed = connection.execute(
        update(recipient)
        .where(
            recipient.c.message_id == entry.id,
            recipient.c.number.in_(numbers),
            recipient.c.state == before,
        )
        .values(values)
    )
    _settle(connection, entry.id)
    return changed.rowcount


def _lock(connection: Connection, id: str) -> None:
    connection.execute(select(message.c.id).where(message.c.id == id).with_for_update())


def _settle(connection: Connection, id: str) -> None:
    """
    See when the message is due now, unless a relay has it, which will see to that.
    """
    theirs = recipient.c.message_id == id
    states = set(connection.scalars(select(recipient.c.state).where(theirs)))
    has_news = connection.scalar(
        select(func.count()).where(theirs, recipient.c.report.is_not(None))
    )
    if not states & {State.WAITING, State.HELD} and not has_news:
        ledger.remove(connection, id)
        return
    waiting = select(func.min(recipient.c.due)).where(theirs, recipient.c.state == State.WAITING)
    due = connection.scalar(waiting)
    free = update(message).where(message.c.id == id, message.c.owner.is_(None))
    connection.execute(free.values(due=due))
