"""
Attributes that a trusted host hands on, in which anything may stand that a stranger has said.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import binary, text

from lmtpsvc import replies
from lmtpsvc.replies import Reply
from lmtpsvc.wire.attributes import (
    decode_base64,
    harmless,
    parse_attributes,
    parse_fields,
    read_host,
    read_number,
    read_port,
    read_text,
    read_token,
)
from lmtpsvc.wire.commands import CommandError

from ..rows import each_row

KNOWN = {"NAME", "ADDR", "CLIENT-TRANSPORT"}


def refusal(action: Callable[[], object]) -> Reply:
    with pytest.raises(CommandError) as caught:
        action()
    return caught.value.reply


class TestAttributes:
    @each_row(
        ("argument", "read"),
        [
            (b"NAME=mx", {"NAME": "mx"}),
            (b"name=mx  addr=::1 ", {"NAME": "mx", "ADDR": "::1"}),
            (b"NAME=a+2Bb+3Dc", {"NAME": "a+b=c"}),
            (b"NAME=+C3+B6+20+0A", {"NAME": "\xc3\xb6 \n"}),
            (b"NAME=[UNAVAILABLE] ADDR=[tempunavail]", {"NAME": None, "ADDR": None}),
            (b"NAME=+5BUNAVAILABLE+5D", {"NAME": "[UNAVAILABLE]"}),
            (b"Client-Transport=TLS", {"CLIENT-TRANSPORT": "TLS"}),
            (b"NAME=" + b"x" * 255, {"NAME": "x" * 255}),
        ],
    )
    def test_read(self, argument: bytes, read: dict[str, str | None]) -> None:
        """
        Names in any case; what is not available is told apart from a name of that spelling.
        """
        assert read == parse_attributes(argument, KNOWN)

    @each_row(
        ("argument", "reply"),
        [
            (b"", replies.BAD_ATTRIBUTE),
            (b" ", replies.BAD_ATTRIBUTE),
            (b"NAME", replies.BAD_ATTRIBUTE),
            (b"NAME=", replies.BAD_ATTRIBUTE),
            (b"=mx", replies.BAD_ATTRIBUTE),
            (b"NAME= mx", replies.BAD_ATTRIBUTE),
            (b"N\xc3ME=mx", replies.BAD_ATTRIBUTE),
            (b"1=mx", replies.BAD_ATTRIBUTE),
            (b"NAME=a=b", replies.BAD_ATTRIBUTE),
            (b"NAME=a+b", replies.BAD_ATTRIBUTE),
            (b"NAME=a+2b", replies.BAD_ATTRIBUTE),
            (b"NAME=a+2", replies.BAD_ATTRIBUTE),
            (b"NAME=a\tb", replies.BAD_ATTRIBUTE),
            (b"NAME=\xc3\xb6", replies.BAD_ATTRIBUTE),
            (b"NAME=" + b"x" * 256, replies.BAD_ATTRIBUTE),
            (b"HELO=mx", replies.UNKNOWN_ATTRIBUTE),
            (b"NAME=mx name=mx", replies.REPEATED_PARAMETER),
        ],
    )
    def test_refused(self, argument: bytes, reply: Reply) -> None:
        """
        What is no list of attributes, in xtext, is refused as a whole.
        """
        assert reply == refusal(lambda: parse_attributes(argument, KNOWN))

    @given(binary())
    def test_anything(self, argument: bytes) -> None:
        """
        No octets do anything but to be read or refused.
        """
        try:
            read = parse_attributes(argument, KNOWN)
        except CommandError:
            return
        assert set(read) <= KNOWN


class TestValues:
    @each_row(
        ("read", "value", "meaning"),
        [
            (read_host, "192.0.2.7", "192.0.2.7"),
            (read_host, "2001:DB8:0:0::1", "2001:db8::1"),
            (read_host, "IPV6:::1", "::1"),
            (read_host, "ipv6:2001:db8::1", "2001:db8::1"),
            (read_host, "IPv6:::ffff:192.0.2.7", "192.0.2.7"),
            (read_number, "0", 0),
            (read_number, "000000007", 7),
            (read_port, "65535", 65535),
            (read_text, "ann b", "ann b"),
            (read_text, "j\xc3\xb6rg", "jörg"),
            (read_token, "abc:1/+=", "abc:1/+="),
            (harmless, 'a "b"\n<c>;\x00\xff', "a??b???c????"),
            (harmless, "mx.example.org", "mx.example.org"),
            (decode_base64, "YT1iCQ==", "a=b\t"),
            (decode_base64, "", ""),
        ],
    )
    def test_read(self, read: Callable[[str], Any], value: str, meaning: object) -> None:
        """
        A value is what it is, or means.
        """
        assert meaning == read(value)

    @pytest.mark.parametrize(
        ("read", "values"),
        [
            (
                read_host,
                ["", "local", "[::1]", "IPV6:192.0.2.7", "fe80::1%eth0", "1.2.3", "mx", "1"],
            ),
            (read_number, ["", "-1", "+1", "1.0", "1 ", "٣", "1" * 10]),
            (read_port, ["0", "65536", "smtp"]),
            (read_text, ["x" * 256, "a\x00", "a\nb", "\xff", "a\xc2\x80", "\xe2\x80\xae"]),
            (read_token, ["x" * 256, "a b", "j\xf6rg", "a\n", "\x7f"]),
            (decode_base64, ["YT1iCQ", "YT1iCQ==x", "Y T1", "=", "\xff"]),
        ],
    )
    def test_refused(self, read: Callable[[str], Any], values: list[str]) -> None:
        """
        A value that is not as it should be is 501.
        """
        for value in values:
            assert replies.BAD_ATTRIBUTE == refusal(partial(read, value)), value

    @given(text())
    def test_harmless(self, value: str) -> None:
        """
        What goes into a log is printable ASCII, in one word, of the same length.
        """
        said = harmless(value)

        assert len(value) == len(said)
        assert said == "" or (said.isascii() and said.isprintable() and " " not in said)


class TestFields:
    @pytest.mark.parametrize(
        ("said", "fields"),
        [
            ("", {}),
            ("a=b", {"a": "b"}),
            ("a=b\tc=d=e\t", {"a": "b", "c": "d=e"}),
            ("flag\tx=", {"flag": "", "x": ""}),
            ("a=1\x01t2\x01n3\x01r4\x0105\x0116\x01", {"a": "1\t2\n3\r4\x005\x016"}),
            ("n=j\xc3\xb6rg", {"n": "jörg"}),
        ],
    )
    def test_read(self, said: str, fields: dict[str, str]) -> None:
        """
        Tabs part fields, and what is escaped parts nothing.
        """
        assert fields == parse_fields(said)

    @pytest.mark.parametrize("said", ["=b", "a=b\t=c", "a=\xff"])
    def test_refused(self, said: str) -> None:
        """
        A field without a name, or that is no text, is none.
        """
        assert replies.BAD_ATTRIBUTE == refusal(lambda: parse_fields(said))
