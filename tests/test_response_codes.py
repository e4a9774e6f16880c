"""
What replies tell programs.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis.strategies import builds, from_regex, lists, sampled_from, text

from lmtpsvc.errors import PermanentFailure, TemporaryFailure, refusal
from lmtpsvc.replies import Reply, delivered
from lmtpsvc.response_codes import ResponseCode, read, write

from .rows import each_row

PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))

codes = builds(
    ResponseCode,
    from_regex(r"[A-Z][A-Z0-9-]{0,9}", fullmatch=True),
    text(sampled_from(PRINTABLE), max_size=40),
)


class TestCode:
    @pytest.mark.parametrize(
        ("code", "written"),
        [
            (ResponseCode("SAVED"), "[SAVED]"),
            (ResponseCode("REFERRAL", "lmtp://node2/"), "[REFERRAL lmtp://node2/]"),
            (ResponseCode("REFERRAL", "lmtp://[::1]:24/"), '[REFERRAL "lmtp://[::1]:24/"]'),
            (ResponseCode("X", "a b"), '[X "a b"]'),
            (ResponseCode("X", 'a"b\\'), '[X "a\\"b\\\\"]'),
            (ResponseCode("X", "] 250 OK"), '[X "] 250 OK"]'),
        ],
    )
    def test_written(self, code: ResponseCode, written: str) -> None:
        """
        A value is quoted where it must be, and cannot end its code early.
        """
        assert written == str(code)
        assert ((code,), "Text") == read(f"{written} Text")

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("", ""),
            ("lower", ""),
            ("A B", ""),
            ("A]", ""),
            ("A", "x\r\n250 OK"),
            ("A", "ä"),
            ("A", "\0"),
        ],
    )
    def test_refused(self, name: str, value: str) -> None:
        """
        What could end the reply, or is no text, is a mistake of its author.
        """
        with pytest.raises(ValueError, match="not "):
            ResponseCode(name, value)


class TestText:
    @each_row(
        ("said", "found"),
        [
            ("Saved", ((), "Saved")),
            ("[A] Saved", ((ResponseCode("A"),), "Saved")),
            ("[A x] [B] Saved", ((ResponseCode("A", "x"), ResponseCode("B")), "Saved")),
            (
                "<ann@example.org> [A x] Saved",
                ((ResponseCode("A", "x"),), "<ann@example.org> Saved"),
            ),
            ("[A x]", ((ResponseCode("A", "x"),), "")),
            ("[not a code] Saved", ((), "[not a code] Saved")),
            ("[192.0.2.1] Saved", ((), "[192.0.2.1] Saved")),
            ("[A x]y", ((), "[A x]y")),
            ('[A "x] y', ((), '[A "x] y')),
            ("Saved [A x]", ((), "Saved [A x]")),
            ("", ((), "")),
        ],
    )
    def test_read(self, said: str, found: tuple[object, str]) -> None:
        """
        Codes stand in front, behind an address if there is one; all else is text.
        """
        assert found == read(said)

    @given(lists(codes, max_size=3), sampled_from(["OK", "<ann@example.org> OK", "<a@b>"]))
    def test_there_and_back(self, said: list[ResponseCode], words: str) -> None:
        """
        What is written is read.
        """
        written = write(said, words, 500)

        assert tuple(said) == read(written)[0]
        assert words == read(written)[1].strip()
        Reply(250, written)

    def test_too_long(self) -> None:
        """
        A code that does not fit is left out, and the others are there.
        """
        said = [ResponseCode("A", "x" * 500), ResponseCode("B")]

        assert "<a@b> [B] OK" == write(said, "<a@b> OK", 496)


class TestReplies:
    def test_for_who_asked(self) -> None:
        """
        Only then the codes are said.
        """
        reply = delivered("id", "ann@example.org", (ResponseCode("MAILDATA", "abc"),))

        assert b"250 2.0.0 <ann@example.org> id Delivered\r\n" == reply.wire
        assert (
            b"250 2.0.0 <ann@example.org> [MAILDATA abc] id Delivered\r\n"
            == reply.with_codes().wire
        )
        plain = Reply(250, "OK")
        assert plain is plain.with_codes()

    @pytest.mark.parametrize("kind", [TemporaryFailure, PermanentFailure])
    def test_failures(self, kind: type[TemporaryFailure | PermanentFailure]) -> None:
        """
        A failure may carry some, and keeps them.
        """
        there = ResponseCode("REFERRAL", "lmtp://node2/")

        reply = kind("Redirected", (4, 4), codes=[there]).reply

        assert (there,) == reply.codes == refusal(reply).reply.codes
        assert f"{reply.code} {reply.code // 100}.4.4 Redirected" == str(reply)
