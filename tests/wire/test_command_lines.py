"""
What a client says is what it was told to say, on one line each.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import text

from lmtpsvc.envelope import Address
from lmtpsvc.wire.command_lines import (
    attribute_lines,
    hello_line,
    mail_line,
    original_recipient,
    parameter_words,
    path,
    rcpt_line,
    xtext,
)
from lmtpsvc.wire.paths import parse_rcpt

from ..rows import each_row


class TestPath:
    @pytest.mark.parametrize(
        ("address", "said"),
        [
            (None, b"<>"),
            (Address("ann", "example.org"), b"<ann@example.org>"),
            (Address("a b", "example.org"), b'<"a b"@example.org>'),
            (Address("jörg", "bücher.example"), "<jörg@bücher.example>".encode()),
            (Address("ann", "[192.0.2.1]"), b"<ann@[192.0.2.1]>"),
            (Address("postmaster", ""), b"<Postmaster>"),
            (Address("a>b", "example.org"), b'<"a>b"@example.org>'),
        ],
    )
    def test_valid(self, address: Address | None, said: bytes) -> None:
        """
        An address stands between brackets, quoted where it must be.
        """
        assert said == path(address)

    @each_row(
        "address",
        [
            Address("ann\r\nQUIT", "example.org"),
            Address("ann\n", "example.org"),
            Address("ann\0", "example.org"),
            Address("ann", "example.org>\r\nQUIT"),
            Address("ann", "example.org SIZE=1"),
            Address("ann", "example..org"),
            Address("ann", ""),
            Address("ann\u202e", "example.org"),
            Address("x" * 300, "example.org"),
            Address("x", ".".join(["label"] * 60)),
            Address("ann", "[0]"),
            Address("ann", "[2001:db8::1]"),
        ],
    )
    def test_invalid(self, address: Address) -> None:
        """
        What could end the line, or cannot be an address, is refused.
        """
        with pytest.raises(ValueError):
            path(address)

    @given(text(min_size=1, max_size=20), text(min_size=1, max_size=20))
    def test_nothing_gets_out(self, local: str, domain: str) -> None:
        """
        Whatever an address holds: it is refused, or a server reads just that address.
        """
        address = Address(local, domain)
        try:
            line = rcpt_line(address, {})
        except ValueError:
            return
        assert line.startswith(b"RCPT TO:<")
        assert line.endswith(b">\r\n")
        assert line.count(b"\n") == line.count(b"\r") == 1
        read, parameters = parse_rcpt(line[len("RCPT ") : -2])
        assert read.local == local
        assert not parameters


class TestParameters:
    @pytest.mark.parametrize(
        ("parameters", "said"),
        [
            ({}, b""),
            ({"SIZE": 1000}, b" SIZE=1000"),
            ({"SMTPUTF8": True, "BODY": "8BITMIME"}, b" SMTPUTF8 BODY=8BITMIME"),
            ({"SMTPUTF8": None, "X": False}, b" SMTPUTF8"),
            ({"NOTIFY": ("SUCCESS", "FAILURE")}, b" NOTIFY=SUCCESS,FAILURE"),
            ({"NOTIFY": frozenset({"SUCCESS", "FAILURE"})}, b" NOTIFY=FAILURE,SUCCESS"),
        ],
    )
    def test_valid(self, parameters: dict[str, Any], said: bytes) -> None:
        """
        Each stands behind a space, with its value if it has one.
        """
        assert said == parameter_words(parameters)
        assert b"MAIL FROM:<>" + said + b"\r\n" == mail_line(None, parameters)

    @pytest.mark.parametrize(
        "parameters",
        [
            {"SIZE": ""},
            {"SIZE": "1 BODY=8BITMIME"},
            {"RET": "FULL\r\nQUIT"},
            {"RET": "a=b"},
            {"R ET": "FULL"},
            {"": "FULL"},
            {"NOTIFY": ()},
        ],
    )
    def test_invalid(self, parameters: dict[str, Any]) -> None:
        """
        What could be read as something else is refused.
        """
        with pytest.raises(ValueError):
            parameter_words(parameters)


class TestXtext:
    @pytest.mark.parametrize(
        ("plain", "said"),
        [
            ("", ""),
            ("QQ314159", "QQ314159"),
            ("a+b=c d", "a+2Bb+3Dc+20d"),
            ("ü", "+C3+BC"),
            ("\r\n", "+0D+0A"),
        ],
    )
    def test_encoding(self, plain: str, said: str) -> None:
        """
        RFC 3461 §4: what is no xchar becomes a plus and two digits.
        """
        assert said == xtext(plain)


class TestOriginalRecipient:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("rfc822;ann+x@example.org", "rfc822;ann+2Bx@example.org"),
            ("utf-8;jörg+x@example.org", r"utf-8;j\x{F6}rg\x{2B}x@example.org"),
            ("utf-8;a\\b c", r"utf-8;a\x{5C}b\x{20}c"),
        ],
    )
    def test_encoding(self, text: str, said: str) -> None:
        """
        As the type asks for, and nothing that could end the parameter.
        """
        assert said == original_recipient(text)

    @pytest.mark.parametrize("text", ["", "ann@example.org", ";x"])
    def test_invalid(self, text: str) -> None:
        """
        An address without its type means nothing.
        """
        with pytest.raises(ValueError):
            original_recipient(text)


class TestAttributes:
    def test_only_what_is_known(self) -> None:
        """
        The server hears only of what it has listed, in xtext.
        """
        said = attribute_lines(
            "XCLIENT",
            {"addr": "192.0.2.1", "NAME": None, "LOGIN": "a b=c", "SECRET": "x"},
            ["ADDR", "NAME", "LOGIN"],
        )

        assert list(said) == [b"XCLIENT ADDR=192.0.2.1 NAME=[UNAVAILABLE] LOGIN=a+20b+3Dc\r\n"]

    def test_ipv6(self) -> None:
        """
        An IPv6 address has its tag, once.
        """
        for address in ("2001:db8::1", "IPV6:2001:db8::1"):
            [line] = attribute_lines("XFORWARD", {"ADDR": address}, ["ADDR"])
            assert line == b"XFORWARD ADDR=IPV6:2001:db8::1\r\n"

    def test_long(self) -> None:
        """
        What does not fit on a line goes on another.
        """
        names = [f"A{n}" for n in range(10)]

        lines = list(attribute_lines("XCLIENT", dict.fromkeys(names, "x" * 100), names))

        assert len(lines) == 3
        assert all(line.startswith(b"XCLIENT A") and len(line) <= 512 for line in lines)

    def test_nothing(self) -> None:
        """
        No attribute, no line.
        """
        assert list(attribute_lines("XCLIENT", {"ADDR": "::1"}, [])) == []


class TestHello:
    @pytest.mark.parametrize("name", ["foo.edu", "localhost", "[192.0.2.1]", "[IPv6:::1]"])
    def test_valid(self, name: str) -> None:
        """
        A domain or an address literal.
        """
        assert hello_line("LHLO", name) == f"LHLO {name}\r\n".encode()

    @pytest.mark.parametrize("name", ["", "foo edu", "foo\r\nQUIT", "jörg.example", "[foo]"])
    def test_invalid(self, name: str) -> None:
        """
        What is neither domain nor address literal cannot be said.
        """
        with pytest.raises(ValueError):
            hello_line("LHLO", name)
