"""
Message: what backends get.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from typing import BinaryIO

from attrs import define, evolve, field
from zope.interface import implementer

from ..envelope import Envelope, Mailbox, Recipient
from ..headers import read_headers
from ..interfaces import IMessage, LineEnding, Sizes
from .content import Content, InMemory, PrefixedContent


@implementer(IMessage)
@define(eq=False)
class Message:
    """
    A whole message, shared by all its recipients; see `lmtpsvc.interfaces.IMessage`.

    Nobody changes it.  It is not frozen because each is made once and hardly read: that would cost as
    much again.
    """

    id: str
    envelope: Envelope
    deadline: float
    content: Content
    trace: bytes = b""
    is_for_all: bool = True
    begun: float = 0.0
    # Which recipients, by position, each mailbox is for.
    _positions: Mapping[Mailbox, Sequence[int]] = field(factory=dict, repr=False)
    # Those of all recipients, once somebody has asked for them.
    _headers: list[EmailMessage] = field(factory=list, init=False, repr=False)

    @property
    def digest(self) -> str:
        return self.content.digest

    @property
    def path(self) -> str | None:
        return self.content.path

    def open(self, line_ending: LineEnding = "\r\n") -> BinaryIO:
        return self.content.open(line_ending)

    def sizes(self, line_ending: LineEnding = "\r\n") -> Sizes:
        return self.content.sizes(line_ending)

    def in_memory(self, line_ending: LineEnding = "\r\n") -> InMemory | None:
        """
        The octets that `open` yields, and the sizes, for whoever must not wait; None if a file would have
        to be read.
        """
        return self.content.in_memory(line_ending)

    def recipients_of(self, mailbox: Mailbox) -> list[Recipient]:
        recipients = self.envelope.recipients
        return [recipients[position] for position in self._positions.get(mailbox, ())]

    def headers(self) -> EmailMessage:
        # Two threads that ask at the same time both read them, which is harmless.
        if not self._headers:
            with self.open() as file:
                self._headers.append(read_headers(file))
        return self._headers[0]

    def headed(self, header: bytes) -> Message:
        """
        The same message with *header*, whole lines with CRLF, on top.
        """
        return evolve(
            self,
            content=PrefixedContent(header, self.content),
            trace=header + self.trace,
            is_for_all=False,
        )
