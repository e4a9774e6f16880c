"""
Octets on their way to a POP3 client, whole and octet by octet.
"""

from __future__ import annotations

import poplib
from io import BytesIO

from hypothesis import given
from hypothesis import strategies as st

from lmtpsvc.pop3.text import Stuffing, Top

from ..rows import each_row

SIZES = (1, 2, 3, 1000)


def stuffed(text: bytes, size: int) -> bytes:
    stuffing = Stuffing()
    pieces = [stuffing.feed(text[i : i + size]) for i in range(0, len(text), size)]
    return b"".join([*pieces, stuffing.end()])


def top(text: bytes, lines: int, size: int) -> bytes:
    top = Top(lines)
    return b"".join(top.feed(text[i : i + size]) for i in range(0, len(text), size))


class TestStuffing:
    @each_row(
        ("text", "sent"),
        [
            (b"", b".\r\n"),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b".\r\n", b"..\r\n.\r\n"),
            (b"a\r\n.\r\n..b\r\n", b"a\r\n..\r\n...b\r\n.\r\n"),
            (b"a.b.\r\n", b"a.b.\r\n.\r\n"),
            (b"no end", b"no end\r\n.\r\n"),
            (b"bare\n", b"bare\n\r\n.\r\n"),
            (b"bare\n.\r\n", b"bare\n..\r\n.\r\n"),
            (b"\r.\r\n\r.", b"\r..\r\n\r..\r\n.\r\n"),
            (b"bare\r.\r\n", b"bare\r.\r\n.\r\n"),
        ],
    )
    @each_row("size", SIZES)
    def test_octets(self, text: bytes, sent: bytes, size: int) -> None:
        """
        Dots at the beginning of lines are doubled, and nothing else is touched.
        """
        assert stuffed(text, size) == sent


@given(
    st.lists(st.sampled_from([b".", b"\r\n", b"\n", b"\r", b"a", b"+OK"])), st.sampled_from(SIZES)
)
def test_the_end_is_where_it_is(pieces: list[bytes], size: int) -> None:
    """
    Neither a client that knows CRLF only nor one that ends lines at LF finds the end before it.
    """
    sent = stuffed(b"".join(pieces), size)

    assert (b"\r\n" + sent).index(b"\r\n.\r\n") == len(sent) - 3
    client = object.__new__(poplib.POP3)
    client._debugging, client.file = 0, BytesIO(b"+OK\r\n" + sent)  # type: ignore[attr-defined]
    client._getlongresp()  # type: ignore[attr-defined]
    assert client.file.read() == b""


class TestTop:
    TEXT = b"A: 1\r\nB: 2\r\n\r\none\r\n\r\nthree"

    @each_row(
        ("lines", "passed"),
        [
            (0, b"A: 1\r\nB: 2\r\n\r\n"),
            (1, b"A: 1\r\nB: 2\r\n\r\none\r\n"),
            (2, b"A: 1\r\nB: 2\r\n\r\none\r\n\r\n"),
            (3, TEXT),
            (9, TEXT),
        ],
    )
    @each_row("size", SIZES)
    def test_lines(self, lines: int, passed: bytes, size: int) -> None:
        """
        The header, the empty line, and so many lines.
        """
        assert top(self.TEXT, lines, size) == passed

    @each_row("text", [b"", b"A: 1", b"A: 1\r\n", b"A: 1\r\n\r \r\n"])
    @each_row("size", SIZES)
    def test_no_body(self, text: bytes, size: int) -> None:
        """
        What is all header passes whole.
        """
        assert top(text, 0, size) == text

    @each_row("size", SIZES)
    def test_no_header(self, size: int) -> None:
        """
        A text may begin with the empty line.
        """
        assert top(b"\r\nbody\r\n", 0, size) == b"\r\n"
