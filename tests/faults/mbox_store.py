"""
What a store of mboxes holds, beside what was promised.
"""

from __future__ import annotations

import hashlib
import mailbox
import os
import re
from contextlib import closing
from pathlib import Path

from .messages import Ledger
from .store import Findings

_message_id = re.compile(rb"^Message-ID: <([0-9a-f]+)@faults>\r?$", re.MULTILINE)


def files(root: Path) -> list[Path]:
    """
    The mailboxes, as ``root/domain/user``.
    """
    return sorted(path for path in root.glob("*/*") if path.suffix != ".lock")


def inspect(root: Path, ledger: Ledger) -> Findings:
    """
    Read every mailbox with Python's reader.
    """
    found = Findings()
    for path in files(root):
        recipient = f"{path.name}@{path.parent.name}"
        with closing(mailbox.mbox(path, create=False)) as reader:
            for key in reader.iterkeys():
                id, fault = _read(reader.get_bytes(key), ledger)
                if fault:
                    found.broken.append(f"{path.relative_to(root)}: {fault}")
                else:
                    found.whole[id, recipient] += 1
        octets = path.read_bytes()
        if octets and not octets.startswith(b"From "):
            found.broken.append(f"{path.relative_to(root)}: does not begin with a From line")
        if octets and not octets.endswith(b"\n\n"):
            found.broken.append(f"{path.relative_to(root)}: does not end with a blank line")
    found.lost = sorted(ledger.promised - set(found.whole))
    found.doubled = [key for key, count in found.whole.items() if count > 1]
    found.refused = sorted(set(ledger.refused) & set(found.whole))
    return found


def marked(root: Path) -> list[Path]:
    """
    Mailboxes in which somebody has died, and nobody has been since.
    """
    return [path for path in files(root) if os.listxattr(path)]


def _read(text: bytes, ledger: Ledger) -> tuple[str, str]:
    """
    The id of a message, and what is wrong with it, if anything.
    """
    match = _message_id.search(text)
    if match is None:
        return "", f"no Message-ID in {text[:60]!r}"
    id = match[1].decode()
    if id not in ledger.sent:
        return id, "nobody sent it"
    own = re.sub(rb"(?m)^>(>*From )", rb"\1", text[match.start() :]).replace(b"\n", b"\r\n")
    size, digest = ledger.sent[id]
    if hashlib.sha256(own).hexdigest() != digest:
        return id, f"{len(own)} octets, {size} were sent"
    return id, ""
