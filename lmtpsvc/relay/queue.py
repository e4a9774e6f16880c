"""
Queue: mail that we have taken responsibility for, in a database.

    queue = Queue.at("sqlite:////var/spool/lmtpsvc/queue.db", reactor)
    queue.startService()
    id = await queue.add_message(message, accepted)      # what arrived over SMTP
    id = await queue.add(sender, recipients, b"Subject: …")   # what we have written

Both fire once the message would survive a power cut: 250 may be said then.  They fail with what
`lmtpsvc.errors` has for it, as a backend does; nothing was stored then, except where the connection
to the database was lost while it committed.

Any number of processes may share a queue, on PostgreSQL and MariaDB of many machines, on SQLite of
one; their clocks should agree within seconds.
"""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, BinaryIO, Final, Self, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..backends.forward_text import passed_on
from ..backends.pool import Pool, WorkerPool
from ..backends.sql import versions
from ..backends.sql.engine import Database, parse, what_is_not_safe
from ..backends.sql.failures import in_words, judge
from ..backends.sql.stopping import stopped_in_time
from ..envelope import Recipient, Sender
from ..errors import from_os_error
from ..interfaces import IMessage
from . import ledger
from .entries import Entry, Result
from .ledger import Finished, MakeReports, New
from .tables import QUEUE
from .transactions import Transactions

T = TypeVar("T")

#: Where the queue is if nobody says.
DEFAULT: Final = "sqlite:///queue.db"
#: Seconds that a message stays with a relay of which nothing is heard.
LEASE: Final = 60.0
#: Larger texts have a transaction to themselves.
LARGE: Final = 1 << 20
#: Texts up to so many octets are kept in memory while they are sent, others in a temporary file.
IN_MEMORY: Final = 1 << 18

_log = Logger(namespace="lmtpsvc.relay")


