"""
Opens a ticket for each message, in an SQLite database.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import PermanentFailure, TemporaryFailure
from lmtpsvc.interfaces import IMessage
from lmtpsvc.per_recipient import BlockingBackend

SCHEMA = """
CREATE TABLE IF NOT EXISTS tickets (
    number INTEGER PRIMARY KEY,
    queue TEXT NOT NULL,
    sender TEXT NOT NULL,
    title TEXT NOT NULL,
    text BLOB NOT NULL
)
"""


class Tickets(BlockingBackend):
    """
    Opens a ticket for each message.

    DATABASE  the SQLite file with the tickets.
    queues    who can be written to, with commas between them; others are refused.
    """

    def __init__(self, reactor: object, database: str, queues: str = "support") -> None:
        # SQLite has one writer at a time; more threads would wait for each other.
        super().__init__(reactor, threads=1)
        self.database = database
        self.queues = set(queues.split(","))
        if "" in self.queues:
            raise ValueError("queues: there is one without a name")

    def startService(self) -> None:
        super().startService()
        with self.opened() as tickets:
            tickets.execute(SCHEMA)

    def verify(self, mailbox: Mailbox) -> None:
        if mailbox.user not in self.queues:
            raise PermanentFailure("No such queue", (1, 1))

    def store(self, message: IMessage, mailbox: Mailbox) -> None:
        with message.open() as file:
            text = file.read()
        sender = str(message.envelope.sender)
        title = message.headers()["Subject"] or "(no subject)"
        try:
            with self.opened() as tickets:
                tickets.execute(
                    "INSERT INTO tickets (queue, sender, title, text) VALUES (?, ?, ?, ?)",
                    (mailbox.user, sender, str(title), text),
                )
        except sqlite3.Error as error:
            raise TemporaryFailure("Ticket cannot be opened now, try again later") from error

    @contextmanager
    def opened(self) -> Iterator[sqlite3.Connection]:
        """
        The database, for one transaction: what has been done is safe on disk afterwards.
        """
        with closing(sqlite3.connect(self.database)) as tickets:
            # FULL, the default, could forget the last commit in a power cut.
            tickets.execute("PRAGMA synchronous = EXTRA")
            with tickets:
                yield tickets
