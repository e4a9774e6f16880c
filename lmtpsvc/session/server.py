"""
ServerSession: one LMTP conversation (RFC 2033), seen from the server.

Octets go in with `receive`, events come out of `next_event`, the application answers them, and
`data_to_send` says what to write.  There is no I/O, no clock and no Deferred here, so a whole
conversation can be played in a test, cut into packets anywhere.

A command is taken in four steps, always in this order: may it come (`states`), is it well formed
(`wire`), is there room (`limits`), then act.  What goes wrong is raised as CommandError and answered
in one place.

Commands are read ahead of slow answers (RFC 2920) with these exceptions.  DATA and BDAT wait until
every RCPT before them is answered, because only then is it known whether there is somebody to
deliver to; and some verbs of extensions wait for all that is before them.  Nothing is read while a
message is being delivered, while an extension waits for an answer, and while very many replies are
outstanding: `is_blocked` then tells the application to stop reading.  Nor while very much is to be
sent: `has_much_to_say`.
"""

from __future__ import annotations

from collections.abc import Mapping

from .. import replies
from ..envelope import Address
from ..limits import Limits
from ..replies import Reply
from ..wire.commands import CommandError
from ..wire.lines import parse_hello, split_verb
from ..wire.paths import parse_mail, parse_rcpt
from .conversation import MAX_OUTSTANDING
from .envelopes import Envelopes
from .events import Event, RecipientOffered
from .extensions import Extensions, VerbAction
from .help import help_on
from .old_verbs import HARMLESS_VERBS, REFUSED_VERBS
from .reply_queue import Slot
from .states import State, Verb, advance

#: What is said of a line that may have any verb: what stands behind it is no space, for example.
_UNREADABLE = frozenset({replies.LINE_TOO_LONG, replies.LINE_ENDING, replies.UNKNOWN_COMMAND})


