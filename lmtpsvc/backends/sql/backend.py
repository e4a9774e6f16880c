"""
The SQL backend: each text once, each mailbox a counter and its rows, several messages a commit.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Final

from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ...commitment import Commitment
from ...envelope import Address, Mailbox
from ...errors import DeliveryError, refusal
from ...interfaces import Capabilities, IBackend, IMessage, ITellsWhere
from ...quota import Quota, declared_size
from ...replies import BAD_MAILBOX
from ..allowance import allowance
from ..files import sync_directory
from ..group_commit import GroupCommit
from ..pool import Pool
from ..target import Answer
from . import versions
from .batch import Batch
from .engine import Database, what_is_not_safe
from .failures import in_words, judge
from .posting import Posting, Source, Target, original_recipient
from .schema import is_name
from .schema import mailbox as box
from .settings import Settings
from .stopping import stopped_in_time

_log = Logger()

#: Mailboxes in one transaction: where there are very many, the first do not wait for the last.
AT_ONCE: Final = 256


@implementer(IBackend, ITellsWhere)
class SQLBackend(Service):
    """
    Stores mail in *database*; all waiting for it is done in *pool* only, except at start.
    """

    capabilities = Capabilities(binary=True)

    def __init__(
        self, settings: Settings, database: Database, pool: Pool, clock: IReactorTime
    ) -> None:
        self._settings, self._database, self._pool = settings, database, pool
        self._clock = clock
        threads = threads_for(settings, database)
        self._engine: Engine = database.engine(threads, settings.timeout)
        self._is_checked = False
        self._group: GroupCommit[Posting] = GroupCommit(
            pool, clock, threads, lambda: True, self._store
        )

    def __str__(self) -> str:
        return str(self._database)

    def startService(self) -> None:
        """
        Look at the tables, and make them if that is wanted.

        A server that cannot be reached now may come up later: until then, mail is answered 451.

        Raises:
            OSError: The tables are not those of this version.
        """
        super().startService()
        try:
            self._prepare()
        except versions.SchemaError as error:
            raise OSError(f"{self}: {error}") from error
        except SQLAlchemyError as error:
            if self._database.path is not None:
                raise OSError(f"{self}: {in_words(error)}") from error
            _log.error(
                "{database} cannot be reached, mail has to wait: {error}",
                database=self._database,
                error=in_words(error),
            )

    def stopService(self) -> Deferred[None]:
        """
        Fires when all deliveries that have been asked for are done, or the database had its time
        for them.
        """
        super().stopService()
        # Before the pool: what waits for its turn is not in the pool yet.
        stopped = self._group.finish().addCallback(lambda _: self._pool.stop())
        return stopped_in_time(stopped, self._clock, self._database).addBoth(self._dispose)

    def verify(self, mailbox: Mailbox) -> Deferred[None] | None:
        """
        Refuse a *mailbox* whose name does not fit, or that has no room for what the client has
        announced; whether it exists does not matter.
        """
        name, quota = name_of(mailbox), allowance(mailbox, self._settings.quota)
        if quota is None or not quota.binding:
            return None
        return self._pool.submit(partial(self._check_room, name, quota, declared_size(mailbox)))

    def where(self, mailbox: Mailbox) -> str:
        return f"mailbox {name_of(mailbox)} of {self._database}"

    def deliver(self, message: IMessage, mailboxes: Sequence[Mailbox]) -> list[Commitment]:
        """
        Store *message*; mailboxes of one name get one copy.
        """
        results = [Commitment() for _ in mailboxes]
        targets: dict[str, Target] = {}
        for mailbox, result in zip(mailboxes, results, strict=True):
            try:
                name, quota = name_of(mailbox), allowance(mailbox, self._settings.quota)
            except DeliveryError as error:
                result.errback(error)
                continue
            if name not in targets:
                recipient = original_recipient(message.envelope, mailbox)
                targets[name] = Target(name, quota, recipient)
            targets[name].waiting.append(result)
        source, waiting = Source(message), list(targets.values())
        priority = message.envelope.sender.priority
        for start in range(0, len(waiting), AT_ONCE):
            self._group.add(Posting(source, waiting[start : start + AT_ONCE]), priority)
        return results

    def _check_room(self, name: str, quota: Quota, size: int) -> None:
        """
        In a worker thread: whether a message of *size* has room; one of unknown size has if any
        has.
        """
        query = select(box.c.octets, box.c.messages).where(box.c.name == name)
        path = self._database.path
        if not self._is_checked and path is not None and not os.path.exists(path):
            # Somebody asks before there is a store, and would make an empty file by asking.
            return
        try:
            with self._engine.connect() as connection:
                octets, messages = connection.execute(query).one_or_none() or (0, 0)
        except SQLAlchemyError as error:
            _log.error("{database}: {error}", database=self._database, error=in_words(error))
            raise judge(error).refusal from error
        if not quota.has_room(octets + max(size, 1), messages + 1):
            raise refusal(self._settings.mailbox_full)

    def _store(self, postings: list[Posting]) -> list[Answer]:
        """
        In a worker thread: store several messages together.
        """
        if not self._is_checked:
            self._check_late()
        return Batch(postings, self._settings, self._engine, self._pool).store()

    def _check_late(self) -> None:
        """
        The server was not there at start.
        """
        try:
            self._prepare()
        except (SQLAlchemyError, versions.SchemaError) as error:
            # The delivery will find that out, too, and answer.
            _log.error("{database}: {error}", database=self._database, error=in_words(error))

    def _prepare(self) -> None:
        create = self._settings.create
        path = self._database.path
        if create is None:
            create = path is not None
        if create:
            if versions.upgrade(self._engine):
                _log.info("{database}: the tables are made", database=self._database)
            if path is not None:
                sync_directory(path.rpartition("/")[0] or "/")
        with self._engine.connect() as connection:
            versions.check(connection)
            for line in what_is_not_safe(connection):
                _log.warn("{database}: {line}", database=self._database, line=line)
        self._is_checked = True

    def _dispose(self, result: None) -> None:
        self._engine.dispose()


def threads_for(settings: Settings, database: Database) -> int:
    """
    How many threads wait for the database: SQLite has one writer at a time.
    """
    return 1 if database.path is not None else settings.connections


def name_of(mailbox: Mailbox) -> str:
    """
    What stands in the column ``name``: the address without the detail.

    Raises:
        PermanentFailure: It does not fit.
    """
    name = str(Address(mailbox.user, mailbox.domain))
    if not mailbox.user or not is_name(name):
        raise refusal(BAD_MAILBOX)
    return name
