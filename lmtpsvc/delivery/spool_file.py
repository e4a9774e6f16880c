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
from .past_cache import BLOCK, READ, ROOM, PastCache, Room, many_are_taken, many_wait, write_all


class Portion(NamedTuple):
    """
    Some more of a text: the *rooms* that are to be written, and then the *pieces*.

    From the piece at *marred* on, they can not be turned back into what came, which is *originals*.
    """

    rooms: list[Room]
    pieces: list[bytes]
    marred: int
    originals: list[bytes]

    def let_go(self) -> None:
        """
        It is needed no more, whether it has been written or not.
        """
        for room in self.rooms:
            room.let_go()


class SpoolText:
    """
    Turns what comes into what is to be written, with *line_ending*; in the thread that gets it, where
    it is still in the processor's caches.

    *memory* is how many octets are worth being written.  With *in_rooms*, for a file that is written
    past the kernel's cache, a full `Room` is.
    """

    def __init__(self, line_ending: LineEnding, memory: int, *, in_rooms: bool = False) -> None:
        self._feeds = LineFeeds() if line_ending == "\n" else None
        self._memory = memory
        # How large it is, if nothing is converted.
        self._tally = Tally()
        self._in_rooms = in_rooms
        # That which is being filled, and those that are full; and less than a block, for the next one.
        self._room: Room | None = None
        self._rooms: list[Room] = []
        self._rest = b""
        # Octets that have come since the last time that any were taken.
        self._held = 0
        self._pieces: list[bytes] = []
        self._marred = 0
        self._originals: list[bytes] = []
        self._is_marred = False

    @property
    def is_enough(self) -> bool:
        """
        It is worth being written.
        """
        return bool(self._rooms) if self._in_rooms else self._held > self._memory

    @property
    def is_much(self) -> bool:
        """
        No more should come before what has been taken is written.
        """
        return self.is_enough or (self._in_rooms and many_wait())

    def feed(self, octets: bytes) -> None:
        """
        Add some more; the trace headers are the first.
        """
        feeds = self._feeds
        self._held += len(octets)
        if feeds is None:
            self._tally.feed(octets)
            self._add(octets)
        else:
            for block in feeds.cut(octets):
                lines = feeds.convert(block)
                if feeds.had_bare:
                    self._keep(block)
                self._add(lines)
        self._see_to_room()

    def end(self) -> None:
        """
        Nothing more is to come.
        """
        self._leave_rooms()
        feeds = self._feeds
        if feeds is not None and feeds.held:
            self._keep(feeds.held)
            self._pieces.append(feeds.end())

    def take(self) -> Portion:
        """
        What has been added since the last time, but for a room that is not full.
        """
        portion = Portion(self._rooms, self._pieces, self._marred, self._originals)
        self._rooms, self._pieces, self._marred, self._originals = [], [], 0, []
        self._held = 0
        return portion

    @property
    def sizes(self) -> Sizes:
        """
        Of all that has been added.
        """
        return self._tally.sizes if self._feeds is None else self._feeds.sizes

    def _add(self, octets: bytes) -> None:
        if not self._in_rooms:
            self._pieces.append(octets)
            return
        while octets:
            room = self._room
            if room is None:
                room = self._room = Room()
                room.fill(self._rest)
                self._rest = b""
            octets = room.fill(octets)
            if octets:
                self._close(room)

    def _see_to_room(self) -> None:
        """
        A room in which there may not be enough for what comes next is full; where many have rooms, so
        is one with more than may be in memory, as who stalls now would keep it.
        """
        room = self._room
        if room is None:
            return
        most = ROOM - READ
        if many_are_taken():
            most = max(BLOCK, min(self._memory, most))
        if room.filled > most:
            self._rest = room.cut()
            self._close(room)

    def _close(self, room: Room) -> None:
        room.close()
        self._rooms.append(room)
        self._room = None

    def _keep(self, octets: bytes) -> None:
        if not self._is_marred:
            self._is_marred = True
            # What comes now is put together with what it was made from.
            self._leave_rooms()
            self._marred = len(self._pieces)
        self._originals.append(octets)

    def _leave_rooms(self) -> None:
        """
        What comes now is pieces.
        """
        self._in_rooms = False
        if self._room is not None:
            self._close(self._room)
        elif self._rest:
            self._pieces.append(self._rest)
            self._rest = b""


class SpoolFile:
    """
    The file of one message, which is made when it is first written to.  Its methods block, and are
    called one after the other.

    The trace headers, which are not in the digest, are *head_size* octets with CRLF.  *past_cache* says
    that nobody is going to read it before it is the mail.
    """

    def __init__(
        self,
        directory: str,
        line_ending: LineEnding,
        head_size: int,
        *,
        past_cache: bool = False,
    ) -> None:
        self._directory, self._line_ending, self._head_size = directory, line_ending, head_size
        self._wants_past_cache = past_cache
        self._past_cache: PastCache | None = None
        self._fd = -1
        self._path = ""
        # Of the text, from when on it can not be made from the file any more.
        self._digest: hashlib._Hash | None = None

    def append(self, portion: Portion) -> None:
        """
        Write some more.

        Raises:
            OSError: There is no room, or no right.
        """
        if self._fd < 0:
            self._begin()
        rooms, pieces, marred, originals = portion
        if self._past_cache is not None:
            # Each is let go as soon as it is written.
            for room in rooms:
                self._past_cache.write(room)
        if originals:
            if self._digest is None:
                self._write(pieces[:marred])
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

    def _begin(self) -> None:
        try:
            self._fd = self._create()
        except FileNotFoundError:
            os.makedirs(self._directory, 0o700, exist_ok=True)
            self._fd = self._create()
        if self._wants_past_cache:
            self._past_cache = PastCache(self._fd)

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
        if pieces:
            if self._past_cache is not None:
                self._past_cache.go_through_cache()
            write_all(self._fd, b"".join(pieces))
