"""
The plugin ``sql``.  SQLAlchemy is imported when it is asked for, not before.
"""

from __future__ import annotations

import os

from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.plugin import IPlugin
from zope.interface import implementer

from ...interfaces import IBackend, IBackendFactory
from ..pool import WorkerPool
from .settings import SYNOPSIS, from_words


@implementer(IPlugin, IBackendFactory)
class SQLFactory:
    """
    Makes an `lmtpsvc.backends.sql.backend.SQLBackend`.
    """

    name = "sql"
    synopsis = SYNOPSIS
    help = """\
Stores mail in SQLite, PostgreSQL or MariaDB; needs pip install 'lmtpsvc[sql]'.

URL          sqlite:////srv/mail.db, postgresql://user@host/database or mysql://user@host/database;
             its colons need no backslash, an = within it is written \\=
create       make the tables, and bring them up to date, at start; the default is yes for SQLite
compression  how new texts are stored.
quota        what a mailbox may hold if the directory says nothing: octets, and messages too.
full         the reply to mail over quota: try again later (452), or never (552).
connections  to a server, at most.
timeout      seconds that the database may take for one statement.
"""

    def build(self, reactor: object, *words: str, **options: str) -> IBackend:
        """
        Make the backend; a server need not answer yet.
        """
        settings = from_words(words, options)
        try:
            from .backend import SQLBackend, threads_for  # noqa: PLC0415 - see above
            from .engine import parse  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise ValueError(f"{error.name} is missing: pip install 'lmtpsvc[sql]'") from error
        database = parse(settings.url)
        if database.path is not None:
            _check(database.path)
        threads = threads_for(settings, database)
        pool = WorkerPool(IReactorFromThreads(reactor), threads, "sql")
        return SQLBackend(settings, database, pool, IReactorTime(reactor))


def _check(path: str) -> None:
    """
    Make sure that there could be a database at *path*.

    Raises:
        ValueError: With one line that says what is in the way.
    """
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        raise ValueError(f"{directory} is not a directory")
    # The log of a database is a file beside it.
    for each in (directory, path):
        if os.path.exists(each) and not os.access(each, os.W_OK, effective_ids=True):
            raise ValueError(f"{each} is not writable for user {os.geteuid()}")
