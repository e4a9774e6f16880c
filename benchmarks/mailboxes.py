"""
Mailboxes that are there before the first message comes, empty or full.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .ledger import BEFORE, DOMAIN, mailbox
from .text import text_of
from .workloads import KB

#: ext4 allows 65,000 names for one file.
_LINKS = 50_000


def make(store: Path, users: range, owner: str | None) -> None:
    """
    An empty Maildir for each of *users*, who all belong to *owner*.
    """
    with _as(owner):
        for user in users:
            _make(store / DOMAIN / mailbox(user))


def fill(store: Path, user: int, messages: int, owner: str | None) -> None:
    """
    A Maildir with so many messages in ``new/``, which the ledger will not look at.
    """
    box = store / DOMAIN / mailbox(user)
    with _as(owner):
        _make(box)
        source = ""
        text = text_of(KB)
        for number in range(messages):
            # Names as servers make them: the time, what is unique, the machine.
            path = f"{box}/new/{1700000000 + number}.M{number:06}P1.bench{BEFORE}"
            if number % _LINKS:
                os.link(source, path)
            else:
                source = path
                with open(source, "wb") as file:
                    file.write(text.header(number) + text.body[:-3])


def _make(box: Path) -> None:
    for name in ("tmp", "new", "cur"):
        (box / name).mkdir(mode=0o700, parents=True, exist_ok=True)


@contextmanager
def _as(owner: str | None) -> Iterator[None]:
    """
    Let what is made belong to *owner*; only root can ask for somebody else.
    """
    if owner is None:
        yield
        return
    entry = pwd.getpwnam(owner)
    group = os.getegid()
    os.setegid(entry.pw_gid)
    os.seteuid(entry.pw_uid)
    try:
        yield
    finally:
        os.seteuid(os.getuid())
        os.setegid(group)
