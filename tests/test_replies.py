"""
What a client reads.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis.strategies import characters, integers, none, text, tuples

from lmtpsvc import replies
from lmtpsvc.replies import MultilineReply, Reply
from lmtpsvc.response_codes import ResponseCode

from .rows import each_row

CONSTANTS = {
    name: value
    for name, value in vars(replies).items()
    if isinstance(value, (Reply, MultilineReply))
}


class TestReply:
    """
    One line.
    """

    @pytest.mark.parametrize(
        ("reply", "wire"),
        [
            (Reply(250, "OK"), b"250 OK\r\n"),
            (Reply(250, "OK", (1, 5)), b"250 2.1.5 OK\r\n"),
            (Reply(452, "Mailbox full", (2, 2)), b"452 4.2.2 Mailbox full\r\n"),
            (Reply(550, "", (7, 123)), b"550 5.7.123 \r\n"),
            (Reply(354, "Go on"), b"354 Go on\r\n"),
        ],
    )
    def test_wire(self, reply: Reply, wire: bytes) -> None:
        """
        The class of the enhanced code is that of the code: the two cannot disagree.
        """
        assert wire == reply.wire
        assert wire[:-2].decode() == str(reply)

    @each_row("said", ["a\r\n250 OK", "a\n", "\r", "a\0b", "a\tb", "ä", "\x7f", "a" * 497])
    def test_one_printable_line(self, said: str) -> None:
        """
        Whatever a backend says, it cannot put a second reply on the wire.
        """
        with pytest.raises(ValueError, match="printable line"):
            Reply(550, said)

    @pytest.mark.parametrize("code", [0, 99, 199, 600, 1000, -250])
    def test_not_a_code(self, code: int) -> None:
        """
        A reply code has three digits, the first of them 2 to 5.
        """
        with pytest.raises(ValueError, match="reply code"):
            Reply(code, "x")

    @pytest.mark.parametrize(
        "status",
        [(1000, 0), (0, 1000), (-1, 0), ("1", "1\r\n250 OK"), (None, None), (1.5, 0)],
        ids=repr,
    )
    def test_not_an_enhanced_code(self, status: Any) -> None:
        """
        Subject and detail are numbers of at most three digits (RFC 3463 §2), and no way to a second
        reply either.
        """
        with pytest.raises(ValueError, match="enhanced code"):
            Reply(550, "x", status)

    def test_longest(self) -> None:
        """
        The longest reply still fits into a line of 512 octets (RFC 5321 §4.5.3.1.5).
        """
        assert 512 >= len(Reply(550, "x" * 496, (999, 999)).wire)

    @pytest.mark.parametrize(("code", "success"), [(250, True), (252, True), (354, False)])
    def test_success(self, code: int, success: bool) -> None:
        """
        Only 2yz takes responsibility for a message.
        """
        assert success is Reply(code, "x").is_success

    @given(integers(), text(characters(codec="utf-8")), none() | tuples(integers(0), integers(0)))
    def test_one_line_or_none(self, code: int, said: str, status: tuple[int, int] | None) -> None:
        """
        A Reply that could be made is one well-formed line.
        """
        try:
            reply = Reply(code, said, status)
        except ValueError:
            return
        assert re.fullmatch(rb"[2-5]\d\d [ -~]*\r\n", reply.wire)


class TestMultilineReply:
    """
    Several lines.
    """

    def test_wire(self) -> None:
        """
        All lines but the last have a hyphen behind the code (RFC 5321 §4.2.1).
        """
        reply = MultilineReply(250, ("mx.example.org", "PIPELINING", "SIZE 10"))

        assert b"250-mx.example.org\r\n250-PIPELINING\r\n250 SIZE 10\r\n" == reply.wire
        assert reply.is_success

    def test_status_on_each_line(self) -> None:
        """
        An enhanced code stands on every line (RFC 2034 §4).
        """
        reply = MultilineReply(502, ("a", "b"), (5, 1))

        assert b"502-5.5.1 a\r\n502 5.5.1 b\r\n" == reply.wire
        assert not reply.is_success

    @pytest.mark.parametrize("lines", [(), ("a\n",), ("a", "ä")])
    def test_refused(self, lines: tuple[str, ...]) -> None:
        """
        No lines, or one that is not printable, is no reply.
        """
        with pytest.raises(ValueError):
            MultilineReply(250, lines)


class TestConstants:
    """
    Every reply that is sent of our own accord.
    """

    @each_row("reply", CONSTANTS.values(), ids=CONSTANTS)
    def test_enhanced_code(self, reply: Reply | MultilineReply) -> None:
        """
        2yz, 4yz and 5yz carry an enhanced code; 3yz must not (RFC 2034 §4).
        """
        assert (reply.code // 100 != 3) == (reply.status is not None)

    @each_row("reply", CONSTANTS.values(), ids=CONSTANTS)
    def test_it_says_something(self, reply: Reply | MultilineReply) -> None:
        """
        A client's administrator finds words in the log, not only a number.
        """
        assert len(reply.wire.split(b" ", 2)[-1].strip()) > 1


class TestNamesInReplies:
    """
    Replies that speak of somebody.
    """

    def test_greeting(self) -> None:
        """
        The greeting and the farewell start with our name (RFC 5321 §4.2).
        """
        assert replies.greeting("mx.example.org").wire.startswith(b"220 mx.example.org LMTP ")
        assert b"221 2.0.0 mx.example.org " == replies.goodbye("mx.example.org").wire[:25]

    @pytest.mark.parametrize(
        ("address", "said"),
        [
            ("ann@example.org", b"250 2.0.0 <ann@example.org> t1 Delivered\r\n"),
            ("jörg@example.org", b"250 2.0.0 t1 Delivered\r\n"),
            ("a" * 480 + "@b.example", b"250 2.0.0 t1 Delivered\r\n"),
        ],
    )
    def test_delivered(self, address: str, said: bytes) -> None:
        """
        A 250 names the recipient where a reply can, and the transaction always.
        """
        codes = (ResponseCode("MAILDATA", "x"),)

        reply = replies.delivered("t1", address, codes)

        assert said == reply.wire
        # It is made in another way than others.
        assert Reply(reply.code, reply.text, reply.status, codes) == reply
        assert hash(reply) == hash(evolve(reply))
