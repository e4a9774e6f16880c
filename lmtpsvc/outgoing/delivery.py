"""
Delivery: a message on its way, and what becomes of each recipient.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any

from twisted.internet.defer import Deferred

from ..envelope import Recipient
from ..replies import Reply
from ..session.outcomes import Outcome, Stage
from ..session.terms import Mailing
from ..wire.heard_replies import HeardReply
from .text import Text


class Delivery:
    """
    One message to several *recipients*, each of whom gets one Outcome, as soon as it is known.

    *outcomes* has a Deferred for each, in the order of the recipients.  They always fire with an
    Outcome, and never fail: a refusal, a lost connection and a server that cannot be reached are
    answers, too.  ``async for recipient, outcome in delivery`` gives them in the order in which they
    come; ``await delivery`` waits for all and gives a list in the order of the recipients.  Both work
    in coroutines of Twisted's and in tasks of asyncio on its reactor.
    """

    def __init__(self, mailing: Mailing, text: Text) -> None:
        self.recipients: tuple[Recipient, ...] = mailing.recipients
        self.outcomes: tuple[Deferred[Outcome], ...] = tuple(Deferred() for _ in mailing.recipients)
        #: For those who send it.
        self.mailing, self.text = mailing, text
        self._settled: dict[int, Outcome] = {}
        self._readers: list[_Outcomes] = []
        self._all: list[Deferred[None]] = []
        self._stop: Callable[[Reply], None] | None = None
        self._stopped_by: Reply | None = None
        self._is_text_sent = False

    @property
    def is_settled(self) -> bool:
        """
        Every recipient has its outcome.
        """
        return len(self._settled) == len(self.recipients)

    @property
    def is_text_sent(self) -> bool:
        """
        The server has got all of the text: it may deliver, whatever we do.
        """
        return self._is_text_sent

    def cancel(self) -> None:
        """
        Do not send it.

        Once the server has got the whole text this does nothing: the outcomes are what it answers.
        Before, the connection is closed, and all recipients without an outcome fail temporarily.
        """
        if not self._is_text_sent:
            self.give_up(Reply(451, "The delivery was called off", (0, 0)))

    def give_up(self, reply: Reply) -> None:
        """
        Wait no longer: *reply* is the outcome of all recipients that have none.  Those who have got
        the text may get the message all the same.
        """
        if not self.is_settled and self._stopped_by is None:
            self._stopped_by = reply
            if self._stop is not None:
                self._stop(reply)

    def __aiter__(self) -> AsyncIterator[tuple[Recipient, Outcome]]:
        reader = _Outcomes(len(self.recipients))
        for position, outcome in self._settled.items():
            reader.add((self.recipients[position], outcome))
        self._readers.append(reader)
        return reader

    def __await__(self) -> Generator[Any, Any, list[Outcome]]:
        return self._wait_for_all().__await__()

    def as_deferred(self) -> Deferred[list[Outcome]]:
        """
        A Deferred that fires with all outcomes, in the order of the recipients.
        """
        done: Deferred[None] = Deferred()
        if self.is_settled:
            done.callback(None)
        else:
            self._all.append(done)
        return done.addCallback(lambda _: self._in_order())

    async def _wait_for_all(self) -> list[Outcome]:
        await _awaitable(self.as_deferred())
        return self._in_order()

    def _in_order(self) -> list[Outcome]:
        return [self._settled[position] for position in range(len(self.recipients))]

    # ── for those who send it ────────────────────────────────────────────────────────────────────

    def on_its_way(self, stop: Callable[[Reply], None] | None) -> None:
        """
        It is with somebody who would *stop* it.
        """
        self._stop = stop
        if stop is not None and self._stopped_by is not None:
            stop(self._stopped_by)

    def text_sent(self) -> None:
        """
        The whole text is on the wire.
        """
        self._is_text_sent = True

    def settle(self, position: int, outcome: Outcome) -> None:
        """
        One recipient's outcome; only the first counts.
        """
        if position in self._settled:
            return
        self._settled[position] = outcome
        for reader in self._readers:
            reader.add((self.recipients[position], outcome))
        self.outcomes[position].callback(outcome)
        if self.is_settled:
            waiting, self._all = self._all, []
            for done in waiting:
                done.callback(None)

    def settle_rest(
        self, reply: Reply, stage: Stage, detail: str = "", heard: HeardReply | None = None
    ) -> None:
        """
        The same outcome for all recipients that have none, as nothing was begun.
        """
        outcome = Outcome(reply, stage, heard, unheard=True, detail=detail)
        for position in range(len(self.recipients)):
            self.settle(position, outcome)


class _Outcomes(AsyncIterator[tuple[Recipient, Outcome]]):
    """
    Outcomes for one reader, in the order in which they come.
    """

    def __init__(self, count: int) -> None:
        self._left = count
        self._come: deque[tuple[Recipient, Outcome]] = deque()
        self._waiting: Deferred[None] | None = None

    def add(self, outcome: tuple[Recipient, Outcome]) -> None:
        self._come.append(outcome)
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    async def __anext__(self) -> tuple[Recipient, Outcome]:
        if not self._left:
            raise StopAsyncIteration
        while not self._come:
            self._waiting = Deferred()
            await _awaitable(self._waiting)
        self._left -= 1
        return self._come.popleft()


def _awaitable(deferred: Deferred[Any]) -> Awaitable[Any]:
    """
    *deferred* as whoever awaits wants it: a task of asyncio takes Futures only.
    """
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return deferred
    if task is None:
        return deferred
    return deferred.asFuture(asyncio.get_running_loop())
