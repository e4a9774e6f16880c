"""
What a users file may say, and how its mistakes are told.
"""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis.strategies import binary, lists, sampled_from

from lmtpsvc.directory.lines import BrokenLines, parse
from lmtpsvc.directory.table import Entry
from lmtpsvc.envelope import Mailbox

from ..rows import each_row

ANN = Mailbox("ann", "example.org")
BOB = Mailbox("bob", "example.org")

# A line, and the entry that it makes, in a file where Ann and Bob are listed.
VALID = {
    "cid@example.org": ("cid@example.org", ()),
    "  Cid@EXAMPLE.org\t\r": ("cid@example.org", ()),
    "cid@example.org # a comment": ("cid@example.org", ()),
    "cid@example.org #": ("cid@example.org", ()),
    "c#d@example.org": ("c#d@example.org", ()),
    "cid+lists@example.org": ("cid+lists@example.org", ()),
    "cid@[192.0.2.1]": ("cid@[192.0.2.1]", ()),
    "cid@[IPv6:::1]: ann@example.org": ("cid@[ipv6:::1]", (ANN,)),
    '"c d"@example.org': ("c d@example.org", ()),
    '"c@d, \\"e"@example.org:ann@example.org': ('c@d, "e@example.org', (ANN,)),
    "café@exämple.org": ("café@xn--exmple-cua.org", ()),
    "cafe\u0301@example.org": ("caf\u00e9@example.org", ()),
    "@example.net": ("@example.net", ()),
    "@example.net: ann@example.org": ("@example.net", (ANN,)),
    "cid@example.org: Ann@Example.Org": ("cid@example.org", (ANN,)),
    "cid@example.org:ann@example.org,bob@example.org": ("cid@example.org", (ANN, BOB)),
    "cid@example.org : ann@example.org , bob@example.org # two": ("cid@example.org", (ANN, BOB)),
    "cid@example.org: ann+a+b@example.org": (
        "cid@example.org",
        (Mailbox("ann", "example.org", "a+b"),),
    ),
    "Postmaster: ann@example.org": ("postmaster@", (ANN,)),
}

SHAPES = "expected an address, @domain, or alias: target, target; found "
TARGET = "expected a target like ann@example.org; found "

INVALID = {
    "cid": "a name without a domain needs a target: 'cid: ann@example.org'",
    "@": f"{SHAPES}'@'",
    "cid@": f"{SHAPES}'cid@'",
    "cid@@example.org": f"{SHAPES}'cid@@example.org'",
    "cid@example..org": f"{SHAPES}'cid@example..org'",
    ".cid@example.org": f"{SHAPES}'.cid@example.org'",
    "c d@example.org": f"{SHAPES}'c d@example.org'",
    '"cid@example.org': f"{SHAPES}'\"cid@example.org'",
    '""@example.org': f"{SHAPES}'\"\"@example.org'",
    "<cid@example.org>": f"{SHAPES}'<cid@example.org>'",
    "cid@example.org#x": f"{SHAPES}'cid@example.org#x'",
    "cid@example.org ann@example.org": f"{SHAPES}'cid@example.org ann@example.org'",
    "cid@example.org, ann@example.org": f"{SHAPES}'cid@example.org, ann@example.org'",
    "cid\x00@example.org": f"{SHAPES}'cid\\x00@example.org'",
    "cid\u202e@example.org": f"{SHAPES}'cid\\u202e@example.org'",
    ": ann@example.org": f"{SHAPES}': ann@example.org'",
    "cid@example.org:": f"{TARGET}nothing",
    "cid@example.org: # none": f"{TARGET}'# none'",
    "cid@example.org: ann": f"{TARGET}'ann'",
    "cid@example.org: @example.org": f"{TARGET}'@example.org'",
    "cid@example.org: ann@example.org,": f"{TARGET}nothing",
    "cid@example.org: ann@example.org bob@example.org": (
        "expected a comma between two targets; found 'bob@example.org'"
    ),
    "cid@example.org: dan@example.org": (
        "cid@example.org: dan@example.org is not known here: list it too"
        " (LMTP cannot forward elsewhere)"
    ),
    "@example.net: cid@example.net": (
        "@example.net: cid@example.net is not known here: list it too"
        " (LMTP cannot forward elsewhere)"
    ),
    "postmaster: postmaster@example.org": (
        "postmaster: postmaster@example.org is not known here: list it too"
        " (LMTP cannot forward elsewhere)"
    ),
    "ann@example.org: bob@example.org": (
        "ann@example.org stands on line 1 already, and says something else"
    ),
    "x" * 70: f"a name without a domain needs a target: '{'x' * 70}: ann@example.org'",
    "!" * 70 + "(": f"{SHAPES}'{'!' * 60}…'",
}


@each_row(("line", "entry"), VALID.items())
def test_valid(line: str, entry: tuple[str, tuple[Mailbox, ...]]) -> None:
    """
    A line makes one entry, its case folded and its comment dropped.
    """
    table = parse(b"ann@example.org\nbob@example.org\n" + line.encode())

    key, targets = entry
    assert Entry(3, targets) == table.entries[key]
    assert 3 == len(table.entries)


@each_row(("line", "problem"), INVALID.items())
def test_invalid(line: str, problem: str) -> None:
    """
    A broken line is told with its number, and what is expected there.
    """
    with pytest.raises(BrokenLines) as caught:
        parse(b"ann@example.org\nbob@example.org\n\n" + line.encode() + b"\n\n")

    assert [(4, problem)] == caught.value.problems


def test_all_are_told() -> None:
    """
    The operator reads about all broken lines at once, in their order.
    """
    with pytest.raises(BrokenLines) as caught:
        parse(b"a@x: b@x\nann@example.org\n\xff\nbob\n")

    assert [1, 3, 4] == [line for line, _ in caught.value.problems]
    assert "line 3: not UTF-8; line 4: a name" in str(caught.value)


@pytest.mark.parametrize("octets", [b"", b"\n", b"# nobody\r\n", b"\xef\xbb\xbf", b" \t\n"])
def test_nobody(octets: bytes) -> None:
    """
    A file in which nobody lives is a file.
    """
    assert {} == parse(octets).entries


def test_said_twice() -> None:
    """
    To say the same twice does no harm, and a byte order mark neither.
    """
    assert 1 == len(parse(b"\xef\xbb\xbfann@x\nANN@x\n@x\n@X\n").entries) - 1


def test_no_delimiters() -> None:
    """
    With other delimiters, or none, a target is split there, or not at all.
    """
    file = b"@x\na: b-c+d@x, +e@x"

    for delimiters, users in {"": ["b-c+d", "+e"], "+": ["b-c", "+e"], "+-": ["b", "+e"]}.items():
        targets = parse(file, delimiters).entries["a@"].targets
        assert users == [target.user for target in targets]


@given(
    lists(
        sampled_from([b"a@x", b"@x", b"b", b":", b",", b" ", b"#", b'"', b"\\", b"\n", b"+"])
        | binary(max_size=3)
    )
)
def test_anything(parts: list[bytes]) -> None:
    """
    Whatever stands in a file, it is a table or a list of problems, each of one line.
    """
    problems = "one"
    try:
        parse(b"".join(parts))
    except BrokenLines as error:
        problems = str(error)

    assert problems
    assert problems.isprintable()


def test_large() -> None:
    """
    100,000 lines load quickly: this is generous, for a slow machine.
    """
    file = b"".join(b"user%d@example.org\n" % number for number in range(100_000))
    started = time.thread_time()

    table = parse(file)

    assert 100_000 == len(table.entries)
    assert time.thread_time() - started < 5
