"""
What Cyrus IMAP's programs say to each other: TRACE, and IGNOREQUOTA on RCPT.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from attrs import evolve

from .. import replies
from ..wire.commands import CommandError
from .extensions import Extension

if TYPE_CHECKING:
    from .server import ServerSession

# The characters that Cyrus takes, and its length.
_match_trace = re.compile(rb"[A-Za-z0-9._-]{1,255}").fullmatch


class Trace(Extension):
    """
    ``TRACE abc-1``: what the client calls this session in its own log.  It stays until it is told
    otherwise, or the conversation begins anew.
    """

    keyword = "TRACE"
    tells_by_connection = True

    def __init__(self) -> None:
        self.verbs = {b"TRACE": self._trace}
        self.syntax = {b"TRACE": "word"}

    def is_available(self, session: ServerSession) -> bool:
        return session.connection.is_trusted

    def _trace(self, session: ServerSession, argument: bytes) -> None:
        if _match_trace(argument) is None:
            raise CommandError(replies.BAD_TRACE)
        session.client = evolve(session.client, session=argument.decode("ascii"))
        session.reply(replies.OK)


class IgnoreQuota(Extension):
    """
    ``RCPT TO:<ann@example.org> IGNOREQUOTA``: the mailbox takes it, however full it is.
    """

    keyword = "IGNOREQUOTA"
    tells_by_connection = True

    def __init__(self) -> None:
        self.rcpt_parameters = {"IGNOREQUOTA": self._flag}

    def is_available(self, session: ServerSession) -> bool:
        return session.connection.is_trusted

    @staticmethod
    def _flag(value: str | None) -> bool:
        if value is not None:
            raise CommandError(replies.BAD_PARAMETER)
        return True
