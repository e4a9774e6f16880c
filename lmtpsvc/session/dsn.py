"""
DSN: when and how the sender wants to be told what became of a message (RFC 3461).

The parameters are read here, and carried along.  Who makes reports, if anybody, is
`lmtpsvc.delivery.reports`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .. import replies
from ..envelope import OriginalRecipient, Recipient, Sender
from ..wire.commands import CommandError
from ..wire.grammar import is_printable
from ..wire.xtext import decode_utf8_address, decode_xtext
from .extensions import Extension

if TYPE_CHECKING:
    from .server import ServerSession

#: RFC 3461 §5.4, in characters of the value as it is sent.
MAX_ENVID = 100
MAX_ORCPT = 500

_match_atom = re.compile(r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~.]+").fullmatch
_is_graphic = re.compile(r"[ -~]*").fullmatch

_ON = frozenset({"SUCCESS", "FAILURE", "DELAY"})
_NEVER = frozenset({"NEVER"})


class DSN(Extension):
    """
    RFC 3461: RET and ENVID at MAIL, NOTIFY and ORCPT at RCPT.
    """

    keyword = "DSN"
    checks_plain = False

    def __init__(self) -> None:
        self.mail_parameters = {"RET": returned, "ENVID": envelope_id}
        self.rcpt_parameters = {"NOTIFY": notify, "ORCPT": original_recipient}

    def check_recipient(self, session: ServerSession, sender: Sender, recipient: Recipient) -> None:
        # RFC 6533 §3: any server may get \x{...}, but UTF-8 itself only one that was asked for it.
        original = recipient.original
        if original is not None and original.came_as_utf8 and not sender.smtputf8:
            raise CommandError(replies.NEED_UTF8)


def returned(value: str | None) -> str:
    """
    Read ``RET`` (RFC 3461 §4.3): ``FULL`` or ``HDRS``.

    Raises:
        CommandError: 501.
    """
    said = (value or "").upper()
    if said not in {"FULL", "HDRS"}:
        raise CommandError(replies.BAD_PARAMETER)
    return said


def envelope_id(value: str | None) -> str:
    """
    Read ``ENVID`` (RFC 3461 §4.4); returns what the xtext means, printable ASCII.

    Raises:
        CommandError: 501.
    """
    if value is None or len(value) > MAX_ENVID:
        raise CommandError(replies.BAD_PARAMETER)
    return _printable(value)


def notify(value: str | None) -> frozenset[str]:
    """
    Read ``NOTIFY`` (RFC 3461 §4.1): ``NEVER``, or a list.

    Raises:
        CommandError: 501.
    """
    said = frozenset((value or "").upper().split(","))
    if said != _NEVER and not said <= _ON:
        raise CommandError(replies.BAD_PARAMETER)
    return said


def original_recipient(value: str | None) -> OriginalRecipient:
    """
    Read ``ORCPT`` (RFC 3461 §4.2, RFC 6533 §3).

    Raises:
        CommandError: 501.
    """
    kind, semicolon, address = (value or "").partition(";")
    if not semicolon or _match_atom(kind) is None or len((value or "").encode()) > MAX_ORCPT:
        raise CommandError(replies.BAD_PARAMETER)
    # RFC 3461 §5.2.1: whoever passes it on may not change the case of a letter.
    if kind.lower() != "utf-8":
        return OriginalRecipient(kind, _printable(address))
    try:
        meaning = decode_utf8_address(address)
    except ValueError:
        raise CommandError(replies.BAD_PARAMETER) from None
    if not is_printable(meaning):
        raise CommandError(replies.BAD_PARAMETER)
    return OriginalRecipient(kind, meaning, came_as_utf8=not address.isascii())


def _printable(said: str) -> str:
    """
    What xtext means that must be graphic characters and blanks.
    """
    try:
        meaning = decode_xtext(said)
    except ValueError:
        raise CommandError(replies.BAD_PARAMETER) from None
    if _is_graphic(meaning) is None:
        raise CommandError(replies.BAD_PARAMETER)
    return meaning
