"""
Round: one message, from when a relay has claimed it until it leaves it again.

Its recipients are grouped by where they go; each group is one transaction with the next server.  What
that says of a recipient is written down the moment it is said, whatever becomes of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..backends.sql.failures import in_words
from ..client import TLS, Client, Delivery, Outcome, Stage
from ..delivery.report import Action
from ..envelope import DeliverBy, Sender
from ..errors import DeliveryError
from ..replies import CANNOT_LOOK_UP, INTERNAL_ERROR, NEEDS_TLS, Reply
from .entries import Entry, Result, State, Waypoint
from .lanes import Lane
from .notes import Notes
from .queue import Queue, StoredText
from .reports import Reports, after_success, wants
from .routes import Hop, IRouter, Route
from .schedule import Schedule
from .seven_bit import CannotConvert, seven_bit

#: RFC 5321 §4.5.3.1.8: as many recipients every server takes in a transaction.
MOST_RECIPIENTS: Final = 100

_EXPIRED: Final = Reply(550, "The time that its sender gave it is over", (4, 7))
_DOWN: Final = Reply(451, "The next server does not answer", (4, 1))
_STOPPING: Final = Reply(451, "The relay is stopping", (3, 2))
_UNSAYABLE: Final = Reply(550, "This cannot be said to the next server", (1, 3))

_log = Logger(namespace="lmtpsvc.relay")


class Surroundings(Protocol):
    """
    What a round needs of whoever runs it.
    """

    queue: Queue
    router: Any
    schedule: Schedule
    reports: Reports
    clock: IReactorTime
    chance: Callable[[], float]

    def lane(self, route: Route) -> Lane: ...

    def client(self, hop: Hop) -> Client: ...


class Round:
    """
    One round of *entry*.
    """

    def __init__(self, entry: Entry, around: Surroundings) -> None:
        self._entry, self._around = entry, around
        self._queue, self._seconds = around.queue, around.queue.seconds
        self._schedule = _schedule(around.schedule, entry.sender.deliver_by)
        self._deliveries: set[Delivery] = set()
        self._waits: set[Deferred[Any]] = set()
        self._is_off = False
        self._is_lost = False
        self._notes = Notes(entry.id, around.queue, around.clock, self._lost)

    def run(self) -> Deferred[None]:
        """
        Try all who are due.  Fires, and never fails, when the message is left.
        """
        return Deferred.fromCoroutine(self._run())

    def call_off(self, *, lost: bool = False) -> None:
        """
        Begin nothing more, and break off what can still be broken off; what was answered counts.
        With *lost*, the message is another relay's by now.
        """
        self._is_off = True
        self._is_lost = self._is_lost or lost
        for wait in tuple(self._waits):
            wait.cancel()
        for delivery in tuple(self._deliveries):
            delivery.cancel()

    def give_up(self) -> None:
        """
        Wait no longer for any answer.
        """
        self.call_off()
        for delivery in tuple(self._deliveries):
            delivery.give_up(_STOPPING)

    def _lost(self) -> None:
        if not self._is_lost:
            _log.warn("{id}: it is another relay's by now, or was deleted", id=self._entry.id)
            self.call_off(lost=True)

    async def _run(self) -> None:
        now = self._seconds()
        due = [
            each
            for each in self._entry.recipients
            if each.state is State.WAITING and each.due <= now
        ]
        by = self._entry.sender.deliver_by
        try:
            if by is not None and by.is_returned and now >= self._entry.arrived + by.seconds:
                self._settle_all(due, _EXPIRED, "")
                due = []
            groups = await self._routed(due)
            await DeferredList(
                [
                    Deferred.fromCoroutine(self._group(route, some))
                    for route, group in groups
                    for some in _slices(group, MOST_RECIPIENTS)
                ]
            )
        except Exception:
            _log.failure("{id}: a defect in delivering", id=self._entry.id)
        await self._notes.written()
        if not self._is_lost:
            await self._notes.finish(self._around.reports)

    # ── where to ─────────────────────────────────────────────────────────────────────────────────

    async def _routed(self, due: Sequence[Waypoint]) -> list[tuple[Route, list[Waypoint]]]:
        """
        Who goes where; those who go nowhere have their result.
        """
        if self._is_off:
            return []
        domains = list(dict.fromkeys(each.recipient.address.domain for each in due))
        router: IRouter = self._around.router
        asked = [maybeDeferred(router.route, domain) for domain in domains]
        # Who is called off does not wait for name servers, and does not keep others from asking them.
        told: Deferred[Any] = Deferred()
        DeferredList(asked, consumeErrors=True).addCallback(told.callback)
        self._waits.add(told)
        try:
            answers = await told
        except CancelledError:
            return []
        finally:
            self._waits.discard(told)
        found: dict[str, Any] = dict(zip(domains, answers, strict=True))
        groups: dict[str, tuple[Route, list[Waypoint]]] = {}
        for each in due:
            is_known, answer = found[each.recipient.address.domain]
            if is_known:
                groups.setdefault(answer.name, (answer, []))[1].append(each)
                continue
            error = answer.value
            if isinstance(error, DeliveryError):
                reply = error.reply
            else:
                _log.failure("{id}: a defect in routing", answer, id=self._entry.id)
                reply = CANNOT_LOOK_UP
            self._settle(each, reply)
        return list(groups.values())

    # ── a group ──────────────────────────────────────────────────────────────────────────────────

    async def _group(self, route: Route, group: list[Waypoint]) -> None:
        lane = self._around.lane(route)
        if lane.is_full:
            self._put_off(group, lane, route)
            return
        if not await self._may_enter(lane):
            # They were not tried, and are as they were: due.
            return
        began = self._seconds()
        try:
            if not lane.breaker.may_try():
                self._settle_all(group, _DOWN, route.name)
                return
            try:
                text = await self._queue.open_text(self._entry)
            except Exception as error:
                _log.error("{id}: no text: {error}", id=self._entry.id, error=in_words(error))
                self._settle_all(group, INTERNAL_ERROR, route.name)
                return
            with text:
                if not self._is_off:
                    await self._try_hops(route, group, text, lane)
        except OSError as error:
            # No file descriptor, or no room for what is converted.
            _log.error(
                "{id}: cannot be read, or converted: {error}", id=self._entry.id, error=error
            )
            self._settle_all(group, INTERNAL_ERROR, route.name)
        except Exception:
            _log.failure("{id}: a defect in delivering", id=self._entry.id)
            self._settle_all(group, INTERNAL_ERROR, route.name)
        finally:
            lane.leave(self._seconds() - began)

    async def _may_enter(self, lane: Lane) -> bool:
        if self._is_off:
            return False
        wait = lane.enter()
        self._waits.add(wait)
        try:
            await wait
        except Exception:  # it was cancelled
            return False
        finally:
            self._waits.discard(wait)
        return True

    async def _try_hops(
        self, route: Route, group: list[Waypoint], text: StoredText, lane: Lane
    ) -> None:
        """
        RFC 5321 §5.1: one server after the other, until one is there.
        """
        left = group
        for number, hop in enumerate(route.hops):
            is_last = number == len(route.hops) - 1
            left = await self._try(hop, left, text, is_last=is_last)
            if not left:
                if lane.breaker.reached():
                    _log.info("{route} is up again", route=route.name)
                return
            if self._is_off:
                return
        if lane.breaker.not_reached():
            _log.error("{route} is down: mail for it waits", route=route.name)

    async def _try(
        self, hop: Hop, group: list[Waypoint], text: StoredText, *, is_last: bool
    ) -> list[Waypoint]:
        """
        Send to *hop*; returns who has not had an answer there.  They have a result all the same if
        it is the last.
        """
        entry = self._entry
        body = entry.sender.parameters.get("BODY")
        if body != "BINARYMIME":
            body = "7BIT" if entry.is_ascii else "8BITMIME"
        with text.open() as file:
            sent = await self._send(hop, group, file, body)
            if isinstance(sent, Reply):
                self._settle_all(group, sent, hop.to)
                return []
            lacking = [each for each, outcome in sent if outcome.lacking is not None]
            unheard = [each for each, outcome in sent if _is_unheard(outcome)]
            if unheard and is_last:
                for each, outcome in sent:
                    if _is_unheard(outcome) and not self._is_off:
                        self._judge(each, outcome, hop)
        if lacking:
            unheard += await self._try_converted(hop, lacking, dict(sent), text, is_last=is_last)
        return unheard

    async def _try_converted(
        self,
        hop: Hop,
        group: list[Waypoint],
        outcomes: dict[Waypoint, Outcome],
        text: StoredText,
        *,
        is_last: bool,
    ) -> list[Waypoint]:
        """
        The server lacks an extension: send the text as 7-bit MIME, if that is what helps.
        """
        lacking = outcomes[group[0]].lacking
        if lacking not in {"8BITMIME", "BINARYMIME"}:
            for each in group:
                self._judge(each, outcomes[each], hop)
            return []
        with text.open() as file:
            try:
                converted = await self._queue.in_thread(lambda: seven_bit(file))
            except CannotConvert as error:
                for each in group:
                    self._judge(
                        each, evolve(outcomes[each], reply=Reply(554, str(error), (6, 3))), hop
                    )
                return []
        with converted:
            if self._is_off:
                return []
            sent = await self._send(hop, group, converted, "7BIT")
        if isinstance(sent, Reply):
            self._settle_all(group, sent, hop.to)
            return []
        for each, outcome in sent:
            if _is_unheard(outcome) and is_last and not self._is_off:
                self._judge(each, outcome, hop)
            elif outcome.lacking is not None:
                self._judge(each, outcome, hop)
        return [each for each, outcome in sent if _is_unheard(outcome)]

    async def _send(
        self, hop: Hop, group: list[Waypoint], file: Any, body: Any
    ) -> list[tuple[Waypoint, Outcome]] | Reply:
        """
        One transaction.  What is heard of a recipient is noted at once.
        """
        sender = self._entry.sender
        if sender.requires_tls and not hop.to.startswith(("unix:", "/")):
            # RFC 8689 §4.2.1; the client sees to it that the server knows REQUIRETLS, too.
            hop = evolve(hop, tls=TLS.MUST)
        try:
            delivery = self._around.client(hop).send(
                self._sender(), [each.recipient for each in group], file, body=body
            )
        except ValueError as error:
            _log.error("{id}: {to}: {error}", id=self._entry.id, to=hop.to, error=error)
            return _UNSAYABLE

        def arrived(outcome: Outcome, each: Waypoint) -> Outcome:
            broken_off = self._is_off and outcome.heard is None and not outcome.is_success
            if outcome.lacking is None and not _is_unheard(outcome) and not broken_off:
                self._judge(each, outcome, hop)
            return outcome

        self._deliveries.add(delivery)
        for each, outcome in zip(group, delivery.outcomes, strict=True):
            outcome.addCallback(arrived, each)
        try:
            outcomes = await delivery.as_deferred()
        finally:
            self._deliveries.discard(delivery)
        return list(zip(group, outcomes, strict=True))

    def _sender(self) -> Sender:
        """
        Who sends it, with the time that is left of what there was (RFC 2852 §4.1.4).
        """
        sender = self._entry.sender
        by = sender.deliver_by
        if by is None:
            return sender
        left = int(by.seconds - (self._seconds() - self._entry.arrived))
        if by.is_returned:
            left = max(left, 1)
        return evolve(sender, parameters={**sender.parameters, "BY": evolve(by, seconds=left)})

    # ── what becomes of them ─────────────────────────────────────────────────────────────────────

    def _judge(self, each: Waypoint, outcome: Outcome, hop: Hop) -> None:
        if outcome.is_success:
            told = after_success(each.recipient, self._entry.sender, outcome, hop.dialect)
            self._notes.add(
                Result(
                    each.number,
                    State.DONE,
                    self._seconds(),
                    str(outcome.reply),
                    hop.to,
                    outcome.server,
                    report=told,
                )
            )
            self._log(each, State.DONE, outcome.reply, hop.to, outcome.detail)
            return
        reply = outcome.reply
        if self._entry.sender.requires_tls and outcome.stage is Stage.STARTTLS:
            # It would be the same tomorrow.
            reply = NEEDS_TLS
        self._settle(each, reply, hop.to, outcome.server, outcome.detail)

    def _settle_all(self, group: Iterable[Waypoint], reply: Reply, where: str) -> None:
        for each in group:
            self._settle(each, reply, where)

    def _settle(
        self, each: Waypoint, reply: Reply, where: str = "", server: str = "", detail: str = ""
    ) -> None:
        """
        *each* has failed, for now or for good.
        """
        around, sender, now = self._around, self._entry.sender, self._seconds()
        schedule, arrived = self._schedule, self._entry.arrived
        told: Action | None = None
        due = each.due
        if reply.code >= 500 or schedule.is_too_old(arrived, now):
            state = State.FAILED
            if wants(each.recipient, sender, Action.FAILED):
                told = Action.FAILED
        else:
            state = State.WAITING
            due = schedule.next(each.attempts + 1, arrived, now, around.chance())
            is_late = schedule.is_late(arrived, now) and not each.warned
            if is_late and wants(each.recipient, sender, Action.DELAYED):
                told = Action.DELAYED
        self._notes.add(
            Result(each.number, state, now, str(reply), where, server, due=due, report=told)
        )
        self._log(each, state, reply, where, detail)

    def _put_off(self, group: Iterable[Waypoint], lane: Lane, route: Route) -> None:
        """
        Too many wait for the same servers: these come back when it is their turn.
        """
        due = self._seconds() + lane.turn()
        for each in group:
            self._notes.add(
                Result(
                    each.number,
                    State.WAITING,
                    self._seconds(),
                    each.reply,
                    route.name,
                    each.server,
                    due=due,
                    counts=False,
                )
            )

    def _log(self, each: Waypoint, state: State, reply: Reply, where: str, detail: str) -> None:
        _log.info(
            "{id}: <{to}> {state} by {where}: {reply}{detail}",
            id=self._entry.id,
            to=str(each.recipient),
            state=state.value,
            where=where or "us",
            reply=str(reply),
            detail=f" ({detail})" if detail else "",
        )


def _schedule(schedule: Schedule, by: DeliverBy | None) -> Schedule:
    """
    The *schedule* of a message that is to be returned, or told of, sooner than others.
    """
    if by is None or by.seconds <= 0:
        return schedule
    if by.is_returned:
        return evolve(schedule, give_up=min(schedule.give_up, by.seconds))
    return evolve(schedule, warn=min(schedule.warn, by.seconds))


def _is_unheard(outcome: Outcome) -> bool:
    return outcome.unheard and not outcome.is_success and outcome.lacking is None


def _slices(group: Sequence[Waypoint], most: int) -> list[list[Waypoint]]:
    return [list(group[start : start + most]) for start in range(0, len(group), most)]
