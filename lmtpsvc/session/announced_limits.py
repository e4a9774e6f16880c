"""
LIMITS: what a client may count on (RFC 9422).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .extensions import Extension

if TYPE_CHECKING:
    from .server import ServerSession

#: RFC 9422 §4.2: a number of at most six digits.
MAX_RCPTMAX = 999_999


class AnnouncedLimits(Extension):
    """
    RFC 9422: the number of recipients of one message.

    There is no limit to the number of transactions (MAILMAX) or of domains (RCPTDOMAINMAX).
    """

    keyword = "LIMITS"
    tells_by_connection = True

    def __init__(self, recipients: int) -> None:
        self._recipients = recipients

    def announcement(self, session: ServerSession) -> str:
        return f"LIMITS RCPTMAX={self._recipients}"
