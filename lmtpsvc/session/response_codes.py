"""
An extension of our own, for proxies and nodes that trust each other: replies with response codes,
and MAILDATA, what a reply said about a stored copy, on RCPT for the next node.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .. import replies
from ..response_codes import MAILDATA
from ..wire.commands import CommandError
from .extensions import Extension

if TYPE_CHECKING:
    from .server import ServerSession

#: Characters of a token, at most; a RCPT with it must not be longer than a command line may be.
MAX_TOKEN = 1500

_token = re.compile(r"[A-Za-z0-9_-]+").fullmatch


class ResponseCodes(Extension):
    """
    ``XRESPCODES``: for trusted clients only, since a token tells where mail lies.

    Its parameter of that name on MAIL asks for codes in the replies to RCPT and behind the text, see
    `lmtpsvc.response_codes`; with the value MAILDATA also for where the copy lies.  ``MAILDATA=token`` on RCPT is what another node has said of a copy
    that it has stored of this very text.
    """

    keyword = "XRESPCODES"
    tells_by_connection = True

    def __init__(self) -> None:
        self.mail_parameters = {"XRESPCODES": self._wanted}
        self.rcpt_parameters = {"MAILDATA": self._token}

    def is_available(self, session: ServerSession) -> bool:
        return session.connection.is_trusted

    @staticmethod
    def _wanted(value: str | None) -> bool | str:
        if value is None:
            return True
        if value.upper() != MAILDATA:
            raise CommandError(replies.BAD_PARAMETER)
        return MAILDATA

    @staticmethod
    def _token(value: str | None) -> str:
        if value is None or len(value) > MAX_TOKEN or _token(value) is None:
            raise CommandError(replies.BAD_PARAMETER)
        return value
