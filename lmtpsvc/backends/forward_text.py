"""
A message as it is passed on: with our Received, and without what only a final delivery adds.
"""

from __future__ import annotations

import io
import re
from typing import BinaryIO, Final

from ..interfaces import IMessage

#: As many Received headers are a loop (RFC 5321 §6.3).
MOST_RECEIVED: Final = 100

_RECEIVED: Final = b"Received:"
#: Octets in which they are looked for.
_HEADERS: Final = 1 << 16

_received = re.compile(rb"^Received:", re.IGNORECASE | re.MULTILINE).findall


def is_in_a_loop(message: IMessage) -> bool:
    """
    It has come through too many hands.
    """
    if message.envelope.client.ttl == 0:
        return True
    with message.open() as file:
        headers = file.read(_HEADERS).partition(b"\r\n\r\n")[0]
    return len(_received(headers)) > MOST_RECEIVED


def passed_on(message: IMessage) -> tuple[BinaryIO, int]:
    """
    Open *message* to be sent, and say how many octets it has.

    RFC 5321 §4.4: Return-Path belongs to the server that makes the final delivery, and so does
    Delivered-To.  The rest of the trace stays.
    """
    head = message.trace
    at = head.find(b"\r\n" + _RECEIVED)
    kept = head if head.startswith(_RECEIVED) else head[at + 2 :] if at >= 0 else b""
    file = message.open()
    try:
        file.seek(len(head))
    except BaseException:
        file.close()
        raise
    size = message.sizes().physical - len(head) + len(kept)
    return io.BufferedReader(_Behind(kept, file)), size


class _Behind(io.RawIOBase):
    """
    *head*, and what is left of *file* behind it.
    """

    def __init__(self, head: bytes, file: BinaryIO) -> None:
        self._head, self._file = memoryview(head), file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if self._head:
            some = self._head[: len(buffer)]
            buffer[: len(some)] = some
            self._head = self._head[len(some) :]
            return len(some)
        octets = self._file.read(len(buffer))
        buffer[: len(octets)] = octets
        return len(octets)

    def close(self) -> None:
        self._file.close()
        super().close()
