"""
What the operator has chosen for a Maildir backend, and how it is read from words.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final

from attrs import field, frozen

from ..interfaces import LineEnding
from ..quota import Quota
from ..quota import parse as parse_quota
from ..replies import MAILBOX_FULL, MAILBOX_FULL_FOR_GOOD, Reply
from .places import file_mode as mode_of_files
from .sharing import Sharing, read_key
from .template import Template, parse
from .words import choice

SYNOPSIS: Final = (
    "maildir:TEMPLATE[:detail=inbox|folder][:mode=0700][:newline=lf|crlf][:full=452|552]"
    "[:quota=1G,10000][:threads=16][:sharing=KEYFILE]"
)

# What each option may be, and what that means.
_DETAIL: Final = {"inbox": False, "folder": True}
_NEWLINE: Final[Mapping[str, LineEnding]] = {"lf": "\n", "crlf": "\r\n"}
_FULL: Final = {"452": MAILBOX_FULL, "552": MAILBOX_FULL_FOR_GOOD}

MOST_THREADS: Final = 256

#: Where large messages are spooled, in the root; no value of a field begins with a dot.
SPOOL: Final = ".spool"


@frozen
class Settings:
    """
    How the mail is stored.
    """

    template: Template
    #: A detail chooses a Maildir++ folder.
    folders: bool = False
    #: Of the directories.
    mode: int = 0o700
    line_ending: LineEnding = "\n"
    #: Deliveries that are on their way to the disk at a time, at most.
    threads: int = 16
    #: What is said when a quota is used up.
    mailbox_full: Reply = MAILBOX_FULL
    #: Of mailboxes of which the directory says nothing else.
    quota: Quota | None = None
    #: One copy with other nodes.
    sharing: Sharing | None = None
    #: Of the files.
    file_mode: int = field(init=False, eq=False, repr=False)

    @file_mode.default
    def _of_files(self) -> int:
        return mode_of_files(self.mode)


def from_words(template: str, options: dict[str, str]) -> Settings:
    """
    Read the words of the command line.

    Raises:
        ValueError: With one line that says what is wrong.
    """
    left = dict(options)
    where = parse(template)
    settings = Settings(
        where,
        choice(left, "detail", "inbox", _DETAIL),
        _mode(left.pop("mode", "0700")),
        choice(left, "newline", "lf", _NEWLINE),
        _threads(left.pop("threads", "16")),
        choice(left, "full", "452", _FULL),
        _quota(left.pop("quota", "0")),
        _sharing(left.pop("sharing", None), where.root),
    )
    if left:
        raise ValueError(f"{min(left)}: no such option; expected {SYNOPSIS}")
    return settings


def _mode(word: str) -> int:
    mode = int(word, 8) if re.fullmatch(r"[0-7]{3,5}", word) else 0
    # Set-group-ID is how the group of a directory passes on to what is made in it.
    if mode & ~0o2777 or mode & 0o700 != 0o700:
        raise ValueError(f"mode={word}: expected an octal mode such as 0700, 0750 or 2770")
    return mode


def _quota(word: str) -> Quota | None:
    try:
        return parse_quota(word) or None
    except ValueError as error:
        raise ValueError(f"quota: {error}") from None


def _sharing(path: str | None, root: str | None) -> Sharing | None:
    if path is None:
        return None
    if root is None:
        raise ValueError("sharing needs a directory that all mailboxes are in, not {home}")
    try:
        return Sharing(read_key(path), os.path.join(root, SPOOL))
    except ValueError as error:
        raise ValueError(f"sharing: {error}") from None


def _threads(word: str) -> int:
    if not re.fullmatch(r"[0-9]{1,3}", word) or not 1 <= int(word) <= MOST_THREADS:
        raise ValueError(f"threads={word}: expected a number from 1 to {MOST_THREADS}")
    return int(word)
