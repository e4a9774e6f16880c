"""
What the operator has chosen for an mbox backend, and how it is read from words.
"""

from __future__ import annotations

import re
from typing import Final

from attrs import frozen

from ..quota import Quota
from ..quota import parse as parse_quota
from ..replies import MAILBOX_FULL, MAILBOX_FULL_FOR_GOOD, Reply
from .mbox_locks import KINDS
from .settings import MOST_THREADS
from .template import Template, parse
from .words import choice

SYNOPSIS: Final = (
    "mbox:TEMPLATE[:locks=fcntl,dotlock][:lock_timeout=30][:mode=0600][:quota=1G][:full=452|552]"
    "[:threads=16]"
)

_FULL: Final = {"452": MAILBOX_FULL, "552": MAILBOX_FULL_FOR_GOOD}

#: Longer than the deadline of a delivery makes no sense.
MOST_SECONDS: Final = 3600


@frozen
class MboxSettings:
    """
    How the mail is stored.
    """

    template: Template
    #: In the order in which they are taken.  The default is what Debian's programs agree on
    #: (Debian Policy §11.6), and Dovecot's ``mbox_write_locks``.
    locks: tuple[str, ...] = ("fcntl", "dotlock")
    #: How long a delivery waits for somebody else's lock, in seconds.
    lock_timeout: float = 30.0
    #: Of new files.
    mode: int = 0o600
    #: Of a mailbox about which the directory says nothing: octets of its file.
    quota: Quota | None = None
    #: What is said when a quota is used up.
    mailbox_full: Reply = MAILBOX_FULL
    #: Mailboxes that are written to at a time, at most.
    threads: int = 16

    @property
    def directory_mode(self) -> int:
        """
        The mode of new directories: whoever may read the files may look for them.
        """
        return self.mode | (self.mode & 0o444) >> 2


def from_words(template: str, options: dict[str, str]) -> MboxSettings:
    """
    Read the words of the command line.

    Raises:
        ValueError: With one line that says what is wrong.
    """
    left = dict(options)
    settings = MboxSettings(
        parse(template),
        _locks(left.pop("locks", "fcntl,dotlock")),
        _seconds(left.pop("lock_timeout", "30")),
        _mode(left.pop("mode", "0600")),
        _quota(left.pop("quota", "0")),
        choice(left, "full", "452", _FULL),
        _threads(left.pop("threads", "16")),
    )
    if left:
        raise ValueError(f"{min(left)}: no such option; expected {SYNOPSIS}")
    return settings


def _locks(words: str) -> tuple[str, ...]:
    kinds = tuple(word.strip() for word in words.split(","))
    dots = [kind for kind in kinds if kind.startswith("dotlock")]
    if set(kinds) - set(KINDS) or len(set(kinds)) < len(kinds) or len(dots) > 1:
        raise ValueError(f"locks={words}: expected some of {', '.join(KINDS)}, each once")
    if kinds == ("dotlock_try",):
        raise ValueError(f"locks={words}: that may be no lock at all; write dotlock")
    return kinds


def _seconds(word: str) -> float:
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", word) or float(word) > MOST_SECONDS:
        raise ValueError(f"lock_timeout={word}: expected seconds, from 0 to {MOST_SECONDS}")
    return float(word)


def _mode(word: str) -> int:
    mode = int(word, 8) if re.fullmatch(r"[0-7]{3,4}", word) else 0
    if mode & ~0o664 or mode & 0o600 != 0o600:
        raise ValueError(f"mode={word}: expected an octal mode such as 0600, 0640 or 0660")
    return mode


def _quota(word: str) -> Quota | None:
    quota = parse_quota(word)
    if quota.messages:
        raise ValueError(f"quota={word}: the messages of an mbox are not counted; write quota=1G")
    return quota or None


def _threads(word: str) -> int:
    if not re.fullmatch(r"[0-9]{1,3}", word) or not 1 <= int(word) <= MOST_THREADS:
        raise ValueError(f"threads={word}: expected a number from 1 to {MOST_THREADS}")
    return int(word)
