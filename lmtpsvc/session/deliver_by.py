"""
DELIVERBY: how soon a message has to be delivered (RFC 2852).
"""

from __future__ import annotations

import re

from .. import replies
from ..envelope import DeliverBy
from ..wire.commands import CommandError
from .extensions import Extension

_match = re.compile(r"([+-]?[0-9]{1,9});([NR])(T?)", re.IGNORECASE).fullmatch


class DeliverBySeconds(Extension):
    """
    RFC 2852.  There is no least time, so that none is announced: delivery begins at once.
    """

    keyword = "DELIVERBY"

    def __init__(self) -> None:
        self.mail_parameters = {"BY": deliver_by}


def deliver_by(value: str | None) -> DeliverBy:
    """
    Read ``BY`` (RFC 2852 §4): ``120;R``, ``-5;NT``.

    Raises:
        CommandError: 501; also for a message that is to be returned after no time at all.
    """
    match = _match(value or "")
    if match is None:
        raise CommandError(replies.BAD_PARAMETER)
    seconds, is_returned = int(match[1]), match[2] in "Rr"
    if is_returned and seconds <= 0:
        raise CommandError(replies.BAD_PARAMETER)
    return DeliverBy(seconds, is_returned, bool(match[3]))
