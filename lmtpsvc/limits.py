"""
The limits of the service.  Each has a default, and is an option of the command line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import Attribute, evolve, field, fields, frozen

from .quantities import KIB, MIB, count, octets, seconds, shown


def _limit(default: Any, option: str, read: Callable[[str], Any], meaning: str) -> Any:
    metadata = {"option": option, "read": read, "meaning": meaning}
    return field(default=default, metadata=metadata)


@frozen
class Limits:
    """
    What one client may ask for, and for how long.

    The delivery deadline and its grace together stay below the 300 seconds after which the least
    patient clients give up (Postfix waits 600): a reply that comes later makes a duplicate.
    """

    #: Octets of a message as the client sends it (RFC 1870).
    message_size: int = _limit(
        64 * MIB, "max-message-size", octets, "Largest message, announced with SIZE"
    )
    #: Accepted recipients of a transaction (RFC 5321 §4.5.3.1.8 asks for 100 at least).
    recipients: int = _limit(10_000, "max-recipients", count, "Recipients of one message")
    #: Connections at the same time.
    connections: int = _limit(10_000, "max-connections", count, "Connections at the same time")
    #: Refused commands on a connection before 421; refused recipients do not count.
    errors: int = _limit(20, "max-errors", count, "Bad commands before a client is sent away")
    #: Octets of a command line, CRLF included (RFC 5321 §4.5.3.1.4 asks for 512 at least).
    command_line: int = _limit(4096, "max-command-line", octets, "Longest command line")
    #: Seconds that a client may say nothing (RFC 5321 §4.5.3.2.7 asks for 300 at least).
    idle_seconds: float = _limit(600.0, "idle-timeout", seconds, "How long a client may be silent")
    #: Seconds that finding out about one recipient may take.
    lookup_seconds: float = _limit(
        60.0, "lookup-timeout", seconds, "How long looking up a recipient may take"
    )
    #: Seconds from the end of the text to the moment when open deliveries are cancelled.
    delivery_seconds: float = _limit(
        240.0,
        "delivery-timeout",
        seconds,
        "When recipients still open are told to come back; below your clients' patience",
    )
    #: Further seconds for those that had begun to commit.
    grace_seconds: float = _limit(
        30.0, "delivery-grace", seconds, "How much longer a commit that has begun may take"
    )
    #: Seconds that transactions in flight get when the service stops.
    stop_seconds: float = _limit(
        30.0, "stop-timeout", seconds, "How long transactions may go on when stopping"
    )
    #: Octets of a message that are kept in memory before it goes to a file.
    spool_memory: int = _limit(
        256 * KIB, "spool-memory", octets, "How much of a message is kept in memory"
    )

    def answering_within(self, patience: float) -> Limits:
        """
        The same for a client that waits *patience* seconds for the replies behind the text: the last
        is on its way before that, with a tenth to spare, or two seconds.  A commit that has begun
        keeps its grace, but for no more than a quarter of the time.
        """
        left = patience - min(2.0, patience / 10)
        if self.delivery_seconds + self.grace_seconds <= left:
            return self
        grace = min(self.grace_seconds, left / 4)
        delivery = min(self.delivery_seconds, left - grace)
        return evolve(self, delivery_seconds=delivery, grace_seconds=grace)


def _fields() -> tuple[Attribute[Any], ...]:
    return tuple(fields(Limits))


def limit_options() -> list[tuple[str, str, str]]:
    """
    The name, default and meaning of each option that sets a limit.
    """
    return [
        (each.metadata["option"], shown(each.default or 0), each.metadata["meaning"])
        for each in _fields()
    ]
