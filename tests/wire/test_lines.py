"""
Command lines, and what LHLO says.
"""

from __future__ import annotations

import pytest

from lmtpsvc.replies import BAD_HELLO, LINE_ENDING
from lmtpsvc.wire.commands import CommandError
from lmtpsvc.wire.lines import parse_hello, split_verb

from ..rows import each_row


class TestSplitVerb:
    """
    The first thing done to a line.
    """

    @each_row(
        ("line", "verb", "argument"),
        [
            (b"QUIT", b"QUIT", b""),
            (b"quit", b"QUIT", b""),
            (b"Quit \t ", b"QUIT", b""),
            (b"lhlo mx.Example.org", b"LHLO", b"mx.Example.org"),
            (b"MAIL  FROM:<a@b> SIZE=1  ", b"MAIL", b"FROM:<a@b> SIZE=1"),
            (b"", b"", b""),
            (b" QUIT", b"", b"QUIT"),
            (b"MAIL\tFROM:<>", b"MAIL\tFROM:<>", b""),
            (b"n\xf6\xf6p \xff", b"N\xf6\xf6P", b"\xff"),
        ],
    )
    def test_verb(self, line: bytes, verb: bytes, argument: bytes) -> None:
        """
        A verb may be in any case, and white space around its argument does not matter.
        """
        assert (verb, argument) == split_verb(line)

    @pytest.mark.parametrize("line", [b"NOOP\n", b"NOOP\rQUIT", b"NO\0OP", b"\nQUIT", b"NOOP \0"])
    def test_stray_line_ending(self, line: bytes) -> None:
        """
        A line with another line hidden in it is no command at all.
        """
        with pytest.raises(CommandError) as caught:
            split_verb(line)

        assert LINE_ENDING == caught.value.reply


class TestParseHello:
    """
    The name that a client gives itself.
    """

    @each_row(
        ("argument", "name"),
        [
            (b"localhost", "localhost"),
            (b"mx-1.Example.org", "mx-1.Example.org"),
            (b"mx.example.org.", "mx.example.org"),
            (b"_gateway", "_gateway"),
            (b"my_host.local", "my_host.local"),
            (b"xn--bcher-kva.example", "xn--bcher-kva.example"),
            (b"192.0.2.1", "192.0.2.1"),
            (b"[192.0.2.1]", "[192.0.2.1]"),
            (b"[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"),
            (b"[ipv6:::ffff:192.0.2.1]", "[ipv6:::ffff:192.0.2.1]"),
            (b"a" * 255, "a" * 255),
        ],
    )
    def test_name(self, argument: bytes, name: str) -> None:
        """
        A domain or an IP address literal is taken as it is written.
        """
        assert name == parse_hello(argument)

    @each_row(
        "argument",
        [
            b"",
            b".",
            b"a b",
            b"a..b",
            b".a",
            b"-a",
            b"a-",
            b"a-.b",
            b"a..",
            b"a(b)",
            b'"a"',
            b"a\\b",
            b"a;b",
            b"<a>",
            b"a@b",
            b"a\tb",
            b"a\n",
            b"a\x7f",
            "bücher.example".encode(),
            b"a\xff",
            b"[",
            b"[]",
            b"[192.0.2.1",
            b"[192.0.2.256]",
            b"[192.0.2.1]]",
            b"[192.0.2.1] x",
            b"[2001:db8::1]",
            b"[IPv6:]",
            b"[IPv6:2001:db8::1%eth0]",
            b"[IPv6:1::2::3]",
            b"[tag:(comment)]",
            b"a" * 256,
        ],
    )
    def test_garbage(self, argument: bytes) -> None:
        """
        What could mean something else in a Received header is refused.
        """
        with pytest.raises(CommandError) as caught:
            parse_hello(argument)

        assert BAD_HELLO == caught.value.reply