class ServerSession(Envelopes):
    """
    One conversation, from the greeting on.
    """

    __slots__ = ()

    @classmethod
    def refusing(cls, reply: Reply) -> ServerSession:
        """
        A conversation that ends with its first line (RFC 5321 §3.1).
        """
        session = cls("", Limits(), Extensions([]))
        session._replies.drain()
        session._say_farewell(reply)
        return session

    @classmethod
    def _own_actions(cls) -> Mapping[bytes, VerbAction]:
        return _ACTIONS

    # ── the application's side ───────────────────────────────────────────────────────────────────

    def receive(self, octets: bytes) -> None:
        """
        Take what the client sent, cut anywhere.
        """
        if self._state is State.CLOSED:
            return
        if self._position < len(self._buffer):
            self._buffer = self._buffer[self._position :] + octets
        else:
            self._buffer = octets
        self._position = 0

    def next_event(self) -> Event | None:
        """
        Return what there is for the application to do, or None if more octets or answers must come
        first.
        """
        events = self._events
        while not events:
            if self._position >= len(self._buffer):
                # Nothing is there that could be taken.
                return None
            state = self._state
            if state is State.TEXT:
                if not self._take_text():
                    return None
            elif state is State.DELIVERING or state is State.CLOSED:
                return None
            elif self._may_be_together:
                envelope = self._envelope()
                if envelope is not None:
                    return envelope
                # Some of it may have been taken, with whatever came of it.
            elif not self._take_command():
                return None
        return events.pop(0)

    def answer_recipient(self, offer: RecipientOffered, reply: Reply) -> None:
        """
        Settle a RCPT.
        """
        offer.slot.answer(self._with_codes(reply) if reply.codes else reply)
        if offer in self._offers:
            self._pending -= 1
            if not reply.is_success:
                del self._offers[offer]
            elif self._state is State.SENDER:
                self._state = advance(self._state, Verb.RCPT)

    def answer_message(self, slot: Slot, reply: Reply) -> bool:
        """
        Settle one recipient of a complete message.  Returns whether it was the last, and the
        transaction has ended.
        """
        slot.answer(self._with_codes(reply) if reply.codes else reply)
        self._undelivered -= 1
        if self._undelivered:
            return False
        self._end_transaction()
        return True

    # ── commands ─────────────────────────────────────────────────────────────────────────────────

    def _take_command(self) -> bool:
        """
        Carry out the next command; False if there is none yet, or if it has to wait.
        """
        queue = self._replies
        if self._asked is not None or not queue.has_room(MAX_OUTSTANDING):
            return False
        buffer, start = self._buffer, self._position
        end = buffer.find(b"\n", start)
        if end < 0:
            self._hold_partial_line()
            return False
        self._position = end + 1
        if self._skipping:
            self._skipping, too_long = False, self._too_long
            self._end_exchange()
            self._refuse(too_long)
            return True
        before = len(queue)
        try:
            if self._line_reader is not None:
                self._take_line(buffer[start : end + 1])
                return True
            if end + 1 - start > self._line_limit:
                raise CommandError(replies.LINE_TOO_LONG)
            if buffer[end - 1 : end] != b"\r" or end == start:
                raise CommandError(replies.LINE_ENDING)
            verb, argument = split_verb(buffer[start : end - 1])
            if (self._pending > 0 and verb == b"DATA") or (
                verb in self._barriers and queue.has_outstanding(1)
            ):
                self._waiting = True
                self._position = start
                return False
            self._waiting = False
            action = self._actions.get(verb)
            if action is None:
                raise CommandError(replies.UNKNOWN_COMMAND)
            action(self, argument)
        except CommandError as error:
            if error.reply in _UNREADABLE and self._begins_chunk(buffer, start):
                self._say_farewell(error.reply)
            else:
                self._refuse(error.reply)
        except BaseException as error:
            self._fail(error, before, is_text=self._begins_chunk(buffer, start))
        return True

    def _begins_chunk(self, buffer: bytes, start: int) -> bool:
        """
        Whether a line that cannot be read is a BDAT: nobody knows how much text is behind it, and text
        must never be run as commands.
        """
        verb, behind = buffer[start : start + 4], buffer[start + 4 : start + 5]
        return b"BDAT" in self._actions and verb.upper() == b"BDAT" and not behind.isalnum()

    def _hold_partial_line(self) -> None:
        """
        Keep the beginning of a line, but never more than a line may be long.
        """
        if len(self._buffer) - self._position >= self._line_limit and not self._skipping:
            self._skipping = True
            if self._begins_chunk(self._buffer, self._position):
                self._say_farewell(replies.LINE_TOO_LONG)
        if self._skipping:
            self._buffer, self._position = b"", 0

    def _lhlo(self, argument: bytes) -> None:
        after = advance(self._state, Verb.LHLO)
        said = parse_hello(argument)
        # A proxy may have told what its client is called.
        name = self._told_name or said
        client = self._client
        self._client = self.connection.named(name) if client is None else client.named(name)
        self._forget_transaction()
        answer = self._extensions.capabilities(self._hostname, self)
        self._state = after
        self._replies.put(answer)
        self._say_what_is_due()

    def _wrong_hello(self, _argument: bytes) -> None:
        # RFC 2033 §4.1: never a 2yz, so that a misconfigured client is noticed.
        raise CommandError(replies.SAY_LHLO)

    def _mail(self, argument: bytes) -> None:
        advance(self._state, Verb.MAIL)
        self.expect_text()
        self._take_sender(*parse_mail(argument))
        self._may_be_together = self._takes_envelopes

    def _take_sender(self, address: Address | None, parameters: Mapping[str, str | None]) -> None:
        extensions = self._extensions
        sender, reply = extensions.sender(self, address, parameters), replies.SENDER_OK
        if parameters:
            sender, reply = extensions.changed(self, sender)
        self._sender, self._state = sender, State.SENDER
        self._replies.put(reply)

    def _rcpt(self, argument: bytes) -> None:
        """
        Offer one recipient to the application.

        The state moves when the answer comes, and only if it is yes: so DATA after nothing but
        refusals is refused by the table (RFC 2033 §4.2).
        """
        advance(self._state, Verb.RCPT)
        address, parameters = parse_rcpt(argument)
        sender = self._sender
        assert sender is not None, "the state says that MAIL was accepted"
        recipient = self._extensions.recipient(self, sender, address, parameters)
        if len(self._offers) >= self._limits.recipients:
            raise CommandError(replies.TOO_MANY_RECIPIENTS)
        self._events.append(self._offer(recipient))

    def _data(self, argument: bytes) -> None:
        advance(self._state, Verb.DATA)
        if argument:
            raise CommandError(replies.NO_PARAMETERS)
        assert self._sender is not None, "the state says that MAIL was accepted"
        if self._sender.is_binary:
            raise CommandError(replies.NEEDS_BDAT)
        self._begin_text()
        self._await_text()
        self._replies.put(replies.START_TEXT)

    def _rset(self, argument: bytes) -> None:
        if argument:
            raise CommandError(replies.NO_PARAMETERS)
        self._state = advance(self._state, Verb.RSET)
        self._forget_transaction()
        self._replies.put(replies.OK)
        self._say_what_is_due()

    def _noop(self, _argument: bytes) -> None:
        self._replies.put(replies.OK)

    def _vrfy(self, argument: bytes) -> None:
        if not argument:
            raise CommandError(replies.SYNTAX)
        self._replies.put(replies.CANNOT_VERIFY)

    def _help(self, argument: bytes) -> None:
        self._replies.put(help_on(argument, self._extensions.verbs(self)))

    def _quit(self, argument: bytes) -> None:
        if argument:
            raise CommandError(replies.NO_PARAMETERS)
        self._say_farewell(replies.goodbye(self._hostname))


_ACTIONS: Mapping[bytes, VerbAction] = {
    b"LHLO": ServerSession._lhlo,
    b"HELO": ServerSession._wrong_hello,
    b"EHLO": ServerSession._wrong_hello,
    b"MAIL": ServerSession._mail,
    b"RCPT": ServerSession._rcpt,
    b"DATA": ServerSession._data,
    b"RSET": ServerSession._rset,
    b"NOOP": ServerSession._noop,
    b"VRFY": ServerSession._vrfy,
    b"HELP": ServerSession._help,
    b"QUIT": ServerSession._quit,
    **HARMLESS_VERBS,
    **REFUSED_VERBS,
}
