"""
Who was told that which message is safe, and whether it is there.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from attrs import define, field, frozen

from .text import identity, text_of

DOMAIN = "example.org"
#: How the name of a file ends that was there before, and is not looked at.
BEFORE = ".before"


def mailbox(user: int) -> str:
    """
    The local part of the address of *user*.
    """
    return f"u{user:06}"


@frozen
class Findings:
    """
    What became of what was acknowledged: how many are missing, there twice, not what was sent; and
    how many are there although nobody was told so.
    """

    acknowledged: int
    missing: int
    twice: int
    damaged: int
    extra: int

    @property
    def good(self) -> bool:
        """
        Whether the store holds what was acknowledged, whole and once, and nothing else.
        """
        return not (self.missing or self.twice or self.damaged or self.extra)


@define
class Ledger:
    """
    The messages, by number, and the users who have them as far as the client was told.
    """

    numbered: int = 0
    largest: int = 0
    entries: set[tuple[int, int]] = field(factory=set)

    def number(self, octets: int) -> int:
        """
        A number for a new message of so many octets.
        """
        self.numbered += 1
        self.largest = max(self.largest, octets)
        return self.numbered

    def compare(self, store: Path) -> Findings:
        """
        Look into every ``new/`` of a store of Maildirs, at ``DOMAIN/MAILBOX`` below *store*.
        """
        found: Counter[tuple[int, int]] = Counter()
        damaged = 0
        # One file, with a link for each recipient, is read once.
        known: dict[int, int | None] = {}
        for name in os.listdir(store / DOMAIN):
            for entry in _entries(f"{store}/{DOMAIN}/{name}/new"):
                inode = entry.inode()
                if inode not in known:
                    known[inode] = _number(entry.path)
                number = known[inode]
                if number is None:
                    damaged += 1
                else:
                    found[number, int(name[1:])] += 1
        return Findings(
            acknowledged=len(self.entries),
            missing=len(self.entries - found.keys()),
            twice=sum(count - 1 for count in found.values()),
            damaged=damaged,
            extra=len(found.keys() - self.entries),
        )


def _entries(path: str) -> list[os.DirEntry[str]]:
    """
    The files in ``new/`` that were not there before; none if there is no such directory.
    """
    try:
        with os.scandir(path) as entries:
            return [entry for entry in entries if not entry.name.endswith(BEFORE)]
    except FileNotFoundError:
        return []


def _number(path: str) -> int | None:
    """
    The number of the message in a file; None if that is not the whole message.
    """
    with open(path, "rb") as file:
        stored = file.read()
    found = identity(stored[:8192])
    if found is None or not text_of(found[1]).is_end_of(stored):
        return None
    return found[0]
