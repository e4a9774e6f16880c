"""
What stands in an mbox: quoting, From lines, and what is between messages.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmtpsvc.backends.files import CHUNK
from lmtpsvc.backends.mbox_format import Quoting, from_line, render, separator
from lmtpsvc.envelope import Address, Sender

from ..rows import each_row


def quoted(pieces: list[bytes]) -> bytes:
    """
    What becomes of a text that comes in *pieces*.
    """
    quoting = Quoting()
    return b"".join([*map(quoting.feed, pieces), quoting.end()])


@each_row(
    ("text", "expected"),
    [
        (b"", b""),
        (b"From here\n", b">From here\n"),
        (b">From here\n", b">>From here\n"),
        (b">>>From here\n", b">>>>From here\n"),
        (b"a\nFrom here\nFrom there\n", b"a\n>From here\n>From there\n"),
        (b"From \n", b">From \n"),
        (b"From ", b">From "),
        (b"From", b"From"),
        (b"From\n", b"From\n"),
        (b"From: ann\n", b"From: ann\n"),
        (b"FROM here\nfrom here\n", b"FROM here\nfrom here\n"),
        (b" From here\n> From here\n", b" From here\n> From here\n"),
        (b"away From here\n", b"away From here\n"),
        (b"a\rFrom here\n", b"a\rFrom here\n"),
        (b"a\r\nFrom here\n", b"a\r\n>From here\n"),
        (b"F\nFrom F\nFro", b"F\n>From F\nFro"),
        (b">\n>>\nFrom a", b">\n>>\n>From a"),
    ],
)
def test_quoting(text: bytes, expected: bytes) -> None:
    """
    A line that is From and a space behind any number of > gets one more, whole or octet by octet.
    """
    assert expected == quoted([text])
    assert expected == quoted([bytes([octet]) for octet in text])


_words = st.sampled_from([b"\n", b">", b"From ", b"F", b"ro", b"m ", b"From", b"x", b"\r\n", b" "])


@given(st.lists(st.lists(_words, max_size=6).map(b"".join)))
def test_cut_anywhere(pieces: list[bytes]) -> None:
    """
    However a text is cut, it is quoted as a whole would be; and taking one > away gives it back.
    """
    text = b"".join(pieces)
    result = quoted(pieces)

    assert re.sub(rb"(?m)^(>*From )", rb">\1", text) == result
    assert text == re.sub(rb"(?m)^>(>*From )", rb"\1", result)


def test_no_end_of_quotes() -> None:
    """
    A line of nothing but > is passed on as it comes: nobody's memory is filled with it.
    """
    quoting = Quoting()
    for _ in range(3):
        assert 1000 == len(quoting.feed(b">" * 1000))
    assert b">From x" == quoting.feed(b"From x")


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("utc")
@pytest.mark.parametrize(
    ("sender", "expected"),
    [
        (Sender(None), b"MAILER-DAEMON"),
        (Sender(Address("ann", "example.org")), b"ann@example.org"),
        (Sender(Address("a b", "example.org")), b'"a_b"@example.org'),
        (Sender(Address("a\r\nb\t", "x.org")), b'"a_b_"@x.org'),
        (Sender(Address("a\u2028\u0085\u00a0b", "x.org")), b"a_b@x.org"),
        (Sender(Address("jörg", "bücher.example")), "jörg@bücher.example".encode()),
        (Sender(Address("\udc80", "x.org")), b"?@x.org"),
    ],
)
def test_from_line(sender: Sender, expected: bytes) -> None:
    """
    One line, and no space within the sender, whatever the sender is.
    """
    assert b"From " + expected + b" Tue Nov 14 22:13:20 2023\n" == from_line(sender, 1_700_000_000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", b"\n"),
        (b"a: b\n\nc\n", b"a: b\n\nc\n\n"),
        (b"a: b\n\nc", b"a: b\n\nc\n\n"),
        (b"a: b\n\nFrom", b"a: b\n\nFrom\n\n"),
        (b"a: b\n\nc\n\n\n", b"a: b\n\nc\n\n\n\n"),
    ],
)
def test_end(text: bytes, expected: bytes) -> None:
    """
    A blank line ends a message, however its text ends; its own blank lines stay.
    """
    assert [b"HEAD\n" + expected] == list(render(b"HEAD\n", BytesIO(text)))


@pytest.mark.parametrize("beyond", [-1, 0, 1, 5, CHUNK])
def test_large(beyond: int) -> None:
    """
    A large message comes in pieces, none much larger than what is read at a time.
    """
    text = b"a line\nFrom me\n" * (CHUNK // 14)
    text = (text * 2)[: CHUNK + beyond]

    pieces = list(render(b"HEAD\n", BytesIO(text)))

    whole = b"".join(pieces)
    assert max(map(len, pieces)) < 2 * CHUNK
    assert b"HEAD\n" + quoted([text]) == whole[: 5 + len(quoted([text]))]
    assert whole.endswith(b"\n\n")


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (b"", b""),
        (b"a\n\n", b""),
        (b"a\n\n\n", b""),
        (b"a\r\n\r\n", b""),
        (b"a\n", b"\n"),
        (b"a\r\n", b"\n"),
        (b"a", b"\n\n"),
        (b"abcdefg", b"\n\n"),
        (b"\n", b""),
    ],
)
def test_separator(before: bytes, expected: bytes, tmp_path: Path) -> None:
    """
    However another program has left the file, there is a blank line before the next message.
    """
    (tmp_path / "mbox").write_bytes(before)
    descriptor = os.open(tmp_path / "mbox", os.O_RDONLY)
    try:
        assert expected == separator(descriptor, len(before))
    finally:
        os.close(descriptor)
