"""
A delivery report: the message that tells a sender what has become of a message (RFC 3464).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from email.utils import formatdate
from enum import StrEnum
from typing import Final

from attrs import frozen

from ..envelope import Address, OriginalRecipient, Recipient
from ..replies import Reply
from ..wire.xtext import encode_utf8_address

#: Octets of the message's headers that are given back, at most.
MAX_HEADERS: Final = 64 * 1024
#: RFC 5322 §2.1.1, without CRLF.
MAX_LINE: Final = 998

_end_of_headers = re.compile(rb"\r\n\r\n").search
_not_text = re.compile(rb"[\x00\r\n]").search
_to_blank = re.compile(rb"[\x00\r\n]")
_not_ascii = re.compile(rb"[\x80-\xff]+")


class Action(StrEnum):
    """
    What a report tells (RFC 3464 §2.3.3).
    """

    #: It is in the mailbox.
    DELIVERED = "delivered"
    #: It is with a server that does not report.
    RELAYED = "relayed"
    #: It waits.
    DELAYED = "delayed"
    #: It has come to its end.
    FAILED = "failed"


@frozen
class Fate:
    """
    What became of a recipient: the last *reply*, and the name of the *server* that gave it, if that
    was another one.
    """

    recipient: Recipient
    reply: Reply
    server: str = ""


@frozen
class Occasion:
    """
    What a report is about: a message that *sender* sent, with the id that it had here, *arrived* in
    seconds since the epoch.  *envelope_id* is what the sender called it, if anything.  *headers*
    are the first octets of the message, with CRLF; empty, if nothing of it is to be told.

    *action* is what became of it for those whose *fates* are told.  *retry_until* says, in seconds
    since the epoch, how long a message that waits is tried.  *content* is all of the message, if it
    is to be given back and not only its headers.  *deliver_by* is when it had to be delivered
    (RFC 2852), in seconds since the epoch, if the sender has said so.
    """

    transaction_id: str
    sender: Address
    envelope_id: str | None
    arrived: float
    fates: Sequence[Fate]
    headers: bytes = b""
    action: Action = Action.DELIVERED
    retry_until: float | None = None
    content: bytes = b""
    deliver_by: float | None = None


def needs_utf8(occasion: Occasion) -> bool:
    """
    Whether there is anything in it that ASCII has other words for.
    """
    addresses: list[object] = [
        occasion.sender,
        *(each.recipient.address for each in occasion.fates),
    ]
    originals = [each.recipient.original for each in occasion.fates]
    return not (occasion.headers.isascii() and "".join(map(str, addresses + originals)).isascii())


def delivery_report(
    occasion: Occasion, hostname: str, seconds: float, boundary: str, *, utf8: bool
) -> bytes:
    """
    Return the whole report, with CRLF.  *hostname* says who reports, *seconds* since the epoch when;
    *boundary* must be a text that nobody could have guessed.

    With *utf8*, addresses and headers are given as they are (RFC 6533 §4); it then has to be sent
    with SMTPUTF8.  Otherwise all of it is ASCII.
    """
    date = formatdate(seconds, localtime=True)
    kind, returned, whole = _KINDS[utf8]
    content = occasion.content if _is_fit(occasion.content) else b""
    words = _WORDS[occasion.action]
    charset = "utf-8" if utf8 else "us-ascii"
    lines = [
        f'From: "Mail delivery" <postmaster@{hostname}>',
        f"To: <{occasion.sender}>",
        f"Subject: {words.subject}",
        f"Date: {date}",
        f"Message-ID: <{occasion.transaction_id}.{boundary}@{hostname}>",
        # RFC 3834 §3.1.7: nobody should answer.
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        *_encoding(utf8 or not content.isascii()),
        "Content-Type: multipart/report; report-type=delivery-status;",
        f'\tboundary="{boundary}"',
        "",
        f"--{boundary}",
        f"Content-Type: text/plain; charset={charset}",
        *_encoding(utf8),
        "",
        f"This is the mail system at {hostname}.",
        "",
        *words.before,
        "",
        *(line for each in occasion.fates for line in _shown(each, occasion.action, utf8)),
        "",
        *words.after,
        "",
        f"--{boundary}",
        f"Content-Type: {kind}",
        *_encoding(utf8),
        "",
        f"Reporting-MTA: {_kind_of_name(hostname)}; {hostname}",
    ]
    if occasion.envelope_id is not None:
        lines.append(f"Original-Envelope-Id: {occasion.envelope_id}")
    lines.append(f"Arrival-Date: {formatdate(occasion.arrived, localtime=True)}")
    if occasion.deliver_by is not None:
        # RFC 2852 §5
        lines.append(f"Deliver-By-Date: {formatdate(occasion.deliver_by, localtime=True)}")
    lines.append("")
    for each in occasion.fates:
        lines += [*_about(each, occasion.action, utf8), f"Last-Attempt-Date: {date}"]
        if occasion.retry_until is not None:
            lines.append(f"Will-Retry-Until: {formatdate(occasion.retry_until, localtime=True)}")
        lines.append("")
    report = "\r\n".join(lines).encode() + b"\r\n"
    headers = _headers(occasion.headers)
    if content:
        head = [
            f"--{boundary}",
            f"Content-Type: {whole}",
            *_encoding(not content.isascii()),
            "",
            "",
        ]
        report += "\r\n".join(head).encode() + content + b"\r\n"
    elif headers:
        if utf8:
            headers = headers.decode("utf-8", "replace").encode()
        else:
            headers = _not_ascii.sub(b"?", headers)
        head = [f"--{boundary}", f"Content-Type: {returned}", *_encoding(utf8), "", ""]
        report += "\r\n".join(head).encode() + headers + b"\r\n"
    return report + f"--{boundary}--\r\n".encode()


#: The types of the second and the third part, and of the third if it has all of the message; without
#: and with UTF-8.
_KINDS: Final = {
    False: ("message/delivery-status", "text/rfc822-headers", "message/rfc822"),
    True: ("message/global-delivery-status", "message/global-headers", "message/global"),
}


@frozen
class _Words:
    """
    What people read; the addresses stand between *before* and *after*.
    """

    subject: str
    before: tuple[str, ...]
    after: tuple[str, ...]


_WORDS: Final = {
    Action.DELIVERED: _Words(
        "Your message has been delivered",
        ("Your message has been put into the mailbox of",),
        ("as you have asked to be told. Nobody may have read it yet.",),
    ),
    Action.RELAYED: _Words(
        "Your message has been passed on",
        ("Your message has been passed on to other mail servers for",),
        ("They have taken it, but do not report whether it arrives.",),
    ),
    Action.DELAYED: _Words(
        "Your message has not been delivered yet",
        ("Your message is still waiting to be delivered to",),
        ("You need not send it again: it is tried on. You are told if it fails.",),
    ),
    Action.FAILED: _Words(
        "Your message could not be delivered",
        ("Your message could not be delivered to",),
        ("It is not tried again. To any other recipients it goes on its way.",),
    ),
}


def _kind_of_name(hostname: str) -> str:
    """
    The type of the name of an MTA: only one that can be looked up is in DNS (RFC 3461 §6.3).
    """
    return "dns" if "." in hostname or hostname.startswith("[") else "x-local-hostname"


def _encoding(utf8: bool) -> list[str]:
    return ["Content-Transfer-Encoding: 8bit"] if utf8 else []


def _shown(each: Fate, action: Action, utf8: bool) -> list[str]:
    """
    A recipient for people to read, with the reason if one is due.
    """
    lines = [f"    {_address(each.recipient.address, utf8)[1]}"]
    if action in _WITH_REASON:
        who = f"{each.server} said: " if each.server else ""
        lines.append(f"        {who}{each.reply}")
    return lines


_WITH_REASON: Final = frozenset({Action.DELAYED, Action.FAILED})


def _about(each: Fate, action: Action, utf8: bool) -> list[str]:
    """
    The fields about one recipient (RFC 3464 §2.3).
    """
    kind, address = _address(each.recipient.address, utf8)
    lines = []
    if each.recipient.original is not None:
        lines.append(f"Original-Recipient: {_typed(each.recipient.original, utf8)}")
    lines += [
        f"Final-Recipient: {kind}; {address}",
        f"Action: {action}",
        f"Status: {_status(each.reply, action)}",
    ]
    if each.server:
        lines.append(f"Remote-MTA: {_kind_of_name(each.server)}; {each.server}")
    if action is not Action.DELIVERED:
        # RFC 3461 §6.3: also of who has been passed on.
        lines.append(f"Diagnostic-Code: smtp; {each.reply}")
    return lines


def _status(reply: Reply, action: Action) -> str:
    """
    What RFC 3463 has for it.  Who has failed because nothing helped for days is 4.4.7.
    """
    if action is Action.FAILED and reply.code < 500:
        return "4.4.7"
    subject, detail = reply.status or (0, 0)
    return f"{reply.code // 100}.{subject}.{detail}"


def _is_fit(content: bytes) -> bool:
    """
    Whether it may stand in a report as it is: lines of text (RFC 5322 §2.1.1, RFC 2045 §2.8).
    """
    lines = content.split(b"\r\n")
    return not any(len(line) > MAX_LINE or _not_text(line) for line in lines)


def _address(address: Address, utf8: bool) -> tuple[str, str]:
    """
    The type of *address* and how it is written (RFC 6533 §3).
    """
    text = str(address)
    if text.isascii():
        return "rfc822", text
    return "utf-8", text if utf8 else encode_utf8_address(text)


def _typed(original: OriginalRecipient, utf8: bool) -> str:
    address = original.address
    if not (utf8 or address.isascii()):
        address = encode_utf8_address(address)
    return f"{original.type}; {address}"


def _headers(octets: bytes) -> bytes:
    """
    The lines of headers at the beginning of *octets*, fit to be sent: whatever a stranger has
    written, it is short lines of text.
    """
    end = _end_of_headers(octets)
    if octets.startswith(b"\r\n"):
        return b""
    # Without an end, the last line may be cut.
    octets = octets[: end.start() + 2] if end is not None else octets[: octets.rfind(b"\r\n") + 2]
    lines = octets.split(b"\r\n")[:-1]
    return b"".join(_to_blank.sub(b" ", line)[:MAX_LINE] + b"\r\n" for line in lines)
