"""
What a mailbox may hold: the directory says it, or else the backend.
"""

from __future__ import annotations

from twisted.logger import Logger

from ..envelope import Mailbox
from ..errors import refusal
from ..quota import Quota, limit_of
from ..replies import MAILBOX_UNAVAILABLE

_log = Logger()


def allowance(mailbox: Mailbox, default: Quota | None) -> Quota | None:
    """
    The quota of *mailbox*; None if there is no limit.

    Raises:
        TemporaryFailure: What the directory says about it is no number; no reason to lose mail, or
            the quota.
    """
    if default is None and not mailbox.attributes:
        # As for most.
        return None
    try:
        return limit_of(mailbox, default)
    except ValueError as error:
        _log.error("{mailbox}: {error}", mailbox=mailbox, error=error)
        raise refusal(MAILBOX_UNAVAILABLE) from error
