"""
A delivery report: the message that tells a sender that a message has been delivered (RFC 3464).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from email.utils import formatdate
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
_not_text = re.compile(rb"[\x00\r\n]")
_not_ascii = re.compile(rb"[\x80-\xff]+")


@frozen
class Delivered:
    """
    A recipient that was delivered to, and with which reply.
    """

    recipient: Recipient
    reply: Reply


@frozen
class Occasion:
    """
    What a report is about: a message that *sender* sent, with the id that it had here, *arrived* in
    seconds since the epoch.  *envelope_id* is what the sender called it, if anything.  *headers*
    are the first octets of the message, with CRLF; empty, if nothing of it is to be told.
    """

    transaction_id: str
    sender: Address
    envelope_id: str | None
    arrived: float
    delivered: Sequence[Delivered]
    headers: bytes = b""


def needs_utf8(occasion: Occasion) -> bool:
    """
    Whether there is anything in it that ASCII has other words for.
    """
    addresses: list[object] = [
        occasion.sender,
        *(each.recipient.address for each in occasion.delivered),
    ]
    originals = [each.recipient.original for each in occasion.delivered]
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
    kind, returned = _KINDS[utf8]
    charset = "utf-8" if utf8 else "us-ascii"
    lines = [
        f'From: "Mail delivery" <postmaster@{hostname}>',
        f"To: <{occasion.sender}>",
        "Subject: Your message has been delivered",
        f"Date: {date}",
        f"Message-ID: <{occasion.transaction_id}.{boundary}@{hostname}>",
        # RFC 3834 §3.1.7: nobody should answer.
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",
        f'\tboundary="{boundary}"',
        "",
        f"--{boundary}",
        f"Content-Type: text/plain; charset={charset}",
        *_encoding(utf8),
        "",
        f"This is the mail system at {hostname}.",
        "",
        "Your message has been put into the mailbox of",
        "",
        *(f"    {_address(each.recipient.address, utf8)[1]}" for each in occasion.delivered),
        "",
        "as you have asked to be told. Nobody may have read it yet.",
        "",
        f"--{boundary}",
        f"Content-Type: {kind}",
        *_encoding(utf8),
        "",
        f"Reporting-MTA: dns; {hostname}",
    ]
    if occasion.envelope_id is not None:
        lines.append(f"Original-Envelope-Id: {occasion.envelope_id}")
    lines += [f"Arrival-Date: {formatdate(occasion.arrived, localtime=True)}", ""]
    for each in occasion.delivered:
        lines += [*_about(each, utf8), f"Last-Attempt-Date: {date}", ""]
    report = "\r\n".join(lines).encode() + b"\r\n"
    headers = _headers(occasion.headers)
    if headers:
        if utf8:
            headers = headers.decode("utf-8", "replace").encode()
        else:
            headers = _not_ascii.sub(b"?", headers)
        head = [f"--{boundary}", f"Content-Type: {returned}", *_encoding(utf8), "", ""]
        report += "\r\n".join(head).encode() + headers + b"\r\n"
    return report + f"--{boundary}--\r\n".encode()


#: The types of the second and the third part, without and with UTF-8.
_KINDS: Final = {
    False: ("message/delivery-status", "text/rfc822-headers"),
    True: ("message/global-delivery-status", "message/global-headers"),
}


def _encoding(utf8: bool) -> list[str]:
    return ["Content-Transfer-Encoding: 8bit"] if utf8 else []


def _about(each: Delivered, utf8: bool) -> list[str]:
    """
    The fields about one recipient (RFC 3464 §2.3).
    """
    subject, detail = each.reply.status or (0, 0)
    kind, address = _address(each.recipient.address, utf8)
    lines = []
    if each.recipient.original is not None:
        lines.append(f"Original-Recipient: {_typed(each.recipient.original, utf8)}")
    return [
        *lines,
        f"Final-Recipient: {kind}; {address}",
        "Action: delivered",
        f"Status: 2.{subject}.{detail}",
    ]


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
    return b"".join(_not_text.sub(b" ", line)[:MAX_LINE] + b"\r\n" for line in lines)
