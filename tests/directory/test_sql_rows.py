"""
Rows become mailboxes.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from lmtpsvc.directory.rows import mailboxes_from, unknown_columns
from lmtpsvc.envelope import Mailbox

from ..rows import each_row

ASKED = Mailbox("ann", "example.org", "lists")


def known(**attributes: str) -> Mailbox:
    return Mailbox("ann", "example.org", "lists", attributes=attributes)


VALID: list[tuple[dict[str, Any], Mailbox]] = [
    ({}, ASKED),
    ({"user": None, "domain": None, "detail": None, "home": None, "quota": None}, ASKED),
    ({"user": "Ann.A"}, Mailbox("Ann.A", "example.org", "lists")),
    ({"domain": "Example.NET"}, Mailbox("ann", "example.net", "lists")),
    ({"detail": ""}, Mailbox("ann", "example.org")),
    ({"detail": "other"}, Mailbox("ann", "example.org", "other")),
    ({"address": "bob@example.net"}, Mailbox("bob", "example.net", "lists")),
    ({"address": "bob@example.net\r\n"}, Mailbox("bob", "example.net", "lists")),
    ({"address": "a@b@example.net"}, Mailbox("a@b", "example.net", "lists")),
    (
        {"home": "/srv/ann", "uid": 1000, "gid": 100},
        Mailbox("ann", "example.org", "lists", home="/srv/ann", uid=1000, gid=100),
    ),
    ({"quota_octets": 1000, "quota_messages": 0}, known(quota_octets="1000", quota_messages="0")),
    ({"quota_octets": Decimal(2**40)}, known(quota_octets=str(2**40))),
    ({"quota": "1G,5"}, known(quota_octets="1073741824", quota_messages="5")),
    ({"quota": 5000}, known(quota_octets="5000", quota_messages="0")),
    ({"backend": b"archive"}, known(backend="archive")),
    ({"backend": "", "quota": ""}, ASKED),
    ({"x_queue": "support"}, known(x_queue="support")),
    ({"password": "secret"}, ASKED),
]

INVALID: list[tuple[dict[str, Any], str]] = [
    ({"user": ""}, "user or domain is empty"),
    ({"address": "@example.org"}, "user or domain is empty"),
    ({"address": "bob"}, "address='bob': expected user@domain"),
    ({"address": "bob@example.org", "user": "ann"}, "address says what user and domain say"),
    ({"uid": 0, "gid": 0}, "uid=0: expected a number from 1 to 4294967294"),
    ({"quota_octets": -1}, "quota_octets=-1: expected a number of octets such as 100M, or 0"),
    ({"quota_octets": 1.5}, "quota_octets=1.5: expected a number of octets such as 100M, or 0"),
    ({"user": "ann\nbob"}, "user: a control character is in it"),
    ({"address": "ann@example.org\0"}, "address: a control character is in it"),
    ({"user": b"\xff"}, "user: not UTF-8"),
]


@each_row(("row", "mailbox"), VALID)
def test_valid(row: dict[str, Any], mailbox: Mailbox) -> None:
    """
    Columns count by their names; what is missing or NULL is as it was asked.
    """
    assert (mailbox,) == mailboxes_from([row], ASKED)


@each_row(("row", "problem"), INVALID)
def test_invalid(row: dict[str, Any], problem: str) -> None:
    """
    A value that makes no sense is an error, and neither "no such user" nor "no limit".
    """
    with pytest.raises(ValueError) as caught:
        mailboxes_from([row], ASKED)

    assert problem == str(caught.value)


def test_many() -> None:
    """
    Each row is a target, each target once, in their order; no row is nobody.
    """
    rows = [{"user": "bob"}, {"user": "cy"}, {"user": "bob"}]

    assert ["bob", "cy"] == [mailbox.user for mailbox in mailboxes_from(rows, ASKED)]
    assert () == mailboxes_from([], ASKED)


def test_unknown() -> None:
    """
    Columns that mean nothing are told.
    """
    assert ["password"] == unknown_columns(["user", "password", "x_queue", "quota", "address"])
