"""
Tickets keep the contract of a backend.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from twisted.internet import reactor

from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import PermanentFailure
from lmtpsvc.interfaces import IBackend
from lmtpsvc.testing import BackendContract
from tickets.backend import Tickets


class TestTickets(BackendContract):
    mailboxes = tuple(Mailbox(queue, "example.org") for queue in ("support", "sales", "press"))

    def make(self, reactor: object, directory: Path) -> IBackend:
        return Tickets(reactor, f"{directory}/tickets.db", queues="support,sales,press")

    def stored(self, directory: Path, mailbox: Mailbox) -> list[bytes]:
        with closing(sqlite3.connect(directory / "tickets.db")) as tickets:
            found = tickets.execute("SELECT text FROM tickets WHERE queue = ?", (mailbox.user,))
            return [text for (text,) in found]

    @contextmanager
    def broken(self, directory: Path, mailbox: Mailbox) -> Iterator[None]:
        self.execute(
            directory,
            "CREATE TRIGGER broken BEFORE INSERT ON tickets"
            f" WHEN new.queue = '{mailbox.user}' BEGIN SELECT raise(ABORT, 'broken'); END",
        )
        yield
        self.execute(directory, "DROP TRIGGER broken")

    def execute(self, directory: Path, statement: str) -> None:
        with closing(sqlite3.connect(directory / "tickets.db")) as tickets, tickets:
            tickets.execute(statement)


def test_no_such_queue() -> None:
    with pytest.raises(PermanentFailure):
        Tickets(reactor, "tickets.db").verify(Mailbox("nobody", "example.org"))
