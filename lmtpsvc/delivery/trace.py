"""
The headers put on top of a message: who sent it, how it came here, and for whom.
"""

from __future__ import annotations

from email.utils import formatdate
from functools import lru_cache
from typing import Literal

from ..domains import unicode_domain
from ..envelope import Address, Envelope, OriginalRecipient, Recipient, Sender
from ..wire.xtext import encode_utf8_address

#: When Delivered-To is added.  ``single``: where the transaction has one recipient, so that several
#: can share one copy; ``always`` costs a copy each.
DeliveredTo = Literal["single", "always", "never"]

#: In which header the original recipient stands (RFC 3461 §4.2), if in any: wherever Delivered-To
#: could.
OriginalHeader = Literal["no", "X-Original-To", "Original-Recipient"]


def trace_headers(
    envelope: Envelope,
    transaction_id: str,
    hostname: str,
    seconds: float,
    delivered_to: DeliveredTo,
    original: OriginalHeader = "no",
    *,
    is_for_all: bool = False,
) -> bytes:
    """
    Return the headers, with CRLF, that every recipient's copy gets.  If it *is_for_all*, nothing
    stands there that is true of one recipient only.

    ``Return-Path`` is the one that final delivery adds (RFC 5321 §4.4), ``Received`` says ``for``
    only when there is one recipient: more would tell them of each other.  *seconds* are since the
    epoch.
    """
    client, sender = envelope.client, envelope.sender
    utf8 = bool(sender.parameters) and sender.smtputf8
    only = envelope.recipients[0] if len(envelope.recipients) == 1 and not is_for_all else None
    top, end = f"Return-Path: <{sender}>\r\n", ""
    if client.cipher:
        end = f"\r\n\t({client.cipher})"
    if only is not None:
        said = only.address.text
        if delivered_to == "single":
            top += f"Delivered-To: {said}\r\n"
        if original != "no" and delivered_to != "always":
            top += "".join([f"{line}\r\n" for line in _original(only, sender, original)])
        if utf8:
            said = str(Address(only.address.local, unicode_domain(only.address.domain)))
        end += f"\r\n\tfor <{said}>"
    if sender.parameters and "MT-PRIORITY" in sender.parameters:
        # RFC 6710 §4.1
        end += f"\r\n\tPRIORITY {sender.priority}"
    received = _received(
        client.host,
        client.dns_name,
        client.name,
        client.protocol,
        client.tls,
        client.login != "",
        hostname,
        utf8,
    )
    return f"{top}{received} id {transaction_id}{end}; {_date(int(seconds))}\r\n".encode()


@lru_cache(maxsize=1024)
def _received(
    host: str,
    dns_name: str,
    name: str,
    protocol: str,
    tls: bool,
    is_known: bool,
    hostname: str,
    utf8: bool,
) -> str:
    """
    Where a message came from, and to: the same for all connections of a client, each of which has
    another port.
    """
    # RFC 6531 §3.7.3: U-labels, but only where the message is an internationalised one.
    shown = unicode_domain if utf8 else str
    return (
        f"Received: from {shown(name)} ({_place(host, dns_name)})\r\n"
        f"\tby {shown(hostname)} (lmtpsvc) with {_with(protocol, tls, is_known, utf8)}"
    )


def delivered_to_header(
    recipient: Recipient, sender: Sender | None = None, original: OriginalHeader = "no"
) -> bytes:
    """
    What is added for each recipient of several, where that is asked for; with the *original* one
    in a header, too, if *sender* is said.
    """
    lines = [f"Delivered-To: {recipient}"]
    if sender is not None and original != "no":
        lines += _original(recipient, sender, original)
    return "".join(f"{line}\r\n" for line in lines).encode()


def _original(recipient: Recipient, sender: Sender, header: OriginalHeader) -> list[str]:
    """
    The line for the original recipient, if one has been told.
    """
    said = recipient.original
    if said is None:
        return []
    address = said.address
    if not address.isascii() and not sender.smtputf8:
        # Who has not asked for SMTPUTF8 gets no headers in UTF-8 (RFC 6533 §4).
        address = encode_utf8_address(address)
    if header == "Original-Recipient":
        return [f"Original-Recipient: {said.type}; {address}"]
    return [f"X-Original-To: {address}"] if _is_of_mail(said) else []


def _is_of_mail(said: OriginalRecipient) -> bool:
    return said.kind in {"rfc822", "utf-8"} and said.address != ""


@lru_cache(maxsize=4)
def _date(seconds: int) -> str:
    """
    RFC 5322 §3.3, made once a second.
    """
    return formatdate(seconds, localtime=True)


def _place(host: str, dns_name: str) -> str:
    # RFC 5321 §4.1.3: an IPv6 address literal is tagged.
    if host in {"local", "unknown"}:
        return host
    literal = f"[IPv6:{host}]" if ":" in host else f"[{host}]"
    return f"{dns_name} {literal}" if dns_name else literal


def _with(protocol: str, tls: bool, is_known: bool, smtputf8: bool) -> str:
    # The registered names: RFC 3848 §1, RFC 6531 §4.3.  Only an extension can encrypt SMTP, or allow
    # UTF-8, where the E goes without saying.
    if smtputf8:
        protocol = f"UTF8{protocol.removeprefix('E')}"
    elif protocol == "SMTP":
        return protocol
    return f"{protocol}{'S' if tls else ''}{'A' if is_known else ''}"
