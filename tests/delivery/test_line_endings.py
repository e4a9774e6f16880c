"""
From CRLF to LF, and how large a text is.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists, sampled_from, sets

from lmtpsvc.delivery.line_endings import LineFeeds, Tally, sizes_of, with_line_feeds

from ..rows import each_row

# A text, the same with LF, and how many octets it has with CRLF everywhere.
CASES = {
    "empty": (b"", b"", 0),
    "one line": (b"a\r\n", b"a\n", 3),
    "bare LF": (b"a\nb\r\n", b"a\nb\n", 6),
    "bare CR": (b"a\rb\r\n", b"a\rb\n", 5),
    "CR at the end": (b"a\r", b"a\r", 2),
    "LF at the start": (b"\na", b"\na", 3),
    "CR CR LF": (b"a\r\r\n", b"a\r\n", 4),
    "CR CR": (b"\r\r", b"\r\r", 2),
    "LF CR": (b"\n\r", b"\n\r", 3),
    "no line ending": (b"abc", b"abc", 3),
}

TEXTS = lists(sampled_from([b"\r", b"\n", b"\r\n", b"a"])).map(b"".join)


def cut(octets: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(place for place in places if 0 < place < len(octets)), len(octets)]
    return [octets[start:end] for start, end in pairwise(edges)]


def converted(chunks: Iterable[bytes]) -> bytes:
    feeds = LineFeeds()
    return b"".join([*map(feeds.feed, chunks), feeds.end()])


@each_row(("octets", "with_lf", "virtual"), CASES.values(), ids=CASES)
def test_cases(octets: bytes, with_lf: bytes, virtual: int) -> None:
    """
    Only CRLF ends a line; what is bare is data, and stays.
    """
    for chunks in ([octets], cut(octets, range(len(octets)))):
        tally = Tally()
        for chunk in chunks:
            tally.feed(chunk)

        assert with_lf == converted(chunks)
        assert (len(octets), virtual) == tally.sizes == sizes_of(octets)


@given(octets=TEXTS, places=sets(integers(1, 60)))
def test_any_cut(octets: bytes, places: set[int]) -> None:
    """
    Pieces of any size make the same text, and the same sizes.
    """
    tally = Tally()
    for chunk in cut(octets, places):
        tally.feed(chunk)

    assert octets.replace(b"\r\n", b"\n") == converted(cut(octets, places))
    assert sizes_of(octets) == tally.sizes


@given(octets=TEXTS, places=sets(integers(1, 60)))
def test_counts_what_it_returns(octets: bytes, places: set[int]) -> None:
    """
    Who converts a text knows how large it has become, and whether there is a way back.
    """
    feeds = LineFeeds()

    stored = b"".join([*map(feeds.feed, cut(octets, places)), feeds.end()])

    assert sizes_of(stored) == feeds.sizes
    assert (stored, feeds.sizes) == with_line_feeds(octets)
    if not feeds.had_bare:
        assert octets == stored.replace(b"\n", b"\r\n")


@pytest.mark.parametrize("before", range(65_530, 65_540))
@pytest.mark.parametrize("ending", [b"\r\n", b"\r", b"\n", b"\r\r\n", b"\r\r"])
def test_large(before: int, ending: bytes) -> None:
    """
    It makes no difference where a large text is parted on the way.
    """
    octets = b"a" * before + ending + b"b\r\n" * 70_000
    feeds = LineFeeds()

    stored = feeds.feed(octets) + feeds.end()

    assert octets.replace(b"\r\n", b"\n") == stored
    assert sizes_of(stored) == feeds.sizes
    assert (stored, feeds.sizes) == with_line_feeds(octets)
    assert feeds.had_bare == (ending != b"\r\n")


@given(octets=TEXTS)
def test_virtual_size(octets: bytes) -> None:
    """
    The virtual size is what a client of IMAP gets, which is sent CRLF for each LF.
    """
    sent = octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")

    assert (len(octets), len(sent)) == sizes_of(octets)
