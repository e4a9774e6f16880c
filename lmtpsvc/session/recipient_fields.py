"""
XRCPTFORWARD: what a Dovecot that proxies LMTP knows of a recipient, and its backends want to know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .. import replies
from ..wire.attributes import parse_fields
from ..wire.commands import CommandError
from ..wire.xtext import decode_xtext
from .extensions import Extension

if TYPE_CHECKING:
    from .server import ServerSession


class RecipientFields(Extension):
    """
    ``RCPT TO:<ann@example.org> XRCPTFORWARD=class+3Dgold``: fields by name, for backends.
    """

    keyword = "XRCPTFORWARD"
    tells_by_connection = True

    def __init__(self) -> None:
        self.rcpt_parameters = {"XRCPTFORWARD": self._fields}

    def is_available(self, session: ServerSession) -> bool:
        # Dovecot says XCLIENT before: it is the connection that is trusted.
        return session.connection.is_trusted

    @staticmethod
    def _fields(value: str | None) -> Mapping[str, str]:
        try:
            return parse_fields(decode_xtext(value or ""))
        except ValueError:
            raise CommandError(replies.BAD_PARAMETER) from None
