"""
The spool: a message on its way in, in memory while it is small, then in a file.

The file is written in a thread, in large pieces, one piece at a time; when the client is faster
than the disk, the spool says so and the transport is paused.  So the memory of a connection is
bounded whatever the size of its message: what is in memory, what is waiting and what is being
written are each at most about the limit for messages in memory, or, past the kernel's cache, a room
(see `past_cache`).

The spooled file is the message exactly as the backend wants to store it, trace headers first: on
the same file system, it becomes the mail with one hard link.  It has no name, so that nothing is
left of it if the process dies.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from ..in_thread import InThread
from ..interfaces import LineEnding
from .content import Content, MemoryContent
from .spool_file import SpoolFile, SpoolText


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
    #: The file becomes the mail, if its owner is to be the service: see `past_cache`.
    is_kept: bool = False


class Spool:
    """
    Takes the text of one message.  *pause* is called when it has enough to do, *resume* when more
    may come.  In the reactor thread only.
    """

    # As it is with nearly every message: then nobody has to say so.
    _held = 0
    _paused = False
    _file: SpoolFile | None = None
    _text: SpoolText | None = None
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
        is_for_service: Callable[[], bool] = lambda: True,
    ) -> None:
        #: The trace headers.
        self.head = head
        self._is_for_service = is_for_service
        self._settings = settings
        self._pause, self._resume = pause, resume
        self._chunks: list[bytes] = []

    def write(self, octets: bytes) -> None:
        """
        Take some more text.
        """
        if self._failure is not None:
            return
        text = self._text
        if text is None:
            self._chunks.append(octets)
            self._held += len(octets)
            if self._held <= self._settings.memory:
                return
            text = self._begin()
        else:
            text.feed(octets)
        if text.is_enough and not self._writing:
            self._write_out()
        if text.is_much and self._writing and not self._paused:
            self._paused = True
            self._pause()

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
        self._forget()
        if self._file is not None and not self._writing:
            self._file.discard()

    def _write_out(self) -> None:
        """
        Have a thread write what is there.
        """
        file, text = self._file, self._text
        assert file is not None, "it has begun"
        assert text is not None, "nor has it failed"
        if self._finished is not None:
            text.end()
        portion, sizes = text.take(), text.sizes
        is_last = self._finished is not None

        def job() -> Content | None:
            try:
                file.append(portion)
                return file.end(sizes) if is_last else None
            finally:
                # What has gone wrong remembers where, and with what, until the garbage collector comes.
                portion.let_go()

        self._writing = True
        self._settings.in_thread(job).addCallbacks(self._written, self._failed)

    def _begin(self) -> SpoolText:
        """
        What is in memory is the first that goes into a file.
        """
        settings = self._settings
        past_cache = settings.is_kept and self._is_for_service()
        line_ending = settings.line_ending
        self._file = SpoolFile(
            settings.directory, line_ending, len(self.head), past_cache=past_cache
        )
        self._text = text = SpoolText(line_ending, settings.memory, in_rooms=past_cache)
        text.feed(self.head)
        for octets in self._chunks:
            text.feed(octets)
        self._chunks = []
        return text

    def _forget(self) -> None:
        self._chunks, self._text = [], None

    def _written(self, content: Content | None) -> None:
        self._writing = False
        if self._discarded:
            # If the content is whole it goes with this frame.
            if self._file is not None:
                self._file.discard()
        elif content is not None:
            assert self._finished is not None
            self._finished.callback(content)
        elif self._finished is not None or (self._text is not None and self._text.is_enough):
            self._write_out()
        self._go_on()

    def _failed(self, failure: Failure) -> None:
        self._writing = False
        self._failure = failure
        self._forget()
        if self._file is not None:
            self._file.discard()
        if self._finished is not None and not self._discarded:
            self._finished.errback(failure)
        self._go_on()

    def _go_on(self) -> None:
        if self._paused:
            self._paused = False
            self._resume()
