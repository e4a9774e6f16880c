"""
Envelopes: MAIL, RCPTs and DATA that have come together, as they mostly do, taken together.

A packet of usual commands is cut at its line ends; what the lines say is read by the code that reads
any others, and remembered.  Nothing of it may make a difference: whatever is not usual is left to be
taken line by line.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Final

from .. import replies
from ..envelope import Address, Recipient
from ..wire.command_lines import COMMAND_LINE
from ..wire.commands import CommandError
from ..wire.paths import plain_recipients, plain_sender, sized_mail
from .events import EnvelopeOffered, RecipientOffered
from .incoming_text import IncomingText
from .states import State

#: What ends the commands of a transaction, as most clients say it; and so many octets of it are DATA.
_DATA: Final = b"\r\nDATA\r\n"
_DATA_OCTETS: Final = len(_DATA) - 2

#: So many RCPTs may be told as one.
_MOST_TOGETHER: Final = 500


class Envelopes(IncomingText):
    """
    A conversation in which transactions are begun.
    """

    __slots__ = ()

    def take_envelopes(self) -> None:
        """
        From now on, tell of RCPTs and their DATA as one event where that makes no difference, and so
        of the last of a text and its end.
        """
        # Nobody else carries the verbs out, the terms of the listener neither.
        self._takes_envelopes = (
            self._extensions.passes_plain
            and self._limits.command_line >= COMMAND_LINE
            and not self._has_terms
        )

    def accept_envelope(self, offered: EnvelopeOffered) -> bool:
        """
        All recipients of *offered* are welcome, and the text is to come.  False: the conversation
        has ended meanwhile.
        """
        if self._state is not State.SENDER:
            return False
        count = len(offered.recipients)
        self._position = len(self._buffer)
        self._open_text(count)
        self._await_text()
        self._replies.put_wire(replies.RECIPIENT_OK.wire * count + replies.START_TEXT.wire)
        return True

    def take_apart(self, offered: EnvelopeOffered) -> tuple[RecipientOffered, ...]:
        """
        An offer for each recipient of *offered*, to be answered as if they had come one by one.
        """
        if self._state is not State.SENDER:
            return ()
        self._position = len(self._buffer) - _DATA_OCTETS
        return tuple([self._offer(recipient) for recipient in offered.recipients])

    def _envelope(self) -> EnvelopeOffered | None:
        """
        All that is left unread, if it is RCPTs and the DATA behind them, with or without the MAIL before
        them, and nothing of the long way could say anything but yes to it.
        """
        # Once for each MAIL: who sends them apart is not to pay for the attempt every time.
        self._may_be_together = False
        buffer, position = self._buffer, self._position
        if (
            not buffer.endswith(_DATA)
            or not buffer.startswith((b"MAIL FROM:<", b"RCPT TO:<"), position)
            or self._asked is not None
            or self._line_reader is not None
            or self._skipping
            or not self._replies.is_settled
        ):
            return None
        lines = buffer[position : -len(_DATA)].split(b"\r\n", _MOST_TOGETHER)
        if self._state is State.READY:
            # Whatever follows, this has been said.
            if (sender := plain_sender(lines[0])) is not None:
                self._mail_said = True
                self._position = position + len(lines.pop(0)) + 2
                self._sender, self._state = sender, State.SENDER
                self._replies.put(replies.SENDER_OK)
            elif self._take_sized(lines[0]):
                del lines[0]
            else:
                return None
        sender = self._sender
        if (
            self._state is not State.SENDER
            or sender is None
            or (sender.parameters and sender.is_binary)
            # DATA right behind MAIL is for nobody.
            or not lines
            # What is left over has a CRLF within, and is no RCPT.
            or len(lines) > self._limits.recipients
        ):
            return None
        recipients = plain_recipients(lines)
        return None if recipients is None else EnvelopeOffered(sender, recipients)

    def _take_sized(self, line: bytes) -> bool:
        """
        Take *line* if it is a MAIL with a SIZE or a BODY, with all that extensions have to say to those.
        False: it is none, or more has come of it than a sender.
        """
        said = sized_mail(line)
        if said is None:
            return False
        buffer = self._buffer
        self._mail_said = True
        self._position += len(line) + 2
        try:
            self._take_sender(*said)
        except CommandError as error:
            self._refuse(error.reply)
            return False
        return not self._events and self._line_reader is None and self._buffer is buffer

    @abstractmethod
    def _take_sender(self, address: Address | None, parameters: Mapping[str, str | None]) -> None:
        """
        MAIL was said, in its place, and is well formed.

        Raises:
            CommandError: An extension has something against it.
        """

    def _offer(self, recipient: Recipient) -> RecipientOffered:
        sender = self._sender
        assert sender is not None, "the state says that MAIL was accepted"
        offer = RecipientOffered(recipient, self._replies.reserve(), sender.size, sender.is_binary)
        self._offers[offer] = None
        self._pending += 1
        return offer
