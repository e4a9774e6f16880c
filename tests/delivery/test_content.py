"""
A message to read, wherever its octets are.
"""

from __future__ import annotations

import gc
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lmtpsvc.delivery.content import Content, FileContent, MemoryContent, PrefixedContent
from lmtpsvc.delivery.line_endings import sizes_of
from lmtpsvc.delivery.spool_file import SpoolFile, SpoolText
from lmtpsvc.interfaces import LineEnding

HEAD = b"Return-Path: <>\r\n"
# What is bare cannot be known any more in a file with LF, see test_bare.
TEXT = b"Subject: x\r\n\r\n" + b"line\r\n" * 30_000 + b"no end\r"
PREFIX = b"Delivered-To: ann@example.org\r\n"


def spooled(directory: Path, line_ending: LineEnding, text: bytes = TEXT) -> FileContent:
    file, spooled_text = (
        SpoolFile(str(directory), line_ending, len(HEAD)),
        SpoolText(line_ending, 0),
    )
    for octets in (HEAD, text):
        spooled_text.feed(octets)
    spooled_text.end()
    file.append(spooled_text.take())
    return file.end(spooled_text.sizes)


MAKERS: dict[str, Callable[[Path], Content]] = {
    "memory": lambda _: MemoryContent(HEAD, [TEXT]),
    "file with LF": lambda directory: spooled(directory, "\n"),
    "file with CRLF": lambda directory: spooled(directory, "\r\n"),
}


@pytest.mark.parametrize("line_ending", ["\r\n", "\n"])
@pytest.mark.parametrize("prefixed", [False, True], ids=["shared", "with a header of its own"])
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
class TestForms:
    """
    Each kind of content, in each form.
    """

    @pytest.fixture
    def content(self, make: Callable[[Path], Content], prefixed: bool, tmp_path: Path) -> Content:
        content = make(tmp_path)
        return PrefixedContent(PREFIX, content) if prefixed else content

    @pytest.fixture
    def expected(self, prefixed: bool, line_ending: LineEnding) -> bytes:
        octets = (PREFIX if prefixed else b"") + HEAD + TEXT
        return octets if line_ending == "\r\n" else octets.replace(b"\r\n", b"\n")

    def test_open(self, content: Content, expected: bytes, line_ending: LineEnding) -> None:
        """
        All of it is read, at once or in pieces, as often as one likes.
        """
        with content.open(line_ending) as whole, content.open(line_ending) as pieces:
            read = b"".join(iter(lambda: pieces.read(7919), b""))
            assert expected == read
            assert expected == whole.read()
            assert b"" == whole.read()

    def test_sizes(self, content: Content, expected: bytes, line_ending: LineEnding) -> None:
        """
        The sizes are those of what is read, however often they are asked for.
        """
        assert sizes_of(expected) == content.sizes(line_ending) == content.sizes(line_ending)

    def test_digest(self, content: Content, line_ending: LineEnding) -> None:
        """
        The digest is that of the text as it was sent, whatever stands above it.
        """
        assert hashlib.sha256(TEXT).hexdigest() == content.digest


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        (b"a\rb\nc\r\n", b"a\rb\nc\n"),
        (b"a\r\r\nb\n\r\n", b"a\r\nb\n\n"),
        (b"\n.\n\r", b"\n.\n\r"),
    ],
)
def test_bare(stored: bytes, read: bytes, tmp_path: Path) -> None:
    """
    A bare CR or LF stays what it is when CRLF becomes LF.
    """
    for content in (
        MemoryContent(b"", [stored]),
        PrefixedContent(b"", MemoryContent(b"", [stored])),
    ):
        with content.open("\n") as with_lf, content.open("\r\n") as with_crlf:
            assert (read, stored) == (with_lf.read(), with_crlf.read())
    for line_ending in ("\n", "\r\n"):
        file = spooled(tmp_path, line_ending, stored)
        with file.open("\n") as with_lf:
            assert HEAD.replace(b"\r\n", b"\n") + read == with_lf.read()


def test_only_a_file_has_a_path(tmp_path: Path) -> None:
    """
    What can be linked is the spooled file itself, and no message that differs from it.
    """
    file = spooled(tmp_path, "\n")
    assert file.path is not None

    # Only linkat(2) follows a link, and os.link calls that where it is given a descriptor.
    os.link(file.path, tmp_path / "mail", src_dir_fd=0, follow_symlinks=True)

    assert (HEAD + TEXT).replace(b"\r\n", b"\n") == (tmp_path / "mail").read_bytes()
    assert PrefixedContent(PREFIX, file).path is None
    assert MemoryContent(HEAD, [TEXT]).path is None


def test_file_goes_with_its_last_reader(tmp_path: Path) -> None:
    """
    The descriptor of a spooled file is closed when nobody has the message any more.
    """
    file = spooled(tmp_path, "\n")
    assert file.path is not None
    fd = int(file.path.rpartition("/")[2])
    message = PrefixedContent(PREFIX, file)

    del file
    gc.collect()
    os.fstat(fd)
    del message
    gc.collect()

    with pytest.raises(OSError):
        os.fstat(fd)
    assert [] == list(tmp_path.iterdir())


def test_half_read_is_closed(tmp_path: Path) -> None:
    """
    Whoever stops in the middle leaves no open file behind.
    """
    message = PrefixedContent(PREFIX, spooled(tmp_path, "\n"))
    before = len(os.listdir("/proc/self/fd"))

    for line_ending in ("\r\n", "\n"):
        with message.open(line_ending) as file:
            file.read(10)

    assert before == len(os.listdir("/proc/self/fd"))
