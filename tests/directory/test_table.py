"""
Who is meant by an address.
"""

from __future__ import annotations

import pytest

from lmtpsvc.directory.lines import BrokenLines, parse
from lmtpsvc.directory.table import MAX_DEPTH, MAX_TARGETS
from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import PermanentFailure, TemporaryFailure
from lmtpsvc.replies import CANNOT_LOOK_UP, NO_SUCH_USER

from ..rows import each_row

TABLE = parse(
    b"""
    ann@example.org
    bob@example.org
    cid+only@example.org
    @example.net
    team@example.org: ann@example.org, bob@example.org
    team+urgent@example.org: bob@example.org
    all@example.org: team@example.org, eve+all@example.org, ann@example.org
    eve@example.org: eve@example.org, ann@example.org
    named@example.net: bob@example.org
    @example.com: ann@example.org
    postmaster: bob+post@example.org
    """
)

# An address, in the form user+detail@domain, and where mail for it goes.
KNOWN = {
    "ann@example.org": ["ann@example.org"],
    "ANN@Example.ORG": ["ann@Example.ORG"],
    "ann+Lists@example.org": ["ann+Lists@example.org"],
    "cid+only@example.org": ["cid+only@example.org"],
    # Everybody of that domain lives here, spelt as they come.
    "Anything+x@example.net": ["Anything+x@example.net"],
    # Aliases: the detail goes along, unless the alias is about it.
    "team@example.org": ["ann@example.org", "bob@example.org"],
    "Team+x@example.org": ["ann+x@example.org", "bob+x@example.org"],
    "team+urgent@example.org": ["bob@example.org"],
    "all@example.org": [
        "ann@example.org",
        "bob@example.org",
        "eve+all@example.org",
        "ann+all@example.org",
    ],
    # Having oneself as a target is to keep a copy.
    "eve@example.org": ["eve@example.org", "ann@example.org"],
    # What is more exact goes first.
    "named@example.net": ["bob@example.org"],
    "x@example.com": ["ann@example.org"],
    "x+y@example.com": ["ann@example.org"],
    "postmaster@example.com": ["bob+post@example.org"],
    "postmaster@example.net": ["bob+post@example.org"],
    "postmaster@host.example": ["bob+post@example.org"],
    "postmaster@": ["bob+post@example.org"],
}

UNKNOWN = [
    "x@example.org",
    "cid@example.org",
    "cid+other@example.org",
    "ann@other.example",
    "ann@",
    "@",
    "@example.org",
    # One whose local part looks like an address is nobody else.
    "ann@example.org@other.example",
    "postmaster@@other.example",
]


def mailbox(text: str) -> Mailbox:
    local, _, domain = text.rpartition("@")
    user, _, detail = local.partition("+")
    return Mailbox(user, domain, detail)


@each_row(("address", "homes"), KNOWN.items())
def test_known(address: str, homes: list[str]) -> None:
    """
    Mail goes to those whom the most exact entry names, each once.
    """
    assert [mailbox(home) for home in homes] == TABLE.resolve(mailbox(address))


@each_row("address", UNKNOWN)
def test_unknown(address: str) -> None:
    """
    Who is not listed does not live here.
    """
    with pytest.raises(PermanentFailure) as caught:
        TABLE.resolve(mailbox(address))

    assert NO_SUCH_USER == caught.value.reply


def test_what_else_is_known_is_kept() -> None:
    """
    A table adds nothing to a mailbox, and takes nothing away.
    """
    ann = Mailbox("ann", "example.org", home="/home/ann", uid=1000)

    assert [ann] == TABLE.resolve(ann)


def test_another_delimiter() -> None:
    """
    An address is listed with the delimiter that it is written with.
    """
    table = parse(b"ann-work@x\n", "+-")

    assert [Mailbox("ann", "x", "work")] == table.resolve(Mailbox("ann", "x", "work"))
    with pytest.raises(PermanentFailure):
        parse(b"ann-work@x\n").resolve(Mailbox("ann", "x", "work"))


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        (b"a@x: b@x\nb@x: a@x", "a@x: goes round in a circle: a@x -> b@x -> a@x"),
        (b"a@x: b@x\nb@x: c@x\nc@x: a@x", "a@x -> b@x -> c@x -> a@x"),
        (b"a@x: a@x, b@x\nb@x: a@x", "b@x: goes round in a circle: b@x -> a@x -> b@x"),
        (b"a: a@x\na@x: a@y", "a: a@y is not known here"),
    ],
)
def test_circles(file: bytes, problem: str) -> None:
    """
    Aliases that lead to each other lead nowhere.
    """
    with pytest.raises(BrokenLines) as caught:
        parse(file)

    assert problem in str(caught.value)


def test_two_ways_to_one() -> None:
    """
    That two aliases lead to the same person is no circle, and makes one copy.
    """
    table = parse(b"d@x\na@x: b@x, c@x\nb@x: d@x\nc@x: d@x")

    assert [Mailbox("d", "x")] == table.resolve(Mailbox("a", "x"))


def test_most_targets() -> None:
    """
    An alias may have a thousand targets and not one more.
    """

    def file(count: int) -> bytes:
        return b"@x\nall@y: " + b", ".join(b"user%d@x" % number for number in range(count))

    assert MAX_TARGETS == len(parse(file(MAX_TARGETS)).resolve(Mailbox("all", "y")))
    with pytest.raises(BrokenLines, match="line 2: all@y: leads to more than 1,000 addresses"):
        parse(file(MAX_TARGETS + 1))


def test_multiplying() -> None:
    """
    A few lines that double each other are no way to keep the service busy for ever.
    """
    lines = [f"a{number}@x: a{number + 1}@x, a{number + 1}+b@x" for number in range(15)]

    with pytest.raises(BrokenLines, match="line 1: a0@x: leads to more than 1,000 addresses"):
        parse("\n".join([*lines, "a15@x"]).encode())


def test_in_a_row() -> None:
    """
    Twenty aliases may follow one another and not one more.
    """

    def file(count: int) -> bytes:
        lines = [f"a{number}@x: a{number + 1}@x" for number in range(count)]
        return "\n".join([*lines, f"a{count}@x"]).encode()

    assert [Mailbox("a20", "x")] == parse(file(MAX_DEPTH)).resolve(Mailbox("a0", "x"))
    with pytest.raises(BrokenLines, match="line 1: a0@x: is the first of more than 20 aliases"):
        parse(file(MAX_DEPTH + 1))


def test_a_circle_for_one_detail() -> None:
    """
    What only shows with some detail is for the operator to mend: the client tries again.
    """
    table = parse(b"home@x\na@x: b@x\nb@x: home@x\nb+q@x: a@x")

    assert [Mailbox("home", "x", "p")] == table.resolve(Mailbox("a", "x", "p"))
    with pytest.raises(TemporaryFailure) as caught:
        table.resolve(Mailbox("a", "x", "q"))
    assert CANNOT_LOOK_UP == caught.value.reply
