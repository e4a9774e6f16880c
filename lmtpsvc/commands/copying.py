"""
From one SQL store into another, as when a site has outgrown SQLite.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from email.message import EmailMessage
from typing import BinaryIO

from attrs import frozen
from zope.interface import implementer

from ..backends.sql.reading import NoSuchMessageError, Store, StoredMailbox, StoredMessage
from ..envelope import Address, Client, Envelope, Mailbox, Recipient, Sender
from ..headers import read_headers
from ..interfaces import IMessage, LineEnding, Sizes
from ..wire.commands import CommandError
from ..wire.paths import parse_rcpt
from .transfer import Progress


def to_store(store: Store, box: StoredMailbox, other: Store) -> str:
    """
    Put into *other* what its mailbox of the same name has not got yet; returns what was done, in
    words.
    """
    there = Counter((each.digest, each.size) for each in other.messages(box.name))
    written, progress = 0, Progress(box.name, box.messages)
    for message in store.messages(box.name):
        key = message.digest, message.size
        if there[key]:
            there[key] -= 1
        elif _copy(store, box.name, message, other):
            written += 1
        progress.step()
    progress.end()
    return f"{written} messages written, {box.messages} in all"


def _copy(store: Store, name: str, stored: StoredMessage, other: Store) -> bool:
    """
    False if it is not there any more.
    """
    recipients = () if stored.recipient is None else (Recipient(_address(stored.recipient)),)
    sender = Sender(_address(stored.sender) if stored.sender else None)
    envelope = Envelope(sender, recipients, Client("127.0.0.1"))
    message = StoredAsMessage(
        store, name, stored, envelope, stored.transaction, stored.digest, stored.trace
    )
    try:
        other.append(name, message, stored.received, stored.flags)
    except NoSuchMessageError:
        return False
    return True


def _address(text: str) -> Address:
    try:
        return parse_rcpt(f"TO:<{text}>".encode())[0]
    except CommandError:
        # From an import, where it stood in somebody's header.
        local, _, domain = text.rpartition("@")
        return Address(local, domain) if local else Address(domain, "")


@implementer(IMessage)
@frozen
class StoredAsMessage:
    """
    What lies in a store, as something that can be delivered again.
    """

    store: Store
    mailbox: str
    stored: StoredMessage
    envelope: Envelope
    id: str
    digest: str
    trace: bytes
    deadline: float = 0.0
    path: str | None = None
    is_for_all: bool = False
    begun: float = 0.0

    def open(self, line_ending: LineEnding = "\r\n") -> BinaryIO:
        return self.store.open(self.mailbox, self.stored.uid)

    def sizes(self, line_ending: LineEnding = "\r\n") -> Sizes:
        return Sizes(self.stored.size, self.stored.size)

    def recipients_of(self, mailbox: Mailbox) -> Sequence[Recipient]:
        return self.envelope.recipients

    def headers(self) -> EmailMessage:
        with self.open() as source:
            return read_headers(source)
