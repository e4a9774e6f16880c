"""
Read a users file: its octets become a `Table`, or all its mistakes are told.

A line is one of these, with a comment behind ``#`` if you like::

    ann@example.org                      # lives here
    @example.org                         # everybody of that domain lives here
    staff@example.org: ann@example.org, bob@example.org
    @example.org: ann@example.org        # all that is not listed otherwise
    postmaster: ann@example.org          # in every domain
    cid@example.org quota=1G backend=archive
    dan@example.org quota=1G: dan@example.org, ann@example.org

The file is UTF-8.  An internationalised domain may stand there in either form.  A local part that is not a plain word stands in quotes, as in RFC 5321 §4.1.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..domains import ascii_domain
from ..envelope import Mailbox
from .knowledge import NOTHING, Knowledge, known_from
from .table import BrokenAlias, Entry, Table, fold

# What is not in them: a class that goes up to U+10FFFF instead is slow to compile.
_atext = r'[^\x00- "(),.:;<>@\[\\\]\x7f-\xa0]'
_label = r"[^\x00-,./:-@\[-^`{-\xa0]+"
# The groups: local part, or what stands between its quotes; domain, or address literal.
_match_address = re.compile(
    rf'(?:({_atext}+(?:\.{_atext}+)*)|"((?:[^"\\]|\\.)*)")?'
    rf"(?:@({_label}(?:\.{_label})*|\[[^\[\]\s]+\]))?"
).match

# Behind the address: what is known about whoever lives there.
_match_word = re.compile(r"([A-Za-z][A-Za-z0-9_]*)=([^\s:]*)(?=[\s:]|\Z)").match

_SHAPES = "an address, @domain, or alias: target, target"


class BrokenLines(ValueError):
    """
    What is wrong with a file; *problems* has the number of each bad line, and what is expected.
    """

    def __init__(self, problems: Sequence[tuple[int, str]]) -> None:
        super().__init__("; ".join(f"line {line}: {problem}" for line, problem in problems))
        self.problems = problems


class _Address(NamedTuple):
    """
    What stands at the beginning of some text, and what follows it.
    """

    local: str
    domain: str
    rest: str

    @property
    def key(self) -> str:
        return fold(f"{self.local}@{ascii_domain(self.domain)}")


def parse(octets: bytes, delimiters: str = "+") -> Table:
    """
    The table that a file's *octets* describe.

    Raises:
        BrokenLines: With every line that is wrong.
    """
    entries: dict[str, Entry] = {}
    problems: list[tuple[int, str]] = []
    for number, line in enumerate(octets.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            text = line.decode().strip()
            if text and text[0] != "#":
                key, entry = _parse_line(number, text, delimiters)
                _add(entries, key, entry)
        except UnicodeDecodeError:
            problems.append((number, "not UTF-8"))
        except ValueError as error:
            problems.append((number, str(error)))
    table = Table(entries, delimiters)
    problems.extend(_broken_aliases(table))
    if problems:
        raise BrokenLines(sorted(problems))
    return table


def _parse_line(number: int, text: str, delimiters: str) -> tuple[str, Entry]:
    address = _address(text)
    if address is None:
        raise ValueError(f"expected {_SHAPES}; found {_quoted(text)}")
    known, rest = _known(address.rest)
    if rest[:1] == ":":
        entry = Entry(number, tuple(_targets(rest[1:].lstrip(), delimiters)), known)
        if known and all(_key(target) != address.key for target in entry.targets):
            raise ValueError("nobody lives at an alias: write what is known behind its targets")
        return address.key, entry
    if rest and rest[0] != "#":
        raise ValueError(f"expected {_SHAPES}; found {_quoted(text)}")
    if not address.domain:
        name = address.local
        raise ValueError(f"a name without a domain needs a target: '{name}: ann@example.org'")
    return address.key, Entry(number, (), known)


def _known(text: str) -> tuple[Knowledge, str]:
    """
    What stands between an address and the colon, or the end; and what follows.
    """
    words: dict[str, str] = {}
    while (match := _match_word(text)) is not None:
        name = match[1].lower()
        if name in words:
            raise ValueError(f"{name} is given twice")
        words[name] = match[2]
        text = text[match.end() :].lstrip()
    return known_from(words) if words else NOTHING, text


def _key(target: Mailbox) -> str:
    return fold(f"{target.user}@{ascii_domain(target.domain)}")


def _targets(text: str, delimiters: str) -> Iterator[Mailbox]:
    """
    What stands behind the colon of an alias.
    """
    while True:
        address = None if text[:1] == "#" else _address(text)
        if address is None or not address.local or not address.domain:
            raise ValueError(f"expected a target like ann@example.org; found {_quoted(text)}")
        yield _mailbox(address, delimiters)
        text = address.rest
        if not text or text[0] == "#":
            return
        if text[0] != ",":
            raise ValueError(f"expected a comma between two targets; found {_quoted(text)}")
        text = text[1:].lstrip()


def _address(text: str) -> _Address | None:
    """
    The address, @domain or bare name at the beginning of *text*, if there is one.
    """
    match = _match_address(text)
    if match is None or not match[0]:
        return None
    if not match[0].replace("\u200c", "").replace("\u200d", "").isprintable():
        return None
    local, quoted, domain = match.groups()
    if quoted is not None:
        local = re.sub(r"\\(.)", r"\1", quoted)
        if not local:
            return None
    rest = text[match.end() :]
    # "ann@example.org#x" has no comment; nor has "ann@example.org bob@example.org" a second address.
    if rest and rest[0] not in " \t:,":
        return None
    return _Address(local or "", domain or "", rest.lstrip())


def _mailbox(address: _Address, delimiters: str) -> Mailbox:
    """
    Where a target is to go, split at the first delimiter that has something before it.
    """
    local = fold(address.local)
    places = [at for at, letter in enumerate(local) if letter in delimiters and at]
    user, detail = (local[: places[0]], local[places[0] + 1 :]) if places else (local, "")
    return Mailbox(user, fold(ascii_domain(address.domain)), detail)


def _add(entries: dict[str, Entry], key: str, entry: Entry) -> None:
    before = entries.setdefault(key, entry)
    if (before.targets, before.known) != (entry.targets, entry.known):
        raise ValueError(
            f"{key.removesuffix('@')} stands on line {before.line} already, and says something else"
        )


def _broken_aliases(table: Table) -> Iterator[tuple[int, str]]:
    """
    Follow every alias once: now the operator is there to read what is wrong with it.
    """
    for key, entry in table.entries.items():
        if entry.targets:
            try:
                table.follow(key)
            except BrokenAlias as error:
                yield entry.line, f"{key.removesuffix('@')}: {error}"


def _quoted(text: str) -> str:
    """
    *text* as it may stand in a log: one line, and not a long one.
    """
    return repr(text if len(text) <= 60 else text[:60] + "…") if text else "nothing"
