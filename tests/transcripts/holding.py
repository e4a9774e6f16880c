"""
Holding a conversation: say what it says, and compare what is answered.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache
from typing import Final, Protocol

from attrs import frozen

from .notation import Closed, Conversation, Expected, Handshake, Reply, Send, Silence, Wait


@frozen
class Heard:
    """
    One complete reply: each line as ``(code, separator and text)``.
    """

    lines: tuple[str, ...]

    @property
    def code(self) -> int:
        return int(self.lines[-1][:3])

    @property
    def status(self) -> str | None:
        """
        The enhanced code (RFC 2034), which all lines must have, or none.
        """
        found = [_status(line) for line in self.lines]
        codes = {match[1] if match is not None else None for match in found}
        return codes.pop() if len(codes) == 1 else "?"

    def texts(self) -> list[str]:
        """
        The lines without code and status.
        """
        status = self.status
        start = 4 if status is None else 5 + len(status)
        return [line[start:] for line in self.lines]

    def __str__(self) -> str:
        return self.lines[-1] if len(self.lines) == 1 else f"{self.lines[-1]} (last of several)"


_status = re.compile(r"[0-9]{3}[- ]([2-5]\.[0-9]{1,3}\.[0-9]{1,3})(?: |\Z)").match
# RFC 6531 §3.7.4.2 lets UTF-8 into the replies to VRFY and EXPN: `judge` looks whether it may.
_line = re.compile(r"([2-5][0-9]{2})([- ])[\t -~\u00a1-\U0010ffff]*\Z").match


class BadReply(Exception):
    """
    The server has said something that is no reply (RFC 5321 §4.2).
    """


class Client(Protocol):
    """
    The client's end of a connection.
    """

    def send(self, said: bytes) -> None:
        """
        Say something.
        """

    def hear(self, *, brief: bool = False) -> Heard | None:
        """
        The next reply; None if the server is silent (*brief*: do not wait long), or has closed.
        """

    @property
    def closed(self) -> bool:
        """
        The server has closed the connection, and everything it said has been heard.
        """

    def wait(self, seconds: float) -> None:
        """
        Let time go by.
        """

    def handshake(self) -> None:
        """
        Turn to TLS.
        """


class Verdict(Enum):
    """
    How an answer compares, the worst last.
    """

    SAME = "same"
    #: The first digit, which is what a client goes by (RFC 5321 §4.2), is the same.
    OTHER_CODE = "other code"
    OTHER = "other"


@frozen
class Difference:
    """
    What was expected in *line* of the file, after *said*, and what came instead.
    """

    verdict: Verdict
    line: int
    said: bytes
    expected: str
    got: str

    def __str__(self) -> str:
        said = self.said[:70].decode("utf-8", "backslashreplace").rstrip("\r\n")
        return f"line {self.line}: {said!r}: {self.expected} expected, got {self.got}"


def hold(conversation: Conversation, client: Client) -> list[Difference]:
    """
    Hold *conversation* through *client*.

    Returns what is different.  After an answer of another kind, nothing more is said: what would
    follow depends on it.
    """
    differences: list[Difference] = []
    said = b""
    number = conversation.line
    try:
        for number, step in conversation.steps:
            match step:
                case Send():
                    said = step.octets
                    client.send(said)
                case Wait():
                    client.wait(step.seconds)
                case Handshake():
                    client.handshake()
                case _:
                    verdict, got = _compare(step, client)
                    if verdict is not Verdict.SAME:
                        differences.append(Difference(verdict, number, said, str(step), got))
                    if verdict is Verdict.OTHER:
                        return differences
        excess = client.hear(brief=True)
    except BadReply as error:
        differences.append(Difference(Verdict.OTHER, number, said, "a reply", str(error)))
        return differences
    if excess is not None:
        differences.append(Difference(Verdict.OTHER, number, said, "(nothing)", str(excess)))
    return differences


def _compare(expected: Expected, client: Client) -> tuple[Verdict, str]:
    match expected:
        case Silence():
            heard = client.hear(brief=True)
            if heard is None and not client.closed:
                return Verdict.SAME, ""
        case Closed():
            heard = client.hear()
            if heard is None and client.closed:
                return Verdict.SAME, ""
        case Reply():
            heard = client.hear()
            if heard is not None:
                return judge(expected, heard), str(heard)
    if heard is not None:
        return Verdict.OTHER, str(heard)
    return Verdict.OTHER, "(closed)" if client.closed else "(nothing)"


def judge(expected: Reply, heard: Heard) -> Verdict:
    """
    Compare two replies.
    """
    if expected.code // 100 != heard.code // 100:
        return Verdict.OTHER
    texts = heard.texts()
    announced = all(any(matches(pattern, text) for text in texts) for pattern in expected.has)
    absent = not any(matches(pattern, text) for pattern in expected.lacks for text in texts)
    same = (
        expected.code == heard.code
        and (expected.any_status or expected.status == heard.status)
        and matches(expected.text, texts[-1])
        and (not expected.text.isascii() or all(text.isascii() for text in texts))
        and announced
        and absent
    )
    return Verdict.SAME if same else Verdict.OTHER_CODE


@lru_cache
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(piece) for piece in text.split("*")), re.DOTALL)


def matches(pattern: str, text: str) -> bool:
    """
    Whether *text* looks like *pattern*, in which ``*`` is anything.
    """
    return _pattern(pattern).fullmatch(text) is not None


#: RFC 5321 §4.5.3.1.5.
MAX_REPLY_LINE: Final = 512


def first_reply(buffer: bytes) -> tuple[Heard | None, bytes]:
    """
    The first complete reply in *buffer*, and what follows it.

    Raises:
        BadReply: It is none.
    """
    lines: list[str] = []
    rest = buffer
    while b"\r\n" in rest:
        line, _, rest = rest.partition(b"\r\n")
        text = line.decode("utf-8", "backslashreplace")
        match = _line(text)
        if match is None or len(line) + 2 > MAX_REPLY_LINE:
            raise BadReply(f"no reply line: {text[:100]!r}")
        if lines and lines[0][:3] != match[1]:
            raise BadReply(f"two codes in one reply: {lines[0]!r}, {text!r}")
        lines.append(text)
        if match[2] == " ":
            return Heard(tuple(lines)), rest
    return None, buffer
