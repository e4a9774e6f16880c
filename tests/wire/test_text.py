"""
The text of a message, taken from the wire and put on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from hypothesis import given
from hypothesis.strategies import binary, integers, lists, sampled_from, sets

from lmtpsvc.wire.text import LineEnds, TextDecoder, TextEncoder, encode_text

from ..rows import each_row

# What arrives, the text in it, and what is left for the next command (None: no end yet).
CASES = {
    "empty": (b".\r\n", b"", b""),
    "empty, pipelined": (b".\r\nQUIT\r\n", b"", b"QUIT\r\n"),
    "one empty line": (b"\r\n.\r\n", b"\r\n", b""),
    "plain": (b"a\r\n.\r\n", b"a\r\n", b""),
    "stuffed": (b"..\r\n...\r\n..a\r\n.\r\n", b".\r\n..\r\n.a\r\n", b""),
    "a dot that was not stuffed": (b".a\r\nb\r\n.c\r\n.\r\n", b"a\r\nb\r\nc\r\n", b""),
    "dots inside a line": (b"a.\r\nb..c\r\n.\r\n", b"a.\r\nb..c\r\n", b""),
    "pipelined": (b"a\r\n.\r\nQUIT\r\n", b"a\r\n", b"QUIT\r\n"),
    "two texts": (b"a\r\n.\r\nb\r\n.\r\n", b"a\r\n", b"b\r\n.\r\n"),
    "the next command is a dot": (b"a\r\n.\r\n.\r\n", b"a\r\n", b".\r\n"),
    "CR before the end": (b"a\r\r\n.\r\n", b"a\r\r\n", b""),
    "empty lines before the end": (b"\r\n\r\n\r\n.\r\n", b"\r\n\r\n\r\n", b""),
    "NUL": (b"\0a\0\r\n.\r\n", b"\0a\0\r\n", b""),
    "eight bits": (b"\xff\xfe\r\n.\r\n", b"\xff\xfe\r\n", b""),
    "no CRLF before the dot": (b"a.\r\n", b"a.", None),
    "unended": (b"a\r\nb", b"a\r\nb", None),
    "nothing": (b"", b"", None),
    "starts with CR": (b"\r\r\n.\r\n", b"\r\r\n", b""),
    "starts with LF": (b"\n.\r\n\r\n.\r\n", b"\n.\r\n\r\n", b""),
    "starts with a stuffed dot": (b"..\r\n.\r\n", b".\r\n", b""),
    "starts with a dot and CR": (b".\ra\r\n.\r\n", b"\ra\r\n", b""),
    "starts with a dot and LF": (b".\n.\r\n\r\n.\r\n", b"\n.\r\n\r\n", b""),
}

# What does not end a text, and what becomes of it in one.
LOOK_ALIKES = {
    b"\n.\n": b"\n.\n",
    b"\n.\r": b"\n.\r",
    b"\r.\n": b"\r.\n",
    b"\r.\r": b"\r.\r",
    b"\n.\r\n": b"\n.\r\n",
    b"\r.\r\n": b"\r.\r\n",
    b"\n\n.\r\n": b"\n\n.\r\n",
    b"\r\r.\r\n": b"\r\r.\r\n",
    b"\n\r.\r\n": b"\n\r.\r\n",
    b"\r\n\0.\r\n": b"\r\n\0.\r\n",
    b"\r\n.\0\r\n": b"\r\n\0\r\n",
    b"\r\n\n.\n": b"\r\n\n.\n",
    b"\r\n. \r\n": b"\r\n \r\n",
    b"\r\n .\r\n": b"\r\n .\r\n",
    b"\r\n..\r\n": b"\r\n.\r\n",
    b"\r\n.\n": b"\r\n\n",
    b"\r\n.\r": b"\r\n\r",
    b"\r\n.\r\r\n": b"\r\n\r\r\n",
    b"\r\n.\n\r\n": b"\r\n\n\r\n",
    b"\r\0\n.\r\n": b"\r\0\n.\r\n",
    b"\r\n.\r\0\n": b"\r\n\r\0\n",
}


def decode(chunks: Iterable[bytes]) -> tuple[bytes, bytes | None]:
    """
    Feed *chunks* to a new decoder; what comes after the end is left over whole.
    """
    decoder = TextDecoder()
    seen, rest = b"", None
    for chunk in chunks:
        if rest is None:
            text, rest = decoder.feed(chunk)
            seen += text
        else:
            rest += chunk
    return seen, rest


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """
    Part *data* at each of *places* that is inside it.
    """
    edges = [0, *sorted(place for place in places if 0 < place < len(data)), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def octets(data: bytes) -> list[bytes]:
    return cut(data, range(len(data)))


def decode_slowly(data: bytes) -> tuple[bytes, bytes | None]:
    """
    RFC 5321 §4.5.2 as it is written, one line at a time; for whole texts.
    """
    text = b""
    while True:
        line, crlf, data = data.partition(b"\r\n")
        if crlf and line == b".":
            return text, data
        text += line.removeprefix(b".") + crlf
        if not crlf:
            return text, None


class TestCases:
    """
    A text, its dots and its end.
    """

    @each_row(("data", "text", "rest"), CASES.values(), ids=CASES)
    def test_whole(self, data: bytes, text: bytes, rest: bytes | None) -> None:
        """
        All that comes in one packet is understood at once, but for an end that may be coming.
        """
        seen, left = decode([data])

        assert rest == left
        assert seen == text if left is not None else text.startswith(seen)

    @each_row(("data", "text", "rest"), CASES.values(), ids=CASES)
    def test_octet_by_octet(self, data: bytes, text: bytes, rest: bytes | None) -> None:
        """
        The same text comes out when every octet is a packet of its own.
        """
        assert decode([data]) == decode(octets(data))


class TestLookAlikes:
    """
    What some other server takes for the end of a text.
    """

    @each_row(("octets_sent", "octets_seen"), LOOK_ALIKES.items())
    def test_whole(self, octets_sent: bytes, octets_seen: bytes) -> None:
        """
        A command that hides behind a false end stays in the message.
        """
        data = b"a" + octets_sent + b"MAIL FROM:<>\r\n.\r\n"

        assert (b"a" + octets_seen + b"MAIL FROM:<>\r\n", b"") == decode([data])

    @each_row(("octets_sent", "octets_seen"), LOOK_ALIKES.items())
    def test_octet_by_octet(self, octets_sent: bytes, octets_seen: bytes) -> None:
        """
        Nor can packet boundaries make an end of it.
        """
        data = b"a" + octets_sent + b"MAIL FROM:<>\r\n.\r\n"

        assert (b"a" + octets_seen + b"MAIL FROM:<>\r\n", b"") == decode(octets(data))


class TestTextDecoder:
    """
    Of every text, in any number of packets.
    """

    @given(case=sampled_from(list(CASES.values())), places=sets(integers(1, 40)))
    def test_any_cut(self, case: tuple[bytes, bytes, bytes | None], places: set[int]) -> None:
        """
        The same text comes out however TCP slices it.
        """
        data, _, _ = case

        assert decode([data]) == decode(cut(data, places))

    @given(
        pieces=lists(sampled_from([b"\r", b"\n", b".", b"\0", b"a", b"\r\n", b"\r\n."])),
        places=sets(integers(1, 30)),
    )
    def test_agrees_with_the_rfc(self, pieces: list[bytes], places: set[int]) -> None:
        """
        Fast is no different from line by line, whatever the client sends.
        """
        data = b"".join(pieces)
        text, rest = decode_slowly(data)

        seen, left = decode(cut(data, places))

        assert rest == left
        if rest is None:
            # What is held back is at most an unfinished end.
            assert text.startswith(seen)
            text, rest = decode_slowly(data + b"\r\n.\r\n")
            assert (text, rest) == decode([*cut(data, places), b"\r\n.\r\n"])
        else:
            assert text == seen

    @given(pieces=lists(sampled_from([b"\r", b"\n", b".", b"a"])))
    def test_holds_back_little(self, pieces: list[bytes]) -> None:
        """
        The decoder keeps at most four octets of a message in memory.
        """
        data = b"x" + b"".join(pieces)
        seen, rest = decode([data])

        if rest is None:
            stuffed = data.count(b"\r\n.")
            assert 4 >= len(data) - len(seen) - stuffed

    def test_large_text(self) -> None:
        """
        A large message of many dots comes through whole, in packets of any size.
        """
        message = b".\r\n..\r\n.a\rb\nc\r\n\r\n" * 5000
        wire = encode_text(message) + b"RSET\r\n"

        for size in (1, 7, 1460, 65536, len(wire)):
            chunks = cut(wire, range(size, len(wire), size))
            assert (message, b"RSET\r\n") == decode(chunks)

    @each_row("dots", [b"", b"a.b.c.d.e.f.g", b"\r\n..", b"\r\n..a\r\n" + b"x" * 900])
    @each_row("far", [0, 300, 5_000, 20_000])
    @each_row("times", [1, 3, 31, 32, 33])
    def test_few_and_many_dots(self, dots: bytes, far: int, times: int) -> None:
        """
        However many dots there are, and however far from each other, the same text comes out.
        """
        line = b"abcdefgh" * 9 + b"\r\n"
        text = (dots + line * (far // len(line))) * times + dots + b"\r\n"
        lines = [line.removeprefix(b".") for line in text.split(b"\r\n")]
        data = text + b".\r\nQUIT\r\n"

        for size in (1460, 9_000, 65_536, len(data)):
            chunks = cut(data, range(size, len(data), size))
            assert (b"\r\n".join(lines), b"QUIT\r\n") == decode(chunks)


class TestEncodeText:
    """
    What we say behind DATA.
    """

    @each_row(
        ("data", "wire"),
        [
            (b"", b".\r\n"),
            (b"a", b"a\r\n.\r\n"),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b"a\n", b"a\n\r\n.\r\n"),
            (b"a\r", b"a\r\r\n.\r\n"),
            (b"\n", b"\n\r\n.\r\n"),
            (b"\r\n", b"\r\n.\r\n"),
            (b".", b"..\r\n.\r\n"),
            (b".\r\n.\r\n", b"..\r\n..\r\n.\r\n"),
            (b"a.\r\n.b\r\n\n.c\r\n", b"a.\r\n..b\r\n\n.c\r\n.\r\n"),
        ],
    )
    def test_cases(self, data: bytes, wire: bytes) -> None:
        """
        Only a dot that begins a line is doubled, and the end stands on a line of its own.
        """
        assert wire == encode_text(data)

    @given(data=binary() | lists(sampled_from([b"\r", b"\n", b".", b"a"])).map(b"".join))
    def test_round_trip(self, data: bytes) -> None:
        """
        What is encoded is decoded to itself, its last line ended.
        """
        whole = data if not data or data.endswith(b"\r\n") else data + b"\r\n"

        assert (whole, b"QUIT\r\n") == decode([encode_text(data) + b"QUIT\r\n"])


# What is put in, chunk by chunk, and what a server reads.
ENCODED = {
    "nothing": (b"", b""),
    "lines": (b"a\r\nb\r\n", b"a\r\nb\r\n"),
    "dots": (b".\r\n..\r\n.a\r\nb.\r\n", b".\r\n..\r\n.a\r\nb.\r\n"),
    "no end of the last line": (b"a\r\nb", b"a\r\nb\r\n"),
    "CR at the end": (b"a\r", b"a\r\n"),
    "lone LF": (b"a\nb\n\nc\r\n", b"a\r\nb\r\n\r\nc\r\n"),
    "lone CR": (b"a\rb\r\rc\r\n", b"a\r\nb\r\n\r\nc\r\n"),
    "an end for servers that take LF": (b"a\n.\nMAIL\n", b"a\r\n.\r\nMAIL\r\n"),
    "an end for servers that take CR": (b"a\r.\rMAIL\r", b"a\r\n.\r\nMAIL\r\n"),
    "a mixed end": (b"a\n.\r\nMAIL\r\n", b"a\r\n.\r\nMAIL\r\n"),
    "dot behind LF at the start": (b"\n.\n", b"\r\n.\r\n"),
    "dot behind CR at the start": (b"\r.", b"\r\n.\r\n"),
}


def encode(chunks: Iterable[bytes]) -> bytes:
    encoder = TextEncoder()
    return b"".join([*map(encoder.feed, chunks), encoder.end()])


class TestEncoder:
    @each_row(("text", "meant"), ENCODED.values(), ids=ENCODED)
    def test_whole_and_octet_by_octet(self, text: bytes, meant: bytes) -> None:
        """
        A server reads what was meant, however the text was cut, and nothing behind it.
        """
        for chunks in ([text], [text[n : n + 1] for n in range(len(text))]):
            assert (meant, b"") == TextDecoder().feed(encode(chunks))

    @given(lists(sampled_from([b".", b"\r", b"\n", b"\r\n", b"a"])), sets(integers(1, 20)))
    def test_is_never_smuggled(self, parts: list[bytes], cuts: set[int]) -> None:
        """
        No CR or LF stands alone, and the end stands only at the end.
        """
        text = b"".join(parts)
        edges = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]

        sent = encode(text[a:b] for a, b in pairwise(edges))

        assert sent == encode([text])
        assert sent.count(b"\r") == sent.count(b"\n") == sent.count(b"\r\n")
        assert (b"\r\n" + sent).find(b"\r\n.\r\n") == len(sent) - 3


@given(lists(sampled_from([b".", b"\r", b"\n", b"\r\n", b"a"])))
def test_line_ends(chunks: list[bytes]) -> None:
    """
    However the text was cut, it gets the same ends of lines, and nothing else.
    """
    ends, whole = LineEnds(), LineEnds()

    sent = b"".join([*map(ends.feed, chunks), ends.end()])

    assert sent == whole.feed(b"".join(chunks)) + whole.end()
    assert sent.count(b"\r") == sent.count(b"\n") == sent.count(b"\r\n")
    assert sent.splitlines() == b"".join(chunks).splitlines()