class Queue(Service):
    """
    The queue in *database*; a relay of its own, with claims of its own, as long as it exists.

    *pool* has the threads that talk to the database, *seconds* says what time it is, in seconds
    since the epoch, and *lease* how long a relay that is not heard of keeps its claims.  *create*
    makes the tables if there are none, and brings them up to date.  With a *clock*, a database that
    hangs does not keep it from stopping.
    """

    def __init__(
        self,
        database: Database,
        pool: Pool,
        seconds: Callable[[], float] = time.time,
        *,
        lease: float = LEASE,
        create: bool = True,
        clock: IReactorTime | None = None,
    ) -> None:
        self.database, self.seconds, self.lease = database, seconds, lease
        #: Who we are to other relays.
        self.owner: str = os.urandom(12).hex()
        self._pool, self._create, self._clock = pool, create, clock
        self._engine = database.engine(connections=_THREADS)
        # SQLite has one writer at a time anyway, and those who wait share its commit.
        writers = 1 if database.kind == "sqlite" else _THREADS // 2
        self._transactions = Transactions(self._engine, pool, writers)
        self._users: list[Callable[[], Deferred[None]]] = []
        self._listeners: list[Callable[[], None]] = []

    @classmethod
    def at(cls, url: str, reactor: Any, **options: Any) -> Queue:
        """
        The queue at *url*, with threads of its own.

        Raises:
            ValueError: One line that says what is wrong with the words.
        """
        options = {"clock": IReactorTime(reactor), **options}
        return cls(parse(url), WorkerPool(reactor, _THREADS, "queue"), **options)

    # ── its life ─────────────────────────────────────────────────────────────────────────────────

    def privilegedStartService(self) -> None:
        """
        Look at the database, which takes a moment.

        Raises:
            ValueError: It cannot be used; one line says why.
        """
        try:
            if self._create and make_tables(self.database, self._engine):
                _log.info("{queue}: the tables are made", queue=str(self.database))
            with self._engine.connect() as connection:
                versions.check(connection, QUEUE)
                for line in what_is_not_safe(connection):
                    _log.warn("{queue}: {line}", queue=str(self.database), line=line)
        except SQLAlchemyError as error:
            raise ValueError(f"{self.database}: {in_words(error)}") from error
        except versions.SchemaError as error:
            raise ValueError(f"{self.database}: {error}") from error
        except OSError as error:
            raise ValueError(f"{self.database}: {error.strerror}") from error

    def stopService(self) -> Deferred[None]:
        """
        Fires when everything asked for is done, and no connection is left; or when the database had
        its time for that.
        """
        super().stopService()
        users: Deferred[Any] = DeferredList([user() for user in self._users], consumeErrors=True)
        users.addCallback(lambda _: self._stop_asking())
        return users.addCallback(lambda _: self._engine.dispose())

    def _stop_asking(self) -> Deferred[Any]:
        stopped = self._pool.stop()
        if self._clock is None:
            return stopped
        return stopped_in_time(stopped, self._clock, self.database)

    def before_stop(self, user: Callable[[], Deferred[None]]) -> None:
        """
        When this stops, have *user* come to its end first, which may need what is asked for here.
        """
        self._users.append(user)

    # ── what arrives ─────────────────────────────────────────────────────────────────────────────

    def add(
        self,
        sender: Sender,
        recipients: Sequence[Recipient],
        text: bytes | Callable[[], BinaryIO],
        *,
        id: str | None = None,
        size: int = 0,
    ) -> Deferred[str]:
        """
        Keep a message until it has arrived.

        *text* has CRLF at the end of lines, with all trace headers but no Return-Path: octets, or
        what opens a binary file (in a thread, perhaps twice; it is closed).  *size* tells whether
        that is large.  *id* is what it is called here, by default something new; nothing in the
        queue may have it yet.

        Fires with the id, once the message would survive a power cut.

        Fails:
            TemporaryFailure: The database cannot be written to, or the file not be read.
            PermanentFailure: It is too large for the database.

        Raises:
            ValueError: There are no recipients.
        """
        if not recipients:
            raise ValueError("no recipients")
        read = partial(io.BytesIO, text) if isinstance(text, bytes) else text
        new = New(id or os.urandom(8).hex(), sender, tuple(recipients), read)
        is_large = (len(text) if isinstance(text, bytes) else size) > LARGE

        def added(_: None) -> str:
            for each in self._listeners:
                each()
            return new.id

        done = self._transactions.do(
            lambda connection: ledger.create(connection, new, self.seconds()), alone=is_large
        )
        return done.addCallbacks(added, partial(_refused, new.id))

    def add_message(
        self, message: IMessage, recipients: Sequence[Recipient] | None = None
    ) -> Deferred[str]:
        """
        Keep *message* for *recipients*, by default all of its envelope; its id is the one here, too.
        Otherwise as `add`.
        """
        envelope = message.envelope
        return self.add(
            envelope.sender,
            envelope.recipients if recipients is None else recipients,
            lambda: passed_on(message)[0],
            id=message.id,
            size=message.sizes().physical,
        )

    def when_added(self, listener: Callable[[], None]) -> None:
        """
        Call *listener* whenever a message was added here.
        """
        self._listeners.append(listener)

    # ── for those who deliver ────────────────────────────────────────────────────────────────────

    def claim(self, most: int) -> Deferred[tuple[list[Entry], float | None]]:
        """
        Take up to *most* messages that are due.  They are ours for as long as the lease, or until
        `finish`.  Fires with them, and with the time when the next message is due, None if there is
        none.
        """
        now = self.seconds()
        return self._transactions.do(
            lambda connection: ledger.claim(connection, self.owner, now, now + self.lease, most)
        )

    def renew(self, ids: Iterable[str]) -> Deferred[set[str]]:
        """
        Keep our claims for another lease.  Fires with the ids of those that are not ours any more.
        """
        ours, until = list(ids), self.seconds() + self.lease
        return self._transactions.do(
            lambda connection: ledger.renew(connection, self.owner, ours, until)
        )

    def record(self, id: str, results: Sequence[Result]) -> Deferred[bool]:
        """
        Write down what became of recipients of a message that we have claimed.  It does no harm to
        do that twice.  Fires with False if the claim is lost: then only those count that are done.
        """
        return self._transactions.do(
            lambda connection: ledger.record(connection, self.owner, id, results)
        )

    def finish(self, id: str, make: MakeReports) -> Deferred[Finished | None]:
        """
        Leave a message that we have claimed.  *make* is called, in a thread, if somebody is to be
        told something; what it makes is in the queue in the same moment.  Fires with None if the
        claim is lost.
        """
        done = self._transactions.do(
            lambda connection: ledger.finish(connection, self.owner, id, self.seconds(), make)
        )

        def finished(how: Finished | None) -> Finished | None:
            if how is not None and how.reports:
                for each in self._listeners:
                    each()
            return how

        return done.addCallback(finished)

    def open_text(self, entry: Entry) -> Deferred[StoredText]:
        """
        The text of a message, for sending; `StoredText.close` it.
        """
        return self._pool.submit(lambda: self._read_text(entry))

    def _read_text(self, entry: Entry) -> StoredText:
        file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - who gets it closes it
        try:
            with self._engine.connect() as connection:
                number = 0
                while piece := ledger.read_piece(connection, entry.id, number):
                    file.write(piece)
                    number += 1
            if file.tell() != entry.size:
                raise OSError(f"{entry.id}: {file.tell()} of {entry.size} octets are left")
            return StoredText(file, entry.size)
        except BaseException:
            file.close()
            raise

    def in_thread(self, work: Callable[[], T]) -> Deferred[T]:
        """
        Have something done that takes a while, in one of our threads.
        """
        return self._pool.submit(work)

    def read(self, look: Callable[[Connection], T]) -> Deferred[T]:
        """
        Look at the database, which *look* must not change.
        """

        def work() -> T:
            with self._engine.connect() as connection:
                return look(connection)

        return self._pool.submit(work)


