"""
A message on its way into the tables, and the mailboxes that get it.
"""

from __future__ import annotations

from datetime import datetime
from functools import cached_property

from attrs import define

from ...domains import ascii_domain
from ...envelope import Address, Envelope, Mailbox
from ...interfaces import IMessage
from ...quota import Quota
from ..target import Waiting
from .text import Text, read


class Target(Waiting):
    """
    The mailbox *name*, and what it may hold.
    """

    def __init__(self, name: str, quota: Quota | None, recipient: str | None) -> None:
        super().__init__()
        self.name, self.quota, self.recipient = name, quota, recipient


class Source:
    """
    A message that several postings share; it is read once, in a worker thread.
    """

    def __init__(self, message: IMessage) -> None:
        self.message = message

    @cached_property
    def text(self) -> Text:
        """
        Read it.

        Raises:
            OSError: It cannot be read.
        """
        return read(self.message)


@define(eq=False)
class Posting:
    """
    What is stored, for whom; and since when it has been here, if that is not now.
    """

    source: Source
    targets: list[Target]
    received: datetime | None = None
    flags: str = ""

    @property
    def message(self) -> IMessage:
        """
        As it came.
        """
        return self.source.message

    @property
    def text(self) -> Text:
        """
        As the tables have it.
        """
        return self.source.text


def original_recipient(envelope: Envelope, mailbox: Mailbox) -> str | None:
    """
    Which RCPT brought mail to *mailbox*: the only one, or the one that says its name.

    None: nobody knows, because it was one alias among several recipients.
    """
    if len(envelope.recipients) == 1:
        return str(envelope.recipients[0])
    names = {mailbox.user.lower()}
    if mailbox.detail:
        # Whatever delimiter stands between them.
        names = {f"{mailbox.user}{c}{mailbox.detail}".lower() for c in "+-_=#."}
    for recipient in envelope.recipients:
        address: Address = recipient.address
        if address.local.lower() in names and ascii_domain(address.domain) in {
            mailbox.domain,
            "",
        }:
            return str(recipient)
    return None
