"""
``lmtpsvc import``: a Maildir or an mbox file, put into a mailbox of an SQL store.

It can be stopped at any time and run again: what the mailbox has already is left out.  Who has the
same message twice gets it twice all the same, as they are counted.
"""

from __future__ import annotations

import argparse
import hashlib
import mailbox
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import parseaddr
from io import BytesIO
from typing import BinaryIO, Final

from attrs import frozen
from zope.interface import implementer

from ..backends.mbox_locks import Busy, locked
from ..backends.sql.reading import Store, StoreError
from ..backends.sql.schema import is_name
from ..envelope import Address, Client, Envelope, Mailbox, Recipient, Sender
from ..headers import read_headers
from ..interfaces import IMessage, LineEnding, Sizes
from .transfer import LETTERS, Progress, place

_FLAGS: Final = {letter: flag for flag, letter in LETTERS.items()}
#: Those in ``Status`` and ``X-Status``, where there are any.
_STATUS: Final = {"R": "\\Seen", "A": "\\Answered", "F": "\\Flagged", "T": "\\Draft"}
_bare_lf: Final = re.compile(rb"(?<!\r)\n")
#: What a service like this one puts on top; its own Received is the last of it.
_trace: Final = re.compile(
    rb"(?:(?:Return-Path|Delivered-To):[^\r\n]*\r\n)*Received:[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*"
).match
_quoted: Final = re.compile(rb"^>(>*From )", re.MULTILINE)


@implementer(IMessage)
@frozen
class Imported:
    """
    A message that has been somewhere else, with the trace headers that it got there.
    """

    text: bytes
    digest: str
    trace: bytes
    envelope: Envelope
    id: str = "import"
    deadline: float = 0.0
    path: str | None = None
    is_for_all: bool = False
    begun: float = 0.0

    def open(self, line_ending: LineEnding = "\r\n") -> BinaryIO:
        return BytesIO(self.text)

    def sizes(self, line_ending: LineEnding = "\r\n") -> Sizes:
        return Sizes(len(self.text), len(self.text))

    def recipients_of(self, mailbox: Mailbox) -> Sequence[Recipient]:
        return self.envelope.recipients

    def headers(self) -> EmailMessage:
        return read_headers(self.open())


@frozen
class Found:
    """
    A message as it lies in a file: with LF or CRLF, as somebody has left it.
    """

    text: bytes
    flags: list[str]
    received: datetime | None


def main(words: Sequence[str]) -> int:
    """
    Import what *words* say; returns the exit status.
    """
    parser = argparse.ArgumentParser(
        "lmtpsvc import",
        description="Puts a Maildir or an mbox file into a mailbox of an SQL store; what the"
        " mailbox has already is left out.",
    )
    parser.add_argument("source", help="maildir:PATH or mbox:PATH")
    parser.add_argument("url", help="such as sqlite:////srv/mail.db")
    parser.add_argument("mailbox", help="its name, such as ann@example.org")
    options = parser.parse_args(words)
    try:
        kind, path = place(options.source)
        if not is_name(options.mailbox):
            raise ValueError(f"{options.mailbox!r} cannot be the name of a mailbox")
        with ExitStack() as stack:
            if kind == "mbox":
                stack.enter_context(_locked(path))
            box = _maildir(path) if kind == "maildir" else _mbox(path)
            with Store.at(options.url) as store:
                said = _import(store, options.mailbox, box)
    except Busy:
        sys.stderr.write(f"lmtpsvc import: {path} is locked by another program; try again\n")
        return 1
    except (ValueError, StoreError, OSError, mailbox.Error) as error:
        sys.stderr.write(f"lmtpsvc import: {error}\n")
        return 1
    sys.stdout.write(f"{options.mailbox}: {said}\n")
    return 0


def _import(store: Store, name: str, source: tuple[int, Iterator[Found]]) -> str:
    total, messages = source
    there = Counter((message.digest, message.size) for message in store.messages(name))
    written, progress = 0, Progress(name, total)
    for found in messages:
        message = _message(found.text)
        size = len(message.text)
        # Trace headers that the client had put on top are part of the text.
        keys = [(message.digest, size), (hashlib.sha256(message.text).hexdigest(), size)]
        if known := [key for key in keys if there[key]]:
            there[known[0]] -= 1
        else:
            store.append(name, message, found.received, found.flags)
            written += 1
        progress.step()
    progress.end()
    return f"{written} messages written, {total} in all"


def _message(text: bytes) -> Imported:
    text = _bare_lf.sub(b"\r\n", text)
    # As a delivery of the same message would have it, so that they share what is the same.
    trace = _trace(text)
    cut = 0 if trace is None else trace.end()
    digest = hashlib.sha256(memoryview(text)[cut:]).hexdigest()
    _, sender = parseaddr(str(read_headers(BytesIO(text))["Return-Path"] or ""))
    local, _, domain = sender.rpartition("@")
    return Imported(
        text,
        digest,
        text[:cut],
        Envelope(Sender(Address(local, domain) if local else None), (), Client("127.0.0.1")),
    )


def _maildir(path: str) -> tuple[int, Iterator[Found]]:
    files = [
        (name, os.path.join(path, place, name))
        for place in ("new", "cur")
        for name in os.listdir(os.path.join(path, place))
        if not name.startswith(".")
    ]
    # The name begins with the time of the delivery.
    files.sort()
    return len(files), (_file(name, each) for name, each in files)


def _file(name: str, path: str) -> Found:
    with open(path, "rb") as file:
        text = file.read()
        seconds = os.fstat(file.fileno()).st_mtime
    flags = [_FLAGS[letter] for letter in name.partition(":2,")[2] if letter in _FLAGS]
    return Found(text, flags, datetime.fromtimestamp(seconds, UTC))


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """
    Nobody changes the mbox meanwhile.  What a run that was killed has left behind is removed, which
    Python's own locks do not do.

    Raises:
        Busy: Somebody else has it.
    """
    kinds: tuple[str, ...] = ("fcntl", "dotlock_try")
    try:
        descriptor = os.open(path, os.O_RDWR)
    except PermissionError:
        # Who may only read it cannot lock the file itself.
        descriptor, kinds = os.open(path, os.O_RDONLY), kinds[1:]
    try:
        with locked(descriptor, os.path.realpath(path), kinds, nullcontext):
            yield
    finally:
        os.close(descriptor)


def _mbox(path: str) -> tuple[int, Iterator[Found]]:
    box = mailbox.mbox(path, create=False)
    return len(box), _letters(box)


def _letters(box: mailbox.mbox) -> Iterator[Found]:
    try:
        for key in box.keys():  # noqa: SIM118 - it iterates over messages
            # Without what Python makes of them: the headers stay as they are.
            text = _quoted.sub(rb"\1", box.get_bytes(key))
            headers = read_headers(BytesIO(text))
            letters = f"{headers['Status'] or ''}{headers['X-Status'] or ''}"
            yield Found(text, [flag for letter, flag in _STATUS.items() if letter in letters], None)
    finally:
        box.close()
