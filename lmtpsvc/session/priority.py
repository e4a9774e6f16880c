"""
MT-PRIORITY: which message goes first (RFC 6710).

Anybody may say that a message can wait.  That one is urgent is believed of who is trusted or has
logged in: if all could say it, it would mean nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from attrs import evolve

from .. import replies
from ..envelope import Sender
from ..replies import Reply
from ..wire.commands import CommandError
from .extensions import Extension

if TYPE_CHECKING:
    from .server import ServerSession

_match = re.compile(r"-?[1-9]|0").fullmatch


class Priorities(Extension):
    """
    RFC 6710.  The numbers stand for what the client takes them for: no policy is announced.
    """

    keyword = "MT-PRIORITY"

    def __init__(self) -> None:
        self.mail_parameters = {"MT-PRIORITY": priority}

    def change_sender(self, session: ServerSession, sender: Sender) -> tuple[Sender, Reply] | None:
        # RFC 6710 §4.1.
        if sender.priority <= 0 or session.connection.is_trusted or session.client.login:
            return None
        usual = evolve(sender, parameters={**sender.parameters, "MT-PRIORITY": 0})
        return usual, replies.NOT_URGENT


def priority(value: str | None) -> int:
    """
    Read ``MT-PRIORITY`` (RFC 6710 §7): a number from -9 to 9.

    Raises:
        CommandError: 501.
    """
    if _match(value or "") is None:
        raise CommandError(replies.BAD_PARAMETER)
    return int(value or "")
