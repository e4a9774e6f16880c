"""
DeliveryAgent: what a connection needs in order to deliver.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from ..envelope import Address, Envelope, Mailbox
from ..interfaces import IBackend
from ..limits import Limits
from .routing import Routing
from .spool import Spool, SpoolSettings
from .trace import DeliveredTo, trace_headers
from .transaction import Accepted, Transaction


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

    def resolve(
        self, address: Address, size: int | None = None, *, ignore_quota: bool = False
    ) -> Deferred[tuple[Mailbox, ...]]:
        """
        See `Routing.resolve`.
        """
        return self.routing.resolve(address, size, ignore_quota=ignore_quota)

    def begin(
        self,
        envelope: Envelope,
        accepted: Sequence[Accepted],
        pause: Callable[[], None],
        resume: Callable[[], None],
    ) -> Transaction:
        """
        Begin a transaction, for at least one recipient.  *pause* and *resume* are called when no
        more text should come for now, and when it may again.
        """
        transaction_id = os.urandom(8).hex()
        # Who asks for codes may have more recipients elsewhere, to share the copy with.
        is_for_all = len(envelope.recipients) > 1 or envelope.sender.wants_codes
        head = trace_headers(
            envelope,
            transaction_id,
            self.hostname,
            time.time(),
            self.delivered_to,
            is_for_all=is_for_all,
        )
        limits, patience = self.limits, envelope.client.patience_seconds
        if patience is not None:
            limits = limits.answering_within(patience)
        return Transaction(
            transaction_id,
            envelope,
            accepted,
            Spool(self.spool, head, pause, resume),
            self.backend,
            self.clock,
            limits,
            head,
            is_for_all=is_for_all,
            headed=self.delivered_to == "always",
        )
