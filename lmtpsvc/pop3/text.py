"""
A message on its way to a POP3 client: octets in, octets out, in pieces of any size.

`twisted.mail.pop3` has both, but only for text with LF line endings that comes in one piece.
"""

from __future__ import annotations


class Stuffing:
    """
    Doubles the dot at the beginning of a line, and ends the text (RFC 1939 §3).

    A dot behind a bare LF is doubled as well.  For us that is no beginning of a line, but for many
    clients it is, Python's poplib among them, which drops a CR at the beginning, too; a stranger's
    mail must not end the answer for them.
    """

    def __init__(self) -> None:
        self._last = b"\r\n"

    def feed(self, piece: bytes) -> bytes:
        """
        What to send for *piece*.
        """
        if not piece:
            return b""
        begin = b""
        if self._last.endswith(b"\n") and piece.startswith(b"\r."):
            begin, piece = b"\r.", piece[1:]
        elif self._last[-1:] == b"\n" or self._last == b"\n\r":
            begin = b"." if piece.startswith(b".") else b""
        self._last = (self._last + piece[-2:])[-2:]
        return begin + piece.replace(b"\n.", b"\n..").replace(b"\n\r.", b"\n\r..")

    def end(self) -> bytes:
        """
        What to send behind the last piece.
        """
        return b".\r\n" if self._last == b"\r\n" else b"\r\n.\r\n"


class Top:
    """
    Lets pass the header, the empty line behind it, and so many *lines* of the body (RFC 1939 §7).
    """

    def __init__(self, lines: int) -> None:
        self._lines, self._in_header = lines, True
        # How the line that has not ended yet begins: enough to see whether it is an empty one.
        self._begun = b""

    @property
    def done(self) -> bool:
        """
        Nothing more will pass.
        """
        return not self._in_header and self._lines == 0

    def feed(self, piece: bytes) -> bytes:
        """
        What may pass of *piece*.
        """
        start = 0
        while not self.done:
            end = piece.find(b"\n", start) + 1
            if not end:
                self._begun = (self._begun + piece[start : start + 3])[:3]
                return piece
            line = (self._begun + piece[start : min(end, start + 3)])[:3]
            self._begun, start = b"", end
            if not self._in_header:
                self._lines -= 1
            elif line in {b"\r\n", b"\n"}:
                self._in_header = False
        return piece[:start]
