from __future__ import annotations

import pytest

from benchmarks.text import Text, identity, text_of

from ..rows import each_row


@each_row("octets", [600, 601, 1024, 4096, 4097, 4098, 4175, 1 << 20])
def test_size(octets: int) -> None:
    """
    A message has as many octets as was asked for; one dot and the end come on its way.
    """
    text = Text(octets)

    sent = text.header(1) + bytes(text.body)

    assert len(sent) == octets + 1 + 3
    assert sent.endswith(b"\r\n.\r\n")
    assert b"\n" not in sent.replace(b"\r\n", b"")
    assert all(len(line) < 1000 for line in sent.split(b"\r\n"))


def test_too_small() -> None:
    """
    There is a size below which a message says nothing.
    """
    with pytest.raises(ValueError, match=r"a message needs \d+ octets, not 100"):
        Text(100)


def as_stored(octets: int) -> bytes:
    text = text_of(octets)
    received = text.header(7) + bytes(text.body[:-3])
    return b"Return-Path: <a@bench.example>\n" + received.replace(b"\r\n.", b"\r\n").replace(
        b"\r\n", b"\n"
    )


def test_identity() -> None:
    """
    A message that was stored says which one it is, and how large.
    """
    assert identity(as_stored(4096)) == (7, 4096)
    assert identity(b"Subject: other mail\n\nText\n") is None


def test_whole() -> None:
    """
    It is known whether all of it is there, whatever stands above and however lines end.
    """
    stored = as_stored(4096)
    text = text_of(4096)

    assert text.is_end_of(stored)
    assert text.is_end_of(stored.replace(b"\n", b"\r\n"))
    assert not text.is_end_of(stored[:-1])
    assert not text.is_end_of(stored + b"\n")
    assert not text.is_end_of(stored.replace(b"A line", b".A line"))
    assert not text_of(4097).is_end_of(stored)
