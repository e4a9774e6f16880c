"""
7-bit MIME: everything reads as before, and what needs no change has none.
"""

from __future__ import annotations

import io
from email import message_from_bytes
from email.message import Message
from email.policy import compat32
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmtpsvc.relay.seven_bit import CannotConvert, seven_bit

from ..rows import each_row

UMLAUTS = "Grüße aus Köln, und sonst ist hier nichts weiter Besonderes.\r\n".encode()
RUSSIAN = "Всё смешалось в доме Облонских.\r\n".encode() * 20


def convert(text: bytes) -> bytes:
    with seven_bit(io.BytesIO(text)) as out:
        converted = out.read()
    assert converted.isascii()
    assert b"\0" not in converted
    assert b"\n" not in converted.replace(b"\r\n", b"")
    assert max(map(len, converted.split(b"\r\n"))) <= 998
    return converted


def parsed(text: bytes) -> Message:
    return message_from_bytes(text, policy=compat32)


def leaves(message: Message) -> list[tuple[str, Any]]:
    """
    What a reader sees: the type of each part, and its content, decoded.
    """
    if message.is_multipart():
        return [leaf for part in message.get_payload() for leaf in leaves(part)]  # type: ignore[arg-type]
    return [(message.get_content_type(), message.get_payload(decode=True))]


def mail(fields: str, body: bytes) -> bytes:
    return fields.replace("\n", "\r\n").encode() + b"\r\n" + body


PARTS = (
    b"Preamble\r\n--b1\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Transfer-Encoding: 8bit\r\n\r\n" + UMLAUTS + b"\r\n--b1\r\n"
    b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\naGVsbG8=\r\n\r\n"
    b"--b1\r\n\r\nPlain\r\n\r\n--b1--\r\nEpilogue\r\n"
)
MIXED = mail(
    "Subject: x\nMIME-Version: 1.0\nContent-Transfer-Encoding: 8bit\n"
    'Content-Type: multipart/mixed;\n\tboundary="b1"\n',
    PARTS,
)


class TestOnePart:
    def test_text(self) -> None:
        """
        A text with a few umlauts is quoted-printable; its other headers are as they were.
        """
        head = "Subject: x\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n"
        converted = convert(mail(head + "Content-Transfer-Encoding: 8bit\n", UMLAUTS))

        assert converted.startswith(
            head.replace("\n", "\r\n").encode()
            + b"Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe aus"
        )
        assert parsed(converted).get_payload(decode=True) == UMLAUTS

    def test_mostly_not_ascii(self) -> None:
        """
        A text in another script is base64.
        """
        converted = convert(mail("MIME-Version: 1.0\nContent-Type: text/plain\n", RUSSIAN))

        assert parsed(converted)["Content-Transfer-Encoding"] == "base64"
        assert parsed(converted).get_payload(decode=True) == RUSSIAN

    def test_binary(self) -> None:
        """
        What is no text is base64, to the octet.
        """
        octets = bytes(range(256)) * 700
        converted = convert(
            mail(
                "MIME-Version: 1.0\nContent-Type: image/png\nContent-Transfer-Encoding: binary\n",
                octets,
            )
        )
        assert parsed(converted).get_payload(decode=True) == octets

    def test_no_mime(self) -> None:
        """
        A message from before MIME becomes one, in a charset that nobody knows.
        """
        said = parsed(convert(mail("Subject: x\n", UMLAUTS)))

        assert said["MIME-Version"] == "1.0"
        assert said.get_content_charset() == "unknown-8bit"
        assert said.get_payload(decode=True) == UMLAUTS

    def test_no_headers(self) -> None:
        """
        Even one that is nothing but a body.
        """
        said = parsed(convert(b"\r\n" + UMLAUTS))
        assert said.get_payload(decode=True) == UMLAUTS

    @pytest.mark.parametrize(
        "text", [b"", b"Subject: x\r\n\r\nHello\r\n", MIXED.replace(UMLAUTS, b"Hello\r\n")]
    )
    def test_ascii(self, text: bytes) -> None:
        """
        What is 7-bit stays as it is.
        """
        assert convert(text) == text

    @given(
        st.lists(
            st.sampled_from(
                [b"\r\n", b"\n", b"\r", b" ", b".", b"=", b"ab", b"\xfc", b"\0", b"x" * 1500]
            )
        )
    )
    def test_any_text(self, pieces: list[bytes]) -> None:
        """
        Whatever it is, it can be read back.
        """
        body = b"".join(pieces) + b"\xe4"
        for kind in ("text/plain", "application/x"):
            text = mail(f"MIME-Version: 1.0\nContent-Type: {kind}\n", body)
            assert parsed(convert(text)).get_payload(decode=True) == body

    def test_long_line(self) -> None:
        """
        A line that is longer than what is read at a time.
        """
        body = ("ä" + "x" * 400_001 + " \r\n").encode()
        text = mail("MIME-Version: 1.0\nContent-Type: text/plain\n", body)
        assert parsed(convert(text)).get_payload(decode=True) == body


