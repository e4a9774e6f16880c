"""
The extensions that every LMTP server should have (RFC 2033 §5), CHUNKING, SIZE, SMTPUTF8 and
STARTTLS, and those of others that are built in.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .. import replies
from ..envelope import Recipient, Sender
from ..limits import Limits
from ..wire.commands import CommandError
from .announced_limits import MAX_RCPTMAX, AnnouncedLimits
from .chunking import BinaryMime, Chunking
from .cyrus import IgnoreQuota, Trace
from .deliver_by import DeliverBySeconds
from .extensions import Extension, Extensions
from .priority import Priorities
from .recipient_fields import RecipientFields
from .require_tls import RequireTLS
from .response_codes import ResponseCodes
from .starttls import StartTLS
from .xclient import XClient
from .xforward import XForward

if TYPE_CHECKING:
    from .server import ServerSession


class Pipelining(Extension):
    """
    RFC 2920.  The session takes commands as they come: there is nothing to add.
    """

    keyword = "PIPELINING"


class EnhancedStatusCodes(Extension):
    """
    RFC 2034.  Every reply that may carry a code does: see `lmtpsvc.replies`.
    """

    keyword = "ENHANCEDSTATUSCODES"


class EightBitMime(Extension):
    """
    RFC 6152.  The text is octets to us, whatever BODY says; *binary* ones are welcome if all
    backends can keep them (RFC 3030 §3).
    """

    keyword = "8BITMIME"

    def __init__(self, *, binary: bool = False) -> None:
        self._binary = binary
        self.mail_parameters = {"BODY": self._body}

    def _body(self, value: str | None) -> str:
        body = (value or "").upper()
        if body not in {"7BIT", "8BITMIME", "BINARYMIME"}:
            raise CommandError(replies.BAD_PARAMETER)
        if body == "BINARYMIME" and not self._binary:
            raise CommandError(replies.BINARY_NOT_STORED)
        return body


class Size(Extension):
    """
    RFC 1870: the limit is announced, and a larger message is refused at MAIL.
    """

    keyword = "SIZE"
    tells_by_connection = True

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.mail_parameters = {"SIZE": self._size}

    def announcement(self, session: ServerSession) -> str:
        return f"SIZE {self._limit}"

    def _size(self, value: str | None) -> int:
        # RFC 1870 §3: one to twenty digits.
        if value is None or not (value.isascii() and value.isdigit() and len(value) <= 20):
            raise CommandError(replies.BAD_PARAMETER)
        size = int(value)
        if size > self._limit:
            raise CommandError(replies.TOO_LARGE)
        return size


class SmtpUtf8(Extension):
    """
    RFC 6531: addresses in UTF-8, for clients that asked at MAIL.
    """

    keyword = "SMTPUTF8"
    checks_plain = False

    def __init__(self) -> None:
        self.mail_parameters = {"SMTPUTF8": self._flag}

    @staticmethod
    def _flag(value: str | None) -> bool:
        if value is not None:
            raise CommandError(replies.BAD_PARAMETER)
        return True

    def check_sender(self, session: ServerSession, sender: Sender) -> None:
        address = sender.address
        if address is None or (address.local.isascii() and address.domain.isascii()):
            return
        if not sender.smtputf8:
            raise CommandError(replies.SENDER_NEEDS_UTF8)

    def check_recipient(self, session: ServerSession, sender: Sender, recipient: Recipient) -> None:
        address = recipient.address
        if address.local.isascii() and address.domain.isascii():
            return
        if not sender.smtputf8:
            raise CommandError(replies.NEED_UTF8)


def standard_extensions(
    limits: Limits, more: Iterable[Extension] = (), *, binary: bool = False, delivers: bool = True
) -> Extensions:
    """
    The registry of a service, with *more* behind what each has.  *binary* tells whether its
    backends keep every octet of a message, *delivers* whether that is where mail comes to rest: who
    passes it on does not offer what only those can do.

    Raises:
        ValueError: Two of them claim the same, see Extensions.
    """
    there = [AnnouncedLimits(limits.recipients)] if limits.recipients <= MAX_RCPTMAX else []
    of_stores = [RecipientFields(), Trace(), IgnoreQuota()] if delivers else []
    codes = [ResponseCodes()] if delivers else []
    return Extensions(
        [
            Pipelining(),
            EnhancedStatusCodes(),
            EightBitMime(binary=binary),
            Chunking(),
            *([BinaryMime()] if binary else []),
            Size(limits.message_size),
            SmtpUtf8(),
            StartTLS(),
            *there,
            DeliverBySeconds(),
            Priorities(),
            RequireTLS(),
            # For clients that are trusted.
            *codes,
            XClient(),
            XForward(),
            *of_stores,
            *more,
        ]
    )
