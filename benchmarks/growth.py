"""
How cost grows with the number of sessions, recipients, octets, users, and messages in the mailbox.

A server is started once for all points of a series, the small ones first.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence

from attrs import evolve, frozen

from .mailboxes import fill, make
from .measure import Running, Stock, send_to_all, started, timed, warm
from .place import Place
from .runs import Run
from .servers import NOBODY, Server
from .workloads import KB, MB, WORKLOADS, Workload

_BASE = WORKLOADS["b"]
_TO_1000 = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


@frozen
class Series:
    """
    Something that grows: what it is called, over which points, and how one of them is measured.

    *stored* says that it is about the store, and nothing for a server that has none; *stock* makes a
    store that all servers use, one after the other.
    """

    title: str
    points: Sequence[int]
    stored: bool
    prepare: Callable[[Running], None]
    measure: Callable[[Running, int, float], Run]
    stock: Callable[[Place], Stock] | None = None


def _nothing(here: Running) -> None:
    """
    An empty store will do.
    """


# ── sessions ─────────────────────────────────────────────────────────────────────────────────────


def _sessions(here: Running, count: int, seconds: float) -> Run:
    workload = evolve(_BASE, title=f"{count} sessions", sessions=count)
    warm(here, workload)
    return timed(here, workload, seconds, str(count))


# ── recipients ───────────────────────────────────────────────────────────────────────────────────

_MANY = range(1000)


def _for_many(here: Running) -> None:
    send_to_all(here, Workload("all", sessions=4, recipients=100, octets=KB, users=_MANY))


def _recipients(here: Running, count: int, seconds: float) -> Run:
    title = f"{count} recipients"
    workload = Workload(title, sessions=4, recipients=count, users=_MANY)
    return timed(here, workload, seconds, str(count))


# ── octets ───────────────────────────────────────────────────────────────────────────────────────

_SIZES = (KB, 4 * KB, 16 * KB, 64 * KB, 256 * KB, MB, 4 * MB, 16 * MB, 50 * MB)
#: What is sent at one point, at most.
_OCTETS = 400 * MB


def _for_usual(here: Running) -> None:
    """
    What is started with the first messages is not to be measured with the first point.
    """
    warm(here, _BASE)


def _octets(here: Running, count: int, seconds: float) -> Run:
    most = max(_OCTETS // count, 8)
    workload = Workload(f"{count} octets", sessions=4, octets=count, most=most)
    return timed(here, workload, seconds, str(count))


# ── users ────────────────────────────────────────────────────────────────────────────────────────

#: They are others than those whose mailboxes are made beforehand.
_NEWCOMERS = 500_000
_USERS = (10, 100, 1000, 10_000, 100_000)


def _for_users(place: Place) -> Stock:
    """
    So many mailboxes take a minute, and another to delete; all servers use the same.
    """
    stock = Stock(place.fresh() / "mail")
    stock.store.mkdir()
    owner = NOBODY if os.geteuid() == 0 else None
    if owner is not None:
        shutil.chown(stock.store, owner, "nogroup")
    make(stock.store, range(_USERS[-1]), owner)
    os.sync()
    return stock


def _users(here: Running, count: int, seconds: float) -> Run:
    workload = evolve(_BASE, title=f"{count} users", users=range(count))
    return timed(here, workload, seconds, str(count))


def _new_users(here: Running, count: int, seconds: float) -> Run:
    first = _NEWCOMERS + count
    workload = evolve(_BASE, title=f"{count} new users", users=range(first, first + count))
    return timed(here, workload, seconds, str(count))


# ── messages in the mailbox ──────────────────────────────────────────────────────────────────────


_MESSAGES = (1, 10, 100, 1000, 10_000, 100_000)


def _for_messages(here: Running) -> None:
    for count in _MESSAGES:
        fill(here.store, count, count, here.server.owner)
    os.sync()


def _messages(here: Running, count: int, seconds: float) -> Run:
    workload = evolve(_BASE, title=f"{count} messages", users=range(count, count + 1))
    # Whoever lists what is there, does so before the clock runs.
    send_to_all(here, workload)
    return timed(here, workload, seconds, str(count))


# ── all ──────────────────────────────────────────────────────────────────────────────────────────

SESSIONS = "sessions"
SERIES = {
    SESSIONS: Series("sessions", _TO_1000, False, _nothing, _sessions),
    "recipients": Series("recipients of each message", _TO_1000, False, _for_many, _recipients),
    "octets": Series("octets of each message", _SIZES, False, _for_usual, _octets),
    "users": Series("users with mailboxes", _USERS, True, _for_usual, _users, _for_users),
    "new-users": Series("users without mailboxes", _USERS, True, _for_usual, _new_users),
    "messages": Series("messages in the mailbox", _MESSAGES, True, _for_messages, _messages),
}


def points(
    series: Series, server: Server, place: Place, stock: Stock | None, seconds: float
) -> Iterator[Run]:
    """
    Measure a series for one server, point by point.

    Raises:
        StartError, LoadError: as for a single run.
    """
    with started(server, place, stock) as here:
        series.prepare(here)
        for count in series.points:
            yield series.measure(here, count, seconds)
