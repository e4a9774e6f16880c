"""
xtext, and the addresses of RFC 6533.
"""

from __future__ import annotations

import pytest

from lmtpsvc.wire.xtext import decode_utf8_address, decode_xtext, encode_utf8_address

from ..rows import each_row


class TestXtext:
    @pytest.mark.parametrize(
        ("said", "meaning"),
        [
            ("", ""),
            ("ann@example.org", "ann@example.org"),
            ("ann+2Blists@example.org", "ann+lists@example.org"),
            ("a+3Db", "a=b"),
            ("a+20b+0D+0A", "a b\r\n"),
            ("+41+42+FF", "AB\xff"),
            ("!~\\{}", "!~\\{}"),
        ],
    )
    def test_meaning(self, said: str, meaning: str) -> None:
        """
        Printable ASCII is itself; ``+`` and two digits is an octet.
        """
        assert meaning == decode_xtext(said)

    @each_row("said", ["+", "+4", "+4g", "+2b", "a=b", "a b", "ö", "a\t", "++41", "a\n"])
    def test_refused(self, said: str) -> None:
        """
        Digits are in upper case (RFC 3461 §4), and nothing else may stand there.
        """
        with pytest.raises(ValueError, match="not xtext"):
            decode_xtext(said)


class TestUtf8Address:
    @pytest.mark.parametrize(
        ("said", "meaning"),
        [
            ("ann@example.org", "ann@example.org"),
            ("jörg@bücher.example", "jörg@bücher.example"),
            (r"j\x{F6}rg@example.org", "jörg@example.org"),
            (r"ann\x{2B}lists@example.org", "ann+lists@example.org"),
            (r"\x{5C}\x{3D}\x{20}@x", "\\= @x"),
            (r"\x{1F4EE}\x{10FFFD}@x", "\U0001f4ee\U0010fffd@x"),
        ],
    )
    def test_meaning(self, said: str, meaning: str) -> None:
        r"""
        A character may stand as itself, or as ``\x{...}``.
        """
        assert meaning == decode_utf8_address(said)

    @each_row(
        "said",
        [
            "ann+2Blists@example.org",
            r"\x{}",
            r"\x{f6}",
            r"\x{D800}",
            r"\x{DFFF}",
            r"\x{110000}",
            r"\x{0000F6}",
            r"\xF6",
            "a b",
            "a=b",
            "\\",
        ],
    )
    def test_refused(self, said: str) -> None:
        """
        No xtext, no half of a character, and none that there is not.
        """
        with pytest.raises(ValueError, match=r"not a"):
            decode_utf8_address(said)

    @pytest.mark.parametrize(
        ("address", "said"),
        [
            ("ann@example.org", "ann@example.org"),
            ("jörg+a=b@bücher.example", r"j\x{F6}rg\x{2B}a\x{3D}b@b\x{FC}cher.example"),
            ("\\ \U0001f4ee", r"\x{5C}\x{20}\x{1F4EE}"),
        ],
    )
    def test_encoded(self, address: str, said: str) -> None:
        """
        The form in ASCII, which any server may read, means the same again.
        """
        assert said == encode_utf8_address(address)
        assert address == decode_utf8_address(said)
