"""
The headers on top of a message.
"""

from __future__ import annotations

import re
from email import message_from_bytes
from email.policy import default
from email.utils import parsedate_to_datetime

import pytest

from lmtpsvc.delivery.trace import (
    DeliveredTo,
    OriginalHeader,
    delivered_to_header,
    trace_headers,
)
from lmtpsvc.envelope import Address, Client, Envelope, OriginalRecipient, Recipient, Sender

from ..rows import each_row

ANN = Address("ann", "example.net")
BOB, EVE = (Recipient(Address(name, "example.org")) for name in ("bob", "eve"))
WHEN = 1_700_000_000.75


def headers(
    *recipients: Recipient,
    sender: Sender | None = None,
    client: Client | None = None,
    delivered_to: DeliveredTo = "single",
    original: OriginalHeader = "no",
) -> bytes:
    envelope = Envelope(
        sender or Sender(ANN), recipients, client or Client("192.0.2.7", "mx.example.net")
    )
    return trace_headers(envelope, "t1", "lmtp.example.org", WHEN, delivered_to, original)


def without_date(octets: bytes) -> bytes:
    return re.sub(rb"; .* [+-]\d{4}\r\n", b"; DATE\r\n", octets)


def test_all() -> None:
    """
    Who sent it, for whom, and how it came here: each on lines of its own, with CRLF.
    """
    assert (
        b"Return-Path: <ann@example.net>\r\n"
        b"Delivered-To: bob@example.org\r\n"
        b"Received: from mx.example.net ([192.0.2.7])\r\n"
        b"\tby lmtp.example.org (lmtpsvc) with LMTP id t1\r\n"
        b"\tfor <bob@example.org>; DATE\r\n"
    ) == without_date(headers(BOB))


def test_several_recipients() -> None:
    """
    With several recipients, nobody is told of the others.
    """
    assert (
        b"Return-Path: <ann@example.net>\r\n"
        b"Received: from mx.example.net ([192.0.2.7])\r\n"
        b"\tby lmtp.example.org (lmtpsvc) with LMTP id t1; DATE\r\n"
    ) == without_date(headers(BOB, EVE))


def test_date() -> None:
    """
    The date is that of the transaction, in a form that every reader knows.
    """
    message = message_from_bytes(headers(BOB) + b"\r\n", policy=default)

    said = parsedate_to_datetime(message["Received"].rpartition(";")[2])
    assert int(WHEN) == said.timestamp()
    assert said.utcoffset() is not None


@pytest.mark.parametrize(
    ("client", "said"),
    [
        (Client("192.0.2.7", "mx"), b"from mx ([192.0.2.7])\r\n"),
        (Client("2001:db8::1", "mx"), b"from mx ([IPv6:2001:db8::1])\r\n"),
        (Client("::1", "[IPv6:::1]"), b"from [IPv6:::1] ([IPv6:::1])\r\n"),
        (Client("local", "mx"), b"from mx (local)\r\n"),
        (Client("::1", "mx", dns_name="a.example"), b"from mx (a.example [IPv6:::1])\r\n"),
    ],
)
def test_client(client: Client, said: bytes) -> None:
    """
    An address literal is tagged where it is one of IPv6; a UNIX socket has no address.
    """
    assert b"Received: " + said in headers(BOB, client=client)


@pytest.mark.parametrize(
    ("tls", "smtputf8", "protocol"),
    [
        (False, False, b" with LMTP id "),
        (True, False, b" with LMTPS id "),
        (False, True, b" with UTF8LMTP id "),
        (True, True, b" with UTF8LMTPS id "),
    ],
)
def test_protocol(tls: bool, smtputf8: bool, protocol: bytes) -> None:
    """
    The registered names of what was spoken (RFC 3848, RFC 6531 §4.3).
    """
    sender = Sender(ANN, {"SMTPUTF8": True} if smtputf8 else {})

    assert protocol in headers(BOB, sender=sender, client=Client("::1", "mx", tls))


@pytest.mark.parametrize(
    ("protocol", "tls", "smtputf8", "said"),
    [
        ("SMTP", False, False, b" with SMTP id "),
        ("SMTP", True, False, b" with SMTP id "),
        ("SMTP", False, True, b" with UTF8SMTP id "),
        ("ESMTP", False, False, b" with ESMTP id "),
        ("ESMTP", True, False, b" with ESMTPS id "),
        ("ESMTP", True, True, b" with UTF8SMTPS id "),
    ],
)
def test_protocol_of_a_proxy(protocol: str, tls: bool, smtputf8: bool, said: bytes) -> None:
    """
    The same for what a proxy says was spoken to it.
    """
    sender = Sender(ANN, {"SMTPUTF8": True} if smtputf8 else {})

    assert said in headers(BOB, sender=sender, client=Client("::1", "mx", tls, protocol))


