"""
Where a node says that a recipient's mail is to go instead.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote, urlsplit

from attrs import field, frozen

from ..client import Dialect, Outcome
from ..replies import Reply
from ..response_codes import REFERRAL

#: The port of LMTP (RFC 2033 §5 leaves it open; it is what Dovecot and Debian have).
LMTP_PORT: Final = 24
SMTP_PORT: Final = 25

# What Dovecot says, of itself only: 550 5.2.900 [<recipient>] [user@]host[:port] Referral
_dovecot: Final = re.compile(r"(?:<[^>]*> )?([^ ]+) Referral").match
_authority: Final = re.compile(
    r"(?:([^@\[\]/ ]*)@)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?"
).fullmatch


@frozen
class Referral:
    """
    A *destination* as `lmtpsvc.client.Client` takes it, its *dialect*, and the name that the
    recipient has there, if it is another one.  *is_referred* tells that a server has said so, and not
    the operator.
    """

    destination: str
    dialect: Dialect = Dialect.LMTP
    user: str = ""
    is_referred: bool = field(default=False, eq=False)


def referral_in(outcome: Outcome) -> Referral | None:
    """
    Where *outcome* refers to, if it does: by a response code, or in Dovecot's way.
    """
    for code in outcome.codes:
        if code.name == REFERRAL and not outcome.is_success:
            return _of_url(code.value)
    return _of_dovecot(outcome.reply)


def _of_url(url: str) -> Referral | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    dialect = {"lmtp": Dialect.LMTP, "smtp": Dialect.SMTP}.get(parts.scheme)
    return None if dialect is None else _referral(parts.netloc, dialect)


def _of_dovecot(reply: Reply) -> Referral | None:
    if (reply.code, reply.status) != (550, (2, 900)):
        return None
    match = _dovecot(reply.text)
    return None if match is None else _referral(match[1], Dialect.LMTP)


def _referral(authority: str, dialect: Dialect) -> Referral | None:
    # A user name may be an address itself, with its @ as %40.
    match = _authority(authority)
    if match is None:
        return None
    port = int(match[3] or (LMTP_PORT if dialect is Dialect.LMTP else SMTP_PORT))
    if not 0 < port < 65536:
        return None
    return Referral(f"{match[2]}:{port}", dialect, unquote(match[1] or ""), is_referred=True)
