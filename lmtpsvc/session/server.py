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

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from attrs import evolve

from .. import replies
from ..envelope import Client, Recipient, Sender
from ..limits import Limits
from ..replies import Reply
from ..wire.command_lines import COMMAND_LINE
from ..wire.commands import CommandError
from ..wire.lines import parse_hello, split_verb
from ..wire.paths import parse_mail, parse_rcpt, plain_recipients, plain_sender
from ..wire.text import TextDecoder
from .connection import LOCAL, Connection
from .events import (
    Asked,
    EnvelopeOffered,
    Event,
    MessageReceived,
    RecipientOffered,
    TextAbandoned,
    TextBegun,
    TextDiscarded,
    TextReceived,
    TLSBegins,
)
from .extensions import Extensions, VerbAction
from .help import help_on
from .old_verbs import HARMLESS_VERBS, REFUSED_VERBS
from .reply_queue import MUCH, Answer, ReplyQueue, Slot
from .requirements import under_terms
from .states import State, Verb, advance

#: What counts as an error of the client's beside those from 500 to 509.
_ERRORS = frozenset({replies.UNKNOWN_PARAMETER, replies.LOGIN_FAILED})

#: What is said of a line that may have any verb: what stands behind it is no space, for example.
_UNREADABLE = frozenset({replies.LINE_TOO_LONG, replies.LINE_ENDING, replies.UNKNOWN_COMMAND})

#: What ends the commands of a transaction, as most clients say it; and so many octets of it are DATA.
_DATA = b"\r\nDATA\r\n"
_DATA_OCTETS = len(_DATA) - 2

#: So many RCPTs may be told as one.
_MOST_TOGETHER = 500

#: So many replies may be outstanding before commands are left unread.
MAX_OUTSTANDING = 1000


