"""
Where the octets of a message are: in memory, or in a spooled file.
"""

from __future__ import annotations

import hashlib
import io
import os
import weakref
from collections.abc import Sequence
from typing import BinaryIO, Final, Protocol

from ..interfaces import LineEnding, Sizes
from .line_endings import LineFeeds, Tally, sizes_of, with_line_feeds

#: Octets that are read at a time.
_AT_ONCE: Final = 1 << 16

_FEW: Final = 2


#: The octets that `IMessage.open` yields, and its sizes.
InMemory = tuple[bytes, Sizes]


class Content(Protocol):
    """
    A whole message; see `lmtpsvc.interfaces.IMessage` for what each member means.
    """

    @property
    def digest(self) -> str: ...

    @property
    def path(self) -> str | None: ...

    def open(self, line_ending: LineEnding) -> BinaryIO: ...

    def sizes(self, line_ending: LineEnding) -> Sizes: ...

    def in_memory(self, line_ending: LineEnding) -> InMemory | None:
        """
        All of it; None if a file would have to be read.
        """


class MemoryContent:
    """
    Trace headers and the *chunks* of the text, with CRLF, in memory.

    Each form, its sizes and the digest are made when they are asked for, by who asks, and the forms
    once.  Two threads that ask at the same time both make them, which is harmless.
    """

    __slots__ = ("_chunks", "_forms", "_head")

    path = None

    def __init__(self, head: bytes, chunks: Sequence[bytes]) -> None:
        self._head, self._chunks = head, chunks
        self._forms: dict[LineEnding, InMemory] = {}

    @property
    def digest(self) -> str:
        digest = hashlib.sha256()
        for chunk in self._chunks:
            digest.update(chunk)
        return digest.hexdigest()

    def open(self, line_ending: LineEnding) -> BinaryIO:
        return io.BytesIO(self.in_memory(line_ending)[0])

    def sizes(self, line_ending: LineEnding) -> Sizes:
        return self.in_memory(line_ending)[1]

    def in_memory(self, line_ending: LineEnding) -> InMemory:
        form = self._forms.get(line_ending)
        if form is None:
            pieces = [self._head, *self._chunks]
            if line_ending == "\n":
                if len(pieces) <= _FEW:
                    # They are short, and quicker put together than converted one by one.
                    form = with_line_feeds(b"".join(pieces))
                else:
                    feeds = LineFeeds()
                    pieces = [*map(feeds.feed, pieces), feeds.end()]
                    form = b"".join(pieces), feeds.sizes
            else:
                octets = b"".join(pieces)
                form = octets, sizes_of(octets)
            self._forms[line_ending] = form
        return form


class FileContent:
    """
    A spooled file in one form of line endings, read in any.  The text begins behind *head_size*
    octets, counted with CRLF.

    Its *digest* is said only if it can not be made from the file any more: hardly anybody asks, and
    to make it takes longer than to write the file.

    The file goes when nobody has this object any more.  That is not when the last reply leaves: a
    delivery that was cancelled may still be reading in a thread, and ``/proc/self/fd/7`` must not
    have become another file by then.
    """

    def __init__(
        self,
        fd: int,
        path: str,
        line_ending: LineEnding,
        sizes: Sizes,
        head_size: int,
        digest: str | None = None,
    ) -> None:
        self.path: str | None = path
        self._head_size, self._digest = head_size, digest
        self._line_ending: LineEnding = line_ending
        self._sizes = {line_ending: sizes}
        weakref.finalize(self, os.close, fd)

    @property
    def digest(self) -> str:
        if self._digest is None:
            assert self.path is not None
            self._digest = digest_of(self.path, self._line_ending, self._head_size).hexdigest()
        return self._digest

    def open(self, line_ending: LineEnding) -> BinaryIO:
        assert self.path is not None
        stored = open(self.path, "rb")  # noqa: SIM115 - the caller closes it
        if line_ending == self._line_ending:
            return stored
        return io.BufferedReader(_Converted(stored, line_ending))

    def sizes(self, line_ending: LineEnding) -> Sizes:
        sizes = self._sizes.get(line_ending)
        if sizes is None:
            tally = Tally()
            with self.open(line_ending) as stored:
                while octets := stored.read(_AT_ONCE):
                    tally.feed(octets)
            sizes = self._sizes[line_ending] = tally.sizes
        return sizes

    def in_memory(self, line_ending: LineEnding) -> None:
        return None


class PrefixedContent:
    """
    Another content with a header of its own before it: no file has it, and it is copied.
    """

    path = None

    def __init__(self, prefix: bytes, content: Content) -> None:
        self._prefix, self._content = prefix, content

    @property
    def digest(self) -> str:
        return self._content.digest

    def open(self, line_ending: LineEnding) -> BinaryIO:
        prefix = io.BytesIO(self._prefix_with(line_ending))
        return io.BufferedReader(_Joined(prefix, self._content.open(line_ending)))

    def sizes(self, line_ending: LineEnding) -> Sizes:
        return self._larger(self._content.sizes(line_ending), self._prefix_with(line_ending))

    def in_memory(self, line_ending: LineEnding) -> InMemory | None:
        whole = self._content.in_memory(line_ending)
        if whole is None:
            return None
        octets, sizes = whole
        prefix = self._prefix_with(line_ending)
        return prefix + octets, self._larger(sizes, prefix)

    def _prefix_with(self, line_ending: LineEnding) -> bytes:
        return self._prefix.replace(b"\r\n", b"\n") if line_ending == "\n" else self._prefix

    def _larger(self, sizes: Sizes, prefix: bytes) -> Sizes:
        physical, virtual = sizes
        return Sizes(physical + len(prefix), virtual + len(self._prefix))


def digest_of(path: str, line_ending: LineEnding, head_size: int) -> hashlib._Hash:
    """
    The SHA-256 of what the file at *path*, with *line_ending*, holds behind *head_size* octets, both
    with CRLF.
    """
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as stored:
        left = head_size
        while octets := stored.read(_AT_ONCE):
            if line_ending == "\n":
                octets = octets.replace(b"\n", b"\r\n")
            digest.update(memoryview(octets)[left:])
            left = max(left - len(octets), 0)
    return digest


class _Source(io.RawIOBase):
    """
    A read-only raw file made of others.
    """

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]  # typeshed: any buffer
        octets = self._more(len(buffer))
        buffer[: len(octets)] = octets
        return len(octets)

    def _more(self, size: int) -> bytes:
        raise NotImplementedError


class _Joined(_Source):
    def __init__(self, *files: BinaryIO) -> None:
        self._files = list(files)

    def _more(self, size: int) -> bytes:
        while self._files:
            if octets := self._files[0].read(size):
                return octets
            self._files.pop(0).close()
        return b""

    def close(self) -> None:
        for file in self._files:
            file.close()
        self._files = []
        super().close()


class _Converted(_Source):
    """
    The other form of line endings.  From LF to CRLF every LF gets a CR: what was bare is not known
    any more, which is why a backend that wants CRLF has it spooled so.
    """

    def __init__(self, file: BinaryIO, line_ending: LineEnding) -> None:
        self._file = file
        self._feeds = LineFeeds() if line_ending == "\n" else None
        self._held = b""

    def _more(self, size: int) -> bytes:
        while not self._held:
            octets = self._file.read(_AT_ONCE)
            if self._feeds is None:
                self._held = octets.replace(b"\n", b"\r\n")
            else:
                self._held = self._feeds.feed(octets) if octets else self._feeds.end()
            if not octets:
                break
        octets, self._held = self._held[:size], self._held[size:]
        return octets

    def close(self) -> None:
        self._file.close()
        super().close()
