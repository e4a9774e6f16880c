"""
The text of a message on its way from a file to a transport: a piece at a time, each when the one
before it has left.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import BinaryIO, Final

from twisted.internet.interfaces import IPullProducer
from zope.interface import implementer

#: Octets of a piece; and of a chunk of BDAT, which the server answers before the next is sent.
PIECE: Final = 65_536
CHUNK: Final = 524_288
#: A message up to so many octets is looked through to see whether it is ASCII.
LOOKED_THROUGH: Final = 1_048_576


class Text:
    """
    A message to be sent: octets, or a binary *file* from where it stands.  The file is neither
    rewound nor closed.
    """

    __slots__ = ("_ahead", "_file", "size")

    def __init__(self, message: bytes | BinaryIO) -> None:
        self._file = io.BytesIO(message) if isinstance(message, bytes) else message
        self._ahead: bytes | None = None
        #: Octets, None if the file cannot tell.
        self.size: int | None = None
        if self._file.seekable():
            here = self._file.tell()
            self.size = self._file.seek(0, os.SEEK_END) - here
            self._file.seek(here)

    @property
    def is_short(self) -> bool:
        """
        It can be looked through in no time.
        """
        return self.size is not None and self.size <= LOOKED_THROUGH

    def is_ascii(self) -> bool:
        """
        Look through all of it; a file that cannot be rewound counts as not ASCII, and one that
        cannot be read as ASCII: who sends it finds that out.
        """
        if self.size is None:
            return False
        here = self._file.tell()
        try:
            return all(piece.isascii() for piece in iter(lambda: self._file.read(PIECE), b""))
        except (OSError, ValueError):
            return True
        finally:
            self._file.seek(here)

    def read(self, octets: int) -> tuple[bytes, bool]:
        """
        The next piece of at most so many *octets*, and whether it is the last one.

        Raises:
            OSError: The file cannot be read.
        """
        if self._ahead is None:
            self._ahead = self._file.read(octets)
        piece, self._ahead = self._ahead, self._file.read(octets)
        return piece, not self._ahead


@implementer(IPullProducer)
class TextProducer:
    """
    Calls *more* whenever the transport has room, until *stop*.
    """

    def __init__(self, more: Callable[[], None]) -> None:
        self._more: Callable[[], None] | None = more

    def resumeProducing(self) -> None:
        if self._more is not None:
            self._more()

    def stopProducing(self) -> None:
        self._more = None
