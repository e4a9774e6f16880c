"""
The backend of a postbox: keeps messages in memory, and answers what a test has told it to.
"""

from __future__ import annotations

import email
import email.policy
import re
from collections import deque
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from functools import cached_property
from typing import Any, Final, TypeVar

from attrs import define, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from ..client import address
from ..delivery.routing import AddressRules
from ..envelope import Envelope, Mailbox
from ..errors import TemporaryFailure, refusal
from ..interfaces import Capabilities, IBackend, IMessage
from ..replies import Reply

T = TypeVar("T")

_reply: Final = re.compile(r"([45]\d\d) (?:([45])\.(\d{1,3})\.(\d{1,3}) )?(.+)").fullmatch


@frozen(slots=False)
class Mail:
    """
    A message that has arrived: *text* is what the application has sent, octet by octet, *envelope*
    has sender, accepted recipients, their parameters, and the client.
    """

    envelope: Envelope
    text: bytes

    @property
    def sender(self) -> str:
        """
        Who has sent it; empty for the null sender.
        """
        return str(self.envelope.sender)

    @property
    def recipients(self) -> list[str]:
        """
        Who was accepted at RCPT, whatever was answered behind the text.
        """
        return list(map(str, self.envelope.recipients))

    @cached_property
    def parsed(self) -> EmailMessage:
        """
        The message as Python's `email` reads it: ``mail.parsed["Subject"]``.
        """
        return email.message_from_bytes(self.text, policy=email.policy.default)


@define(eq=False)
class _Rule:
    """
    What is answered, and how often yet; None is always.
    """

    reply: Reply
    left: int | None

    def use(self) -> bool:
        """
        Whether it is in force, this time.
        """
        if self.left is None:
            return True
        self.left -= 1
        return self.left >= 0


class Hold:
    """
    Recipients of whom nothing is said behind the text until it is released.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._waiting: list[Deferred[None]] = []
        self._is_released = False
        self._reply: Reply | None = None

    def release(self, reply: str | Reply | None = None) -> None:
        """
        Say *reply*, or 250 if there is none, now and from now on.  May be called from any thread.

        Raises:
            ValueError: *reply* is no refusal.
        """
        said = None if reply is None else _refusal(reply)
        self._reactor.callFromThread(self.let_go, said)

    def wait(self) -> Deferred[None]:
        """
        For the backend, in the reactor's thread: what fires when it is released.
        """
        result: Deferred[None] = Deferred()
        if self._is_released:
            _answer(result, self._reply)
        else:
            self._waiting.append(result)
        return result

    def let_go(self, reply: Reply | None) -> None:
        """
        `release`, in the reactor's thread.
        """
        if self._is_released:
            return
        self._is_released, self._reply = True, reply
        waiting, self._waiting = self._waiting, []
        for result in waiting:
            # Those that were called off have been answered.
            if not result.called:
                _answer(result, reply)


@implementer(IBackend)
class Pigeonhole:
    """
    Where the mail of a postbox comes to rest.
    """

    capabilities = Capabilities(binary=True)

    def __init__(self, reactor: Any, rules: AddressRules) -> None:
        self._reactor, self._rules = reactor, rules
        #: All messages.
        self.arrived: list[Mail] = []
        self._unread: deque[Mail] = deque()
        self._waiting: list[Deferred[Mail]] = []
        self._at_rcpt: dict[str, _Rule] = {}
        self._behind_text: dict[str, _Rule | Hold] = {}
        self._holds: list[Hold] = []

    # ── for tests ────────────────────────────────────────────────────────────────────────────────

    def next(self, seconds: float) -> Deferred[Mail]:
        """
        The oldest message that nobody has read.
        """
        if self._unread:
            return succeed(self._unread.popleft())
        waiting: Deferred[Mail] = Deferred()
        self._waiting.append(waiting)
        waiting.addTimeout(seconds, IReactorTime(self._reactor))

        def ended(result: Any) -> Any:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            if isinstance(result, Failure) and result.check(TimedOut):
                return Failure(TimeoutError(f"no mail has come in {seconds:g} seconds"))
            return result

        return waiting.addBoth(ended)

    def refuse(self, recipient: str | None, reply: str | Reply, times: int | None) -> None:
        self._at_rcpt[self._key(recipient)] = _Rule(_refusal(reply), times)

    def fail(self, recipient: str | None, reply: str | Reply, times: int | None) -> None:
        self._behind_text[self._key(recipient)] = _Rule(_refusal(reply), times)

    def hold(self, recipient: str | None) -> Hold:
        hold = Hold(self._reactor)
        self._behind_text[self._key(recipient)] = hold
        self._holds.append(hold)
        return hold

    def accept(self, recipient: str | None) -> None:
        self._take_back(self._key(recipient))

    def clear(self) -> None:
        self.arrived.clear()
        self._unread.clear()
        for key in {*self._at_rcpt, *self._behind_text}:
            self._take_back(key)

    def close(self) -> None:
        """
        Nobody is kept waiting any longer.
        """
        for hold in self._holds:
            hold.let_go(_STOPPED)
        for waiting in self._waiting[:]:
            waiting.cancel()

    # ── for the service ──────────────────────────────────────────────────────────────────────────

    def verify(self, mailbox: Mailbox) -> None:
        rule = _rule(self._at_rcpt, mailbox)
        if rule is not None and rule.use():
            raise refusal(rule.reply)

    def deliver(self, message: IMessage, mailboxes: Sequence[Mailbox]) -> list[Deferred[None]]:
        with message.open() as file:
            file.seek(len(message.trace))
            mail = Mail(message.envelope, file.read())
        results = [self._result(mailbox) for mailbox in mailboxes]
        self.arrived.append(mail)
        if self._waiting:
            self._waiting.pop(0).callback(mail)
        else:
            self._unread.append(mail)
        return results

    def _key(self, recipient: str | None) -> str:
        """
        What the rule for *recipient* is kept under.
        """
        return _EVERYBODY if recipient is None else str(self._rules.mailbox(address(recipient)))

    def _take_back(self, key: str) -> None:
        self._at_rcpt.pop(key, None)
        rule = self._behind_text.pop(key, None)
        if isinstance(rule, Hold):
            rule.release()

    def _result(self, mailbox: Mailbox) -> Deferred[None]:
        rule = _rule(self._behind_text, mailbox)
        if isinstance(rule, Hold):
            return rule.wait()
        result: Deferred[None] = Deferred()
        _answer(result, rule.reply if rule is not None and rule.use() else None)
        return result


#: What whoever is held hears when the test is over.
_STOPPED: Final = TemporaryFailure("The postbox is stopped", (3, 2)).reply
#: What rules for everybody are kept under; it is no address.
_EVERYBODY: Final = ""


def _rule(rules: Mapping[str, T], mailbox: Mailbox) -> T | None:
    rule = rules.get(str(mailbox))
    return rules.get(_EVERYBODY) if rule is None else rule


def _refusal(said: str | Reply) -> Reply:
    """
    Read *said*: ``452 4.2.2 Full``, or without the code in the middle.
    """
    if isinstance(said, str):
        match = _reply(said)
        if match is None or (match[2] or said[0]) != said[0]:
            raise ValueError(f"not a refusal: {said!r}; write 550 5.1.1 No such user")
        status = (int(match[3]), int(match[4])) if match[2] else None
        said = Reply(int(match[1]), match[5], status)
    if said.code < 400:
        raise ValueError(f"not a refusal: {str(said)!r}")
    return said


def _answer(result: Deferred[None], reply: Reply | None) -> None:
    if reply is None:
        result.callback(None)
    else:
        result.errback(refusal(reply))
