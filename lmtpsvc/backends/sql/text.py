"""
A message as the tables have it: its trace headers, and the text that others may have too.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator
from typing import Final

from attrs import frozen

from ...interfaces import IMessage
from .headers import SEARCHED, Headers, headers_of

#: Octets of text in one part: what is in memory of a large message, and small enough for any
#: database's largest packet.
PART: Final = 1 << 18

#: What the column says, and how a part is written and read.
COMPRESS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "none": lambda octets: octets,
    "zlib": zlib.compress,
}
EXPAND: Final[dict[str, Callable[[bytes], bytes]]] = {
    "none": lambda octets: octets,
    "zlib": zlib.decompress,
}


@frozen(eq=False)
class Text:
    """
    Where *message* falls in two.  A small one is in memory as a whole, in *octets*.
    """

    message: IMessage
    trace: bytes
    #: SHA-256 of the text, in hex; counted here, because whoever has a digest gets this text.
    digest: str
    #: Octets of the text.
    size: int
    headers: Headers
    octets: bytes | None

    def parts(self) -> Iterator[bytes]:
        """
        The text in pieces of `PART`, the last shorter; one at least, even if it is empty.
        """
        if self.octets is not None:
            yield self.octets
            return
        with self.message.open("\r\n") as source:
            source.read(len(self.trace))
            left = self.size
            while left > 0:
                part = source.read(min(PART, left))
                if not part:
                    raise EOFError(f"{self.message.id}: the message has become shorter")
                left -= len(part)
                yield part


def read(message: IMessage) -> Text:
    """
    Read the message once, or twice if it is large.

    Raises:
        OSError: It cannot be read.
    """
    with message.open("\r\n") as source:
        beginning = source.read(PART)
        rest = source.read(1)
    cut = len(message.trace)
    whole = beginning if not rest else None
    digest, size = _count(message, cut, whole)
    text = beginning[cut : cut + SEARCHED]
    octets = None if whole is None else whole[cut:]
    return Text(message, beginning[:cut], digest, size, headers_of(text), octets)


def _count(message: IMessage, cut: int, whole: bytes | None) -> tuple[str, int]:
    """
    Digest and size of what comes behind the first *cut* octets.
    """
    if whole is not None:
        return hashlib.sha256(memoryview(whole)[cut:]).hexdigest(), len(whole) - cut
    digest, size = hashlib.sha256(), 0
    with message.open("\r\n") as source:
        source.read(cut)
        while part := source.read(PART):
            digest.update(part)
            size += len(part)
    return digest.hexdigest(), size
