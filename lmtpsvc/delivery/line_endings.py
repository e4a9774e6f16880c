"""
From CRLF to LF, in chunks; and how large a text is, counted in one pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ..interfaces import Sizes

_CRLF: Final = b"\r\n"

#: Octets that are converted at a time: what stays in the cache of a processor from one step to the
#: next.
_BLOCK: Final = 1 << 16


class LineFeeds:
    """
    Turns each CRLF into LF.  A bare CR or LF is data and stays.
    """

    __slots__ = ("_bare", "_tally", "held")

    def __init__(self) -> None:
        #: A CR of which it is not known what follows.
        self.held = b""
        self._tally = Tally()
        self._bare = False

    def feed(self, octets: bytes) -> bytes:
        """
        Convert some more; a CR at the end is held until it is known what follows.
        """
        return b"".join(map(self.convert, self.cut(octets)))

    def cut(self, octets: bytes) -> Iterator[bytes]:
        """
        Cut some more into blocks that can be converted one by one, with what was held before them.
        """
        if self.held:
            octets = self.held + octets
            self.held = b""
        if octets.endswith(b"\r"):
            self.held = b"\r"
            octets = octets[:-1]
        if len(octets) <= _BLOCK:
            yield octets
            return
        start, size = 0, len(octets)
        while start < size:
            # Never between a CR and its LF.
            end = octets.find(b"\n", start + _BLOCK - 1) + 1 or size
            yield octets[start:end]
            start = end

    def convert(self, block: bytes) -> bytes:
        """
        Convert the next *block* that `cut` has given.
        """
        lines = _without_cr(block)
        if lines is not None:
            self._tally.count(lines, len(block) - len(lines))
            return lines
        self._bare = True
        lines = block.replace(_CRLF, b"\n")
        self._tally.feed(lines)
        return lines

    def end(self) -> bytes:
        """
        Return what was held.
        """
        held, self.held = self.held, b""
        if held:
            self._bare = True
            self._tally.feed(held)
        return held

    @property
    def sizes(self) -> Sizes:
        """
        Of what has been returned so far.
        """
        return self._tally.sizes

    @property
    def had_bare(self) -> bool:
        """
        There has been a CR or LF on its own, so that what came in can not be made again from what
        has been returned.
        """
        return self._bare


def _without_cr(octets: bytes) -> bytes | None:
    """
    *octets* with LF for CRLF; None if there is a CR or LF on its own, as in few.

    Python looks for one octet several times as fast as for two: so every CR is taken out, and a look
    whether that was right still leaves a third of the time of one replace.
    """
    lines = octets.replace(b"\r", b"")
    return lines if lines.replace(b"\n", _CRLF) == octets else None


def with_line_feeds(octets: bytes) -> tuple[bytes, Sizes]:
    """
    A text that is there as a whole, as `LineFeeds` converts it, and its sizes then.
    """
    if len(octets) <= _BLOCK:
        lines = _without_cr(octets)
        if lines is not None:
            return lines, Sizes(len(lines), len(octets))
    feeds = LineFeeds()
    return feeds.feed(octets) + feeds.end(), feeds.sizes


class Tally:
    """
    Counts octets, and the LFs among them that no CR precedes.
    """

    __slots__ = ("_after_cr", "_bare", "_octets")

    def __init__(self) -> None:
        self._octets = 0
        self._bare = 0
        self._after_cr = False

    def feed(self, octets: bytes) -> None:
        """
        Count some more.
        """
        bare = octets.count(b"\n")
        if b"\r" in octets:
            bare -= octets.count(_CRLF)
        self.count(octets, bare)

    def count(self, octets: bytes, bare: int) -> None:
        """
        Count some more, with so many *bare* LFs if nothing were before it.
        """
        if not octets:
            return
        self._octets += len(octets)
        self._bare += bare
        if self._after_cr and octets.startswith(b"\n"):
            self._bare -= 1
        self._after_cr = octets.endswith(b"\r")

    @property
    def sizes(self) -> Sizes:
        """
        What has been counted so far.
        """
        return Sizes(self._octets, self._octets + self._bare)


def sizes_of(octets: bytes) -> Sizes:
    """
    The sizes of a text that is there as a whole.
    """
    tally = Tally()
    tally.feed(octets)
    return tally.sizes
