"""
What a store of Maildirs holds, beside what was promised.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from attrs import define, field

from .messages import Ledger

_message_id = re.compile(rb"^Message-ID: <([0-9a-f]+)@faults>\r?$", re.MULTILINE)
_sizes = re.compile(r",S=(\d+)(?:,W=(\d+))?")


@define
class Findings:
    """
    What an inspection of a store found.
    """

    #: Messages found whole: (id, recipient) and how often.
    whole: Counter[tuple[str, str]] = field(factory=Counter)
    #: Files in ``new`` that are no whole message, and what is wrong with each.
    broken: list[str] = field(factory=list)
    #: (id, recipient) of each 250 without a message.
    lost: list[tuple[str, str]] = field(factory=list)
    #: (id, recipient) of each message that is there more than once, sent only once.
    doubled: list[tuple[str, str]] = field(factory=list)
    #: (id, recipient) of each message that is there although its recipient was refused.
    refused: list[tuple[str, str]] = field(factory=list)

    @property
    def harm(self) -> list[str]:
        """
        Each broken promise in words; empty if there is none.
        """
        return [
            *(f"broken: {what}" for what in self.broken),
            *(f"lost: {id} for {recipient}" for id, recipient in self.lost),
            *(f"doubled: {id} for {recipient}" for id, recipient in self.doubled),
        ]


def inspect(root: Path, ledger: Ledger) -> Findings:
    """
    Look at every file in every ``new`` of ``root/domain/user``.
    """
    found = Findings()
    for path in sorted(root.glob("*/*/new/*")):
        recipient = f"{path.parts[-3]}@{path.parts[-4]}"
        id, fault = _read(path, ledger)
        if fault:
            found.broken.append(f"{path.relative_to(root)}: {fault}")
        else:
            found.whole[id, recipient] += 1
    found.lost = sorted(ledger.promised - set(found.whole))
    found.doubled = [key for key, count in found.whole.items() if count > 1]
    found.refused = sorted(set(ledger.refused) & set(found.whole))
    return found


def _read(path: Path, ledger: Ledger) -> tuple[str, str]:
    """
    The id of the message in a file, and what is wrong with it, if anything.
    """
    stored = path.read_bytes()
    sizes = _sizes.search(path.name)
    if sizes is None:
        return "", "no S= in the name"
    if int(sizes[1]) != len(stored):
        return "", f"{len(stored)} octets"
    if sizes[2] and int(sizes[2]) != len(stored) + stored.count(b"\n") - stored.count(b"\r\n"):
        return "", "W= is wrong"
    match = _message_id.search(stored)
    if match is None:
        return "", "no Message-ID"
    id = match[1].decode()
    if id not in ledger.sent:
        return id, "nobody sent it"
    text = stored[match.start() :].replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    size, digest = ledger.sent[id]
    if not text.endswith(b"\r\nend of %s\r\n" % match[1]):
        return id, f"cut off after {len(text)} octets of {size}"
    if hashlib.sha256(text).hexdigest() != digest:
        return id, "not what was sent"
    return id, ""


def leftovers(root: Path) -> list[Path]:
    """
    Regular files that are not in a ``new``: in ``tmp``, in the spool, or anywhere else.
    """
    return [path for path in _files(root) if path.parent.name != "new"]


def messages(root: Path) -> list[Path]:
    """
    The files that readers see.
    """
    return [path for path in _files(root) if path.parent.name == "new"]


def is_temporary(path: Path) -> bool:
    """
    A place that readers of a Maildir never look at, and that somebody tidies.
    """
    return path.parent.name == "tmp"


def _files(root: Path) -> Iterator[Path]:
    """
    Each regular file below *root*; those that vanish meanwhile may or may not be among them.
    """
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path
