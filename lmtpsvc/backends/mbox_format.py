"""
The format: a ``From sender date`` line, the text in mboxrd quoting, and a blank line.

Lines end with LF.  In mboxrd each line of the text that is ``From `` behind any number of ``>``
gets one more, so that the first line of a message can be told from every other, and a reader who
takes one away again has exactly what was sent.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from typing import BinaryIO, Final

from ..envelope import Sender
from .files import CHUNK

_FROM: Final = b"From "

#: Who sent mail that has no sender: a bounce, as a rule.
NOBODY: Final = "MAILER-DAEMON"

# The line is taken apart at its spaces, and ends where it ends.
_unsafe = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")

# Looked at, not taken: what is put in is then no template to be filled for each line.
_to_quote = re.compile(rb"\n(?=>*From )")


def from_line(sender: Sender, seconds: float) -> bytes:
    """
    The line that a message begins with.  The time is local, as all readers take it that find no
    zone.
    """
    address = _unsafe.sub("_", str(sender)) or NOBODY
    # Not strftime: the names of days and months are not the operator's language.
    date = time.asctime(time.localtime(seconds))
    return f"From {address} {date}\n".encode(errors="replace")


class Quoting:
    """
    Quotes a text that comes in chunks, wherever they are cut; holds four octets at most.

    The ``>`` that is added may stand before or behind those that are there, which makes no difference;
    so a line of nothing else, of whatever length, can be passed on as it comes.
    """

    def __init__(self) -> None:
        # Nothing but ">" has been seen since the beginning of the line.
        self._at_start = True
        self._held = b""

    def feed(self, octets: bytes) -> bytes:
        """
        Quote some more; what might become ``From `` is held until it is known.
        """
        octets = self._held + octets
        was_at_start = self._at_start
        line = octets.rfind(b"\n") + 1
        rest = octets[line:].lstrip(b">")
        self._at_start = (line > 0 or was_at_start) and _FROM.startswith(rest)
        self._held = b""
        if self._at_start and rest:
            # rest is not the whole word: that one is no text to come, and is quoted below.
            if rest != _FROM:
                self._held, octets = rest, octets[: -len(rest)]
            else:
                self._at_start = False
        if _FROM not in octets:
            return octets
        if was_at_start:
            return _to_quote.sub(b"\n>", b"\n" + octets)[1:]
        return _to_quote.sub(b"\n>", octets)

    def end(self) -> bytes:
        """
        Return what was held.
        """
        held, self._held = self._held, b""
        return held


def render(head: bytes, source: BinaryIO) -> Iterator[bytes]:
    """
    The octets of one message, *head* first, in large pieces; what is small is one piece.
    """
    quoting, pending = Quoting(), head
    while octets := source.read(CHUNK):
        pending += quoting.feed(octets)
        if len(pending) >= CHUNK:
            # Not the last octet: it tells how to end.
            yield pending[:-1]
            pending = pending[-1:]
    pending += quoting.end()
    yield pending + (b"\n" if pending.endswith(b"\n") else b"\n\n")


def separator(descriptor: int, size: int) -> bytes:
    """
    What must stand before the next message in a file of *size* octets, so that there is a blank
    line: nothing, if everybody has written as we do.
    """
    last = os.pread(descriptor, 3, max(0, size - 3))
    if last.endswith((b"\n\n", b"\n\r\n")) or last in {b"", b"\n", b"\r\n"}:
        return b""
    return b"\n" if last.endswith(b"\n") else b"\n\n"