@pytest.mark.parametrize("smtputf8", [True, False])
def test_internationalised_domains(smtputf8: bool) -> None:
    """
    Received has them as they are read where the message is internationalised, and else in ASCII
    (RFC 6531 §3.7.3).
    """
    sender = Sender(ANN, {"SMTPUTF8": True} if smtputf8 else {})
    bob = Recipient(Address("bob", "xn--bcher-kva.example"))
    client = Client("192.0.2.1", "mx.xn--bcher-kva.example")

    text = headers(bob, sender=sender, client=client).decode()

    domain = "bücher.example" if smtputf8 else "xn--bcher-kva.example"
    assert f"Received: from mx.{domain} (" in text
    assert f"\tfor <bob@{domain}>; " in text


@pytest.mark.parametrize(
    ("sender", "said"),
    [
        (Sender(None), b"Return-Path: <>\r\n"),
        (Sender(Address("a b", "example.net")), b'Return-Path: <"a b"@example.net>\r\n'),
        (
            Sender(Address("jörg", "bücher.example"), {"SMTPUTF8": True}),
            "Return-Path: <jörg@bücher.example>\r\n".encode(),
        ),
    ],
)
def test_return_path(sender: Sender, said: bytes) -> None:
    """
    The path back is the sender as it was said; a bounce has none.
    """
    assert headers(BOB, sender=sender).startswith(said)


@pytest.mark.parametrize(
    ("delivered_to", "recipients", "there"),
    [
        ("single", (BOB,), True),
        ("single", (BOB, EVE), False),
        ("always", (BOB,), False),  # each mailbox gets a line of its own on top
        ("always", (BOB, EVE), False),
        ("never", (BOB,), False),
    ],
)
def test_delivered_to(
    delivered_to: DeliveredTo, recipients: tuple[Recipient, ...], there: bool
) -> None:
    """
    Delivered-To stands in what all share only where there is one recipient.
    """
    assert there is (b"Delivered-To:" in headers(*recipients, delivered_to=delivered_to))


def test_delivered_to_header() -> None:
    """
    The line for each of several is the recipient as it was said.
    """
    assert b"Delivered-To: bob@example.org\r\n" == delivered_to_header(BOB)


def staff(kind: str = "rfc822", address: str = "staff@example.org") -> Recipient:
    """
    Bob, who gets what was sent to somebody else.
    """
    return Recipient(BOB.address, {"ORCPT": OriginalRecipient(kind, address)})


UTF8 = Sender(ANN, {"SMTPUTF8": True})


@each_row(
    ("header", "recipient", "sender", "line"),
    [
        ("X-Original-To", staff(), None, "X-Original-To: staff@example.org"),
        ("Original-Recipient", staff(), None, "Original-Recipient: rfc822; staff@example.org"),
        ("Original-Recipient", staff("x400", "/C=DE"), None, "Original-Recipient: x400; /C=DE"),
        ("X-Original-To", staff("x400", "/C=DE"), None, None),
        ("X-Original-To", staff("rfc822", ""), None, None),
        ("X-Original-To", BOB, None, None),
        ("no", staff(), None, None),
        ("X-Original-To", staff("utf-8", "j\xf6rg@x"), UTF8, "X-Original-To: j\xf6rg@x"),
        ("X-Original-To", staff("utf-8", "j\xf6rg@x"), None, r"X-Original-To: j\x{F6}rg@x"),
    ],
)
def test_original_recipient(
    header: OriginalHeader, recipient: Recipient, sender: Sender | None, line: str | None
) -> None:
    """
    Whom the sender wrote to stands there if it was told, and in UTF-8 only for who takes that.
    """
    found = headers(recipient, sender=sender, original=header).decode().split("\r\n")
    own = delivered_to_header(recipient, sender or Sender(ANN), header).decode().split("\r\n")

    assert ([] if line is None else [line]) == [each for each in found if "Original" in each]
    assert ([] if line is None else [line]) == own[1:-1]


@pytest.mark.parametrize(
    ("delivered_to", "recipients", "there"),
    [
        ("single", (staff(),), True),
        ("single", (staff(), EVE), False),
        ("always", (staff(),), False),  # each mailbox gets a line of its own on top
        ("never", (staff(),), True),
    ],
)
def test_original_recipient_of_several(
    delivered_to: DeliveredTo, recipients: tuple[Recipient, ...], there: bool
) -> None:
    """
    Like Delivered-To, it does not stand in what several share.
    """
    found = headers(*recipients, delivered_to=delivered_to, original="X-Original-To")

    assert there is (b"X-Original-To: staff@example.org\r\n" in found)


def test_priority() -> None:
    """
    A priority that was asked for is a clause of Received (RFC 6710).
    """
    said = headers(BOB, sender=Sender(ANN, {"MT-PRIORITY": -4}))

    assert b"\tfor <bob@example.org>\r\n\tPRIORITY -4; DATE\r\n" in without_date(said)
