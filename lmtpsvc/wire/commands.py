"""
CommandError: how a parser says what is wrong with a command.
"""

from __future__ import annotations

from ..replies import Reply


class CommandError(Exception):
    """
    A command that is answered with *reply*, and otherwise ignored.
    """

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply
