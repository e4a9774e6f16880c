"""
MT-PRIORITY: which message goes first (RFC 6710).
"""

from __future__ import annotations

import re

from .. import replies
from ..wire.commands import CommandError
from .extensions import Extension

_match = re.compile(r"-?[1-9]|0").fullmatch


class Priorities(Extension):
    """
    RFC 6710.  The numbers stand for what the client takes them for: no policy is announced.
    """

    keyword = "MT-PRIORITY"

    def __init__(self) -> None:
        self.mail_parameters = {"MT-PRIORITY": priority}


def priority(value: str | None) -> int:
    """
    Read ``MT-PRIORITY`` (RFC 6710 §3): a number from -9 to 9.

    Raises:
        CommandError: 501.
    """
    if _match(value or "") is None:
        raise CommandError(replies.BAD_PARAMETER)
    return int(value or "")
