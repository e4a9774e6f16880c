"""
Messages that can be recognised, whole or cut, wherever they are found again.

Each carries its Message-ID, a body that depends on a seed, and a known last line.  `Ledger`
remembers what was sent and every reply that was read, so that a store can be held against it.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable
from random import Random
from typing import NamedTuple

KIB = 1024


class Reply(NamedTuple):
    """
    One reply of the server: its code, and its lines as they came.
    """

    code: int
    line: str


class Message(NamedTuple):
    """
    A message on its way to some recipients, with CRLF line endings and no dots stuffed.
    """

    id: str
    recipients: tuple[str, ...]
    text: bytes

    @property
    def stuffed(self) -> bytes:
        """
        The text as DATA wants it, up to and with the final dot.
        """
        return self.text.replace(b"\r\n.", b"\r\n..") + b".\r\n"

    @property
    def digest(self) -> str:
        """
        What a copy of this message must hash to.
        """
        return hashlib.sha256(self.text).hexdigest()


def _lines(random: Random, octets: int) -> bytes:
    """
    Some octets of lines, a few of which start with a dot.
    """
    text = base64.encodebytes(random.randbytes(octets * 3 // 4)).replace(b"\n", b"\r\n")
    return text.replace(b"\r\nA", b"\r\n.A")


_pool = _lines(Random(0), 1024 * KIB)


def compose(random: Random, recipients: tuple[str, ...], octets: int) -> Message:
    """
    Make a message of about so many octets.

    The Message-ID is the first line, so that whatever stands in front of it in a stored copy is
    known to be the server's.
    """
    name = random.randbytes(8).hex()
    start = _pool.index(b"\r\n", random.randrange(len(_pool) // 2)) + 2
    body = (_pool[start:] * (octets // (len(_pool) - start) + 1))[:octets]
    text = (
        b"Message-ID: <%(name)s@faults>\r\nFrom: <sender@example.net>\r\nSubject: %(name)s\r\n\r\n"
        b"%(body)s\r\nend of %(name)s\r\n" % {b"name": name.encode(), b"body": body.rstrip(b"\r\n")}
    )
    return Message(name, recipients, text)


class Ledger:
    """
    What was sent, and what was answered, from many threads.
    """

    def __init__(self) -> None:
        self.sent: dict[str, tuple[int, str]] = {}
        self.replies: dict[tuple[str, str], Reply] = {}
        #: Recipients of whole messages whose replies were not read yet.
        self.unanswered: set[tuple[str, str]] = set()
        self._changed = threading.Condition()
        self._count = 0
        self._act: tuple[int, Callable[[], None]] | None = None
        self._begun: set[str] = set()
        self._certain: set[tuple[str, str]] = set()

    def will_send(self, message: Message) -> None:
        """
        A message is about to go out.
        """
        with self._changed:
            self.sent[message.id] = len(message.text), message.digest

    def await_replies(self, message: Message, recipients: list[str]) -> None:
        """
        The final dot is on its way: from now on these recipients are owed a reply.
        """
        with self._changed:
            self.unanswered.update((message.id, recipient) for recipient in recipients)

    def record(self, message: Message, recipient: str, reply: Reply) -> None:
        """
        A reply was read.
        """
        act = None
        with self._changed:
            self.replies[message.id, recipient] = reply
            self.unanswered.discard((message.id, recipient))
            self._count += reply.code == 250
            if self._act is not None and self._count >= self._act[0]:
                (_, act), self._act = self._act, None
            self._changed.notify_all()
        if act is not None:
            act()

    def at(self, count: int, act: Callable[[], None]) -> None:
        """
        Call *act* once, at the very moment when 250 number *count* was read.
        """
        with self._changed:
            self._act = self._count + count, act

    def cut(self, act: Callable[[], None]) -> None:
        """
        Call *act*, which cuts the power of the server's disk, once.

        The server lives on for a while on a disk that fails, and must promise nothing for what comes
        then.  But what was on its way when the power went does not count: ext4 ends a sync that is
        under way when it is shut down, now and then, with success although nothing was written.
        Without power nobody would hear of it.
        """
        with self._changed:
            self._certain = self.promised
        act()
        with self._changed:
            self._begun = set(self.sent)

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> None:
        """
        Wait until *condition*, about this ledger, is true.
        """
        with self._changed:
            if not self._changed.wait_for(condition, seconds):
                raise TimeoutError(f"not within {seconds} s; {len(self.replies)} replies so far")

    @property
    def promised(self) -> set[tuple[str, str]]:
        """
        Message and recipient of every 250, but for the doubtful ones of `cut`.
        """
        said = {key for key, reply in self.replies.items() if reply.code == 250}
        return {key for key in said if key in self._certain or key[0] not in self._begun}

    @property
    def refused(self) -> dict[tuple[str, str], Reply]:
        """
        Every other reply.
        """
        return {key: reply for key, reply in self.replies.items() if reply.code != 250}
