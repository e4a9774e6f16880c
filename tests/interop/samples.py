"""
Mail to send: from CPython's own tests, from SpamAssassin, and made up where nature is too kind.

All texts are as they go over the wire, lines ending with CRLF, before dots are doubled.
"""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path
from typing import Final

from attrs import field, frozen

MIB: Final = 1024 * 1024
_spamassassin: Final = Path("/usr/share/doc/spamassassin/examples")
_head: Final = b"From: Ann <ann@example.net>\r\nSubject: made up\r\n\r\n"


@frozen
class Sample:
    """
    A message and what it is called.
    """

    name: str
    text: bytes = field(repr=False)


def cpython() -> list[Sample]:
    """
    The sample messages of CPython's email tests; none where Python comes without its tests.
    """
    try:
        spec = importlib.util.find_spec("test.test_email")
    except ModuleNotFoundError:
        return []
    if spec is None or spec.origin is None:
        return []
    return [_sample(path) for path in sorted(Path(spec.origin).parent.glob("data/msg_*.txt"))]


def spamassassin() -> list[Sample]:
    """
    The sample messages of Debian's spamassassin package; none where it is not installed.
    """
    return [_sample(path) for path in sorted(_spamassassin.glob("sample-*.txt"))]


def made_up() -> list[Sample]:
    """
    Messages that a mail system passes on as they are, if it passes on what RFC 5321 allows; and
    lines longer than that.
    """
    noise = random.Random(2033)
    letters = bytes(noise.choices(b"abcdefghijklmnopqrstuvwxyz     ", k=100 * 1024))
    line = bytes(noise.choices(bytes(range(32, 256)), k=766)) + b"\r\n"
    return [
        Sample("8-bit", _head + bytes(range(128, 256)) * 7 + "\r\nÄpfel, 你好\r\n".encode()),
        Sample("100 KB lines", _head + (letters + b"\r\n") * 3),
        Sample("30 MB", _head + line * (30 * MIB // len(line))),
        Sample("empty body", _head),
        Sample("no line after the header", _head.removesuffix(b"\r\n")),
        Sample("dots", _head + b".\r\n..\r\n...\r\n.dot\r\n \r\n.\r\n\r\n.\r\n"),
        Sample("looks like mbox", _head + b"From here on\r\n>From there\r\n"),
    ]


def hostile() -> list[Sample]:
    """
    What only a client with no manners sends, and a text that only CRLF . CRLF ends must keep.
    """
    ends = [
        b"\n.\n", b"\n.\r", b"\r.\n", b"\r.\r", b"\n.\r\n", b"\r.\r\n",
        b"\r\n\0.\r\n", b"\r\n.\r\r\n", b"\r\r\n.\r\r\n", b"\n.\0\n", b"\r\n.\0\r\n",
    ]  # fmt: skip
    smuggled = b"MAIL FROM:<evil@example.net>\r\nRCPT TO:<bob@example.test>\r\nDATA\r\n"
    return [
        Sample("nothing", b""),
        Sample("a lone line ending", b"\r\n"),
        Sample("bare LF", _head + b"one\ntwo\n\nthree\r\n"),
        Sample("bare LF header", _head.replace(b"\r\n", b"\n") + b"body\r\n"),
        Sample("bare CR", _head + b"one\rtwo\r\rthree\r\n"),
        Sample("CR CR LF", _head + b"one\r\r\ntwo\r\r\r\n"),
        Sample("NUL", _head + b"one\0two\r\n\0\r\n"),
        *(Sample(f"ends with {end!r}?", _head + b"one" + end + smuggled) for end in ends),
    ]


def _sample(path: Path) -> Sample:
    text = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    return Sample(path.name, text if text.endswith(b"\r\n") else text + b"\r\n")
