"""
What export and import share: flags, places, and a line that tells how far it is.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from typing import Final

from ..domains import ascii_domain

#: The letter of each flag in the name of a Maildir's file.
LETTERS: Final = {
    "\\Draft": "D",
    "\\Flagged": "F",
    "$Forwarded": "P",
    "\\Answered": "R",
    "\\Seen": "S",
    "\\Deleted": "T",
}

#: How many seconds lie between two lines at least.
_PAUSE: Final = 0.2

#: Characters of the bar.
_WIDTH: Final = 30

_place = re.compile(r"(maildir|mbox):(.+)", re.DOTALL).fullmatch


def place(word: str) -> tuple[str, str]:
    """
    Kind and path of a mailbox that is a file, or a directory.

    Raises:
        ValueError: It is neither.
    """
    found = _place(word)
    if found is None:
        raise ValueError(f"{word}: expected maildir:PATH or mbox:PATH")
    return found[1], found[2]


def path_for(template: str, mailbox: str) -> str:
    """
    Where the mailbox ``user@domain`` goes.

    Raises:
        ValueError: Its name could lead to another directory.
    """
    user, _, domain = mailbox.rpartition("@") if "@" in mailbox else (mailbox, "", "")
    for field, value in (("{user}", user), ("{domain}", ascii_domain(domain))):
        if field not in template:
            continue
        if value.strip(".") == "" or value.startswith(".") or re.search(r"[/\0]", value):
            raise ValueError(f"{mailbox}: its name cannot be that of a file or directory")
        # What a name has in braces is not a field.
        template = template.replace(field, value.replace("{", "\0"))
    return template.replace("\0", "{")


class Progress:
    """
    A bar on a terminal, drawn again and again; nothing anywhere else.
    """

    def __init__(self, name: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._name, self._total, self._clock = name, total, clock
        self._done, self._next = 0, 0.0
        self._shown = sys.stderr.isatty()

    def step(self) -> None:
        """
        One more message is done.
        """
        self._done += 1
        if self._shown and self._clock() >= self._next:
            self._next = self._clock() + _PAUSE
            self._write()

    def end(self) -> None:
        """
        Leave the line as it is.
        """
        if self._shown:
            self._write()
            sys.stderr.write("\n")

    def _write(self) -> None:
        # More than there were at the beginning: mail may come in meanwhile.
        full = min(_WIDTH, _WIDTH * self._done // max(self._total, 1))
        bar = f"{'#' * full}{'.' * (_WIDTH - full)}"
        sys.stderr.write(f"\r{self._name}: [{bar}] {self._done} of {self._total}")
        sys.stderr.flush()


class Bar(Progress):
    """
    The same with a bar, and how many are done in a second.
    """

    def __init__(self, name: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(name, total, clock)
        self._began = clock()

    def _write(self) -> None:
        width = 30
        done = "#" * (width * self._done // self._total)
        rate = self._done / max(self._clock() - self._began, 0.001)
        sys.stderr.write(
            f"\r{self._name}: [{done:{width}}] {self._done} of {self._total}, {rate:.0f}/s "
        )
        sys.stderr.flush()
