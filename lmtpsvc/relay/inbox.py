"""
Inbox: what has arrived over SMTP goes into the queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..backends.forward_text import is_in_a_loop
from ..commitment import Commitment
from ..envelope import Mailbox, Recipient
from ..errors import from_os_error, refusal
from ..interfaces import Capabilities, IBackend, IMessage
from ..replies import LOOP

_log = Logger(namespace="lmtpsvc.relay")


class TakesMessages(Protocol):
    """
    What `lmtpsvc.relay.queue.Queue` does.
    """

    def add_message(
        self, message: IMessage, recipients: Sequence[Recipient] | None = None
    ) -> Deferred[str]: ...


@implementer(IBackend)
class Inbox:
    """
    Puts each message into *queue* as a whole: all its recipients have it there, or nobody has.

    Who the recipients are is what the client has said, with all that it has said of them; mailboxes
    are for the next server to know.  *domain* is that of the bare ``<Postmaster>``.
    """

    capabilities = Capabilities()

    def __init__(self, queue: TakesMessages, domain: str) -> None:
        self._queue, self._domain = queue, domain

    def verify(self, mailbox: Mailbox) -> None:
        """
        Anybody for whom mail is accepted can have it in the queue.
        """

    def deliver(self, message: IMessage, mailboxes: Sequence[Mailbox]) -> list[Deferred[Any]]:
        results = [Commitment() for _ in mailboxes]
        # One call does it for all: whoever is called off from here on has the mail all the same.
        going = [each for each in results if each.begin()]
        try:
            if is_in_a_loop(message):
                _refuse(going, Failure(refusal(LOOP)))
                return list(results)
        except OSError as error:
            _log.error("{id} cannot be read: {error}", id=message.id, error=error)
            _refuse(going, Failure(from_os_error(error)))
            return list(results)
        recipients = [self._known_elsewhere(each) for each in message.envelope.recipients]
        added = self._queue.add_message(message, recipients)
        added.addCallbacks(lambda _: _fire(going), lambda failure: _refuse(going, failure))
        return list(results)

    def _known_elsewhere(self, recipient: Recipient) -> Recipient:
        """
        *recipient*, with a domain: only the first server knows whose postmaster was meant (RFC 5321
        §4.1.1.3).
        """
        if recipient.address.domain:
            return recipient
        return evolve(recipient, address=evolve(recipient.address, domain=self._domain))


def _fire(results: Sequence[Deferred[Any]]) -> None:
    for each in results:
        each.callback(None)


def _refuse(results: Sequence[Deferred[Any]], failure: Failure) -> None:
    for each in results:
        each.errback(failure)
