"""
RRVS: mail only for who had the mailbox at some time before (RFC 7293).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from .. import replies
from ..envelope import ValidSince
from ..wire.commands import CommandError
from .extensions import Extension

if TYPE_CHECKING:
    from .server import ServerSession

# RFC 3339 §5.6; fractions of a second, which RFC 7293 §3.1 does not want, are no reason to refuse
# mail.  The groups: what fromisoformat reads, but for the second; and C or R.
_match = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:)([0-9]{2})((?:\.[0-9]+)?)"
    r"(Z|[+-][0-9]{2}:[0-9]{2})(?:;([CR]))?",
    re.IGNORECASE,
).fullmatch


class ValidSinceThen(Extension):
    """
    RFC 7293.  *is_known* says whether anybody here knows who had a mailbox when; without that, it
    is not announced.
    """

    keyword = "RRVS"

    def __init__(self, is_known: Callable[[], bool]) -> None:
        self._is_known = is_known
        self.rcpt_parameters = {"RRVS": valid_since}

    def is_available(self, session: ServerSession) -> bool:
        return self._is_known()


def valid_since(value: str | None) -> ValidSince:
    """
    Read ``RRVS`` (RFC 7293 §3.1): ``2024-05-01T12:00:00Z``, with ``;C`` or ``;R`` behind it.

    Raises:
        CommandError: 501.
    """
    match = _match(value or "")
    if match is None:
        raise CommandError(replies.BAD_PARAMETER)
    minute, second, fraction, zone, otherwise = match.groups()
    # RFC 3339 §5.7: a leap second, which datetime does not know.
    second = "59" if second == "60" else second
    try:
        moment = datetime.fromisoformat(f"{minute}{second}{fraction[:7]}{zone}".upper())
    except ValueError:
        raise CommandError(replies.BAD_PARAMETER) from None
    return ValidSince(moment, (otherwise or "").upper())
