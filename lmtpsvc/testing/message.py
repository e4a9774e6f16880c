"""
Messages, ready-made.
"""

from __future__ import annotations

import hashlib
import os
from email.message import EmailMessage
from io import BytesIO
from typing import BinaryIO

from attrs import evolve, field, frozen
from zope.interface import implementer

from ..envelope import Address, Client, Envelope, Mailbox, Recipient, Sender
from ..headers import read_headers
from ..interfaces import IMessage, LineEnding, Sizes


def envelope(*recipients: str, sender: str = "sender@example.net") -> Envelope:
    """
    An envelope for *recipients*, each ``local@domain``, from a client on this machine.
    """

    def address(text: str) -> Address:
        local, _, domain = text.rpartition("@")
        return Address(local, domain)

    return Envelope(
        Sender(address(sender) if sender else None),
        tuple(Recipient(address(text)) for text in recipients),
        Client("127.0.0.1", "client.example.net"),
    )


@implementer(IMessage)
@frozen
class MemoryMessage:
    """
    A message from *text*, octets with CRLF line endings, that comes with no trace headers.
    """

    text: bytes
    id: str = "0123456789abcdef"
    envelope: Envelope = field(factory=lambda: envelope("ann@example.org"))
    deadline: float = 240.0
    path: str | None = None
    trace: bytes = b""
    is_for_all: bool = True
    begun: float = 0.0
    # Those of all recipients, once somebody has asked for them.
    _headers: list[EmailMessage] = field(factory=list, init=False, eq=False, repr=False)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text).hexdigest()

    def open(self, line_ending: LineEnding = "\r\n") -> BinaryIO:
        return BytesIO(self._as(line_ending))

    def sizes(self, line_ending: LineEnding = "\r\n") -> Sizes:
        stored = self._as(line_ending)
        bare = stored.count(b"\n") - stored.count(b"\r\n")
        return Sizes(len(stored), len(stored) + bare)

    def in_memory(self, line_ending: LineEnding = "\r\n") -> tuple[bytes, Sizes] | None:
        """
        What `open` yields, and the sizes; None if it is in a file.
        """
        return None if self.path else (self._as(line_ending), self.sizes(line_ending))

    def recipients_of(self, mailbox: Mailbox) -> list[Recipient]:
        """
        Those of the envelope that are called like *mailbox*.
        """
        name = str(mailbox).lower()
        return [each for each in self.envelope.recipients if str(each).lower() == name]

    def headers(self) -> EmailMessage:
        if not self._headers:
            self._headers.append(read_headers(self.open()))
        return self._headers[0]

    def spooled(self, directory: str, line_ending: LineEnding = "\r\n") -> MemoryMessage:
        """
        The same message, and a new file in *directory* that holds it: what becomes of large ones.

        *line_ending* is that of the backend's capabilities.
        """
        path = os.path.join(directory, f"{self.id}.spooled")
        with open(path, "xb") as file:
            file.write(self._as(line_ending))
        return evolve(self, path=path)

    def _as(self, line_ending: LineEnding) -> bytes:
        return self.text if line_ending == "\r\n" else self.text.replace(b"\r\n", b"\n")
