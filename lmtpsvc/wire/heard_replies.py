"""
What a server answers (RFC 5321 §4.2): octets in, replies out, each as soon as its last line is there.

A server is a stranger, too.  What it says is bounded in length and in lines, and read only if it
cannot be mistaken; its text is made printable before anybody sees it.
"""

from __future__ import annotations

import re
from typing import Final

from attrs import frozen

from ..replies import MAX_TEXT, Reply

#: Octets of a line, with its end (RFC 5321 §4.5.3.1.5 has 512; servers put more into LHLO).
MAX_LINE: Final = 4096
#: Lines of a reply, and octets of all of them.
MAX_LINES: Final = 256
MAX_REPLY: Final = 65_536

# RFC 5321 §4.2: Reply-code, and what may follow it.  1yz is no part of SMTP.
_line: Final = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL).fullmatch
# RFC 2034 §4, RFC 3463 §2.
_status: Final = re.compile(r"([245])\.([0-9]{1,3})\.([0-9]{1,3})(?:[ \t]+|\Z)").match


class MalformedReply(Exception):
    """
    What a server said is no reply; nothing that follows can be trusted.  The text says why.
    """


@frozen
class HeardReply:
    """
    One reply of a server.

    *status* is subject and detail of its enhanced code, None if it had none, or one of another class
    than *code*.  *lines* is its text, at least one line, without codes; what is not printable has
    become ``?``.
    """

    code: int
    lines: tuple[str, ...]
    status: tuple[int, int] | None = None

    @property
    def text(self) -> str:
        """
        All lines as one.
        """
        return " ".join(line for line in self.lines if line)

    @property
    def is_success(self) -> bool:
        """
        A Positive Completion reply (2yz).
        """
        return self.code < 300

    @property
    def is_intermediate(self) -> bool:
        """
        Go on (3yz).
        """
        return 300 <= self.code < 400

    @property
    def is_failure(self) -> bool:
        """
        Not now (4yz), or not ever (5yz).
        """
        return self.code >= 400

    def __str__(self) -> str:
        codes = str(self.code)
        if self.status is not None:
            codes += f" {self.code // 100}.{self.status[0]}.{self.status[1]}"
        return f"{codes} {self.text}" if self.text else codes

    def wire_lines(self) -> list[str]:
        """
        Each line as it came, or nearly so: the enhanced code stands on each.
        """
        status = (
            "" if self.status is None else f"{self.code // 100}.{self.status[0]}.{self.status[1]} "
        )
        *others, last = (status + line for line in self.lines)
        return [*(f"{self.code}-{line}" for line in others), f"{self.code} {last}".rstrip()]

    def as_reply(self, code: int | None = None, before: str = "") -> Reply:
        """
        The same as something that we could say: on one line, in ASCII, cut if it is too long.

        *code* is said instead of the server's, and *before* in front of its text.
        """
        text = before + self.text
        if not text.isascii():
            text = text.encode("ascii", "replace").decode("ascii")
        return Reply(code or self.code, text[:MAX_TEXT], self.status)


class ReplyReader:
    """
    Turns what a server sends into replies.
    """

    __slots__ = ("_buffer", "_code", "_lines", "_octets")

    def __init__(self) -> None:
        self._buffer = b""
        # Of a reply that is not complete yet.
        self._code = 0
        self._lines: list[str] = []
        self._octets = 0

    @property
    def has_unread(self) -> bool:
        """
        Something has come that was not returned yet, be it the beginning of a line.
        """
        return bool(self._buffer or self._lines)

    def receive(self, octets: bytes) -> None:
        """
        Take what the server has sent.
        """
        self._buffer = self._buffer + octets if self._buffer else octets

    def next_reply(self) -> HeardReply | None:
        """
        The next reply, or None if there is none yet.

        Raises:
            MalformedReply: What has come is no reply, or too long for one.
        """
        while (end := self._buffer.find(b"\n")) >= 0:
            if end >= MAX_LINE:
                break
            # A lone LF ends a line, too: unlike in the text of a message, nobody gains by it.
            line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
            if self._take(line.removesuffix(b"\r")):
                lines, self._lines, self._octets = tuple(self._lines), [], 0
                return _reply(self._code, lines)
        if end >= MAX_LINE or len(self._buffer) > MAX_LINE:
            raise MalformedReply(f"a reply line of more than {MAX_LINE} octets")
        return None

    def _take(self, line: bytes) -> bool:
        """
        Add a line to the reply; True if it is the last one.
        """
        match = _line(line)
        if match is None:
            raise MalformedReply(f"not a reply: {_printable(line[:60])!r}")
        code = int(match[1])
        if self._lines and code != self._code:
            # RFC 5321 §4.2.1: the code is the same on each line.
            raise MalformedReply(f"a reply of two codes, {self._code} and {code}")
        self._code = code
        self._lines.append(_printable(match[3] or b""))
        self._octets += len(line)
        if match[2] != b"-":
            return True
        if len(self._lines) >= MAX_LINES or self._octets > MAX_REPLY:
            raise MalformedReply("a reply without end")
        return False


def _printable(octets: bytes) -> str:
    text = octets.decode("utf-8", "replace").replace("\t", " ")
    if not text.isprintable():
        text = "".join(each if each.isprintable() else "?" for each in text)
    return text


def _reply(code: int, lines: tuple[str, ...]) -> HeardReply:
    """
    Part the enhanced code from the text.  RFC 2034 §4 has it on each line; some have it on the first
    line only, and Cyrus on the last.
    """
    for line in (lines[0], lines[-1]):
        match = _status(line)
        if match is not None and int(match[1]) == code // 100:
            prefix = match[0].rstrip()
            stripped = tuple(
                line[len(prefix) :].lstrip() if line.startswith(prefix) else line for line in lines
            )
            return HeardReply(code, stripped, (int(match[2]), int(match[3])))
    return HeardReply(code, lines)
