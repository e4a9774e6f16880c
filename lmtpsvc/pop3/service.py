"""
POP3 over an SQL store, as a service for a ``.tac`` file.
"""

from __future__ import annotations

from typing import Any

from twisted.application import strports
from twisted.application.service import MultiService
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorFromThreads

from ..backends.pool import WorkerPool
from ..backends.sql.engine import parse
from ..backends.sql.reading import Store
from .mailbox import AskedInThread, StoreRealm
from .protocol import POP3Factory


class POP3Service(MultiService):
    """
    Listens at *endpoint*, such as ``tcp:110`` or ``ssl:995:privateKey=key.pem:certKey=cert.pem``,
    and serves the mailboxes of the store at *url* to whom *checker* knows.

    The database is not asked before somebody logs in, so that it may start later, or be new.
    *connections* are those to the database, and the threads that wait for it.
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: str,
        url: str,
        checker: ICredentialsChecker,
        connections: int = 4,
    ) -> None:
        super().__init__()
        self._store = Store(parse(url), connections)
        self._pool = WorkerPool(IReactorFromThreads(reactor), connections, "pop3")
        portal = Portal(StoreRealm(self._store, self._pool), [AskedInThread(checker, self._pool)])
        self._factory = POP3Factory(portal, self._pool)
        strports.service(endpoint, self._factory, reactor).setServiceParent(self)

    def stopService(self) -> Deferred[None]:
        """
        Fires when no thread is at work any more.  What was marked stays if there was no QUIT.
        """
        return Deferred.fromCoroutine(self._stop(maybeDeferred(super().stopService)))

    async def _stop(self, closed: Deferred[object]) -> None:
        await closed
        for connection in list(self._factory.connections):
            connection.transport.abortConnection()
        await self._pool.stop()
        self._store.close()