def make_tables(database: Database, engine: Engine) -> bool:
    """
    Make the tables, or bring them up to date; False if they were.  A new SQLite file is for its
    owner alone: it has people's mail.

    Raises:
        SchemaError: They are of a newer version than this one.
        OSError: There is no such directory, or no right to write there.
    """
    if database.path is not None:
        # Whoever makes it, its companions (-wal, -shm) get the same mode.
        with suppress(FileExistsError):
            os.close(os.open(database.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    return versions.upgrade(engine, QUEUE)


class StoredText:
    """
    A text of *size* octets that may be read by several at a time.
    """

    def __init__(self, file: tempfile.SpooledTemporaryFile[bytes], size: int) -> None:
        self._file, self.size = file, size
        self._octets: bytes | None = None
        if size <= IN_MEMORY:
            file.seek(0)
            self._octets = file.read()

    def open(self) -> BinaryIO:
        """
        A new file, at the beginning.
        """
        if self._octets is not None:
            return io.BytesIO(self._octets)
        return io.BufferedReader(_Part(os.dup(self._file.fileno()), self.size))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """
        Not needed any more; what is open stays so.
        """
        self._file.close()
        self._octets = None


class _Part(io.RawIOBase):
    """
    A reader with a position of its own in a file that others read, too.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor, self._size, self._at = descriptor, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = os.preadv(self._descriptor, [buffer], self._at)
        self._at += count
        return count

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


_THREADS: Final = 4


def _refused(id: str, failure: Failure) -> Failure:
    """
    As a reply that an SMTP server can give.
    """
    error = failure.value
    if isinstance(error, OSError):
        _log.error("{id} cannot be read: {error}", id=id, error=error)
        return Failure(from_os_error(error))
    if isinstance(error, SQLAlchemyError):
        _log.error("{id} is not queued: {error}", id=id, error=in_words(error))
        return Failure(judge(error).refusal)
    return failure
