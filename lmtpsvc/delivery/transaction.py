"""
Transaction: one message, from the first octet of its text to the last reply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from .. import replies
from ..envelope import Envelope, Mailbox, Recipient
from ..errors import from_os_error
from ..interfaces import IBackend
from ..limits import Limits
from ..replies import PassedOn, Reply
from ..response_codes import ResponseCode
from .content import Content, MemoryContent
from .dispatch import call_off, dispatch, reply_for
from .log import Timing, log_delivery
from .message import Message
from .reporting import Pending
from .spool import Spool

_log = Logger(namespace="lmtpsvc.spool")


#: What somebody is told who has the mail: of a transaction id, an address and response codes.
Success = Callable[[str, str, tuple[ResponseCode, ...]], Reply]


class Accepted(NamedTuple):
    """
    A recipient that was accepted at RCPT, where its mail goes, and how long it took to find out.
    """

    recipient: Recipient
    mailboxes: tuple[Mailbox, ...]
    lookup_seconds: float


class _Outcome:
    """
    What is known of one recipient: how many of its mailboxes are open, and the worst reply so far.
    """

    __slots__ = ("codes", "open", "passed_on", "reply")

    def __init__(self, open_mailboxes: int) -> None:
        self.open = open_mailboxes
        self.reply: Reply | None = None
        # What the backend tells besides: of the last mailbox, if there are several.
        self.codes: tuple[ResponseCode, ...] = ()
        self.passed_on: PassedOn | None = None

    def add(self, reply: Reply) -> Reply:
        """
        One more mailbox; returns what is said of all so far.  An alias is one recipient with one
        reply: "later" is said if any of its mailboxes says so, since the client would not try again
        otherwise; then "no".
        """
        self.open -= 1
        if self.reply is not None and _gravity(reply) <= _gravity(self.reply):
            return self.reply
        self.reply = reply
        return reply


def _gravity(reply: Reply) -> int:
    return {2: 0, 5: 1, 4: 2}[reply.code // 100]


class Transaction:
    """
    Takes the text, then delivers, and answers each recipient exactly once.

    Each recipient's reply is told as soon as it is known; the deadline is kept by cancelling what
    is open, then waiting a little for what can not be cancelled any more.

    *heading* makes what each recipient's own copy gets on top; None lets them share one.  From
    *expires* on, in seconds of *clock*, the message is not wanted any more (RFC 2852); *begun* is when
    MAIL came.  *report* is
    told what became of each recipient.
    """

    def __init__(
        self,
        transaction_id: str,
        envelope: Envelope,
        accepted: Sequence[Accepted],
        spool: Spool,
        backend: IBackend,
        clock: IReactorTime,
        limits: Limits,
        head: bytes,
        *,
        is_for_all: bool,
        heading: Callable[[Recipient], bytes] | None = None,
        expires: float | None = None,
        begun: float | None = None,
        report: Pending | None = None,
        success: Success = replies.delivered,
    ) -> None:
        self._id, self._envelope, self._accepted = transaction_id, envelope, accepted
        self._spool, self._backend, self._clock, self._limits = spool, backend, clock, limits
        self._head, self._is_for_all = head, is_for_all
        self._heading, self._expires, self._report = heading, expires, report
        self._success = success
        self._mailed = clock.seconds() if begun is None else begun
        # For the report.
        self._message: Message | None = None
        self._begun = clock.seconds()
        self._received = self._begun
        self._size = 0
        self._answer: Callable[[int, Reply], None] | None = None
        self._dispatched = False
        self._outcomes = [_Outcome(len(each.mailboxes)) for each in accepted]
        self._unanswered = len(accepted)
        self._results: list[Deferred[Any]] = []
        self._timer: IDelayedCall | None = None

    def write(self, octets: bytes) -> None:
        """
        Take some more text.
        """
        self._size += len(octets)
        self._spool.write(octets)

    def deliver(self, answer: Callable[[int, Reply], None]) -> None:
        """
        The text is complete.  *answer* is called once for each recipient, with its position, in
        any order.
        """
        self._answer = answer
        self._received = now = self._clock.seconds()
        if self._expires is not None and now >= self._expires:
            self._refuse_all(replies.TOO_LATE)
            return
        content = self._spool.finish()
        if isinstance(content, MemoryContent):
            self._dispatch(content)
        else:
            self._set_deadline()
            content.addCallbacks(self._dispatch, self._not_spooled)

    def reject(self, reply: Reply) -> None:
        """
        The text is refused as a whole, and each recipient has been told *reply*.
        """
        self._answer = _nobody
        self._refuse_all(reply)

    def abandon(self) -> None:
        """
        The client is gone: it will try again for everybody, so stop what can be stopped.
        """
        if self._answer is None:
            self._spool.discard()
        self._answer = _nobody
        # The sender is told when it comes again.
        self._report = None
        self._cancel_open()

    def _not_spooled(self, failure: Failure) -> None:
        if isinstance(failure.value, OSError):
            _log.error("{id}: cannot be spooled: {error}", id=self._id, error=failure.value)
            failure = Failure(from_os_error(failure.value))
        self._refuse_all(reply_for(failure))

    def _refuse_all(self, reply: Reply) -> None:
        self._spool.discard()
        for position in range(len(self._accepted)):
            self._settle(position, reply)

    def _dispatch(self, content: Content) -> None:
        """
        Deliver once to each mailbox, however many recipients it is for.
        """
        if self._answer is _nobody:
            return
        self._dispatched = True
        recipients_of: dict[Mailbox, list[int]] = {}
        for position, each in enumerate(self._accepted):
            for mailbox in each.mailboxes:
                recipients_of.setdefault(mailbox, []).append(position)
        message = Message(
            self._id,
            self._envelope,
            self._deadline(),
            content,
            self._head,
            self._is_for_all,
            self._mailed,
            recipients_of,
        )
        if self._report is not None:
            self._message = message
        mailboxes = list(recipients_of)
        if self._heading is not None:
            for mailbox in mailboxes:
                recipient = self._accepted[recipients_of[mailbox][0]].recipient
                own = message.headed(self._heading(recipient))
                self._results += dispatch(self._backend, own, [mailbox])
        else:
            self._results = dispatch(self._backend, message, mailboxes)
        waiting: Iterable[tuple[Deferred[Any], list[int]]]
        waiting = zip(self._results, recipients_of.values(), strict=True)
        if len(set(self._results)) < len(mailboxes):
            # A backend has given several mailboxes one and the same Deferred; they share how it
            # ends.
            positions_of: dict[Deferred[Any], list[int]] = {}
            for result, positions in waiting:
                positions_of.setdefault(result, []).extend(positions)
            waiting = positions_of.items()
        for result, positions in waiting:
            result.addCallbacks(
                self._stored, self._refused, callbackArgs=(positions,), errbackArgs=(positions,)
            )
        if self._unanswered and self._timer is None:
            self._set_deadline()

    def _deadline(self) -> float:
        """
        When open deliveries are called off, in seconds of the clock.
        """
        deadline = self._received + self._limits.delivery_seconds
        return deadline if self._expires is None else min(deadline, self._expires)

    def _set_deadline(self) -> None:
        delay = self._limits.delivery_seconds
        if self._expires is not None:
            delay = max(self._deadline() - self._clock.seconds(), 0)
        self._timer = self._clock.callLater(delay, self._expire)

    def _stored(self, codes: object, positions: list[int]) -> None:
        for position in positions:
            if isinstance(codes, PassedOn):
                self._outcomes[position].passed_on = codes
                self._outcomes[position].codes = codes.codes
            elif codes:
                self._outcomes[position].codes = _told(codes)
            self._add(position, replies.DELIVERED)

    def _refused(self, failure: Failure, positions: list[int]) -> None:
        reply = reply_for(failure)
        if reply is replies.OUT_OF_TIME:
            reply = self._out_of_time()
        for position in positions:
            self._add(position, reply)

    def _add(self, position: int, reply: Reply) -> None:
        outcome = self._outcomes[position]
        if outcome.open == 0:
            # Given up on before, see _give_up.
            return
        reply = outcome.add(reply)
        if outcome.open == 0:
            self._settle(position, reply)

    def _settle(self, position: int, reply: Reply) -> None:
        self._outcomes[position].open = 0
        self._unanswered -= 1
        if self._unanswered == 0 and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        each = self._accepted[position]
        if reply is replies.DELIVERED:
            codes = self._outcomes[position].codes
            reply = self._success(self._id, str(each.recipient), codes)
        now = self._clock.seconds()
        mailboxes = ",".join([str(mailbox) for mailbox in each.mailboxes])
        timing = Timing(each.lookup_seconds, now - self._received, now - self._begun)
        log_delivery(self._id, self._envelope, each.recipient, mailboxes, self._size, reply, timing)
        assert self._answer is not None, "deliver comes first"
        self._answer(position, reply)
        if self._report is not None:
            self._report.settled(position, reply, self._outcomes[position].passed_on)
            if self._unanswered == 0:
                self._report.all_settled(self._message)

    def _expire(self) -> None:
        """
        The deadline: call off what is open, and wait for what has begun to commit.
        """
        self._timer = None
        if not self._dispatched:
            # The spool's disk does not answer.
            self._refuse_all(self._out_of_time())
            return
        self._cancel_open()
        if self._unanswered:
            self._timer = self._clock.callLater(self._limits.grace_seconds, self._give_up)

    def _out_of_time(self) -> Reply:
        """
        What to say of a delivery that was called off: if the message is not wanted any more, it is
        of no use to try again (RFC 2852 §4.1.4).
        """
        is_late = self._expires is not None and self._clock.seconds() >= self._expires
        return replies.TOO_LATE if is_late else replies.OUT_OF_TIME

    def _cancel_open(self) -> None:
        for result in self._results:
            call_off(result)

    def _give_up(self) -> None:
        """
        A backend neither finishes nor fails.  The client must have an answer while it listens; and
        it is not returned to its sender what may yet be delivered.
        """
        self._timer = None
        for position, outcome in enumerate(self._outcomes):
            if outcome.open:
                self._settle(position, replies.OUT_OF_TIME)


def _told(codes: object) -> tuple[ResponseCode, ...]:
    """
    What a backend's result says, if it says codes: anything else it returns means nothing.
    """
    if not isinstance(codes, (list, tuple)):
        return ()
    return tuple(code for code in codes if isinstance(code, ResponseCode))


def _nobody(_position: int, _reply: Reply) -> None:
    """
    Where the replies of an abandoned transaction go.
    """
