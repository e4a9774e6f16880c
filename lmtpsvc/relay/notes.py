"""
Notes: what has been heard of a message, written down until it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ..backends.sql.failures import in_words
from .entries import Result
from .queue import Queue
from .reports import Reports

#: Seconds until something is written down again that could not be.
PAUSES: Final = (0.5, 1.0, 2.0, 5.0)

_log = Logger(namespace="lmtpsvc.relay")


class Notes:
    """
    Notes about the message *id* of *queue*.  *lost* is called when the message turns out to be another
    relay's by now, or nobody's.
    """

    def __init__(
        self, id: str, queue: Queue, clock: IReactorTime, lost: Callable[[], None]
    ) -> None:
        self._id, self._queue, self._clock, self._lost = id, queue, clock, lost
        self._heard: list[Result] = []
        self._is_writing = False
        self._waiting: list[Deferred[None]] = []

    def add(self, result: Result) -> None:
        """
        Write *result* down; those that come while others are being written go together.
        """
        self._heard.append(result)
        if not self._is_writing:
            self._is_writing = True
            Deferred.fromCoroutine(self._write())

    async def written(self) -> None:
        """
        Wait until all that was added is written down.
        """
        if self._is_writing:
            done: Deferred[None] = Deferred()
            self._waiting.append(done)
            await done

    async def finish(self, reports: Reports) -> None:
        """
        Leave the message, with *reports* of what was added.
        """
        if await self._insist(partial(self._queue.finish, self._id, reports.make)) is None:
            self._lost()

    async def _write(self) -> None:
        while self._heard:
            results, self._heard = self._heard, []
            if not await self._insist(partial(self._queue.record, self._id, results)):
                self._lost()
        self._is_writing = False
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    async def _insist(self, work: Callable[[], Deferred[Any]]) -> Any:
        """
        Do *work* until it succeeds: what has been answered must not be forgotten, and the same may
        be written down twice.  Only another relay's claim ends it.
        """
        attempts = 0
        while True:
            try:
                return await work()
            except Exception as error:
                _log.error(
                    "{id}: the queue cannot be written to: {error}",
                    id=self._id,
                    error=in_words(error),
                )
            pause = PAUSES[min(attempts, len(PAUSES) - 1)]
            attempts += 1
            await deferLater(self._clock, pause, lambda: None)
