"""
What a directory knows about a mailbox, beside its name.
"""

from __future__ import annotations

import pytest

from lmtpsvc.directory.knowledge import NOTHING, known_from
from lmtpsvc.directory.lines import BrokenLines, parse
from lmtpsvc.envelope import Mailbox
from lmtpsvc.quota import Quota, quota_of

from ..rows import each_row

ANN, BOB = Mailbox("ann", "example.org"), Mailbox("bob", "example.org")

#: What stands behind an address, and what comes of it.
VALID = {
    "quota=1G": ("quota_octets=1073741824 quota_messages=0", {}),
    "quota=1G,10000": ("quota_octets=1073741824 quota_messages=10000", {}),
    "quota=0": ("quota_octets=0 quota_messages=0", {}),
    "quota_octets=100M": ("quota_octets=104857600", {}),
    "quota_messages=7": ("quota_messages=7", {}),
    "quota_octets=0 quota_messages=0": ("quota_octets=0 quota_messages=0", {}),
    "backend=archive": ("backend=archive", {}),
    "Backend=archive-2.old": ("backend=archive-2.old", {}),
    "home=/srv/mail/c": ("", {"home": "/srv/mail/c"}),
    "uid=1000 gid=100": ("", {"uid": 1000, "gid": 100}),
    "gid=100": ("", {"gid": 100}),
    "since=2024-05-01": ("since=2024-05-01T00:00:00+00:00", {}),
    "since=20240501T120000Z domain_since=2024-W01": (
        "since=2024-05-01T12:00:00+00:00 domain_since=2024-01-01T00:00:00+00:00",
        {},
    ),
    "x_queue=support x_2=": ("x_queue=support x_2=", {}),
    "quota=1M  backend=a\thome=/c # comment": (
        "quota_octets=1048576 quota_messages=0 backend=a",
        {"home": "/c"},
    ),
}

INVALID = {
    "quota=much": "'much' is no quota; write 1G, or 1G,10000 for messages too",
    "quota=": "'' is no quota; write 1G, or 1G,10000 for messages too",
    "qouta=1G": "qouta is not known here: did you mean quota?",
    "password=x": "password is not known here: expected quota, home, uid, gid, quota_octets,"
    " quota_messages, backend, since, domain_since, node or x_...",
    "since=yesterday": "since=yesterday: expected a date such as 2024-05-01, or 20240501T120000Z",
    "domain_since=": "domain_since=: expected a date such as 2024-05-01, or 20240501T120000Z",
    "backend=": "backend=: expected a name",
    "backend=a/b": "backend=a/b: expected a name",
    "home=mail": "home=mail: expected an absolute path",
    "uid=0 gid=0": "uid=0: expected a number from 1 to 4294967294",
    "uid=ann gid=1": "uid=ann: expected a number from 1 to 4294967294",
    "uid=4294967295 gid=100": "uid=4294967295: expected a number from 1 to 4294967294",
    "uid=1000 gid=9999999999": "gid=9999999999: expected a number from 1 to 4294967294",
    "uid=1000": "uid needs gid",
    "quota_octets=1G,1": "quota_octets=1G,1: expected a number of octets such as 100M, or 0",
    "quota_messages=1K": "quota_messages=1K: expected a number such as 10000, or 0",
    "quota=1G quota_octets=1": "quota says what quota_octets and quota_messages say",
    "quota=1G QUOTA=2G": "quota is given twice",
    "quota": "expected an address, @domain, or alias: target, target; found 'cid@example.org quota'",
    "quota =1G": "expected an address, @domain, or alias: target, target;"
    " found 'cid@example.org quota =1G'",
    "quota=1G: ann@example.org": (
        "nobody lives at an alias: write what is known behind its targets"
    ),
}


def words(text: str) -> dict[str, str]:
    return dict(word.split("=") for word in text.split())


@each_row(("line", "found"), VALID.items())
def test_valid(line: str, found: tuple[str, dict[str, object]]) -> None:
    """
    Words behind an address are told with the mailbox, whatever its detail.
    """
    table = parse(f"cid@example.org {line}".encode())
    attributes, rest = found
    for detail in ("", "lists"):
        [cid] = table.resolve(Mailbox("cid", "example.org", detail))
        assert Mailbox("cid", "example.org", detail, attributes=words(attributes), **rest) == cid  # type: ignore[arg-type]  # the rest is as it should be


@each_row(("line", "problem"), INVALID.items())
def test_invalid(line: str, problem: str) -> None:
    """
    A broken word is a broken line, told with its number.
    """
    with pytest.raises(BrokenLines) as caught:
        parse(b"ann@example.org\n\n" + f"cid@example.org {line}".encode())

    assert [(3, problem)] == caught.value.problems


def test_nothing() -> None:
    """
    Of whom nothing is known, nothing is told; it is the same mailbox, and not a copy.
    """
    table = parse(b"ann@example.org\n")

    assert not NOTHING
    assert NOTHING == known_from({})
    assert table.resolve(ANN)[0] is ANN


def test_alias() -> None:
    """
    An alias leads to mailboxes with what is known about them; by two ways it is the same mailbox.
    """
    table = parse(
        b"ann@example.org quota=1M\nbob@example.org\n"
        b"staff@example.org: ann@example.org, bob@example.org, boss@example.org\n"
        b"boss@example.org: ann@example.org\n"
    )
    [ann] = table.resolve(ANN)

    assert quota_of(ann) == Quota(1 << 20)
    assert [ann, BOB] == table.resolve(Mailbox("staff", "example.org"))


def test_alias_with_a_mailbox() -> None:
    """
    Who is an alias with itself among the targets has a mailbox, and that has a quota.
    """
    table = parse(b"ann@example.org quota=1M: ann@example.org, bob@example.org\nbob@example.org\n")
    [ann, bob] = table.resolve(ANN)

    assert quota_of(ann) == Quota(1 << 20)
    assert bob == BOB


def test_domain() -> None:
    """
    What stands behind a domain holds for each mailbox there; who is listed has what is listed.
    """
    table = parse(b"@example.org quota=1M\nbob@example.org\n")

    assert quota_of(table.resolve(ANN)[0]) == Quota(1 << 20)
    assert quota_of(table.resolve(BOB)[0]) is None


def test_said_twice() -> None:
    """
    Two lines about one mailbox must say the same.
    """
    parse(b"ann@example.org quota=1M\nann@example.org quota=1024K\n")
    with pytest.raises(BrokenLines, match=r"line 2: ann@example\.org stands on line 1"):
        parse(b"ann@example.org quota=1M\nann@example.org\n")