class ServerSession:
    """
    One conversation, from the greeting on.
    """

    __slots__ = (
        "_accepted",
        "_actions",
        "_asked",
        "_barriers",
        "_buffer",
        "_client",
        "_decoder",
        "_discarding",
        "_errors",
        "_events",
        "_expected",
        "_extensions",
        "_failure",
        "_farewell",
        "_hostname",
        "_limits",
        "_line_limit",
        "_line_reader",
        "_mail_said",
        "_may_be_together",
        "_offers",
        "_pending",
        "_position",
        "_replies",
        "_sender",
        "_skipping",
        "_state",
        "_state_behind",
        "_takes_envelopes",
        "_telling",
        "_text_is_open",
        "_text_size",
        "_then",
        "_told_name",
        "_too_long",
        "_undelivered",
        "_waiting",
        "connection",
        "is_introduced",
        "notes",
    )

    def __init__(
        self,
        hostname: str,
        limits: Limits,
        extensions: Extensions,
        connection: Connection = LOCAL,
    ) -> None:
        self._hostname, self._limits, self._extensions = hostname, limits, extensions
        self._actions = under_terms(extensions.actions(self._own_actions()), connection.terms)
        self._barriers = extensions.barriers
        self._replies = ReplyQueue()
        self._replies.put(self._greeting(hostname))
        self._state = State.NEW
        self.connection = connection
        # Who is connected, as far as it has been said; None: nothing has been.
        self._client: Client | None = None
        #: What extensions remember, each under a key of its own, until all is forgotten.
        self.notes: dict[Any, Any] = {}
        #: Who the client is has been said by somebody else, whose connection it is.
        self.is_introduced = False
        # What that one says that it is called.
        self._told_name = ""
        # What an extension has asked and nobody has answered yet; nothing is read meanwhile.
        self._asked: Asked | TLSBegins | None = None
        # Who takes the next line, if it is no command, and how long that may be.
        self._line_reader: Callable[[bytes], None] | None = None
        self._line_limit = limits.command_line
        self._too_long = replies.LINE_TOO_LONG
        self._buffer, self._position = b"", 0
        self._skipping = False
        self._errors = 0
        self._events: deque[Event] = deque()
        # A DATA, say, is unread because RCPTs before it are not answered.
        self._waiting = False
        self._farewell: Reply | None = None
        # Since the last reset or message, whether or not it was accepted.
        self._mail_said = False
        self._sender: Sender | None = None
        # Offers of this transaction that were not refused, in RCPT order; a dict for its quick
        # removal.
        self._offers: dict[RecipientOffered, None] = {}
        self._pending = 0
        # The application takes RCPTs and DATA as one; and MAIL has just been said, so they may be.
        self._takes_envelopes = self._may_be_together = False
        # How many are to get the text that comes.
        self._accepted = 0
        # What finds the end of a text.  None: it is octets that were counted.
        self._decoder: TextDecoder | None = None
        # How many of those are to come, whether they are text, and what is behind them.
        self._expected = 0
        self._telling = False
        self._then: Callable[[], None] = _nothing
        self._state_behind = State.NEW
        # The application has been told that a text begins, and not how it ends.
        self._text_is_open = False
        self._text_size = 0
        self._discarding = False
        # Why a chunk of this transaction was refused.
        self._failure: Reply | None = None
        self._undelivered = 0

    @classmethod
    def refusing(cls, reply: Reply) -> ServerSession:
        """
        A conversation that ends with its first line (RFC 5321 §3.1).
        """
        session = cls("", Limits(), Extensions([]))
        session._replies.drain()
        session._say_farewell(reply)
        return session

    # ── the application's side ───────────────────────────────────────────────────────────────────

    @property
    def client(self) -> Client:
        """
        Who is connected, as far as it has been said.
        """
        if self._client is None:
            self._client = self.connection.client
        return self._client

    @client.setter
    def client(self, client: Client) -> None:
        self._client = client

    @property
    def state(self) -> State:
        """
        How far the conversation has come.
        """
        return self._state

    @property
    def sender_name(self) -> str:
        """
        The sender of the open transaction, as a text for the log.
        """
        return str(self._sender or "")

    @property
    def closed(self) -> bool:
        """
        Everything has been said: send what is left, and close the connection.
        """
        return self._state is State.CLOSED and not self._replies

    @property
    def in_transaction(self) -> bool:
        """
        The text of a message is coming, or is being delivered.
        """
        state = self._state
        return state is State.TEXT or state is State.CHUNKS or state is State.DELIVERING

    @property
    def has_said_mail(self) -> bool:
        """
        The client has said MAIL, which may have been refused, and nothing since that ends it.
        """
        return self._mail_said

    @property
    def is_between_transactions(self) -> bool:
        """
        No MAIL is open.
        """
        return self._sender is None

    @property
    def is_blocked(self) -> bool:
        """
        Nothing is read until something is answered: stop receiving.
        """
        return (
            self._state is State.DELIVERING
            or self._waiting
            or self._asked is not None
            or self._replies.has_outstanding(MAX_OUTSTANDING)
        )

    @property
    def owes_reply(self) -> bool:
        """
        The client waits for us.
        """
        return len(self._replies) > 0 or self._asked is not None

    @property
    def has_something_to_say(self) -> bool:
        """
        There is something in `data_to_send`.
        """
        return self._replies.is_ready

    @property
    def has_much_to_say(self) -> bool:
        """
        No further command is read before what there is in `data_to_send` has been taken; then see
        `next_event` again.
        """
        return self._replies.octets >= MUCH

    @property
    def has_unread(self) -> bool:
        """
        Something was received that is not a whole command yet, or must wait: see `is_blocked`.
        """
        return self._position < len(self._buffer)

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
            elif self._may_be_together and (envelope := self._envelope()) is not None:
                return envelope
            elif not self._take_command():
                return None
        return events.popleft()

    def take_envelopes(self) -> None:
        """
        From now on, tell of RCPTs and their DATA as one event where that makes no difference, and so
        of the last of a text and its end.
        """
        # Nobody else carries the verbs out, the terms of the listener neither.
        actions = self._actions
        self._takes_envelopes = (
            self._extensions.passes_plain
            and self._limits.command_line >= COMMAND_LINE
            and actions[b"MAIL"] is ServerSession._mail
            and actions[b"RCPT"] is ServerSession._rcpt
            and actions[b"DATA"] is ServerSession._data
        )

    def accept_envelope(self, offered: EnvelopeOffered) -> bool:
        """
        All recipients of *offered* are welcome, and the text is to come.  False: the conversation
        has ended meanwhile.
        """
        if self._state is not State.SENDER:
            return False
        self._accepted = count = len(offered.recipients)
        self._position = len(self._buffer)
        self._text_is_open = True
        self._await_text()
        self._replies.put_wire(replies.RECIPIENT_OK.wire * count + replies.START_TEXT.wire)
        return True

    def take_apart(self, offered: EnvelopeOffered) -> tuple[RecipientOffered, ...]:
        """
        An offer for each recipient of *offered*, to be answered as if they had come one by one.
        """
        if self._state is not State.SENDER:
            return ()
        self._position = len(self._buffer) - _DATA_OCTETS
        return tuple([self._offer(recipient) for recipient in offered.recipients])

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

    def answer_asked(self, asked: Asked, found: Any) -> None:
        """
        Tell an extension what it wanted to know.
        """
        if self._asked is asked:
            self._asked = None
            try:
                asked.then(found)
            except CommandError as error:
                self._refuse(error.reply)

    def refuse_asked(self, asked: Asked, reply: Reply) -> None:
        """
        It cannot be known: *reply* is the answer to the command.
        """
        if self._asked is asked:
            self._asked = None
            self._refuse(reply)

    def encrypted(self, connection: Connection) -> None:
        """
        TLS is in force, and the conversation begins anew (RFC 3207 §4.2), over what is now
        *connection*.
        """
        self._asked = None
        self.connection = connection
        self.begin_anew()

    def handshake_done(self, connection: Connection) -> None:
        """
        What the handshake has told is known now, before anything that came behind it is read.
        """
        self.connection = connection
        self.client = evolve(self.client, tls=True, cipher=connection.cipher)

    def data_to_send(self) -> bytes:
        """
        Take the replies whose turn has come.
        """
        return self._replies.drain()

    def close(self, farewell: Reply) -> None:
        """
        End the conversation with *farewell*, a 421 (RFC 5321 §3.8).

        A message that is being delivered gets its replies first.  Text that is not complete is
        dropped, and nothing that the client said after it is read.
        """
        if self._state is State.DELIVERING:
            self._farewell = self._farewell or farewell
        elif self._state is not State.CLOSED:
            self._say_farewell(farewell)

    def finish(self, farewell: Reply) -> None:
        """
        End the conversation with *farewell* as soon as no transaction is under way.
        """
        if self.in_transaction:
            self._farewell = self._farewell or farewell
        else:
            self.close(farewell)

    # ── what extensions may use ──────────────────────────────────────────────────────────────────

    def reply(self, reply: Answer) -> None:
        """
        Answer the present command.
        """
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

    def begin_anew(self) -> None:
        """
        Forget all that was said: who the client is, the transaction, and the notes of extensions.
        """
        self._forget_transaction()
        self._client = None
        self._told_name, self.is_introduced = "", False
        self.notes.clear()
        self._state = State.NEW

    def introduce(self, told: Mapping[str, Any]) -> None:
        """
        Greet a client of whom somebody else has *told* some members.  Its name stays, whatever
        LHLO says then.
        """
        self.client = evolve(self.client, **told)
        self._told_name, self.is_introduced = self.client.name, True
        self._replies.put(self._greeting(self._hostname))

    # ── what is another in SMTP ──────────────────────────────────────────────────────────────────

    @staticmethod
    def _greeting(hostname: str) -> Reply:
        return replies.greeting(hostname)

    @classmethod
    def _own_actions(cls) -> Mapping[bytes, VerbAction]:
        """
        What carries out each verb that no extension has.
        """
        return _ACTIONS

    # ── commands ─────────────────────────────────────────────────────────────────────────────────

    def _take_command(self) -> bool:
        """
        Carry out the next command; False if there is none yet, or if it has to wait.
        """
        queue = self._replies
        if self._asked is not None or queue.is_full or queue.has_outstanding(MAX_OUTSTANDING):
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
        return True

    def _begins_chunk(self, buffer: bytes, start: int) -> bool:
        """
        A line that cannot be read is a BDAT: nobody knows how much text is behind it, and text must
        never be run as commands.
        """
        verb, behind = buffer[start : start + 4], buffer[start + 4 : start + 5]
        return b"BDAT" in self._actions and verb.upper() == b"BDAT" and not behind.isalnum()

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

    def _envelope(self) -> EnvelopeOffered | None:
        """
        All that is left unread, if it is RCPTs and the DATA behind them, with or without the MAIL before
        them, and nothing of the long way could say anything but yes to it.
        """
        # Once for each MAIL: who sends them apart is not to pay for the attempt every time.
        self._may_be_together = False
        buffer, position = self._buffer, self._position
        if (
            not buffer.endswith(_DATA)
            or not buffer.startswith((b"MAIL FROM:<", b"RCPT TO:<"), position)
            or self._asked is not None
            or self._line_reader is not None
            or self._skipping
            or not self._replies.is_settled
        ):
            return None
        lines = buffer[position : -len(_DATA)].split(b"\r\n", _MOST_TOGETHER)
        if self._state is State.READY and (sender := plain_sender(lines[0])) is not None:
            # Whatever follows, this has been said.
            self._mail_said = True
            self._position = position + len(lines.pop(0)) + 2
            self._sender, self._state = sender, State.SENDER
            self._replies.put(replies.SENDER_OK)
        sender = self._sender
        if (
            self._state is not State.SENDER
            or sender is None
            or (sender.parameters and sender.is_binary)
            # What is left over has a CRLF within, and is no RCPT.
            or len(lines) > self._limits.recipients
        ):
            return None
        recipients = plain_recipients(lines)
        return None if recipients is None else EnvelopeOffered(sender, recipients)

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

    def _refuse(self, reply: Reply) -> None:
        self._replies.put(reply)
        # What the client cannot know beforehand is no error of its own: limits, and who lives here.
        if 500 <= reply.code < 510 or reply in _ERRORS:
            self._errors += 1
            if self._errors >= self._limits.errors:
                self._say_farewell(replies.TOO_MANY_ERRORS)

    def _lhlo(self, argument: bytes) -> None:
        after = advance(self._state, Verb.LHLO)
        name = parse_hello(argument)
        name = self._told_name or name
        client = self._client
        self._client = self.connection.named(name) if client is None else client.named(name)
        self._forget_transaction()
        self._state = after
        self._replies.put(self._extensions.capabilities(self._hostname, self))
        self._say_what_is_due()

    def _wrong_hello(self, _argument: bytes) -> None:
        # RFC 2033 §4.1: never a 2yz, so that a misconfigured client is noticed.
        raise CommandError(replies.SAY_LHLO)

    def _mail(self, argument: bytes) -> None:
        advance(self._state, Verb.MAIL)
        self.expect_text()
        address, parameters = parse_mail(argument)
        sender, reply = self._extensions.sender(self, address, parameters), replies.SENDER_OK
        if parameters:
            sender, reply = self._extensions.changed(self, sender)
        self._sender = sender
        self._state = State.SENDER
        self._may_be_together = self._takes_envelopes
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

    def _offer(self, recipient: Recipient) -> RecipientOffered:
        sender = self._sender
        assert sender is not None, "the state says that MAIL was accepted"
        offer = RecipientOffered(recipient, self._replies.reserve(), sender.size, sender.is_binary)
        self._offers[offer] = None
        self._pending += 1
        return offer

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

    def _await_text(self) -> None:
        """
        What comes now is text, up to its end.
        """
        self._text_size = 0
        self._discarding = False
        self._decoder = TextDecoder()
        self._state = State.TEXT

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

    # ── text ─────────────────────────────────────────────────────────────────────────────────────

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
        self._accepted = len(self._offers)
        self._text_is_open = True
        self._text_size = 0
        self._discarding = False
        self._events.append(TextBegun(self._sender, tuple(self._offers)))

    def _discard_text(self) -> None:
        self._discarding = True
        self._text_is_open = False
        self._events.append(TextDiscarded())

    def _abandon_text(self) -> None:
        if self._text_is_open:
            self._text_is_open = False
            self._events.append(TextAbandoned())

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

    # ── endings ──────────────────────────────────────────────────────────────────────────────────

    def _with_codes(self, reply: Reply) -> Reply:
        """
        *reply*, with its codes if the client has asked for such at MAIL.
        """
        wanted = self._sender is not None and self._sender.wants_codes
        return reply.with_codes() if wanted else reply

    def _end_transaction(self) -> None:
        self._forget_transaction()
        self._state = State.READY
        if self._farewell is not None:
            self._say_what_is_due()

    def _say_what_is_due(self) -> None:
        """
        Say the farewell that had to wait for the end of a transaction.
        """
        if self._farewell is not None and not (self.in_transaction or self._state is State.CLOSED):
            self._say_farewell(self._farewell)

    def _forget_transaction(self) -> None:
        if self._text_is_open:
            self._abandon_text()
        self._mail_said = False
        self._may_be_together = self._takes_envelopes
        self._failure = None
        self._sender = None
        self._offers = {}
        self._pending = self._accepted = 0
        client = self._client
        if client is not None and client.origin is not None:
            # It was that of one message.
            self._client = evolve(client, origin=None)

    def _say_farewell(self, reply: Reply) -> None:
        self._forget_transaction()
        self._replies.put(reply)
        self._state = State.CLOSED
        self._buffer, self._position = b"", 0
        self._waiting = False
        self._asked = None
        self._line_reader = None


def _nothing() -> None: ...


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
