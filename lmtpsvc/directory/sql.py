"""
``sql:URL``: those who live here stand in a database, and a query of the operator's own finds them.

SQLAlchemy is imported when it is asked for, not before.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, Protocol, TypeVar

from attrs import evolve
from twisted.application.service import Service
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface import implementer

from ..backends.pool import Pool, WorkerPool
from ..domains import unicode_domain
from ..envelope import Mailbox
from ..errors import DeliveryError, refusal
from ..interfaces import IDirectory, IDirectoryFactory, ITellsSince
from ..quantities import count, seconds
from ..replies import CANNOT_LOOK_UP, NO_SUCH_USER
from .cache import Answer, Cache
from .rows import NoAnswer, Row, mailboxes_from, unknown_columns

Number = TypeVar("Number", int, float)

#: Look-ups that wait, at most: beyond, the answer is "later" at once.
MOST_WAITING: Final = 1000


class Asked(Protocol):
    """
    What is asked: `lmtpsvc.directory.query.Query`.
    """

    def rows(self, mailbox: Mailbox) -> Sequence[Row]:
        """
        What is known about *mailbox*.  Blocks.

        Raises:
            NoAnswer: Nobody knows.
        """

    def close(self) -> None:
        """
        Nobody asks any more.
        """


@implementer(IDirectory, ITellsSince)
class SqlDirectory(Service):
    """
    Asks *query* in threads of *pool*, for *timeout* seconds at most, unless *cache* knows.
    """

    _log = Logger()

    def __init__(
        self,
        query: Asked,
        pool: Pool,
        clock: IReactorTime,
        cache: Cache,
        timeout: float,
        *,
        tells_since: bool = False,
    ) -> None:
        self.tells_since = tells_since
        self._query, self._pool, self._clock, self._cache = query, pool, clock, cache
        self._timeout = timeout
        self._waiting = 0
        # What went wrong last, until something goes right: it is logged when it begins.
        self._trouble = ""
        self._told: set[str] = set()

    def startService(self) -> None:
        """
        Ask about nobody, so that a query with a mistake is in the log before the first mail.
        """
        super().startService()
        asked = Deferred.fromCoroutine(self._rows(Mailbox("postmaster", "localhost.invalid")))
        asked.addErrback(lambda failure: failure.trap(DeliveryError))
        asked.addErrback(lambda failure: self._log.failure("the query failed", failure))

    def stopService(self) -> Deferred[None]:
        """
        Fires when no thread is busy any more, or could not be waited for.
        """
        super().stopService()

        def closed(_: object) -> None:
            self._query.close()

        return self._pool.stop().addTimeout(self._timeout, self._clock).addBoth(closed)

    def resolve(self, mailbox: Mailbox) -> Awaitable[Sequence[Mailbox]] | Sequence[Mailbox]:
        answer = self._cache.fresh(mailbox)
        return self._ask(mailbox) if answer is None else _found(answer)

    async def _ask(self, mailbox: Mailbox) -> Sequence[Mailbox]:
        try:
            rows = await self._rows(mailbox)
            if not rows:
                # Operators write internationalised domains as they like.
                other = unicode_domain(mailbox.domain)
                if other != mailbox.domain:
                    rows = await self._rows(evolve(mailbox, domain=other))
        except DeliveryError:
            stale = self._cache.stale(mailbox)
            if stale is None:
                raise
            return stale
        try:
            answer = mailboxes_from(rows, mailbox)
        except ValueError as error:
            self._log.error("{mailbox}: {error}", mailbox=mailbox, error=error)
            raise refusal(CANNOT_LOOK_UP) from error
        self._cache.keep(mailbox, answer)
        return _found(answer)

    async def _rows(self, mailbox: Mailbox) -> Sequence[Row]:
        """
        What the database says, if it does so in time.
        """
        if self._waiting >= MOST_WAITING:
            self._in_trouble(f"{MOST_WAITING:,} look-ups wait for it")
            raise refusal(CANNOT_LOOK_UP)
        # For the thread: nobody waits for the answer any more.
        over: list[bool] = []
        self._waiting += 1
        try:
            job = partial(_unless, over, partial(self._query.rows, mailbox))
            rows = await self._pool.submit(job).addTimeout(self._timeout, self._clock)
        except TimeoutError as error:
            self._in_trouble(f"no answer within {self._timeout:g} seconds")
            raise refusal(CANNOT_LOOK_UP) from error
        except NoAnswer as error:
            self._in_trouble(str(error))
            raise refusal(CANNOT_LOOK_UP) from error
        finally:
            self._waiting -= 1
            over.append(True)
        self._out_of_trouble(rows)
        return rows

    def _in_trouble(self, reason: str) -> None:
        if reason != self._trouble:
            self._trouble = reason
            self._log.error(
                "{query}: {reason}; mail has to wait", query=str(self._query), reason=reason
            )

    def _out_of_trouble(self, rows: Sequence[Row]) -> None:
        if self._trouble:
            self._trouble = ""
            self._log.info("{query}: answers again", query=str(self._query))
        for name in unknown_columns(set(rows[0]) - self._told) if rows else ():
            self._told.add(name)
            self._log.warn(
                "{query}: the column {name} means nothing here, and is left out",
                query=str(self._query),
                name=name,
            )


def _found(answer: Answer) -> Sequence[Mailbox]:
    if not answer:
        raise refusal(NO_SUCH_USER)
    return answer


def _unless(over: Sequence[bool], job: Callable[[], Sequence[Row]]) -> Sequence[Row]:
    """
    In a worker thread: do *job*, unless it has waited for so long that it is *over*.
    """
    return [] if over else job()


@implementer(IPlugin, IDirectoryFactory)
class SqlUsersFactory:
    """
    ``sql:URL:query=...``.
    """

    name = "sql"
    synopsis = "sql:URL:query=SELECT...|@FILE[:cache=60][:stale=0][:timeout=10][:connections=4]"
    help = """
        Those who live here stand in a database, any that SQLAlchemy knows; needs pip install
        'lmtpsvc[sql]'.

        URL: sqlite:////srv/users.db, postgresql://user@host/database, mysql://user@host/database;
        its colons need no backslash, an = within it is written \\=.  @FILE is a file with the URL
        in it, which keeps a password out of the list of processes.

        query: your own, or @FILE for a file with it; :user :domain :detail and :address
        (user@domain) stand for the parts of the address; in the query itself, write \\: for each
        colon.  Each row is a place where the mail goes, no row is "no such user".  Columns, by name:
        user and domain, or address; detail; home, uid, gid; quota, or quota_octets and
        quota_messages; backend; since, domain_since (RFC 7293); x_NAME for a backend of your own.  What is missing or NULL is as it
        was asked.

        cache: how long an answer is kept, 0 for not at all; "no such user" a sixth of that.

        stale: how much longer those who were found are served from memory if the database does not
        answer; 0 for not at all: then their mail has to wait (451), too.

        timeout: how long the database may take.

        connections: to the database, at most; each has a thread.
    """

    def build(self, reactor: object, *words: str, **options: str) -> IDirectory:
        if not words or not words[0] or "query" not in options:
            raise ValueError(f"expected {self.synopsis}")
        left = dict(options)
        url, statement = _read(":".join(words)), _read(left.pop("query"))
        kept, stale = _time(left, "cache", "60"), _time(left, "stale", "0")
        timeout = _number("timeout", seconds, left.pop("timeout", "10"))
        connections = _number("connections", count, left.pop("connections", "4"))
        if left:
            raise ValueError(f"{min(left)}: no such option; expected {self.synopsis}")
        if stale and not kept:
            raise ValueError("stale= needs cache=: what is not kept cannot be served")
        try:
            from .query import Query  # noqa: PLC0415 - see above
        except ModuleNotFoundError as error:
            raise ValueError(f"{error.name} is missing: pip install 'lmtpsvc[sql]'") from error
        query = Query(url, statement, connections, timeout)
        clock = IReactorTime(reactor)
        pool = WorkerPool(IReactorFromThreads(reactor), connections, "users")
        cache = Cache(kept, stale, clock.seconds)
        # The columns are not known before there is a row, and LHLO is answered before.
        tells_since = re.search(r"\b(domain_)?since\b", statement, re.IGNORECASE) is not None
        return SqlDirectory(query, pool, clock, cache, timeout, tells_since=tells_since)


def _read(word: str) -> str:
    """
    *word*, or what stands in the file that it names with ``@``.
    """
    if not word.startswith("@"):
        return word
    with open(word[1:], encoding="utf-8") as file:
        return file.read().strip()


def _time(options: dict[str, str], name: str, default: str) -> float:
    word = options.pop(name, default)
    return 0.0 if re.fullmatch("0[smh]?", word) else _number(name, seconds, word)


def _number(name: str, read: Callable[[str], Number], word: str) -> Number:
    try:
        return read(word)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
