"""
The spool: a message on its way in, in memory while it is small, then in a file.

The file is written in a thread, in large pieces, one piece at a time; when the client is faster
than the disk, the spool says so and the transport is paused.  So the memory of a connection is
bounded whatever the size of its message: what is in memory, what is waiting and what is being
written are each at most about the limit for messages in memory.

The spooled file is the message exactly as the backend wants to store it, trace headers first: on
the same file system, it becomes the mail with one hard link.  It has no name, so that nothing is
left of it if the process dies.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable

from attrs import frozen
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from ..in_thread import InThread
from ..interfaces import LineEnding
from .content import Content, FileContent, MemoryContent, digest_of
from .line_endings import LineFeeds, Tally


@frozen
class SpoolSettings:
    """
    How messages are spooled: up to *memory* octets in memory, then in *directory* (made when it is
    needed) with *line_ending*.
    """

    memory: int
    directory: str
    line_ending: LineEnding
    in_thread: InThread


class SpoolFile:
    """
    The file of one message.  Its methods block, and are called one after the other.
    """

    def __init__(self, directory: str, line_ending: LineEnding) -> None:
        self._directory, self._line_ending = directory, line_ending
        self._fd = -1
        self._path = ""
        self._feeds = LineFeeds() if line_ending == "\n" else None
        # How large the file is, if nothing is converted.
        self._tally = Tally()
        self._head_size = 0
        # Of the text, from when on it can not be made from the file any more.
        self._digest: hashlib._Hash | None = None

    def begin(self, head: bytes) -> None:
        """
        Make the file, and write the trace headers, which are not in the digest.

        Raises:
            OSError: There is no room, or no right.
        """
        try:
            self._fd = self._create()
        except FileNotFoundError:
            os.makedirs(self._directory, 0o700, exist_ok=True)
            self._fd = self._create()
        self._head_size = len(head)
        self._write(head)

    def append(self, chunks: list[bytes]) -> None:
        """
        Write some more text.

        Raises:
            OSError: There is no room.
        """
        octets = b"".join(chunks)
        if self._digest is not None:
            self._digest.update(octets)
        self._write(octets)

    def end(self) -> FileContent:
        """
        Return the whole.

        Raises:
            OSError: There is no room.
        """
        feeds, sizes = self._feeds, self._tally.sizes
        if feeds is not None:
            if feeds.held:
                self._keep_digest(feeds.held)
            self._write_all(feeds.end())
            sizes = feeds.sizes
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

    def _write(self, octets: bytes) -> None:
        feeds = self._feeds
        if feeds is None:
            self._tally.feed(octets)
        else:
            held = feeds.held
            converted = feeds.feed(octets)
            if feeds.had_bare:
                self._keep_digest(held + octets)
            octets = converted
        self._write_all(octets)

    def _keep_digest(self, octets: bytes) -> None:
        """
        What is written from now on can not be turned back into what came; *octets* are the first of
        it.
        """
        if self._digest is None:
            self._digest = digest_of(self._path, "\n", self._head_size)
            self._digest.update(octets)

    def _write_all(self, octets: bytes) -> None:
        rest = memoryview(octets)
        while rest:
            rest = rest[os.write(self._fd, rest) :]


class Spool:
    """
    Takes the text of one message.  *pause* is called when it has enough to do, *resume* when more
    may come.  In the reactor thread only.
    """

    # As it is with nearly every message: then nobody has to say so.
    _held = 0
    _paused = False
    _file: SpoolFile | None = None
    _writing = False
    _failure: Failure | None = None
    _finished: Deferred[Content] | None = None
    _discarded = False

    def __init__(
        self,
        settings: SpoolSettings,
        head: bytes,
        pause: Callable[[], None],
        resume: Callable[[], None],
    ) -> None:
        #: The trace headers.
        self.head = head
        self._settings = settings
        self._pause, self._resume = pause, resume
        self._chunks: list[bytes] = []

    def write(self, octets: bytes) -> None:
        """
        Take some more text.
        """
        if self._failure is not None:
            return
        self._chunks.append(octets)
        self._held += len(octets)
        if self._held <= self._settings.memory:
            return
        if self._writing:
            if not self._paused:
                self._paused = True
                self._pause()
        else:
            self._write_out()

    def finish(self) -> MemoryContent | Deferred[Content]:
        """
        Return the whole message, or a Deferred of it if some of it has to be written first.

        Fails:
            OSError: It could not be written.
        """
        if self._file is None:
            return MemoryContent(self.head, self._chunks)
        if self._failure is not None:
            return fail(self._failure)
        self._finished = Deferred()
        finished = self._finished
        if not self._writing:
            self._write_out()
        return finished

    def discard(self) -> None:
        """
        Forget everything; nothing is to come any more.
        """
        self._discarded = True
        self._chunks = []
        if self._file is not None and not self._writing:
            self._file.discard()

    def _write_out(self) -> None:
        """
        Have a thread write what is there.
        """
        chunks, self._chunks, self._held = self._chunks, [], 0
        file = self._file
        if file is None:
            file = self._file = SpoolFile(self._settings.directory, self._settings.line_ending)
            head, begin = self.head, True
        else:
            head, begin = b"", False
        is_last = self._finished is not None

        def job() -> Content | None:
            if begin:
                file.begin(head)
            file.append(chunks)
            return file.end() if is_last else None

        self._writing = True
        self._settings.in_thread(job).addCallbacks(self._written, self._failed)

    def _written(self, content: Content | None) -> None:
        self._writing = False
        if self._discarded:
            # If the content is whole it goes with this frame.
            if self._file is not None:
                self._file.discard()
        elif content is not None:
            assert self._finished is not None
            self._finished.callback(content)
        elif self._finished is not None or self._held > self._settings.memory:
            self._write_out()
        self._go_on()

    def _failed(self, failure: Failure) -> None:
        self._writing = False
        self._failure = failure
        self._chunks = []
        if self._file is not None:
            self._file.discard()
        if self._finished is not None and not self._discarded:
            self._finished.errback(failure)
        self._go_on()

    def _go_on(self) -> None:
        if self._paused:
            self._paused = False
            self._resume()
