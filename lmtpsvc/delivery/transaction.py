"""
Transaction: one message, from the first octet of its text to the last reply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from .. import replies
from ..envelope import Envelope, Mailbox, Recipient
from ..errors import from_os_error, refusal
from ..interfaces import IBackend
from ..limits import Limits
from ..replies import NO_SPACE, PassedOn, Reply
from ..response_codes import ResponseCode
from .awaiting import Failed, failure_in
from .content import Content, MemoryContent
from .deadlines import Deadlines
from .dispatch import call_off, dispatch, has_succeeded, reply_for
from .log import log_delivery
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


def _worse(reply: Reply, other: Reply) -> Reply:
    """
    What is said of an alias, which is one recipient with one reply: "later" if any of its mailboxes
    says so, since the client would not try again otherwise; then "no".
    """
    return reply if _GRAVITY[reply.code // 100] > _GRAVITY[other.code // 100] else other


_GRAVITY: Final = {2: 0, 5: 1, 4: 2}


class Transaction:
    """
    Takes the text, then delivers, and answers each recipient exactly once.

    Each recipient's reply is told as soon as it is known; the deadline is kept by cancelling what
    is open, then waiting a little for what can not be cancelled any more.

    *began* is when the text began to come, *mailed* when MAIL came, in seconds of *clock*.
    """

    #: Nothing on top is for one recipient only.
    is_for_all = False
    #: What makes what each recipient's own copy gets on top.  None: they share one.
    heading: Callable[[Recipient], bytes] | None = None
    #: From when on the message is not wanted any more (RFC 2852), in seconds of the clock.
    expires: float | None = None
    #: Who is told what became of each recipient.
    report: Pending | None = None
    # For the report.
    _message: Message | None = None
    _size = 0
    _answer: Callable[[int, Reply], None] | None = None
    _dispatched = False
    _results: Sequence[Deferred[Any]] = ()
    # What has been set, if anything.
    _deadline: Callable[[], None] | None = None

    def __init__(
        self,
        transaction_id: str,
        envelope: Envelope,
        accepted: Sequence[Accepted],
        spool: Spool,
        backend: IBackend,
        clock: IReactorTime,
        deadlines: Deadlines,
        limits: Limits,
        success: Success,
        began: float,
        mailed: float,
    ) -> None:
        self._id, self._envelope, self._accepted = transaction_id, envelope, accepted
        self._spool, self._backend, self._clock, self._limits = spool, backend, clock, limits
        self._deadlines, self._success = deadlines, success
        self._begun = self._received = began
        self.mailed = mailed
        self._unanswered = len(accepted)
        # How many mailboxes of each recipient are open.
        self._open = [len(each.mailboxes) for each in accepted]
        # By position, of those of whom there is more to say, the worst reply so far, and what the
        # backend tells besides: of the last mailbox, if there are several.
        self._worst: dict[int, Reply] = {}
        self._told: dict[int, tuple[tuple[ResponseCode, ...], PassedOn | None]] = {}

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
        if self.expires is not None and now >= self.expires:
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
        self.report = None
        self._cancel_open()

    def _not_spooled(self, failure: Failure) -> None:
        if isinstance(failure.value, OSError):
            _log.error("{id}: cannot be spooled: {error}", id=self._id, error=failure.value)
            # Whose quota it is that ends here: no mailbox's.
            failure = Failure(from_os_error(failure.value, NO_SPACE))
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
        try:
            self._hand_over(content)
        except BaseException:
            # A directory has made a mailbox that cannot be looked up, for instance.
            self._cancel_open()
            self._refuse_open(reply_for(Failure()))

    def _hand_over(self, content: Content) -> None:
        recipients_of: dict[Mailbox, list[int]] = {}
        for position, each in enumerate(self._accepted):
            for mailbox in each.mailboxes:
                recipients_of.setdefault(mailbox, []).append(position)
        message = Message(
            self._id,
            self._envelope,
            self._latest(),
            content,
            self._spool.head,
            self.is_for_all,
            self.mailed,
            recipients_of,
        )
        if self.report is not None:
            self._message = message
        mailboxes = tuple(recipients_of)
        if self.heading is None:
            self._results = dispatch(self._backend, message, mailboxes)
        else:
            results: list[Deferred[Any]] = []
            for mailbox in mailboxes:
                recipient = self._accepted[recipients_of[mailbox][0]].recipient
                own = message.headed(self.heading(recipient))
                results += dispatch(self._backend, own, (mailbox,))
            self._results = results
        waiting: Iterable[tuple[Deferred[Any], list[int]]]
        waiting = zip(self._results, recipients_of.values(), strict=True)
        if len(mailboxes) > 1 and len(set(self._results)) < len(mailboxes):
            # A backend has given several mailboxes one and the same Deferred; they share how it
            # ends.
            positions_of: dict[Deferred[Any], list[int]] = {}
            for result, positions in waiting:
                positions_of.setdefault(result, []).extend(positions)
            waiting = positions_of.items()
        for result, positions in waiting:
            if has_succeeded(result):
                self._stored(result.result, positions)
                continue
            result.addCallbacks(
                self._stored, self._refused, callbackArgs=(positions,), errbackArgs=(positions,)
            )
        if self._unanswered and self._deadline is None:
            self._set_deadline()

    def _latest(self) -> float:
        """
        When open deliveries are called off, in seconds of the clock.
        """
        deadline = self._received + self._limits.delivery_seconds
        return deadline if self.expires is None else min(deadline, self.expires)

    def _set_deadline(self) -> None:
        delay = self._limits.delivery_seconds
        if self.expires is not None:
            delay = max(self._latest() - self._clock.seconds(), 0)
        self._wait(delay, self._expire)

    def _wait(self, seconds: float, call: Callable[[], None]) -> None:
        self._deadline = call
        self._deadlines.set(seconds, call)

    def _stored(self, codes: object, positions: list[int]) -> object:
        if codes is not None:
            failure = failure_in(codes)
            if failure is not None:
                return self._refused(failure, positions)
            self._note(codes, positions)
        for position in positions:
            if self._open[position] == 1 and not self._worst:
                self._settle(position, replies.DELIVERED)
            else:
                self._add(position, replies.DELIVERED)
        return codes

    def _note(self, codes: object, positions: list[int]) -> None:
        """
        Keep what a backend tells besides.
        """
        passed_on = codes if isinstance(codes, PassedOn) else None
        told = _told(codes) if passed_on is None else passed_on.codes
        for position in positions:
            _, before = self._told.get(position, _NOTHING_TOLD)
            self._told[position] = told, passed_on or before

    def _refused(self, failure: Failure, positions: list[int]) -> Failed:
        reply = reply_for(failure)
        if reply is replies.OUT_OF_TIME:
            reply = self._out_of_time()
        for position in positions:
            self._add(position, reply)
        # Not the failure itself: its traceback has the message, which is to go.
        return Failed(refusal(reply))

    def _add(self, position: int, reply: Reply) -> None:
        """
        One more mailbox of a recipient.
        """
        left = self._open[position] - 1
        if left < 0:
            # Given up on before, see _give_up.
            return
        before = self._worst.get(position)
        if before is not None:
            reply = _worse(reply, before)
        if left == 0:
            self._settle(position, reply)
        else:
            self._open[position], self._worst[position] = left, reply

    def _settle(self, position: int, reply: Reply) -> None:
        self._open[position] = 0
        self._unanswered -= 1
        if self._unanswered == 0 and self._deadline is not None:
            self._deadlines.drop(self._deadline)
            self._deadline = None
        recipient, mailboxes, lookup_seconds = self._accepted[position]
        if reply is replies.DELIVERED:
            reply = self._success(
                self._id, recipient.address.text, self._told.get(position, _NOTHING_TOLD)[0]
            )
        now = self._clock.seconds()
        log_delivery(
            self._id,
            self._envelope,
            recipient,
            str(mailboxes[0]) if len(mailboxes) == 1 else ",".join(map(str, mailboxes)),
            self._size,
            reply,
            (lookup_seconds, now - self._received, now - self._begun),
            more_follow=self._unanswered > 0,
        )
        assert self._answer is not None, "deliver comes first"
        self._answer(position, reply)
        if self.report is not None:
            self.report.settled(position, reply, self._told.get(position, _NOTHING_TOLD)[1])
            if self._unanswered == 0:
                self.report.all_settled(self._message)

    def _expire(self) -> None:
        """
        The deadline: call off what is open, and wait for what has begun to commit.
        """
        self._deadline = None
        if not self._dispatched:
            # The spool's disk does not answer.
            self._refuse_all(self._out_of_time())
            return
        self._cancel_open()
        if self._unanswered:
            self._wait(self._limits.grace_seconds, self._give_up)

    def _out_of_time(self) -> Reply:
        """
        What to say of a delivery that was called off: if the message is not wanted any more, it is
        of no use to try again (RFC 2852 §4.1.4).
        """
        is_late = self.expires is not None and self._clock.seconds() >= self.expires
        return replies.TOO_LATE if is_late else replies.OUT_OF_TIME

    def _cancel_open(self) -> None:
        for result in self._results:
            call_off(result)

    def _give_up(self) -> None:
        """
        A backend neither finishes nor fails.  The client must have an answer while it listens; and
        it is not returned to its sender what may yet be delivered.
        """
        self._deadline = None
        self._refuse_open(replies.OUT_OF_TIME)

    def _refuse_open(self, reply: Reply) -> None:
        for position, left in enumerate(self._open):
            if left:
                self._settle(position, reply)


_NOTHING_TOLD: Final = ((), None)


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
