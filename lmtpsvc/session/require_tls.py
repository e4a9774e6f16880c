"""
REQUIRETLS: a message that must not leave us in the clear (RFC 8689).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import replies
from ..wire.commands import CommandError
from .extensions import Extension

if TYPE_CHECKING:
    from .server import ServerSession


class RequireTLS(Extension):
    """
    RFC 8689.  There only where the message has come over TLS itself (§2, item 4); it is carried to
    the backends, for those that pass it on.
    """

    keyword = "REQUIRETLS"
    tells_by_connection = True

    def __init__(self) -> None:
        self.mail_parameters = {"REQUIRETLS": self._flag}

    def is_available(self, session: ServerSession) -> bool:
        return session.connection.tls

    @staticmethod
    def _flag(value: str | None) -> bool:
        if value is not None:
            raise CommandError(replies.BAD_PARAMETER)
        return True