class TestParts:
    def test_mixed(self) -> None:
        """
        Only the part that has to change does.
        """
        converted = convert(MIXED)

        assert leaves(parsed(converted)) == leaves(parsed(MIXED))
        assert parsed(converted)["Content-Transfer-Encoding"] == "7bit"
        before, _, rest = MIXED.partition(b"--b1\r\n")
        assert b"Preamble\r\n--b1\r\n" in converted
        assert converted.endswith(rest[rest.index(b"\r\n--b1\r\nContent-Type: image") :])
        assert before

    def test_nested(self) -> None:
        """
        Messages in parts in messages.
        """
        inner = b"Content-Type: message/rfc822\r\n\r\n" + MIXED.replace(b"b1", b"b2")
        text = MIXED.replace(
            b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\naGVsbG8=\r\n",
            inner,
        )
        converted = convert(text)

        assert leaves(parsed(converted)) == leaves(parsed(text))
        assert len(leaves(parsed(converted))) == 5

    def test_old_message(self) -> None:
        """
        A message from before MIME within another one becomes one of MIME, too.
        """
        head = "MIME-Version: 1.0\nContent-Type: message/rfc822\n"
        said = parsed(convert(mail(head, mail("Subject: y\n", UMLAUTS))))
        inner = next(part for part in said.walk() if part["Subject"] == "y")

        assert inner["MIME-Version"] == "1.0"
        assert inner.get_payload(decode=True) == UMLAUTS

    @each_row("cut", range(len(MIXED) - len(PARTS), len(MIXED), 3))
    def test_cut(self, cut: int) -> None:
        """
        A message that was cut off anywhere is converted, or refused, and never loses anything.
        """
        text = MIXED[:cut] + b"\r\n\xfc\r\n"
        try:
            converted = convert(text)
        except CannotConvert:
            return
        before, after = leaves(parsed(text)), leaves(parsed(converted))
        assert [kind for kind, _ in before] == [kind for kind, _ in after]

    def test_around(self) -> None:
        """
        What stands around the parts is read by nobody.
        """
        assert b"Pr?amble" in convert(MIXED.replace(b"Preamble", b"Pr\xe4amble"))


@each_row(
    "text",
    [
        MIXED.replace(b"multipart/mixed", b"multipart/signed"),
        MIXED.replace(b"multipart/mixed", b"multipart/encrypted"),
        MIXED.replace(b'boundary="b1"', b"x=y"),
        MIXED.replace(b"Subject: x", b"Subject: \xfc"),
        MIXED.replace(b"aGVsbG8=", b"\xfc"),
        MIXED.replace(
            b"image/png\r\nContent-Transfer-Encoding: base64", b"message/partial"
        ).replace(b"aGVsbG8=", b"\xfc"),
        mail("Content-Transfer-Encoding: x-uuencode\n", UMLAUTS),
        b"".join(
            b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n)
            for n in range(50)
        )
        + b"\r\n\xfc\r\n",
        b"X: " + b"x" * (1 << 20) + b"\r\n\r\n\xfc",
    ],
)
def test_cannot(text: bytes) -> None:
    """
    What must not or cannot be changed says so, in one line of ASCII.
    """
    with pytest.raises(CannotConvert) as raised:
        convert(text)
    assert str(raised.value).isascii()
    assert "\n" not in str(raised.value)


def test_signed_in_ascii() -> None:
    """
    A signed part that is ASCII stays to the octet, beside one that is converted.
    """
    signed = (
        b"Content-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n\r\nSigned\r\n--s\r\n"
        b"Content-Type: application/pgp-signature\r\n\r\nxx\r\n--s--\r\n"
    )
    text = MIXED.replace(b"\r\nPlain\r\n", signed)
    assert signed in convert(text)
