"""
``lmtpsvc export``: mailboxes of an SQL store, written as Maildirs or mbox files, or into another.

It can be stopped at any time and run again.  A message in a Maildir has a name that is always the
same, so that one that is there is not written again; an mbox is written whole or not at all; what
lies in a store is recognised by its digest.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import BinaryIO

from ..backends.files import CHUNK, create, make_directory_durably, remove, sync_directory
from ..backends.mbox_format import from_line, render
from ..backends.sql.reading import (
    NoSuchMessageError,
    Store,
    StoredMailbox,
    StoredMessage,
    StoreError,
)
from ..delivery.line_endings import LineFeeds
from ..envelope import Address, Sender
from .copying import to_store
from .transfer import LETTERS, Progress, path_for, place


def main(words: Sequence[str]) -> int:
    """
    Export what *words* say; returns the exit status.
    """
    parser = argparse.ArgumentParser(
        "lmtpsvc export",
        description="Writes mailboxes of an SQL store as Maildirs or mbox files, or into another"
        " SQL store; what is there already is not written again.",
    )
    parser.add_argument("url", help="such as sqlite:////srv/mail.db")
    parser.add_argument(
        "to",
        help="such as 'maildir:/srv/mail/{domain}/{user}', 'mbox:/srv/{user}' or"
        " postgresql://user@host/database",
    )
    parser.add_argument("mailbox", nargs="*", help="its name; all, if none is named")
    done = _export(parser.parse_args(words))
    while True:
        try:
            said = next(done, None)
        except (ValueError, StoreError, OSError) as error:
            sys.stderr.write(f"lmtpsvc export: {error}\n")
            return 1
        if said is None:
            return 0
        # What goes wrong here is none of the above.
        sys.stdout.write(f"{said}\n")
        sys.stdout.flush()


def _export(options: argparse.Namespace) -> Iterator[str]:
    """
    Do it; yields a line for each mailbox.
    """
    if "://" in options.to:
        with Store.at(options.url) as store, Store.at(options.to) as other:
            for box in _wanted(store, options.mailbox):
                yield f"{box.name}: {to_store(store, box, other)}"
        return
    kind, template = place(options.to)
    write = _to_maildir if kind == "maildir" else _to_mbox
    with Store.at(options.url) as store:
        boxes = _wanted(store, options.mailbox)
        # Two mailboxes in one file could not be told apart again.
        paths = [os.path.abspath(path_for(template, box.name)) for box in boxes]
        if len(set(paths)) < len(paths):
            raise ValueError(f"{options.to}: several mailboxes would come to the same place")
        for box, path in zip(boxes, paths, strict=True):
            yield f"{box.name}: {write(store, box, path)}"


def _wanted(store: Store, names: Sequence[str]) -> list[StoredMailbox]:
    """
    The mailboxes that are named, or all.
    """
    there = {box.name: box for box in store.mailboxes()}
    for unknown in [name for name in names if name not in there]:
        raise ValueError(f"{unknown}: there is no such mailbox")
    return [there[name] for name in dict.fromkeys(names)] if names else list(there.values())


def _to_maildir(store: Store, box: StoredMailbox, path: str) -> str:
    for name in ("tmp", "new", "cur"):
        make_directory_durably(os.path.join(path, name), 0o700)
    there = {
        file.partition(",")[0] for name in ("new", "cur") for file in os.listdir(f"{path}/{name}")
    }
    written, progress = 0, Progress(box.name, box.messages)
    for message in store.messages(box.name):
        seconds = int(message.received.timestamp())
        unique = f"{seconds}.V{box.uidvalidity}U{message.uid}.{message.digest[:16]}"
        if unique not in there:
            # What has been deleted since it was listed is left out.
            with suppress(NoSuchMessageError):
                _write_file(store, box.name, message, path, unique)
                written += 1
        progress.step()
    progress.end()
    for name in ("new", "cur"):
        sync_directory(os.path.join(path, name))
    return f"{written} messages written, {box.messages} in all"


def _write_file(store: Store, box: str, message: StoredMessage, path: str, unique: str) -> None:
    tmp = os.path.join(path, "tmp", unique)
    # Of a run that was stopped.
    remove(tmp)
    with store.open(box, message.uid) as source:
        create(tmp, _with_lf(source), 0o600, durably=True)
    seconds = message.received.timestamp()
    os.utime(tmp, (seconds, seconds))
    letters = "".join(sorted(LETTERS[flag] for flag in message.flags if flag in LETTERS))
    name = f"{unique},S={os.path.getsize(tmp)}"
    os.rename(
        tmp, os.path.join(path, *(("cur", f"{name}:2,{letters}") if letters else ("new", name)))
    )


def _to_mbox(store: Store, box: StoredMailbox, path: str) -> str:
    if os.path.lexists(path):
        return f"{path} is there already"
    make_directory_durably(os.path.dirname(path), 0o700)
    tmp = f"{path}.part"
    # Of a run that was stopped.
    remove(tmp)
    count, progress = 0, Progress(box.name, box.messages)
    with open(tmp, "xb") as file:
        os.fchmod(file.fileno(), 0o600)
        for message in store.messages(box.name):
            local, _, domain = message.sender.rpartition("@")
            sender = Sender(Address(local, domain) if message.sender else None)
            with suppress(NoSuchMessageError), store.open(box.name, message.uid) as source:
                head = from_line(sender, message.received.timestamp()) + _status(message)
                file.writelines(render(head, _with_lf(source)))
                count += 1
            progress.step()
        file.flush()
        os.fsync(file.fileno())
    progress.end()
    # Not over somebody else's: rename would do that.
    os.link(tmp, path)
    remove(tmp)
    sync_directory(os.path.dirname(path))
    return f"{count} messages written"


def _status(message: StoredMessage) -> bytes:
    """
    The headers in which readers of mbox files keep flags.
    """
    more = {"\\Answered": "A", "\\Flagged": "F", "\\Draft": "T", "\\Deleted": "D"}
    letters = "".join(sorted(more[flag] for flag in message.flags if flag in more))
    said = "Status: RO\n" if "\\Seen" in message.flags else ""
    return (said + (f"X-Status: {letters}\n" if letters else "")).encode()


def _with_lf(source: BinaryIO) -> BinaryIO:
    return io.BufferedReader(_Lines(source), CHUNK)


class _Lines(io.RawIOBase):
    """
    *source* with LF for each CRLF.
    """

    def __init__(self, source: BinaryIO) -> None:
        self._pieces = _converted(source)
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]  # typeshed: any buffer
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = piece
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size


def _converted(source: BinaryIO) -> Iterator[bytes]:
    feeds = LineFeeds()
    while octets := source.read(CHUNK):
        yield feeds.feed(octets)
    yield feeds.end()
