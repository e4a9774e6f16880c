"""
What has arrived is in the queue as a whole, or not at all.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from lmtpsvc.backends.forward_text import MOST_RECEIVED
from lmtpsvc.client import address
from lmtpsvc.envelope import Address, Client, Envelope, Mailbox, Recipient, Sender
from lmtpsvc.errors import DeliveryError, PermanentFailure, TemporaryFailure, refusal
from lmtpsvc.relay.inbox import Inbox
from lmtpsvc.replies import CANNOT_STORE, LOOP, NO_SPACE, Reply

Call = tuple[Any, Sequence[Recipient] | None]


@define
class HeldQueue:
    """
    Takes messages, and is done when the test says so.
    """

    added: list[Call] = field(factory=list)
    done: Deferred[str] = field(factory=Deferred)

    def add_message(
        self, message: Any, recipients: Sequence[Recipient] | None = None
    ) -> Deferred[str]:
        self.added.append((message, recipients))
        return self.done


@define
class Message:
    envelope: Envelope
    text: bytes = b"Subject: Hello\r\n\r\nHello.\r\n"

    def open(self, line_ending: str = "\r\n") -> BinaryIO:
        return io.BytesIO(self.text)


def envelope(*to: str) -> Envelope:
    sender = Sender(address("me@example.net"))
    recipients = tuple([Recipient(address(each), {"NOTIFY": frozenset({each})}) for each in to])
    return Envelope(sender, recipients, Client("192.0.2.1"))


ANN, BOB = Mailbox("ann", "example.org"), Mailbox("bob", "example.org")


@pytest.fixture
def queue() -> HeldQueue:
    return HeldQueue()


def deliver(queue: HeldQueue, message: Message, *mailboxes: Mailbox) -> list[Deferred[Any]]:
    inbox: Any = Inbox(queue, "example.org")
    assert inbox.verify(mailboxes[0]) is None
    results: list[Deferred[Any]] = inbox.deliver(message, mailboxes)
    return results


def test_all_at_once(
    queue: HeldQueue,
    success_of: Callable[..., Any],
    no_result: Callable[..., None],
) -> None:
    """
    One entry has everybody, as the client has named them; nobody has it before it is safe.
    """
    # Folding makes one mailbox of two addresses that may be different people elsewhere.
    message = Message(envelope("Ann@example.org", "ann@example.org", "bob@example.org"))

    results = deliver(queue, message, ANN, BOB)

    [(queued, recipients)] = queue.added
    assert queued is message
    assert list(message.envelope.recipients) == list(recipients or ())
    for each in results:
        no_result(each)
    queue.done.callback("id")
    assert [None, None] == [success_of(each) for each in results]


def test_nobody(queue: HeldQueue, failure_of: Callable[..., Failure]) -> None:
    """
    If the queue cannot take it, everybody's answer is the queue's.
    """
    results = deliver(queue, Message(envelope("ann@example.org", "bob@example.org")), ANN, BOB)

    queue.done.errback(refusal(NO_SPACE))

    for each in results:
        assert NO_SPACE == said(failure_of(each, TemporaryFailure))


def test_unreadable(queue: HeldQueue, failure_of: Callable[..., Failure]) -> None:
    """
    A message that cannot be opened is told of like any other that cannot be stored.
    """

    class Unreadable(Message):
        id = "m1"

        def open(self, line_ending: str = "\r\n") -> BinaryIO:
            raise OSError(errno.EMFILE, "Too many open files")

    [result] = deliver(queue, Unreadable(envelope("ann@example.org")), ANN)

    assert CANNOT_STORE == said(failure_of(result, TemporaryFailure))
    assert queue.added == []


def test_called_off(
    queue: HeldQueue, success_of: Callable[..., Any], no_result: Callable[..., None]
) -> None:
    """
    What is on its way into the queue cannot be called back: the truth comes when it is known.
    """
    [result] = deliver(queue, Message(envelope("ann@example.org")), ANN)

    result.cancel()

    no_result(result)
    queue.done.callback("id")
    assert success_of(result) is None


def test_postmaster(queue: HeldQueue) -> None:
    """
    The bare <Postmaster> is ours, and further on nobody could tell.
    """
    message = Message(envelope("bob@example.net"))
    ours = Recipient(Address("Postmaster", ""))
    message.envelope = Envelope(
        message.envelope.sender, (ours, *message.envelope.recipients), Client("192.0.2.1")
    )

    deliver(queue, message, ANN, BOB)

    [(_, recipients)] = queue.added
    assert ["Postmaster@example.org", "bob@example.net"] == [str(each) for each in recipients or ()]


@pytest.mark.parametrize(("more", "refused"), [(0, False), (1, True)])
def test_loop(
    more: int, refused: bool, queue: HeldQueue, failure_of: Callable[..., Failure]
) -> None:
    """
    Mail that has come through too many servers goes no further (RFC 5321 §6.3).
    """
    text = b"Received: from here\r\n" * (MOST_RECEIVED + more) + b"\r\nReceived: in the body\r\n"

    [result] = deliver(queue, Message(envelope("ann@example.org"), text), ANN)

    assert refused == (not queue.added)
    if refused:
        assert said(failure_of(result, PermanentFailure)) == LOOP


def said(failure: Failure) -> Reply:
    assert isinstance(failure.value, DeliveryError)
    return failure.value.reply
