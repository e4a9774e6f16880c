"""
Conversation: what is remembered of a conversation with a client, and how it ends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from attrs import evolve

from .. import replies
from ..envelope import Client, Sender
from ..limits import Limits
from ..replies import Reply
from ..wire.text import TextDecoder
from .connection import LOCAL, Connection
from .events import Asked, Event, RecipientOffered, TextAbandoned, TLSBegins
from .extensions import Extensions, VerbAction
from .reply_queue import ReplyQueue
from .requirements import under_terms
from .states import State

#: So many replies may be outstanding before commands are left unread.
MAX_OUTSTANDING = 1000


class Conversation(ABC):
    """
    The ground on which `lmtpsvc.session.server.ServerSession` stands.
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
        "_has_terms",
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
        actions = extensions.actions(self._own_actions())
        self._actions = under_terms(actions, connection.terms)
        # The listener asks something of its clients.
        self._has_terms = self._actions is not actions
        self._barriers = extensions.barriers
        self._replies = ReplyQueue(self._greeting(hostname).wire)
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
        # What comes is the rest of a line that was too long.
        self._skipping = False
        # Commands that were refused, and count (`Limits.errors`).
        self._errors = 0
        self._events: list[Event] = []
        # A DATA, say, is unread because RCPTs before it are not answered.
        self._waiting = False
        self._farewell: Reply | None = None
        # Since the last reset or message, whether or not it was accepted.
        self._mail_said = False
        self._sender: Sender | None = None
        # Offers of this transaction that were not refused, in RCPT order; a dict for its quick
        # removal.
        self._offers: dict[RecipientOffered, None] = {}
        # Of these, how many are not answered yet.
        self._pending = 0
        # The application takes RCPTs and DATA as one; and MAIL has just been said, so they may be.
        self._takes_envelopes = self._may_be_together = False
        # How many are to get the text that comes.
        self._accepted = 0
        # What finds the end of a text.  None: it is octets that were counted.
        self._decoder: TextDecoder | None = None
        # How many of those are to come, whether the application is told of them, and what is done, and in
        # which state, behind them.
        self._expected = 0
        self._telling = False
        self._then: Callable[[], None] = _nothing
        self._state_behind = State.NEW
        # The application has been told that a text begins, and not how it ends.
        self._text_is_open = False
        self._text_size = 0
        # The text is too large: it is read to its end, and that is all.
        self._discarding = False
        # Why a chunk of this transaction was refused.
        self._failure: Reply | None = None
        # Recipients of a complete message that are not answered yet.
        self._undelivered = 0

    @staticmethod
    def _greeting(hostname: str) -> Reply:
        return replies.greeting(hostname)

    @classmethod
    @abstractmethod
    def _own_actions(cls) -> Mapping[bytes, VerbAction]:
        """
        What carries out each verb that no extension has.
        """

    # ── how far it is ────────────────────────────────────────────────────────────────────────────

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
        return self._replies.is_full

    @property
    def has_unread(self) -> bool:
        """
        Something was received that is not a whole command yet, or must wait: see `is_blocked`.
        """
        return self._position < len(self._buffer)

    def data_to_send(self) -> bytes:
        """
        Take the replies whose turn has come.
        """
        return self._replies.drain()

    def handshake_done(self, connection: Connection) -> None:
        """
        What the handshake has told is known now, before anything that came behind it is read.
        """
        self.connection = connection
        self.client = evolve(self.client, tls=True, cipher=connection.cipher)

    def encrypted(self, connection: Connection) -> None:
        """
        TLS is in force, and the conversation begins anew (RFC 3207 §4.2), over what is now
        *connection*.
        """
        self._asked = None
        self.connection = connection
        self.begin_anew()

    def begin_anew(self) -> None:
        """
        Forget all that was said: who the client is, the transaction, and the notes of extensions.
        """
        self._forget_transaction()
        self._client = None
        self._told_name, self.is_introduced = "", False
        self.notes.clear()
        self._state = State.NEW

    # ── endings ──────────────────────────────────────────────────────────────────────────────────

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

    def _abandon_text(self) -> None:
        if self._text_is_open:
            self._text_is_open = False
            self._events.append(TextAbandoned())

    def _say_farewell(self, reply: Reply) -> None:
        self._forget_transaction()
        self._replies.put(reply)
        self._state = State.CLOSED
        self._buffer, self._position = b"", 0
        self._waiting = False
        self._asked = None
        self._line_reader = None


def _nothing() -> None: ...
