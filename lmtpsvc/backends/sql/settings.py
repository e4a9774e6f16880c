"""
What the operator has chosen for an SQL backend, and how it is read from words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from attrs import frozen

from ...quota import Quota, parse
from ...replies import MAILBOX_FULL, MAILBOX_FULL_FOR_GOOD, Reply

T = TypeVar("T")

SYNOPSIS: Final = "sql:URL[:create=yes|no][:compression=none|zlib][:quota=1G,10000][:full=452|552][:connections=4][:timeout=30]"

_YES: Final = {"yes": True, "no": False}
_COMPRESSION: Final = {"none": "none", "zlib": "zlib"}
_FULL: Final = {"452": MAILBOX_FULL, "552": MAILBOX_FULL_FOR_GOOD}

MOST_CONNECTIONS: Final = 64
LONGEST_TIMEOUT: Final = 200


@frozen
class Settings:
    """
    How the mail is stored.
    """

    #: As it was written; it may contain a password.
    url: str
    #: Tables are made, and brought up to date, at start; None: if it is SQLite.
    create: bool | None = None
    compression: str = "none"
    #: Of a mailbox about which the directory says nothing.
    quota: Quota | None = None
    #: What is said when a quota is used up.
    mailbox_full: Reply = MAILBOX_FULL
    #: To a server; SQLite has one writer.
    connections: int = 4
    #: Seconds that the database may take for one statement.
    timeout: int = 30


def from_words(words: Sequence[str], options: Mapping[str, str]) -> Settings:
    """
    Read the words of the command line.  The colons of a URL split it; here it becomes whole again.

    Raises:
        ValueError: With one line that says what is wrong.
    """
    left = dict(options)
    settings = Settings(
        ":".join(words),
        _choice(left, "create", None, _YES),
        _choice(left, "compression", "none", _COMPRESSION),
        parse(left.pop("quota", "0")) or None,
        _choice(left, "full", MAILBOX_FULL, _FULL),
        _number(left, "connections", 4, MOST_CONNECTIONS),
        _number(left, "timeout", 30, LONGEST_TIMEOUT),
    )
    if left:
        raise ValueError(f"{min(left)}: no such option; expected {SYNOPSIS}")
    if "://" not in settings.url:
        raise ValueError(f"{settings.url or 'the URL is missing'}: expected {SYNOPSIS}")
    return settings


def _choice(options: dict[str, str], name: str, default: T, choices: Mapping[str, T]) -> T:
    if name not in options:
        return default
    word = options.pop(name)
    if word not in choices:
        raise ValueError(f"{name}={word}: expected {' or '.join(choices)}")
    return choices[word]


def _number(options: dict[str, str], name: str, default: int, most: int) -> int:
    word = options.pop(name, str(default))
    if not re.fullmatch(r"[0-9]{1,3}", word) or not 1 <= int(word) <= most:
        raise ValueError(f"{name}={word}: expected a number from 1 to {most}")
    return int(word)
