"""
What is done to the queue in one transaction: each function takes a connection that has begun one.

A relay that claims a message owns it until a moment, and moves that on while it is at it.  Who dies
does not: the message comes to be due like any other, and whoever claims it then goes on.  Only the
owner says that somebody failed or has to wait; that somebody has got the mail is true whoever says
so, and is written down in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, BinaryIO, Final

from attrs import frozen
from sqlalchemy import Connection, Row, Select, delete, func, insert, select, update

from ..client import address
from ..delivery.report import Action
from ..envelope import Address, Recipient, Sender
from .entries import UNCHANGED, Entry, Result, State, Waypoint
from .parameters import dump, load
from .tables import REPLY_LENGTH, message, recipient, text

#: Octets of a piece of text.
PIECE: Final = 1 << 18

#: What makes the reports that a message is to have: it gets the entry, and what reads so many octets
#: of its text.
MakeReports = Callable[[Entry, Callable[[int], bytes]], Iterable["New"]]


@frozen
class New:
    """
    A message that is not in the queue yet; *read* opens its text.
    """

    id: str
    sender: Sender
    recipients: tuple[Recipient, ...]
    read: Callable[[], BinaryIO]


@frozen
class Finished:
    """
    How a round has ended: *is_over* says that the message is no more, *reports* are the ids of
    those that were made, and to whom.
    """

    is_over: bool
    due: float | None
    reports: tuple[tuple[str, Address], ...] = ()


def create(connection: Connection, new: New, now: float) -> None:
    """
    Put a message into the queue, due at once.
    """
    row = {
        "id": new.id,
        "sender": str(new.sender),
        "parameters": dump(new.sender.parameters),
        "arrived": now,
        "due": now,
        "owner": None,
    }
    # The text refers to the message, and its size is known when it has been read.
    connection.execute(insert(message), {**row, "size": 0, "ascii": True})
    size, is_ascii = _write(connection, new)
    counted = {"size": size, "ascii": is_ascii}
    connection.execute(update(message).where(message.c.id == new.id).values(counted))
    connection.execute(
        insert(recipient),
        [
            {
                "message_id": new.id,
                "number": number,
                "address": str(each.address),
                "parameters": dump(each.parameters),
                "state": State.WAITING,
                "attempts": 0,
                "due": now,
                "tried": None,
                "reply": "",
                "destination": "",
                "server": "",
                "report": None,
                "warned": False,
            }
            for number, each in enumerate(new.recipients)
        ],
    )


def claim(
    connection: Connection, owner: str, now: float, until: float, most: int
) -> tuple[list[Entry], float | None]:
    """
    Take up to *most* messages that are due; they are *owner*'s *until* then.  Nobody waits for
    anybody here: what another one is just claiming is passed over.

    Returns what was taken, and when the next message is due.
    """
    due = (
        select(message.c.id)
        .where(message.c.due <= now)
        .order_by(message.c.due)
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    ids = list(connection.scalars(due))
    if ids:
        mine = {"owner": owner, "due": until}
        connection.execute(update(message).where(message.c.id.in_(ids)).values(mine))
    following = connection.scalar(select(func.min(message.c.due)).where(message.c.due > now))
    return read(connection, ids), following


def renew(connection: Connection, owner: str, ids: Sequence[str], until: float) -> set[str]:
    """
    *owner* is still at the messages *ids*.  Returns those that are not its own any more.
    """
    if not ids:
        return set()
    own = select(message.c.id).where(message.c.owner == owner, message.c.id.in_(ids))
    found = set(connection.scalars(own.with_for_update()))
    connection.execute(update(message).where(message.c.id.in_(found)).values(due=until))
    return set(ids) - found


def record(connection: Connection, owner: str, id: str, results: Iterable[Result]) -> bool:
    """
    Write down what became of recipients of the message *id*; False if it is not *owner*'s any more.
    """
    is_own = _lock(connection, id) == owner
    for each in results:
        if not (is_own or each.state is State.DONE):
            continue
        open_states = [State.WAITING, State.HELD] if each.state is State.DONE else [State.WAITING]
        values: dict[str, Any] = {
            "state": each.state,
            "tried": each.tried,
            "reply": each.reply[:REPLY_LENGTH],
            "destination": each.destination[:255],
            "server": each.server[:255],
            "attempts": recipient.c.attempts + (1 if each.counts else 0),
        }
        if each.due != UNCHANGED:
            values["due"] = each.due
        if each.report is not None:
            values["report"] = each.report
        if each.report is Action.DELAYED:
            values["warned"] = True
        connection.execute(
            update(recipient)
            .where(
                recipient.c.message_id == id,
                recipient.c.number == each.number,
                recipient.c.state.in_(open_states),
            )
            .values(values)
        )
    return is_own


def finish(
    connection: Connection, owner: str, id: str, now: float, make: MakeReports
) -> Finished | None:
    """
    *owner* leaves the message *id*: put the reports that are to be made into the queue, and delete
    what has arrived everywhere.  All of it happens, or nothing.

    Returns None if it is not *owner*'s any more.
    """
    if _lock(connection, id) != owner:
        return None
    columns = (recipient.c.state, recipient.c.due, recipient.c.report)
    rows = list(connection.execute(select(*columns).where(recipient.c.message_id == id)))
    reports = []
    if any(row.report is not None for row in rows):
        (entry,) = read(connection, [id])
        for new in make(entry, lambda octets: read_text(connection, id, octets)):
            create(connection, new, now)
            reports.append((new.id, new.recipients[0].address))
        told = update(recipient).where(recipient.c.message_id == id).values(report=None)
        connection.execute(told)
    left = [row for row in rows if row.state in {State.WAITING, State.HELD}]
    if not left:
        remove(connection, id)
        return Finished(True, None, tuple(reports))
    due = min((row.due for row in left if row.state == State.WAITING), default=None)
    free = {"owner": None, "due": due}
    connection.execute(update(message).where(message.c.id == id).values(free))
    return Finished(False, due, tuple(reports))


def remove(connection: Connection, id: str) -> None:
    """
    Delete a message with all that belongs to it.
    """
    connection.execute(delete(recipient).where(recipient.c.message_id == id))
    connection.execute(delete(text).where(text.c.message_id == id))
    connection.execute(delete(message).where(message.c.id == id))


def read(connection: Connection, ids: Sequence[str]) -> list[Entry]:
    """
    The messages *ids*, those that there are, in that order.
    """
    if not ids:
        return []
    found = entries(connection, select(message).where(message.c.id.in_(ids)))
    by_id = {entry.id: entry for entry in found}
    return [by_id[id] for id in ids if id in by_id]


def entries(connection: Connection, query: Select[Any]) -> list[Entry]:
    """
    What *query* finds in the table of messages, with all recipients.
    """
    rows = list(connection.execute(query))
    waypoints: dict[str, list[Waypoint]] = {row.id: [] for row in rows}
    if rows:
        theirs = (
            select(recipient)
            .where(recipient.c.message_id.in_(list(waypoints)))
            .order_by(recipient.c.message_id, recipient.c.number)
        )
        for row in connection.execute(theirs):
            waypoints[row.message_id].append(_waypoint(row))
    return [
        Entry(
            row.id,
            Sender(address(row.sender) if row.sender else None, load(row.parameters)),
            row.arrived,
            row.size,
            row.ascii,
            tuple(waypoints[row.id]),
            row.due,
            row.owner,
        )
        for row in rows
    ]


def read_text(connection: Connection, id: str, octets: int) -> bytes:
    """
    The first *octets* of a text.
    """
    pieces, left = [], octets
    for number in range(-(-octets // PIECE)):
        piece = read_piece(connection, id, number)
        pieces.append(piece[:left])
        left -= len(piece)
        if len(piece) < PIECE or left <= 0:
            break
    return b"".join(pieces)


def read_piece(connection: Connection, id: str, number: int) -> bytes:
    """
    One piece of a text; empty behind its end.
    """
    query = select(text.c.octets).where(text.c.message_id == id, text.c.number == number)
    return bytes(connection.scalar(query) or b"")


def _lock(connection: Connection, id: str) -> str | None:
    """
    Who owns the message *id*, which nobody else changes until the transaction ends.
    """
    query = select(message.c.owner).where(message.c.id == id).with_for_update()
    owner: str | None = connection.scalar(query)
    return owner


def _write(connection: Connection, new: New) -> tuple[int, bool]:
    size, is_ascii = 0, True
    with new.read() as file:
        number = 0
        while piece := file.read(PIECE):
            row = {"message_id": new.id, "number": number, "octets": piece}
            connection.execute(insert(text), row)
            size += len(piece)
            is_ascii = is_ascii and piece.isascii()
            number += 1
    return size, is_ascii


def _waypoint(row: Row[Any]) -> Waypoint:
    return Waypoint(
        row.number,
        Recipient(address(row.address), load(row.parameters)),
        State(row.state),
        row.attempts,
        row.due,
        row.tried,
        row.reply,
        row.destination,
        row.server,
        None if row.report is None else Action(row.report),
        row.warned,
    )


def everything() -> Select[Any]:
    """
    The query for all messages, the oldest first.
    """
    return select(message).order_by(message.c.arrived, message.c.id)
