"""
STARTTLS (RFC 3207): encryption in the middle of a conversation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import replies
from ..wire.commands import CommandError
from .extensions import Extension

if TYPE_CHECKING:
    from .server import ServerSession


class StartTLS(Extension):
    """
    Announced where the connection can be encrypted, and is not yet.

    Behind the handshake all is forgotten that was said before it (§4.2), and what was sent in the
    clear behind the command ends the connection: see `ServerSession.begin_tls`.
    """

    keyword = "STARTTLS"
    tells_by_connection = True
    # The 220 is the last word in the clear, so that all before it has been answered.
    barriers = frozenset({b"STARTTLS"})

    def __init__(self) -> None:
        self.verbs = {b"STARTTLS": self._begin}

    def is_available(self, session: ServerSession) -> bool:
        return session.connection.offers_tls

    @staticmethod
    def _begin(session: ServerSession, argument: bytes) -> None:
        if argument:
            raise CommandError(replies.NO_PARAMETERS)
        if not session.is_between_transactions:
            raise CommandError(replies.IN_TRANSACTION)
        session.begin_tls(replies.START_TLS)
