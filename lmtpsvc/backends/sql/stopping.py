"""
The end of work with a database, which may hang.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from .engine import Database

#: What a database is doing when we stop has so long to come to its end.  Its own time for a statement,
#: and another for a connection in place of one that is lost, would be more than a minute.
STOP_SECONDS: Final = 20.0

_log = Logger()


def stopped_in_time(
    stopped: Deferred[Any], clock: IReactorTime, database: Database
) -> Deferred[Any]:
    """
    *stopped*, which fires when all threads that talk to *database* have ended; or without them, if
    that takes too long.  Nobody has been told yes about what they are doing.
    """

    def late(failure: Failure) -> None:
        failure.trap(TimeoutError, CancelledError)
        _log.warn(
            "{database} does not answer, and is not waited for: what it was asked last may be done"
            " or not",
            database=database,
        )

    return stopped.addTimeout(STOP_SECONDS, clock).addErrback(late)
