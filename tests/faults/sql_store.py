"""
What an SQL store holds, beside what was promised.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from lmtpsvc.backends.sql.reading import Store, StoredMailbox

from .messages import Ledger
from .service import Service
from .store import Findings

_message_id = re.compile(rb"^Message-ID: <([0-9a-f]+)@faults>\r?$", re.MULTILINE)


def starting(service: Callable[..., Service], url: str, *options: str) -> Callable[..., Service]:
    """
    What starts a server whose mail goes to the database at *url*.
    """
    words = ":".join(["sql", url.replace("=", "\\="), "create=yes", *options])

    def start(root: Path, **more: object) -> Service:
        return service(root, arguments=("--backend", words), **more)

    return start


def sound(path: Path) -> bool:
    """
    Whether SQLite finds nothing wrong with its file.
    """
    with closing(sqlite3.connect(path)) as connection:
        checked = connection.execute("PRAGMA integrity_check").fetchall()
        foreign = connection.execute("PRAGMA foreign_key_check").fetchall()
    return (checked, foreign) == ([("ok",)], [])


def inspect(url: str, ledger: Ledger) -> Findings:
    """
    Read every mailbox.
    """
    found = Findings()
    with Store.at(url) as store:
        for box in store.mailboxes():
            _look_into(store, box, ledger, found)
    found.lost = sorted(ledger.promised - set(found.whole))
    found.doubled = [key for key, count in found.whole.items() if count > 1]
    found.refused = sorted(set(ledger.refused) & set(found.whole))
    return found


def _look_into(store: Store, box: StoredMailbox, ledger: Ledger, found: Findings) -> None:
    messages = list(store.messages(box.name))
    if [message.uid for message in messages] != list(range(1, box.uidnext)):
        found.broken.append(f"{box.name}: UIDs {[message.uid for message in messages]}")
    sums = len(messages), sum(message.size for message in messages)
    if sums != (box.messages, box.octets):
        found.broken.append(f"{box.name}: the sums say {box.messages}, {box.octets}; not {sums}")
    for message in messages:
        with store.open(box.name, message.uid) as file:
            text = file.read()
        id, fault = _read(text, ledger)
        if len(text) != message.size:
            fault = f"{len(text)} octets, not {message.size}"
        if fault:
            found.broken.append(f"{box.name}, UID {message.uid}: {fault}")
        else:
            found.whole[id, box.name] += 1


def _read(stored: bytes, ledger: Ledger) -> tuple[str, str]:
    """
    The id of a message, and what is wrong with it, if anything.
    """
    match = _message_id.search(stored)
    if match is None:
        return "", "no Message-ID"
    id = match[1].decode()
    if id not in ledger.sent:
        return id, "nobody sent it"
    text = stored[match.start() :]
    if hashlib.sha256(text).hexdigest() != ledger.sent[id][1]:
        return id, "not what was sent"
    return id, ""
