"""
PRDR: replies for each recipient behind the text, in SMTP (draft-hall-prdr, as Exim has it).
"""

from __future__ import annotations

from .. import replies
from ..wire.commands import CommandError
from .extensions import Extension


class PerRecipientReplies(Extension):
    """
    ``MAIL FROM:<...> PRDR``: behind the text comes 353, then a reply for each accepted recipient in
    their order, then one for the message.
    """

    keyword = "PRDR"

    def __init__(self) -> None:
        self.mail_parameters = {"PRDR": self._flag}

    @staticmethod
    def _flag(value: str | None) -> bool:
        if value is not None:
            raise CommandError(replies.BAD_PARAMETER)
        return True
