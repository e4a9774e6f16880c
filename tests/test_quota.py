"""
How much a mailbox may hold, as operators and directories say it.
"""

from __future__ import annotations

import pytest

from lmtpsvc.envelope import Mailbox
from lmtpsvc.quota import (
    Quota,
    declared_size,
    ignoring_quota,
    limit_of,
    parse,
    quota_of,
    with_declared_size,
)

from .rows import each_row

ANN = Mailbox("ann", "example.org")


@pytest.mark.parametrize(
    ("text", "quota"),
    [
        ("1G", Quota(1 << 30)),
        ("100m", Quota(100 << 20)),
        ("4096", Quota(4096)),
        ("1G,10000", Quota(1 << 30, 10_000)),
        ("0,10000", Quota(0, 10_000)),
        ("1G,0", Quota(1 << 30)),
        ("0", Quota()),
    ],
)
def test_parse(text: str, quota: Quota) -> None:
    """
    Octets, and messages behind a comma; 0 is any number.
    """
    assert quota == parse(text)


@each_row("text", ["", ",", "1G,", "1T", "-1", "1G,x", "1G,1K", "1.5G", "1G,1,1", "²"])
def test_no_quota(text: str) -> None:
    """
    Anything else is told, with what was expected.
    """
    with pytest.raises(ValueError, match="is no quota; write 1G, or 1G,10000 for messages too"):
        parse(text)


@pytest.mark.parametrize(
    ("attributes", "quota"),
    [
        ({}, None),
        ({"backend": "archive"}, None),
        ({"quota_octets": "1000"}, Quota(1000)),
        ({"quota_octets": "50M"}, Quota(50 << 20)),
        ({"quota_messages": "7"}, Quota(0, 7)),
        ({"quota_octets": "0"}, Quota()),
    ],
)
def test_quota_of(attributes: dict[str, str], quota: Quota | None) -> None:
    """
    What a directory says of a mailbox; "no limit" is not the same as nothing.
    """
    assert quota == quota_of(Mailbox("ann", "example.org", attributes=attributes))


@pytest.mark.parametrize("name", ["quota_octets", "quota_messages"])
def test_nonsense(name: str) -> None:
    """
    What is no number is an error, and not "no limit".
    """
    with pytest.raises(ValueError):
        quota_of(Mailbox("ann", "example.org", attributes={name: "much"}))


@pytest.mark.parametrize("quota", [Quota(1, 2), Quota(1), Quota(0, 2), Quota()])
def test_attributes(quota: Quota) -> None:
    """
    What is told of a quota is read as the same.
    """
    assert quota == quota_of(Mailbox("ann", "example.org", attributes=quota.attributes()))


@pytest.mark.parametrize(
    ("quota", "octets", "messages", "has_room"),
    [
        (Quota(100, 2), 100, 2, True),
        (Quota(100, 2), 101, 2, False),
        (Quota(100, 2), 100, 3, False),
        (Quota(100), 100, 10_000, True),
        (Quota(0, 2), 10_000, 2, True),
        (Quota(), 10_000, 10_000, True),
        (Quota(100, 2, binding=False), 101, 3, True),
    ],
)
def test_has_room(quota: Quota, octets: int, messages: int, has_room: bool) -> None:
    """
    A mailbox may be filled to the last octet.
    """
    assert has_room == quota.has_room(octets, messages)


@pytest.mark.parametrize(
    ("attributes", "otherwise", "limit"),
    [
        ({}, None, None),
        ({}, Quota(1), Quota(1)),
        ({"quota_octets": "2"}, Quota(1), Quota(2)),
        ({"quota_octets": "0"}, Quota(1), None),
    ],
)
def test_limit(attributes: dict[str, str], otherwise: Quota | None, limit: Quota | None) -> None:
    """
    The directory's word counts more than the backend's; a client that may ignore either changes
    nothing of what it is.
    """
    ann = Mailbox("ann", "example.org", attributes=attributes)

    found, ignored = (limit_of(each, otherwise) for each in (ann, ignoring_quota(ann)))

    assert limit == found == ignored
    assert found is None or found.binding
    assert ignored is None or not ignored.binding


def test_declared_size() -> None:
    """
    The declared size is beside what the directory knows.
    """
    ann = Mailbox("ann", "example.org", attributes={"backend": "archive"})
    asked = with_declared_size(ann, 1234)

    assert {"backend": "archive", "declared_size": "1234"} == asked.attributes
    assert (1234, 0) == (declared_size(asked), declared_size(ann))
