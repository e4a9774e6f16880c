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
        buffer = self._held + data if self._held else data
        dot = buffer.find(_STUFFED)
        end = buffer.find(_END, dot) if dot >= 0 else -1
        rest: bytes | None = None
        if end >= 0:
            # The CRLF in front of the dot belongs to the text.
            text, rest = buffer[: end + 2], buffer[end + 5 :]
            self._held = b""
        elif buffer.endswith(_UNDECIDED):
            self._held = next(held for held in _UNDECIDED if buffer.endswith(held))
            text = buffer[: -len(self._held)]
        else:
            text, self._held = buffer, b""
        if dot >= 0:
            text = text.replace(_STUFFED, _CRLF)
        if text and not self._started:
            self._started = True
            text = text[2:]
        return text, rest


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


class TextEncoder:
    """
    Makes text ready for DATA, chunk by chunk: dots stuffed, the end put behind it.

    A lone CR or LF becomes CRLF, which is the only thing that a client may send for it
    (RFC 5321 §2.3.8).  It is no matter of taste: servers that take ``LF . LF`` for the end of the
    text would take what follows for commands.
    """

    __slots__ = ("_at_start", "_cr")

    def __init__(self) -> None:
        self._at_start = True
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
        if not data:
            return b""
        breaks = data.count(_CRLF)
        if data.count(b"\n") != breaks or data.count(b"\r") != breaks:
            data = _lone(_CRLF, data)
        stuffed = data.replace(_STUFFED, b"\r\n..")
        if self._at_start and data.startswith(b"."):
            stuffed = b"." + stuffed
        self._at_start = data.endswith(_CRLF)
        return stuffed

    def end(self) -> bytes:
        """
        Return what is left to send: the end of the text, with a CRLF before it if that is missing.
        """
        if self._cr or not self._at_start:
            return _CRLF + b".\r\n"
        return b".\r\n"
