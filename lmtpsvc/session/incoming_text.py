"""
IncomingText: the text of a message as it comes, behind DATA or in chunks that say how long they are.
"""

from __future__ import annotations

from collections.abc import Callable

from .. import replies
from ..replies import Reply
from ..wire.commands import CommandError
from ..wire.text import TextDecoder
from .events import MessageReceived, TextBegun, TextDiscarded, TextReceived
from .exchanges import Exchanges
from .states import State, Verb, advance


class IncomingText(Exchanges):
    """
    A conversation in which texts are sent.
    """

    __slots__ = ()

    def begin_chunk(self, size: int) -> None:
        """
        Begin a chunk of *size* octets, the first of a text or a further one (RFC 3030 §2).

        Raises:
            CommandError: It may not come now, or makes the message larger than the limit.
        """
        after = advance(self._state, Verb.BDAT)
        if self._state is State.RECIPIENTS:
            self._begin_text()
        self._state = after
        self._text_size += size
        if self._text_size > self._limits.message_size:
            self._discard_text()
            raise CommandError(replies.TOO_LARGE)

    def take_octets(self, count: int, then: Callable[[], None], *, as_text: bool) -> None:
        """
        Take the next *count* octets for no commands, whatever they are: for some more of the text,
        or for nothing.  *then* is called behind them, at once if there are none.
        """
        if count == 0:
            then()
            return
        self._expected, self._then, self._telling = count, then, as_text
        self._state_behind, self._state = self._state, State.TEXT

    def end_text(self, last: bytes = b"") -> None:
        """
        The text is complete, and *last* is what has not been told of it: owe each accepted recipient
        one reply (RFC 2033 §4.2).
        """
        self._text_is_open = False
        slots = self._replies.reserve_many(self._accepted)
        self._undelivered = len(slots)
        self._state = State.DELIVERING
        self._events.append(MessageReceived(slots, last))

    def fail_text(self, reply: Reply) -> None:
        """
        Refuse a chunk with *reply*, and with it the transaction, which waits for its end or a reset
        (RFC 3030 §2).
        """
        self._abandon_text()
        self._failure = reply
        self._state = State.REFUSED
        self._refuse(reply)

    def end_failed_text(self, reply: Reply) -> None:
        """
        Refuse the last chunk: each accepted recipient, of which there may be none, is told *reply*,
        or why a chunk before it was refused.  The transaction has ended.
        """
        # A text that was refused before it began has nobody who was told of it.
        for _ in range(self._accepted or len(self._offers)):
            self._replies.put(self._failure or reply)
        self._end_transaction()

    def _begin_text(self) -> None:
        assert self._sender is not None, "the state says that MAIL was accepted"
        self._open_text(len(self._offers))
        self._events.append(TextBegun(self._sender, tuple(self._offers)))

    def _open_text(self, count: int) -> None:
        """
        A text is to come, of which nothing has been seen yet, for *count* recipients.
        """
        self._accepted = count
        self._text_is_open = True
        self._text_size = 0
        self._discarding = False

    def _await_text(self) -> None:
        """
        What comes now is text, up to its end.
        """
        self._decoder = TextDecoder()
        self._state = State.TEXT

    def _discard_text(self) -> None:
        self._discarding = True
        self._text_is_open = False
        self._events.append(TextDiscarded())

    def _take_text(self) -> bool:
        """
        Take what is there of the text; False if there is nothing.
        """
        if self._decoder is None:
            return self._take_counted()
        unread = self._buffer[self._position :] if self._position else self._buffer
        if not unread:
            return False
        text, rest = self._decoder.feed(unread)
        self._buffer, self._position = rest or b"", 0
        self._text_size += len(text)
        if not self._discarding:
            if self._text_size > self._limits.message_size:
                self._discard_text()
            elif text and not (rest is not None and self._takes_envelopes):
                self._events.append(TextReceived(text))
        if rest is not None:
            self._decoder = None
            if self._discarding:
                self.end_failed_text(replies.TOO_LARGE)
            else:
                self.end_text(text if self._takes_envelopes else b"")
        return True

    def _take_counted(self) -> bool:
        """
        Take what is there of the octets that were counted.
        """
        buffer, start = self._buffer, self._position
        end = min(start + self._expected, len(buffer))
        if end == start:
            return False
        self._expected -= end - start
        if self._telling:
            # A packet that is nothing else is passed on as it is.
            self._events.append(TextReceived(buffer[start:end]))
        if end == len(buffer):
            self._buffer, self._position = b"", 0
        else:
            self._position = end
        if self._expected == 0:
            self._state = self._state_behind
            self._then()
            self._say_what_is_due()
        return True
