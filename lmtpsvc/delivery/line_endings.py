"""
From CRLF to LF, in chunks; and how large a text is, counted in one pass.
"""

from __future__ import annotations

from ..interfaces import Sizes


class LineFeeds:
    """
    Turns each CRLF into LF.  A bare CR or LF is data and stays.
    """

    def __init__(self) -> None:
        self._held = b""

    def feed(self, octets: bytes) -> bytes:
        """
        Convert some more; a CR at the end is held until it is known what follows.
        """
        if self._held:
            octets = self._held + octets
            self._held = b""
        if octets.endswith(b"\r"):
            self._held = b"\r"
            octets = octets[:-1]
        return octets.replace(b"\r\n", b"\n")

    def end(self) -> bytes:
        """
        Return what was held.
        """
        held, self._held = self._held, b""
        return held


class Tally:
    """
    Counts octets, and the LFs among them that no CR precedes.
    """

    def __init__(self) -> None:
        self._octets = 0
        self._bare = 0
        self._after_cr = False

    def feed(self, octets: bytes) -> None:
        """
        Count some more.
        """
        if not octets:
            return
        self._octets += len(octets)
        self._bare += octets.count(b"\n")
        if b"\r" in octets:
            self._bare -= octets.count(b"\r\n")
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
