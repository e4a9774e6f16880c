"""
What the queue keeps, as values: messages, their recipients, and what became of an attempt.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from attrs import frozen

from ..delivery.report import Action
from ..envelope import Recipient, Sender

#: In `Result.due`: the same time as it was.
UNCHANGED: Final = -1.0


class State(StrEnum):
    """
    How far a recipient is.
    """

    #: To be tried, when it is due.
    WAITING = "waiting"
    #: The next server has taken responsibility.
    DONE = "done"
    #: Given up; the sender has been told, or is about to be.
    FAILED = "failed"
    #: Not to be tried until an operator says so.
    HELD = "held"


@frozen
class Waypoint:
    """
    One recipient of a message, the *number*\\ th.

    *due* is when it is tried next and *tried* when it was last, in seconds since the epoch; *reply*
    is what was answered then, by *server*, as a line (``451 4.2.0 Try again``), and *destination*
    where that was.  *report* is what the sender has not been told yet; *warned* says that it has been
    told of a delay.
    """

    number: int
    recipient: Recipient
    state: State = State.WAITING
    attempts: int = 0
    due: float = 0.0
    tried: float | None = None
    reply: str = ""
    destination: str = ""
    server: str = ""
    report: Action | None = None
    warned: bool = False


@frozen
class Entry:
    """
    One message in the queue, with all its recipients, those done included.

    *arrived* is in seconds since the epoch, *size* in octets; *is_ascii* says that its text needs no
    8BITMIME.  *owner* is the relay that is at it, or None.
    """

    id: str
    sender: Sender
    arrived: float
    size: int
    is_ascii: bool
    recipients: tuple[Waypoint, ...]
    due: float | None = None
    owner: str | None = None


@frozen
class Result:
    """
    What became of an attempt for the recipient *number*, at the moment *tried*: the *state* it has
    now, and for one that waits, when it is *due* again.  The rest as in `Waypoint`.

    *counts* is False for a recipient that was put off, and not tried.
    """

    number: int
    state: State
    tried: float
    reply: str
    destination: str = ""
    server: str = ""
    due: float = UNCHANGED
    report: Action | None = None
    counts: bool = True
