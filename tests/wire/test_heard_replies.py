"""
Replies of servers: what is one, what is none, and that neither depends on the packets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis.strategies import binary, lists

from lmtpsvc.replies import Reply
from lmtpsvc.wire.heard_replies import (
    MAX_LINE,
    MAX_LINES,
    HeardReply,
    MalformedReply,
    ReplyReader,
)

from ..rows import each_row

VALID: dict[str, tuple[bytes, list[HeardReply]]] = {
    "one line": (b"250 OK\r\n", [HeardReply(250, ("OK",))]),
    "enhanced code": (b"250 2.1.5 OK\r\n", [HeardReply(250, ("OK",), (1, 5))]),
    "enhanced code and nothing more": (b"250 2.1.5\r\n", [HeardReply(250, ("",), (1, 5))]),
    "enhanced code of another class": (b"250 5.1.1 OK\r\n", [HeardReply(250, ("5.1.1 OK",))]),
    "what only looks like one": (b"250 2.1.5b OK\r\n", [HeardReply(250, ("2.1.5b OK",))]),
    "no text": (b"250 \r\n", [HeardReply(250, ("",))]),
    "no text and no space": (b"250\r\n", [HeardReply(250, ("",))]),
    "several lines": (
        b"250-foo.edu\r\n250-PIPELINING\r\n250 SIZE\r\n",
        [HeardReply(250, ("foo.edu", "PIPELINING", "SIZE"))],
    ),
    "enhanced code on each line": (
        b"550-5.1.1 No such user,\r\n550 5.1.1 sorry\r\n",
        [HeardReply(550, ("No such user,", "sorry"), (1, 1))],
    ),
    "enhanced code on the first line": (
        b"550-5.1.1 No such user,\r\n550 sorry\r\n",
        [HeardReply(550, ("No such user,", "sorry"), (1, 1))],
    ),
    "enhanced code on the last line": (
        b"550-Mailbox unknown.\r\n550 5.1.1 User unknown\r\n",
        [HeardReply(550, ("Mailbox unknown.", "User unknown"), (1, 1))],
    ),
    "several replies": (
        b"250 2.1.0 OK\r\n550 5.1.1 no\r\n354 go\r\n",
        [
            HeardReply(250, ("OK",), (1, 0)),
            HeardReply(550, ("no",), (1, 1)),
            HeardReply(354, ("go",)),
        ],
    ),
    "LF alone": (b"250-a\n250 b\n", [HeardReply(250, ("a", "b"))]),
    "UTF-8": ("250 grüß\r\n".encode(), [HeardReply(250, ("grüß",))]),
    "no UTF-8, and controls": (
        b"250 a\xff\x00\x1b[1m\rb\r\n",
        [HeardReply(250, ("a\ufffd??[1m?b",))],
    ),
    "the longest line": (
        b"250 " + b"x" * (MAX_LINE - 6) + b"\r\n",
        [HeardReply(250, ("x" * (MAX_LINE - 6),))],
    ),
}
INVALID = {
    "no code": b"OK\r\n",
    "an empty line": b"\r\n",
    "two digits": b"25 OK\r\n",
    "1yz": b"150 wait\r\n",
    "6yz": b"650 what\r\n",
    "another separator": b"250_OK\r\n",
    "digits that are not ASCII": "２５０ OK\r\n".encode(),
    "two codes": b"250-OK\r\n550 no\r\n",
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n",
    "a line too long": b"250 " + b"x" * MAX_LINE + b"\r\n",
    "a line without end": b"250 " + b"x" * MAX_LINE,
    "a reply without end": b"250-x\r\n" * (MAX_LINES + 1),
    "a large reply without end": (b"250-" + b"x" * 4000 + b"\r\n") * 30,
}


def whole(octets: bytes) -> list[bytes]:
    return [octets]


def octet_by_octet(octets: bytes) -> list[bytes]:
    return [octets[n : n + 1] for n in range(len(octets))]


def read(packets: Iterable[bytes]) -> list[HeardReply]:
    reader = ReplyReader()
    replies = []
    for packet in packets:
        reader.receive(packet)
        while (reply := reader.next_reply()) is not None:
            replies.append(reply)
    return replies


class TestReader:
    @each_row(("octets", "replies"), VALID.values(), ids=VALID)
    @each_row("cut", [whole, octet_by_octet])
    def test_valid(
        self, octets: bytes, replies: list[HeardReply], cut: Callable[[bytes], list[bytes]]
    ) -> None:
        """
        Each reply is read, its codes parted from its text.
        """
        assert replies == read(cut(octets))

    @each_row("octets", INVALID.values(), ids=INVALID)
    @each_row("cut", [whole, octet_by_octet])
    def test_invalid(self, octets: bytes, cut: Callable[[bytes], list[bytes]]) -> None:
        """
        What is no reply is not taken for one.
        """
        with pytest.raises(MalformedReply) as caught:
            read(cut(octets))

        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 300


class TestAnything:
    @given(lists(binary(max_size=80)))
    def test_is_a_reply_or_malformed(self, packets: list[bytes]) -> None:
        """
        Whatever comes, nothing else is raised, and every text is printable.
        """
        try:
            replies = read(packets)
        except MalformedReply:
            return
        for reply in replies:
            assert str(reply).isprintable()


class TestUnread:
    def test_part_of_a_reply(self) -> None:
        """
        A line, or part of one, is unread until the reply is complete.
        """
        reader = ReplyReader()
        for octets, unread in ((b"", False), (b"2", True), (b"50-a\r\n", True), (b"250 b", True)):
            reader.receive(octets)
            assert reader.next_reply() is None
            assert reader.has_unread is unread
        reader.receive(b"\r\n")

        assert reader.next_reply() == HeardReply(250, ("a", "b"))
        assert not reader.has_unread


class TestPassingOn:
    def test_on_one_line(self) -> None:
        """
        What was heard can be said: on one line, in ASCII, not too long.
        """
        heard = HeardReply(550, ("No such", "üser" * 300), (1, 1))

        reply = heard.as_reply()

        assert (550, (1, 1)) == (reply.code, reply.status)
        assert reply.text.startswith("No such ?ser")
        assert len(reply.wire) <= 512

    def test_with_another_code(self) -> None:
        """
        The code may be another one, and something may stand before the text.
        """
        heard = HeardReply(421, ("bye",), (3, 2))

        assert Reply(451, "They said: bye", (3, 2)) == heard.as_reply(451, "They said: ")

    def test_shown(self) -> None:
        """
        For a reader it looks as it came.
        """
        assert str(HeardReply(550, ("no", "way"), (1, 1))) == "550 5.1.1 no way"
        assert str(HeardReply(250, ("",))) == "250"
