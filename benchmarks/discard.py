"""
A backend that keeps nothing: what the conversation and its bookkeeping cost by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, succeed
from twisted.plugin import IPlugin
from zope.interface import implementer

from lmtpsvc.envelope import Mailbox
from lmtpsvc.interfaces import Capabilities, IBackend, IBackendFactory, IMessage


@implementer(IBackend)
class DiscardBackend:
    """
    Says yes, at once.
    """

    capabilities = Capabilities()

    def verify(self, mailbox: Mailbox) -> None:
        """
        Everybody is welcome.
        """

    def deliver(self, message: IMessage, mailboxes: Sequence[Mailbox]) -> list[Deferred[None]]:
        """
        Forget *message*.
        """
        return [succeed(None) for _ in mailboxes]


@implementer(IPlugin, IBackendFactory)
class DiscardFactory:
    """
    ``discard``, for measurements only.
    """

    name = "discard"
    synopsis = "discard"
    help = "Throws every message away; for measurements only."

    def build(self, reactor: object, *words: str, **options: str) -> IBackend:
        """
        Make one; there is nothing to say about it.
        """
        if words or options:
            raise ValueError("expected nothing behind discard")
        return DiscardBackend()
