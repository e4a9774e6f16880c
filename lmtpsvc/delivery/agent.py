"""
DeliveryAgent: what a connection needs in order to deliver.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from random import getrandbits

from attrs import Factory, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from .. import replies
from ..envelope import Address, Envelope, Mailbox, Recipient, Sender
from ..interfaces import IBackend
from ..limits import Limits
from .deadlines import Deadlines
from .reporting import Reporter
from .routing import Routing
from .spool import Spool, SpoolSettings
from .trace import DeliveredTo, OriginalHeader, delivered_to_header, trace_headers
from .transaction import Accepted, Success, Transaction


@frozen
class DeliveryAgent:
    """
    Looks up recipients and begins transactions; one for the whole service.
    """

    routing: Routing
    backend: IBackend
    clock: IReactorTime
    hostname: str
    limits: Limits
    spool: SpoolSettings
    delivered_to: DeliveredTo = "single"
    original_recipient: OriginalHeader = "no"
    #: Who tells senders that their messages have been delivered, if anybody does (RFC 3461).
    reporter: Reporter | None = None
    #: What a recipient is told who has the mail, see `lmtpsvc.replies.delivered`.
    success: Success = replies.delivered
    _deadlines: Deadlines = field(
        init=False,
        eq=False,
        repr=False,
        default=Factory(lambda agent: Deadlines(agent.clock), takes_self=True),
    )

    def resolve(self, address: Address) -> Deferred[tuple[Mailbox, ...]]:
        """
        Look up who has the mail for *address*, see `Routing.look_up`.
        """
        return self.routing.resolve(address)

    def begin(
        self,
        envelope: Envelope,
        accepted: Sequence[Accepted],
        pause: Callable[[], None],
        resume: Callable[[], None],
        mail_seconds: float | None = None,
    ) -> Transaction:
        """
        Begin a transaction, for at least one recipient.  *pause* and *resume* are called when no
        more text should come for now, and when it may again.  *mail_seconds* is when MAIL came, in
        seconds of the clock; by default, now.
        """
        # To be told apart, not to be secret; and seeded anew in a process that is forked.
        transaction_id = getrandbits(64).to_bytes(8).hex()
        sender = envelope.sender
        # Who asks where the copy lies may have more recipients elsewhere, to share the copy with.
        is_for_all = len(accepted) > 1 or bool(sender.parameters and sender.wants_maildata)
        head = trace_headers(
            envelope,
            transaction_id,
            self.hostname,
            time.time(),
            self.delivered_to,
            self.original_recipient,
            is_for_all=is_for_all,
        )
        limits, patience = self.limits, envelope.client.patience_seconds
        if patience is not None:
            limits = limits.answering_within(patience)
        clock = self.clock
        now = clock.seconds()
        transaction = Transaction(
            transaction_id,
            envelope,
            accepted,
            Spool(self.spool, head, pause, resume, partial(_are_for_service, accepted)),
            self.backend,
            clock,
            self._deadlines,
            limits,
            self.success,
            now,
            now if mail_seconds is None else mail_seconds,
        )
        transaction.is_for_all = is_for_all
        if self.delivered_to == "always":
            transaction.heading = self._heading(envelope)
        if sender.parameters:
            transaction.expires = _expires(sender, transaction.mailed)
        if self.reporter is not None:
            transaction.report = self.reporter.about(transaction_id, envelope)
        return transaction

    def _heading(self, envelope: Envelope) -> Callable[[Recipient], bytes]:
        """
        What each recipient's copy gets on top.
        """
        sender, original = envelope.sender, self.original_recipient
        return lambda recipient: delivered_to_header(recipient, sender, original)


def _are_for_service(accepted: Sequence[Accepted]) -> bool:
    """
    Whether the mail is to belong to the service itself, so that it can be what was spooled.
    """
    return all(
        (mailbox.uid is None or mailbox.uid == os.geteuid())
        and (mailbox.gid is None or mailbox.gid == os.getegid())
        for each in accepted
        for mailbox in each.mailboxes
    )


def _expires(sender: Sender, mailed: float) -> float | None:
    """
    When the message is to be returned if it is not delivered (RFC 2852), if ever.
    """
    by = sender.deliver_by
    return None if by is None or not by.is_returned else mailed + by.seconds
