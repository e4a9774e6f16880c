"""
The text of a message on its way through DATA (RFC 5321 §4.1.1.4, §4.5.2).

Only CRLF . CRLF ends the text.  A bare CR or LF is data, as is NUL: whoever takes ``LF . LF`` for
the end takes the rest of the message for commands that its sender never gave.

All work is done by a few searches through a whole chunk, and none by line.
"""

from __future__ import annotations

import re

_CRLF = b"\r\n"
_STUFFED = b"\r\n."
_END = b"\r\n.\r\n"

# What a chunk may end with that has to wait for the next one, the longest first.
_UNDECIDED = (b"\r\n.\r", b"\r\n.", b"\r\n", b"\r")


# A chunk of which the search by dots is tried, in octets; what one dot too many may cost, in octets
# of the search that looks at all of them; and how many dots are taken out one by one.
_LARGE = 8192
_PRICE = 512
_FEW = 32


class TextDecoder:
    """
    Undoes dot-stuffing and finds the end of one text.
    """

    __slots__ = ("_held", "_started")

    def __init__(self) -> None:
        # The line that said DATA ended with a CRLF, and with it the end may begin
        # (RFC 5321 §4.1.1.4).  It is not part of the text.
        self._held = _CRLF
        self._started = False

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """
        Return the text so far decoded and, at the end, the octets that follow it, else None.

        At most four octets are held back.  After the end there is nothing more to feed.
        """
        if not self._started and self._held == _CRLF and data and not data.startswith(b"."):
            # The end does not begin with that CRLF: the usual text is not copied for its sake.
            self._started, self._held = True, b""
        buffer = self._held + data if self._held else data
        dots: list[int] = []
        dot = _find_stuffed(buffer, 0)
        while dot >= 0 and not buffer.startswith(_END, dot) and len(dots) < _FEW:
            dots.append(dot)
            dot = _find_stuffed(buffer, dot + 3)
        # With very many dots, what is left is searched as a whole.
        are_many = len(dots) == _FEW
        end = buffer.find(_END, dot) if are_many and dot >= 0 else dot
        rest: bytes | None = None
        if end >= 0:
            # The CRLF in front of the dot belongs to the text.
            size, rest = end + 2, buffer[end + 5 :]
            self._held = b""
        elif buffer.endswith(_UNDECIDED):
            self._held = next(held for held in _UNDECIDED if buffer.endswith(held))
            size = len(buffer) - len(self._held)
        else:
            size, self._held = len(buffer), b""
        start = 0 if self._started else 2
        if size > 0:
            self._started = True
        if are_many:
            return buffer[:size].replace(_STUFFED, _CRLF)[start:], rest
        if not dots:
            return buffer[start:size], rest
        return _without(buffer, dots, start, size), rest


def _find_stuffed(buffer: bytes, start: int) -> int:
    """
    Where from *start* on a line begins with a dot, -1 if none does: what ``find`` says.

    To find one octet is twenty times as quick as to find three, and most of what is large has
    hardly any dots: no line of Base64 has one.
    """
    at = start + 2
    if len(buffer) - start < _LARGE:
        return buffer.find(_STUFFED, start)
    spent = start
    while (dot := buffer.find(b".", at)) >= 0:
        if buffer.startswith(_STUFFED, dot - 2):
            return dot - 2
        at = dot + 1
        spent += _PRICE
        if spent > at + _LARGE:
            return buffer.find(_STUFFED, at - 2)
    return -1


def _without(buffer: bytes, dots: list[int], start: int, size: int) -> bytes:
    """
    What is between *start* and *size*, without the dots behind the CRLFs at *dots*.
    """
    parts: list[bytes] = []
    for dot in dots:
        # The last one may be held back.
        if dot + 2 < size:
            parts.append(buffer[start : dot + 2])
            start = dot + 3
    parts.append(buffer[start:size])
    return b"".join(parts)


def encode_text(data: bytes) -> bytes:
    """
    Stuff the dots of *data* and put the end behind it, with a CRLF between if it lacks one.
    """
    stuffed = (_CRLF + data).replace(_STUFFED, b"\r\n..")[2:]
    if data and not data.endswith(_CRLF):
        stuffed += _CRLF
    return stuffed + b".\r\n"


# A CR or LF that is not part of a CRLF.
_lone = re.compile(rb"\r(?!\n)|(?<!\r)\n").sub


class LineEnds:
    """
    Makes CRLF of a lone CR or LF, chunk by chunk: the only thing that a client may send for it
    (RFC 5321 §2.3.8).
    """

    __slots__ = ("_cr",)

    def __init__(self) -> None:
        # The chunk before ended with a CR, which waits for its LF.
        self._cr = False

    def feed(self, data: bytes) -> bytes:
        """
        Return what to send for the chunk *data*.  A CR at its end is held back.
        """
        if self._cr:
            data = b"\r" + data
        self._cr = data.endswith(b"\r")
        if self._cr:
            data = data[:-1]
        breaks = data.count(_CRLF)
        if data.count(b"\n") != breaks or data.count(b"\r") != breaks:
            data = _lone(_CRLF, data)
        return data

    def end(self) -> bytes:
        """
        Return what was held back.
        """
        return _CRLF if self._cr else b""


class TextEncoder:
    """
    Makes text ready for DATA, chunk by chunk: dots stuffed, the end put behind it.

    A lone CR or LF becomes CRLF.  It is no matter of taste: servers that take ``LF . LF`` for the end
    of the text would take what follows for commands.
    """

    __slots__ = ("_at_start", "_line_ends")

    def __init__(self) -> None:
        self._at_start = True
        self._line_ends = LineEnds()

    def feed(self, data: bytes) -> bytes:
        """
        Return what to send for the chunk *data*.  A CR at its end is held back.
        """
        data = self._line_ends.feed(data)
        if not data:
            return b""
        stuffed = data.replace(_STUFFED, b"\r\n..")
        if self._at_start and data.startswith(b"."):
            stuffed = b"." + stuffed
        self._at_start = data.endswith(_CRLF)
        return stuffed

    def end(self) -> bytes:
        """
        Return what is left to send: the end of the text, with a CRLF before it if that is missing.
        """
        if self._line_ends.end() or not self._at_start:
            return _CRLF + b".\r\n"
        return b".\r\n"
