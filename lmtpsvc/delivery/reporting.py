"""
Reporting: who asked to be told that a message has been delivered is told (RFC 3461 §5.2.3).

A report leaves after the replies, and changes none of them.  There is no queue on disk: a report
that cannot be sent waits in memory, is tried again for about two hours, and is told in the log if
that was in vain.  When the service stops, what waits is tried once more.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

from attrs import define, evolve
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..envelope import Address, Envelope, Recipient
from ..in_thread import InThread
from ..interfaces import IMessage
from ..replies import PassedOn, Reply
from .report import MAX_HEADERS, Action, Fate, Occasion, delivery_report, needs_utf8

#: Seconds before each further attempt.
PAUSES: Final = (5, 30, 120, 600, 1800, 3600)
#: Reports that wait, at most; what comes then is not reported.
MOST_WAITING: Final = 1000
#: Seconds that the last attempt may take when the service stops.
LAST_SECONDS: Final = 5.0

#: What sends a report from the null sender, to whom it may concern: the second argument is the
#: message, the third says that it needs SMTPUTF8.  Fires with the reply; None says that the server
#: does not know SMTPUTF8.
Send = Callable[[Address, bytes, bool], Deferred[Reply | None]]

_log = Logger(namespace="lmtpsvc.reports")


@define(eq=False)
class _Waiting:
    """
    A report that is not sent yet.
    """

    occasion: Occasion
    utf8: bool
    boundary: str
    attempts: int = 0
    #: It is being made or sent, or else there is a *next* time.
    is_on_its_way: bool = True
    next: IDelayedCall | None = None


class Reporter(Service):
    """
    Makes reports in the name of *hostname*, and has them sent.  *wall_seconds* says what time it
    is, in seconds since the epoch.
    """

    def __init__(
        self,
        send: Send,
        close: Callable[[], Deferred[None]],
        hostname: str,
        clock: IReactorTime,
        in_thread: InThread,
        wall_seconds: Callable[[], float] = time.time,
    ) -> None:
        self._send, self._close, self._hostname = send, close, hostname
        self._clock, self._in_thread, self._wall_seconds = clock, in_thread, wall_seconds
        self._waiting: set[_Waiting] = set()
        # While it stops: who waits for that, and until when.
        self._stopped: Deferred[None] | None = None
        self._last: IDelayedCall | None = None

    def about(self, transaction_id: str, envelope: Envelope) -> Pending | None:
        """
        What will be reported of a transaction that begins now, if anybody has asked for it.

        A message without a sender is never reported (RFC 3461 §5.2).
        """
        if envelope.sender.address is None or not any(map(_wants, envelope.recipients)):
            return None
        return Pending(self, transaction_id, envelope, self._wall_seconds())

    def stopService(self) -> Deferred[None]:
        """
        Fires when what waited has been tried once more, and what is on its way has arrived, within
        bounds.
        """
        super().stopService()
        stopped: Deferred[None] = Deferred()
        self._stopped = stopped
        self._last = self._clock.callLater(LAST_SECONDS, self._stop)
        for each in tuple(self._waiting):
            if each.next is not None:
                self._attempt(each)
        self._stop_if_done()
        return stopped

    def _stop_if_done(self) -> None:
        if self._stopped is not None and not any(each.is_on_its_way for each in self._waiting):
            self._stop()

    def _stop(self) -> None:
        stopped, self._stopped = self._stopped, None
        if stopped is None:
            return
        if self._last is not None and self._last.active():
            self._last.cancel()
        for each in tuple(self._waiting):
            self._give_up(each, "the service stops")
        closed = self._close().addTimeout(LAST_SECONDS, self._clock)
        closed.addErrback(lambda failure: failure.trap(TimeoutError, CancelledError))
        closed.addCallback(lambda _: stopped.callback(None))

    def take(self, occasion: Occasion, envelope: Envelope, message: IMessage | None) -> None:
        """
        Report *occasion*, with the headers of *message* if they may be told.
        """
        if len(self._waiting) >= MOST_WAITING:
            _log.error(
                "{id}: no report to <{sender}>, because {count} others wait",
                id=occasion.transaction_id,
                sender=str(occasion.sender),
                count=len(self._waiting),
            )
            return
        waiting = _Waiting(occasion, envelope.sender.smtputf8, os.urandom(12).hex())
        self._waiting.add(waiting)
        if message is None:
            self._attempt(waiting)
            return

        def found(headers: bytes) -> None:
            waiting.occasion = evolve(occasion, headers=headers)

        def not_found(failure: Failure) -> None:
            # A report without them is better than none.
            _log.warn("{id}: {error}", id=occasion.transaction_id, error=failure.value)

        reading = maybeDeferred(self._in_thread, lambda: _first_octets(message))
        reading.addCallbacks(found, not_found).addCallback(lambda _: self._attempt(waiting))

    def _attempt(self, waiting: _Waiting) -> None:
        if waiting.next is not None and waiting.next.active():
            waiting.next.cancel()
        waiting.next, waiting.is_on_its_way = None, True
        waiting.attempts += 1
        occasion = waiting.occasion
        utf8 = waiting.utf8 and needs_utf8(occasion)
        octets = delivery_report(
            occasion, self._hostname, self._wall_seconds(), waiting.boundary, utf8=utf8
        )
        sent = maybeDeferred(self._send, occasion.sender, octets, utf8)
        sent.addCallbacks(
            self._answered, self._failed, callbackArgs=(waiting,), errbackArgs=(waiting,)
        )

    def _answered(self, reply: Reply | None, waiting: _Waiting) -> None:
        occasion = waiting.occasion
        if reply is None:
            if waiting.utf8 and str(occasion.sender).isascii():
                # RFC 6533 §3: there is a way to say it in ASCII.
                waiting.utf8 = False
                self._attempt(waiting)
                return
            self._give_up(waiting, "the submission host does not know SMTPUTF8")
        elif reply.is_success:
            self._waiting.discard(waiting)
            _log.info(
                "{id}: told <{sender}> that it was {action} to {to}",
                id=occasion.transaction_id,
                sender=str(occasion.sender),
                action=occasion.action.value,
                to=_names(occasion),
            )
        elif reply.code >= 500:
            self._give_up(waiting, str(reply))
        else:
            self._later(waiting, str(reply))
        self._stop_if_done()

    def _failed(self, failure: Failure, waiting: _Waiting) -> None:
        _log.failure(
            "{id}: a report could not be sent", failure, id=waiting.occasion.transaction_id
        )
        self._later(waiting, "a defect, see above")
        self._stop_if_done()

    def _later(self, waiting: _Waiting, reason: str) -> None:
        waiting.is_on_its_way = False
        if waiting.attempts > len(PAUSES):
            self._give_up(waiting, reason)
            return
        if not self.running:
            if self._stopped is None:
                self._give_up(waiting, "the service has stopped")
            # Otherwise it stops, and says so of all that are left.
            return
        pause = PAUSES[waiting.attempts - 1]
        waiting.next = self._clock.callLater(pause, self._attempt, waiting)
        if waiting.attempts == 1:
            _log.warn(
                "{id}: the report to <{sender}> has to wait: {reason}",
                id=waiting.occasion.transaction_id,
                sender=str(waiting.occasion.sender),
                reason=reason,
            )

    def _give_up(self, waiting: _Waiting, reason: str) -> None:
        self._waiting.discard(waiting)
        occasion = waiting.occasion
        _log.error(
            "{id}: <{sender}> is not told that it was {action} to {to}: {reason}",
            id=occasion.transaction_id,
            sender=str(occasion.sender),
            action=occasion.action.value,
            to=_names(occasion),
            reason=reason,
        )


class Pending:
    """
    What is to be reported of one transaction, as far as it is known.
    """

    def __init__(
        self, reporter: Reporter, transaction_id: str, envelope: Envelope, arrived: float
    ) -> None:
        self._reporter, self._id, self._envelope = reporter, transaction_id, envelope
        self._arrived = arrived
        self._delivered: dict[int, Fate] = {}
        self._relayed: dict[int, Fate] = {}

    def settled(self, position: int, reply: Reply, passed_on: PassedOn | None = None) -> None:
        """
        The recipient at *position* has been answered *reply*, and *passed_on* if that is all that
        has been done.
        """
        recipient = self._envelope.recipients[position]
        if not (reply.is_success and _wants(recipient)):
            return
        if passed_on is None:
            self._delivered[position] = Fate(recipient, reply)
        else:
            self._relayed[position] = Fate(recipient, passed_on.reply, passed_on.server)

    def all_settled(self, message: IMessage | None) -> None:
        """
        No more will come.  *message* is what was delivered.
        """
        self._tell(Action.DELIVERED, self._delivered, message)
        self._tell(Action.RELAYED, self._relayed, message)

    def _tell(self, action: Action, fates: dict[int, Fate], message: IMessage | None) -> None:
        sender = self._envelope.sender
        if not fates or sender.address is None:
            return
        in_order = [fates[position] for position in sorted(fates)]
        by = sender.deliver_by
        occasion = Occasion(
            self._id,
            sender.address,
            sender.envelope_id,
            self._arrived,
            in_order,
            action=action,
            deliver_by=None if by is None else self._arrived + by.seconds,
        )
        # RFC 8689 §5: what must not leave in the clear is not told, as nobody knows how it will.
        told = None if sender.requires_tls else message
        self._reporter.take(occasion, self._envelope, told)


def _wants(recipient: Recipient) -> bool:
    notify = recipient.notify
    return notify is not None and "SUCCESS" in notify


def _names(occasion: Occasion) -> str:
    return ", ".join(f"<{each.recipient}>" for each in occasion.fates)


def _first_octets(message: IMessage) -> bytes:
    with message.open() as file:
        return file.read(MAX_HEADERS)
