"""
What clients do to a server: how many at a time, with messages of what size, to how many recipients.
"""

from __future__ import annotations

from attrs import frozen

KB = 1024
MB = 1024 * KB

#: Those who get mail in the table: as numbers, of which the ledger makes addresses.
USERS = range(200)


@frozen
class Workload:
    """
    *sessions* clients at a time, each of which sends its next message once its last is answered.

    A message has *octets*, and as many *recipients*, taken from *users* at random.  With *reconnect*,
    each goes over a connection of its own.  No more than *most* are sent, if that is not None.
    """

    title: str
    sessions: int
    recipients: int = 1
    octets: int = 4 * KB
    reconnect: bool = False
    users: range = USERS
    most: int | None = None


WORKLOADS = {
    "a": Workload("4 KB, 1 session", 1),
    "b": Workload("4 KB, 10 sessions", 10),
    "c": Workload("4 KB, 50 sessions", 50),
    "d": Workload("4 KB, 50 recipients, 4 sessions", 4, recipients=50),
    "e": Workload("100 KB, 10 sessions", 10, octets=100 * KB, most=3000),
    "f": Workload("20 MB, 2 sessions", 2, octets=20 * MB, most=24),
    "g": Workload("4 KB, 10 sessions, a connection each", 10, reconnect=True),
}
#: How the table calls the connections that do nothing.
IDLE = "h"
