"""
Handing a message to a backend, and turning what comes back into replies.

Nothing that a backend does is trusted here: it may raise, return too few results or too many, fail
with anything, or never answer.  Each mailbox gets one Deferred all the same.  Anything includes what
is no Exception: a plugin that lets asyncio's CancelledError escape ends its own delivery, and not the
connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from .. import replies
from ..commitment import Commitment
from ..envelope import Mailbox
from ..errors import DeliveryError
from ..interfaces import IBackend, IMessage
from ..replies import Reply
from .awaiting import as_deferred, drop

_log = Logger()

#: Replies from here on say that there was no delivery.
_FIRST_REFUSAL: Final = 400


def reply_for(failure: Failure) -> Reply:
    """
    Turn the failure of a directory or backend into the recipient's reply.

    This is the only place where an exception becomes words for the client.  A plugin speaks
    through DeliveryError; anything else is a defect, whose details belong in the log.  It is a 451
    and not a 5yz, because our bug is no reason to bounce somebody's mail.
    """
    error = failure.value
    if isinstance(error, DeliveryError):
        # One of a plugin's own may have forgotten to make it, or made something else of it.
        reply: object = getattr(error, "reply", None)
        if isinstance(reply, Reply) and reply.code >= _FIRST_REFUSAL:
            return reply
    if isinstance(error, TimeoutError):
        return replies.CANNOT_LOOK_UP
    if isinstance(error, CancelledError):
        return replies.OUT_OF_TIME
    _log.failure("a directory or backend failed in a way that it should not", failure)
    return replies.INTERNAL_ERROR


def dispatch(
    backend: IBackend, message: IMessage, mailboxes: Sequence[Mailbox]
) -> list[Deferred[Any]]:
    """
    Deliver *message*; returns one Deferred per mailbox, in their order.
    """
    try:
        awaitables = list(backend.deliver(message, mailboxes))
    except BaseException:
        return [fail() for _ in mailboxes]
    if len(awaitables) != len(mailboxes):
        # Nobody can tell which result is whose, so none may become a 250, and none is begun.
        for awaitable in awaitables:
            drop(awaitable)
        count = f"{len(awaitables)} results for {len(mailboxes)} mailboxes"
        wrong = RuntimeError(f"{count} from {backend!r}")
        return [fail(wrong) for _ in mailboxes]
    # Python knows an instance of a class itself without asking Deferred, which is abstract.
    return [
        each if isinstance(each, (Commitment, Deferred)) else _deferred(each) for each in awaitables
    ]


def _deferred(awaitable: Any) -> Deferred[Any]:
    try:
        return as_deferred(awaitable)
    except BaseException:
        return fail()


def has_succeeded(result: Deferred[Any]) -> bool:
    """
    *result* has fired, with a value that nobody is about to change: it need not be waited for.
    """
    return (
        result.called
        and not result.paused
        and not result._runningCallbacks
        and not isinstance(result.result, Failure)
    )


def call_off(result: Deferred[Any]) -> None:
    """
    Cancel a delivery; a backend that fails to be called off harms nobody else.
    """
    try:
        result.cancel()
    except BaseException:
        _log.failure("a delivery could not be called off")
