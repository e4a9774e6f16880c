"""
The headers of a message, whoever wrote them.
"""

from __future__ import annotations

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis.strategies import binary, sampled_from

from lmtpsvc.headers import MOST, MOST_OF_ONE, read_headers


def test_decoded() -> None:
    """
    Encoded words are text, folded lines are one, and what is not there is None.
    """
    headers = read_headers(
        BytesIO(
            b"Received: a\r\nReceived: b\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n to all\r\n"
            b"From: Ann <ann@example.org>\r\n\r\nSubject: body\r\n"
        )
    )

    assert "Grüße to all" == headers["subject"]
    assert ["a", "b"] == headers.get_all("Received")
    assert "ann@example.org" == headers["From"].addresses[0].addr_spec
    assert headers["To"] is None


def test_utf8() -> None:
    """
    What SMTPUTF8 allows is text too (RFC 6532 §3), and what is not UTF-8 is a replacement.
    """
    headers = read_headers(BytesIO("Subject: Grüße\n".encode() + b"X-Old: gr\xfc\xdfe\n\nbody"))

    assert "Grüße" == headers["Subject"]
    headers["X-Old"].encode()
    assert headers["X-Old"].startswith("gr")


@pytest.mark.parametrize("text", [b"", b"\r\n", b"\n\n", b"\r\nSubject: body\r\n", b"body"])
def test_none(text: bytes) -> None:
    """
    A message may have no headers at all.
    """
    assert [] == read_headers(BytesIO(text)).keys()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Message-ID", "<"),
        ("Message-ID", "<a@"),
        ("To", "(" * 1000),
        ("To", "(" * (MOST_OF_ONE + 1)),
        ("Subject", "x" * (MOST_OF_ONE + 1)),
    ],
)
def test_malformed(name: str, value: str) -> None:
    """
    What Python's parsers choke on, or would for too long, is the text that it is.
    """
    headers = read_headers(BytesIO(f"{name}: {value}\r\n\r\n".encode()))

    assert value == headers[name]


def test_bounded() -> None:
    """
    Of endless headers only so much is read, and no half line.
    """
    file = BytesIO(b"X-Number: 123456789\r\n" * 10_000)

    values = read_headers(file).get_all("X-Number", [])

    assert MOST == file.tell()
    assert {"123456789"} == set(values)


@given(
    sampled_from([b"Subject", b"To", b"Date", b"Message-ID", b"Content-Type", b"MIME-Version"]),
    binary(max_size=60),
)
def test_anything(name: bytes, value: bytes) -> None:
    """
    Nothing that a client can write makes reading fail, or gives text that cannot be stored.
    """
    headers = read_headers(BytesIO(name + b": " + value + b"\r\n\r\n"))

    for said in headers.values():
        str(said).encode()
