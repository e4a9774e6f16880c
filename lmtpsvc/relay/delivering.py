"""
Deliverer: takes what is due from the queue, and sends it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from attrs import field, frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..backends.sql.failures import in_words
from ..client import Client, PoolLimits, Timeouts, own_name
from .entries import Entry
from .lanes import Lane
from .queue import Queue
from .reports import Reports
from .round import Round
from .routes import Hop, IRouter, Route
from .schedule import Schedule

#: Clients that nobody uses are kept up to so many; their connections are long closed.
_MOST_CLIENTS: Final = 256

_log = Logger(namespace="lmtpsvc.relay")


@frozen
class Rates:
    """
    How much is done at a time.
    """

    #: Messages that a relay has in its hands.
    messages: int = 200
    #: Deliveries to one destination.
    per_destination: int = 10
    #: Deliveries that may wait for one destination; others come back later.
    waiting: int = 100
    #: Seconds between two attempts to reach a destination that is down.
    retry: float = 60.0
    #: Seconds until the queue is looked at again, for what others have put there.
    poll: float = 5.0
    #: Seconds that deliveries may take to come to their end when the relay stops.
    stop: float = 20.0
    timeouts: Timeouts = field(factory=Timeouts)


class Deliverer(Service):
    """
    Delivers what is in *queue* along the routes of *router*.

    *hostname* is what we call ourselves, to servers and in reports; *chance* gives random numbers
    from 0 to 1.  The queue is a service of its own, which stops after this one, in whatever order they
    are told to.
    """

    def __init__(
        self,
        queue: Queue,
        router: IRouter,
        reactor: Any,
        *,
        hostname: str | None = None,
        schedule: Schedule | None = None,
        rates: Rates | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.queue, self.router = queue, router
        self.schedule, self.chance = schedule or Schedule(), chance
        self.clock = IReactorTime(reactor)
        self._hostname = hostname or own_name()
        self.reports = Reports(self._hostname, self.schedule, queue.seconds)
        self._reactor, self._rates = reactor, rates or Rates()
        self._rounds: dict[str, Round] = {}
        self._ended: list[Deferred[None]] = []
        self._lanes: dict[str, Lane] = {}
        self._clients: dict[Hop, Client] = {}
        self._next_look: IDelayedCall | None = None
        self._next_renewal: IDelayedCall | None = None
        self._is_looking = False
        self._look_again = False
        self._safe_until = self._stops_at = 0.0
        self._is_too_late = False
        queue.when_added(self.look)
        queue.before_stop(self.stopService)

    # ── its life ─────────────────────────────────────────────────────────────────────────────────

    def startService(self) -> None:
        super().startService()
        self._is_too_late = False
        self._renew_later()
        self.look()

    def stopService(self) -> Deferred[None]:
        """
        Fires when nothing is on its way any more; what could not be sent waits in the queue.
        """
        if self.running:
            super().stopService()
            self._stops_at = self.clock.seconds() + self._rates.stop
            for call in (self._next_look, self._next_renewal):
                if call is not None and call.active():
                    call.cancel()
            for each in tuple(self._rounds.values()):
                each.call_off()
        over: Deferred[None] = Deferred()
        self._ended.append(over)
        self._look_whether_over()
        # Who stops us once more, as the queue does, does not wait once more.
        left = max(0.0, self._stops_at - self.clock.seconds())
        over.addTimeout(left, self.clock).addErrback(self._too_late)
        return over.addCallback(lambda _: self._close())

    def look(self) -> None:
        """
        See what is due, soon: something may be.
        """
        if self.running:
            self._look_in(0)

    # ── what is due ──────────────────────────────────────────────────────────────────────────────

    def _look_in(self, seconds: float) -> None:
        call = self._next_look
        if call is not None and call.active():
            if call.getTime() <= self.clock.seconds() + seconds:
                return
            call.cancel()
        self._next_look = self.clock.callLater(seconds, self._look)

    def _look(self) -> None:
        if self._is_looking:
            self._look_again = True
            return
        room = self._rates.messages - len(self._rounds)
        if room <= 0 or not self.running:
            # The end of a round makes room.
            return
        self._is_looking = True
        claiming = self.queue.claim(room)
        claiming.addCallbacks(
            self._claimed, self._not_claimed, callbackArgs=(room, self.queue.seconds())
        )

    def _claimed(self, claimed: tuple[list[Entry], float | None], room: int, asked: float) -> None:
        entries, following = claimed
        self._is_looking = False
        if not self._rounds:
            self._safe_until = asked + self.queue.lease
        for entry in entries:
            if entry.id in self._rounds:
                # Our own claim has run out: it is renewed by this, and the round goes on.
                continue
            self._begin(entry)
        if not self.running:
            self._look_whether_over()
            return
        if len(entries) == room or self._look_again:
            self._look_again = False
            self._look_in(0)
            return
        pause = self._rates.poll
        if following is not None:
            pause = min(pause, max(following - self.queue.seconds(), 0.05))
        self._look_in(pause)

    def _not_claimed(self, failure: Failure) -> None:
        self._is_looking = False
        _log.error("the queue cannot be read: {error}", error=_in_words(failure))
        if self.running:
            self._look_in(self._rates.poll)
        else:
            self._look_whether_over()

    def _begin(self, entry: Entry) -> None:
        self._rounds[entry.id] = round_ = Round(entry, self)
        if not self.running:
            round_.call_off()
        round_.run().addBoth(self._over, entry.id)

    def _over(self, result: object, id: str) -> None:
        if isinstance(result, Failure):
            _log.failure("{id}: a defect", result, id=id)
        del self._rounds[id]
        if self.running:
            if len(self._rounds) + 1 >= self._rates.messages:
                self.look()
        else:
            self._look_whether_over()

    def _look_whether_over(self) -> None:
        if not self._rounds and not self._is_looking:
            ended, self._ended = self._ended, []
            for each in ended:
                each.callback(None)

    # ── claims ───────────────────────────────────────────────────────────────────────────────────

    def _renew_later(self) -> None:
        self._next_renewal = self.clock.callLater(self.queue.lease / 4, self._renew)

    def _renew(self) -> None:
        if self.running or self._rounds:
            self._renew_later()
        if not self._rounds:
            return
        now = self.queue.seconds()
        if now > self._safe_until - self.queue.lease / 2:
            # Others may take our messages soon, and we could not tell.
            _log.error("claims cannot be renewed: deliveries are broken off")
            for each in tuple(self._rounds.values()):
                each.call_off()

        def renewed(lost: set[str]) -> None:
            self._safe_until = now + self.queue.lease
            for id in lost & self._rounds.keys():
                self._rounds[id].call_off(lost=True)

        def not_renewed(failure: Failure) -> None:
            _log.error("claims are not renewed: {error}", error=_in_words(failure))

        self.queue.renew(self._rounds).addCallbacks(renewed, not_renewed)

    # ── for rounds ───────────────────────────────────────────────────────────────────────────────

    def lane(self, route: Route) -> Lane:
        """
        Where one waits for the servers of *route*.
        """
        lane = self._lanes.get(route.name)
        if lane is None:
            if len(self._lanes) >= _MOST_CLIENTS:
                # Who is down is remembered as long as somebody is interested.
                self._lanes = {
                    name: each
                    for name, each in self._lanes.items()
                    if not each.is_idle or each.breaker.is_refusing
                }
            rates = self._rates
            lane = Lane(self.queue.seconds, rates.per_destination, rates.waiting, rates.retry)
            self._lanes[route.name] = lane
        return lane

    def client(self, hop: Hop) -> Client:
        """
        The connections to *hop*.

        Raises:
            ValueError: Its words make no sense.
        """
        client = self._clients.pop(hop, None)
        if client is None:
            client = Client(
                self._reactor,
                hop.to,
                dialect=hop.dialect,
                hostname=self._hostname,
                tls=hop.tls,
                encryption=hop.encryption,
                login=hop.login,
                timeouts=self._rates.timeouts,
                limits=PoolLimits(connections=self._rates.per_destination),
            )
        # The one used last stands last.
        self._clients[hop] = client
        while len(self._clients) > _MOST_CLIENTS:
            self._clients.pop(next(iter(self._clients))).close()
        return client

    def _too_late(self, _failure: Failure) -> None:
        if self._is_too_late:
            return
        self._is_too_late = True
        _log.warn("{count} messages are left to another relay", count=len(self._rounds))
        for each in tuple(self._rounds.values()):
            each.give_up()

    def _close(self) -> Any:
        clients, self._clients = self._clients, {}
        return DeferredList([client.close() for client in clients.values()]).addCallback(
            lambda _: None
        )


def _in_words(failure: Failure) -> str:
    error = failure.value
    return in_words(error) if isinstance(error, Exception) else repr(error)
