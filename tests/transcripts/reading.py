"""
How conversations are written down: docs/conformance.md explains the notation to its readers.

A file holds several conversations.  Each begins with its title, ``=== HELO is refused``, and words
about it (``shows: 2033.helo``); then come the lines that client and server say.  Words in front of
the first title are about all conversations of the file that do not say otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from .notation import (
    Closed,
    Conversation,
    Expected,
    Handshake,
    Reply,
    Send,
    Silence,
    Step,
    Stored,
    Wait,
)


class BrokenTranscript(Exception):
    """
    A file that cannot be read: says where, and why.
    """


# ── octets ───────────────────────────────────────────────────────────────────────────────────────

_NAMED: Final[Mapping[str, bytes]] = {
    "{": b"{",
    "NUL": b"\0",
    "TAB": b"\t",
    "LF": b"\n",
    "CR": b"\r",
    "CRLF": b"\r\n",
    "SP": b" ",
    "DEL": b"\x7f",
}
_braces = re.compile(r"\{(\{|[^{}]*\})")
_repeated = re.compile(r"([0-9]+)\*(.+)", re.DOTALL).fullmatch
_hexadecimal = re.compile(r"x((?: [0-9A-F]{2})+)").fullmatch


def octets(text: str) -> bytes:
    """
    What *text* stands for: ``{NUL}``, ``{x C3 28}``, ``{5000*a}`` and ``{{``; all else is UTF-8.

    Raises:
        ValueError: There are other braces.
    """
    pieces, end = [], 0
    for match in _braces.finditer(text):
        pieces.append(text[end : match.start()].encode())
        pieces.append(_braced(match[1].removesuffix("}")))
        end = match.end()
    rest = text[end:]
    if "{" in rest:
        raise ValueError(f"{{ without }}: {rest}")
    return b"".join([*pieces, rest.encode()])


def _braced(inside: str) -> bytes:
    if inside in _NAMED:
        return _NAMED[inside]
    if match := _repeated(inside):
        return match[2].encode() * int(match[1])
    if match := _hexadecimal(inside):
        return bytes.fromhex(match[1])
    raise ValueError(f"{{{inside}}} means nothing")


# ── lines ────────────────────────────────────────────────────────────────────────────────────────

#: What is said before a conversation that ``begins: after MAIL``; each has the ones before it.
_BEFORE: Final = (
    ("at once", ()),
    ("after greeting", ("S: 220 *",)),
    ("after LHLO", ("C: LHLO client.example.net", "S: 250 *")),
    ("after MAIL", ("C: MAIL FROM:<me@example.org>", "S: 250 *")),
    ("after RCPT", ("C: RCPT TO:<ann@example.org>", "S: 250 *")),
    ("after DATA", ("C: DATA", "S: 354 *")),
    # Not every server takes a message without a header.
    ("after header", ("C: Subject: Test", "C:")),
)
_USUAL: Final = "after LHLO"
#: The same behind STARTTLS.
_ENCRYPTED: Final = ("C: STARTTLS", "S: 220 *", "C: (handshake)", *_BEFORE[2][1])

_title = re.compile(r"=== (\S.*)").fullmatch
_word = re.compile(r"(shows|options|needs|ours|begins|in one piece): (\S.*)").fullmatch
_spoken = re.compile(r"([CSDT])(?:\*([0-9]+))?([:+>|!])(?: (.*))?").fullmatch
_reply = re.compile(r"([2-5][0-9]{2})(?: ([2-5]\.[0-9]+\.[0-9]+|\*))?(?: (.+))?").fullmatch


def read_folder(folder: Path) -> list[Conversation]:
    """
    All conversations of the files of *folder*, by name.

    Raises:
        BrokenTranscript: With file and line.
    """
    found = [each for path in sorted(folder.glob("*.txt")) for each in read_file(path)]
    if len({each.name for each in found}) < len(found):
        names = [each.name for each in found]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise BrokenTranscript(f"titles that are there twice: {twice}")
    return found


def read_file(path: Path) -> list[Conversation]:
    """
    The conversations of one file.
    """
    return read(path.stem, path.read_text(encoding="utf-8"))


def read(group: str, text: str) -> list[Conversation]:
    """
    The conversations of *text*.
    """
    # Not splitlines(), for which U+0085 and others end a line.
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1)]
    starts = [index for index, (_, line) in enumerate(lines) if line.startswith("===")]
    of_all: dict[str, str] = {}
    for number, line in lines[: starts[0] if starts else None]:
        if (word := _word(line)) is not None:
            of_all[word[1]] = word[2]
        elif line and not line.startswith("#"):
            raise BrokenTranscript(
                f"{group}:{number}: a conversation begins with === and its title"
            )
    ends = [*starts[1:], len(lines)]
    return [
        _Reading(group, lines[start:end], of_all).conversation()
        for start, end in zip(starts, ends, strict=True)
    ]


class _Reading:
    """
    One conversation being read.
    """

    def __init__(self, group: str, lines: list[tuple[int, str]], of_all: Mapping[str, str]) -> None:
        self.group, self.lines, self.of_all = group, lines, of_all
        self.words: dict[str, str] = {}
        self.steps: list[Step] = []
        self.stored: list[Stored] = []
        self.stores = False

    def conversation(self) -> Conversation:
        """
        Read it.
        """
        (first, head), *others = self.lines
        number = first
        try:
            title = _title(head)
            if title is None:
                raise ValueError("a title is === and words")
            rest = iter(others)
            spoken = self._read_words(rest)
            for line in _before(self.words.pop("begins", _USUAL)):
                self._say(first, line)
            for number, line in spoken:
                self._say(number, line)
            number = first
            if not any(isinstance(step, Reply | Silence | Closed) for _, step in self.steps):
                raise ValueError("nothing is expected")
            return Conversation(
                self.group,
                title[1],
                first,
                tuple(self.steps),
                tuple(self.words.get("shows", "").split()),
                dict(_option(word) for word in self.words.get("options", "").split()),
                tuple(self.words.get("needs", "").split()),
                "ours" in self.words,
                "in one piece" in self.words,
                tuple(self.stored) if self.stores else None,
            )
        except ValueError as error:
            raise BrokenTranscript(f"{self.group}:{number}: {error}") from None

    def _read_words(self, rest: Iterator[tuple[int, str]]) -> list[tuple[int, str]]:
        """
        Take the words about it; what is left is spoken.
        """
        spoken: list[tuple[int, str]] = []
        for number, line in rest:
            if not line or line.startswith("#"):
                continue
            word = _word(line) if not spoken else None
            if word is None:
                spoken.append((number, line))
            elif word[1] in self.words:
                raise ValueError(f"{word[1]} is said twice")
            else:
                self.words[word[1]] = word[2]
        self.words = {**self.of_all, **self.words}
        return spoken

    def _say(self, number: int, line: str) -> None:
        match = _spoken(line)
        if match is None:
            raise ValueError(f"who says this? {line}")
        who, times, how, what = match[1], int(match[2] or 1), match[3], match[4] or ""
        match who, how:
            case "C", ":" if what == "(handshake)":
                self.steps.append((number, Handshake()))
            case "C", (":" | "+"):
                self._send(number, (octets(what) + (b"\r\n" if how == ":" else b"")) * times)
            case "S", ":":
                self.steps.extend([(number, _expected(what))] * times)
            case "S", ("|" | "!"):
                self._line_of_reply(how, what)
            case "T", ":":
                self.steps.append((number, Wait(float(what))))
            case "D", ">":
                self.stores = True
                if what != "(nobody)":
                    self.stored.append(Stored(tuple(what.split()), b""))
            case "D", (":" | "+"):
                if not self.stored:
                    raise ValueError("D> comes before D:")
                last = self.stored.pop()
                end = b"\r\n" if how == ":" else b""
                more = (octets(what) + end) * times
                self.stored.append(Stored(last.mailboxes, last.text + more))
            case _:
                raise ValueError(f"who says this? {line}")

    def _send(self, number: int, said: bytes) -> None:
        if self.steps and isinstance(self.steps[-1][1], Send):
            first, before = self.steps.pop()
            assert isinstance(before, Send)
            self.steps.append((first, Send(before.octets + said)))
        else:
            self.steps.append((number, Send(said)))

    def _line_of_reply(self, how: str, pattern: str) -> None:
        number, reply = self.steps[-1] if self.steps else (0, None)
        if not isinstance(reply, Reply):
            raise ValueError("S| and S! stand behind a reply")  # noqa: TRY004 - of the file
        has = (*reply.has, pattern) if how == "|" else reply.has
        lacks = (*reply.lacks, pattern) if how == "!" else reply.lacks
        self.steps[-1] = (
            number,
            Reply(reply.code, reply.status, reply.any_status, reply.text, has, lacks),
        )


def _before(begins: str) -> list[str]:
    if begins == "after handshake":
        return [*_before(_USUAL), *_ENCRYPTED]
    names = [name for name, _ in _BEFORE]
    if begins not in names:
        raise ValueError(f"begins: {' | '.join(names)} | after handshake")
    return [line for _, lines in _BEFORE[: names.index(begins) + 1] for line in lines]


def _option(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals:
        raise ValueError(f"an option is NAME=VALUE, not {word}")
    return name, value


def _expected(what: str) -> Expected:
    if what == "(nothing)":
        return Silence()
    if what == "(closed)":
        return Closed()
    match = _reply(what)
    if match is None:
        raise ValueError(f"no reply looks like this: {what}")
    status = match[2]
    return Reply(int(match[1]), None if status == "*" else status, status == "*", match[3] or "*")
