"""
Since when a mailbox has belonged to who has it now, as far as a directory says so (RFC 7293).

The directory has it as the attributes ``since`` and ``domain_since`` of a `lmtpsvc.envelope.Mailbox`.
Where it says nothing, the mailbox has never changed hands.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from .envelope import Mailbox
from .errors import refusal
from .replies import DOMAIN_OWNER_CHANGED, OWNER_CHANGED

#: Since when the mailbox has had its owner, and the domain its.
SINCE: Final = "since"
DOMAIN_SINCE: Final = "domain_since"


def moment(text: str) -> datetime:
    """
    Read ``2024-05-01``, or with a time behind it as ISO 8601 has it (``20240501T120000Z``).  Without
    a zone it is UTC.

    Raises:
        ValueError: It is none.
    """
    read = datetime.fromisoformat(text)
    return read.replace(tzinfo=UTC) if read.tzinfo is None else read


def check_owner(mailbox: Mailbox, since: datetime) -> None:
    """
    Look whether *mailbox* has belonged to the same owner ever *since*.

    Raises:
        PermanentFailure: It has not.
    """
    known = mailbox.attributes
    if DOMAIN_SINCE in known and moment(known[DOMAIN_SINCE]) > since:
        raise refusal(DOMAIN_OWNER_CHANGED)
    if SINCE in known and moment(known[SINCE]) > since:
        raise refusal(OWNER_CHANGED)
