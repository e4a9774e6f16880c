"""
Exchanges: what extensions may use to answer a command, or to ask for more before they do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import evolve

from .. import replies
from ..replies import Reply
from ..wire.commands import CommandError
from .conversation import Conversation
from .events import Asked, ExtensionFailed, TLSBegins
from .reply_queue import Answer
from .states import State

#: What counts as an error of the client's beside those from 500 to 509.
_ERRORS = frozenset({replies.UNKNOWN_PARAMETER, replies.LOGIN_FAILED})


class Exchanges(Conversation):
    """
    A conversation in which commands are answered.
    """

    __slots__ = ()

    def reply(self, reply: Answer) -> None:
        """
        Answer the present command.

        Raises:
            TypeError: That is no reply: found out now, and not when its turn comes.
        """
        if not isinstance(getattr(reply, "wire", None), bytes):
            raise TypeError(f"{reply!r} is no reply: see lmtpsvc.replies")
        self._replies.put(reply)

    def ask(self, find: Callable[[Any], Any], then: Callable[[Any], None]) -> None:
        """
        Let the application find something out: *find* is called with its delivery agent, and may
        return a Deferred or coroutine.  *then* gets what that ends with, and answers the command, or
        raises CommandError.  A failure is answered as one of a directory is.

        No further command is read until then.
        """
        self._asked = asked = Asked(find, then)
        self._events.append(asked)

    def read_line(
        self,
        reader: Callable[[bytes], None],
        limit: int,
        too_long: Reply = replies.LINE_TOO_LONG,
    ) -> None:
        """
        Give the next line to *reader*, without its CRLF, in place of taking it for a command; it
        answers it, or raises CommandError.  A line of more than *limit* octets, CRLF included, is
        answered *too_long*, and *reader* forgotten.
        """
        self._line_reader, self._line_limit, self._too_long = reader, limit, too_long

    def expect_text(self) -> None:
        """
        MAIL was said in its place: whether or not it is accepted, the text may be on its way behind
        it, and a client of LMTP then expects no reply to its last BDAT (RFC 2033 §4.3).
        """
        self._mail_said = self._state is not State.NEW

    def refuse(self, reply: Reply) -> None:
        """
        Answer the present command with *reply*.  What is no more than a CommandError is counted as
        one.
        """
        self._refuse(reply)

    def end(self, reply: Reply) -> None:
        """
        Say *reply*, and read no more.
        """
        self._say_farewell(reply)

    def begin_tls(self, reply: Reply) -> None:
        """
        Say *reply*, then let the handshake begin.

        What has come in the clear behind the command cannot be told from what an attacker has put
        there: then there is no handshake, and the connection ends (RFC 3207 §6, CVE-2011-0411).
        """
        if self.has_unread:
            self._say_farewell(replies.TOO_EARLY)
            return
        self._replies.put(reply)
        self._asked = begins = TLSBegins()
        self._events.append(begins)

    def introduce(self, told: Mapping[str, Any]) -> None:
        """
        Greet a client of whom somebody else has *told* some members.  Its name stays, whatever
        LHLO says then.
        """
        self.client = evolve(self.client, **told)
        self._told_name, self.is_introduced = self.client.name, True
        self._replies.put(self._greeting(self._hostname))

    # ── what the application answers ─────────────────────────────────────────────────────────────

    def answer_asked(self, asked: Asked, found: Any) -> None:
        """
        Tell an extension what it wanted to know.
        """
        if self._asked is asked:
            self._asked = None
            before = len(self._replies)
            try:
                asked.then(found)
            except CommandError as error:
                self._refuse(error.reply)
            except BaseException as error:
                self._fail(error, before)

    def refuse_asked(self, asked: Asked, reply: Reply) -> None:
        """
        It cannot be known: *reply* is the answer to the command.
        """
        if self._asked is asked:
            self._asked = None
            self._refuse(reply)

    # ── what becomes of it ───────────────────────────────────────────────────────────────────────

    def _take_line(self, line: bytes) -> None:
        """
        Give a line that is no command to who waits for it.
        """
        reader, limit, too_long = self._line_reader, self._line_limit, self._too_long
        self._end_exchange()
        assert reader is not None, "looked at before"
        if len(line) > limit:
            raise CommandError(too_long)
        if not line.endswith(b"\r\n"):
            raise CommandError(replies.LINE_ENDING)
        reader(line[:-2])

    def _end_exchange(self) -> None:
        self._line_reader, self._line_limit = None, self._limits.command_line
        self._too_long = replies.LINE_TOO_LONG

    def _fail(self, error: BaseException, before: int, *, is_text: bool = False) -> None:
        """
        An extension has failed in a way that it should not, while it carried out a command; *before*
        that, so many replies were to be drained.

        If text may be behind the command, this is the end, as text must never be run as commands.
        """
        self._events.append(ExtensionFailed(error))
        self._asked = None
        self._end_exchange()
        if is_text or self.in_transaction:
            self._say_farewell(replies.INTERNAL_ERROR)
        elif len(self._replies) == before:
            self._refuse(replies.INTERNAL_ERROR)

    def _refuse(self, reply: Reply) -> None:
        self._replies.put(reply)
        # What the client cannot know beforehand is no error of its own: limits, and who lives here.
        if 500 <= reply.code < 510 or reply in _ERRORS:
            self._errors += 1
            if self._errors >= self._limits.errors:
                self._say_farewell(replies.TOO_MANY_ERRORS)
