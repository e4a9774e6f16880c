"""
The file of a message that is too large for memory; and its text, in the form that the file has.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from typing import NamedTuple

from ..interfaces import LineEnding, Sizes
from .content import FileContent, digest_of
from .line_endings import LineFeeds, Tally
from .past_cache import PastCache, write_all


class Portion(NamedTuple):
    """
    Some more of a text: the *pieces* that are to be written.

    From the piece at *marred* on, they can not be turned back into what came, which is *originals*.
    """

    pieces: list[bytes]
    marred: int
    originals: list[bytes]


class SpoolText:
    """
    Turns what comes into what is to be written, with *line_ending*; in the thread that gets it, where
    it is still in the processor's caches.
    """

    def __init__(self, line_ending: LineEnding) -> None:
        self._feeds = LineFeeds() if line_ending == "\n" else None
        # How large it is, if nothing is converted.
        self._tally = Tally()
        self._pieces: list[bytes] = []
        self._marred = 0
        self._originals: list[bytes] = []
        self._is_marred = False

    def feed(self, octets: bytes) -> None:
        """
        Add some more; the trace headers are the first.
        """
        feeds = self._feeds
        if feeds is None:
            self._tally.feed(octets)
        else:
            held, original = feeds.held, octets
            octets = feeds.feed(octets)
            if feeds.had_bare:
                self._keep(original, held)
        self._pieces.append(octets)

    def end(self) -> None:
        """
        Nothing more is to come.
        """
        feeds = self._feeds
        if feeds is not None and feeds.held:
            self._keep(b"", feeds.held)
            self._pieces.append(feeds.end())

    def take(self) -> Portion:
        """
        What has been added since the last time.
        """
        portion = Portion(self._pieces, self._marred, self._originals)
        self._pieces, self._marred, self._originals = [], 0, []
        return portion

    @property
    def sizes(self) -> Sizes:
        """
        Of all that has been added.
        """
        return self._tally.sizes if self._feeds is None else self._feeds.sizes

    def _keep(self, octets: bytes, held: bytes) -> None:
        if not self._is_marred:
            self._is_marred = True
            self._marred = len(self._pieces)
            octets = held + octets
        self._originals.append(octets)


class SpoolFile:
    """
    The file of one message.  Its methods block, and are called one after the other.

    *past_cache* says that nobody is going to read it before it is the mail.
    """

    def __init__(
        self, directory: str, line_ending: LineEnding, *, past_cache: bool = False
    ) -> None:
        self._directory, self._line_ending = directory, line_ending
        self._wants_past_cache = past_cache
        self._past_cache: PastCache | None = None
        self._fd = -1
        self._path = ""
        self._head_size = 0
        # Of the text, from when on it can not be made from the file any more.
        self._digest: hashlib._Hash | None = None

    def begin(self, head_size: int) -> None:
        """
        Make the file; the trace headers, which are not in the digest, are *head_size* octets with
        CRLF.

        Raises:
            OSError: There is no room, or no right.
        """
        try:
            self._fd = self._create()
        except FileNotFoundError:
            os.makedirs(self._directory, 0o700, exist_ok=True)
            self._fd = self._create()
        if self._wants_past_cache:
            self._past_cache = PastCache(self._fd)
        self._head_size = head_size

    def append(self, portion: Portion) -> None:
        """
        Write some more.

        Raises:
            OSError: There is no room.
        """
        pieces, marred, originals = portion
        if originals:
            if self._digest is None:
                self._write(pieces[:marred])
                self._flush()
                pieces = pieces[marred:]
                self._digest = digest_of(self._path, "\n", self._head_size)
            for octets in originals:
                self._digest.update(octets)
        self._write(pieces)

    def end(self, sizes: Sizes) -> FileContent:
        """
        Return the whole, which has these *sizes*.

        Raises:
            OSError: There is no room.
        """
        self._flush()
        digest = None if self._digest is None else self._digest.hexdigest()
        fd, self._fd = self._fd, -1
        return FileContent(fd, self._path, self._line_ending, sizes, self._head_size, digest)

    def discard(self) -> None:
        """
        Remove it.
        """
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _create(self) -> int:
        flags = os.O_RDWR | os.O_CLOEXEC
        try:
            fd = os.open(self._directory, flags | os.O_TMPFILE, 0o600)
        except OSError as error:
            # EISDIR is what kernels without O_TMPFILE say, EOPNOTSUPP what file systems do.
            if error.errno not in {errno.EISDIR, errno.EOPNOTSUPP}:
                raise
            fd, name = tempfile.mkstemp(dir=self._directory)
            os.unlink(name)
        self._path = f"/proc/self/fd/{fd}"
        return fd

    def _write(self, pieces: list[bytes]) -> None:
        if self._past_cache is None:
            write_all(self._fd, b"".join(pieces))
        else:
            self._past_cache.write(pieces)

    def _flush(self) -> None:
        if self._past_cache is not None:
            self._past_cache.flush()
