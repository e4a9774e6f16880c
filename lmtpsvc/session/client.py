"""
ClientSession: one conversation in LMTP (RFC 2033) or SMTP (RFC 5321), seen from the client.

Octets go in with `receive`, events come out of `next_event`, and `data_to_send` says what to write.
There is no I/O, no clock and no Deferred here: the application connects, does TLS, and says with
`give_up` when the server takes too long.

After `Ready`, `begin` opens a transaction.  Each recipient gets one `RecipientSettled`, in any order
and as soon as it is known: a refusal at RCPT, or its own reply after the text.  A server that says
too little, too much, or what nobody can read ends the conversation: replies that have come stand, all
other recipients fail temporarily (RFC 2033 §5).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from ..replies import Reply
from ..wire.heard_replies import HeardReply, MalformedReply, ReplyReader
from .capabilities import Capabilities
from .client_events import ClientEvent, Ended, Ready, TextWanted, TLSWanted, TransactionOver
from .client_transaction import ClientTransaction
from .introduction import Introduction
from .outcomes import Stage
from .pipeline import Pipeline
from .terms import TLS, Mailing, Terms


class ClientSession:
    """
    One conversation on *terms*, from the server's greeting on.

    *is_encrypted* says that TLS is there already; *is_private* that nobody can listen all the same,
    as on a UNIX socket.  *overhear*, if given, is told every reply with the command that it
    answers, which is empty for the greeting, and for all but the first reply to a text.
    """

    __slots__ = (
        "_closed",
        "_events",
        "_farewell",
        "_introduction",
        "_is_introduced",
        "_leaving",
        "_overhear",
        "_reader",
        "_transaction",
        "capabilities",
        "heard",
        "is_encrypted",
        "is_private",
        "pipeline",
        "terms",
    )

    def __init__(
        self,
        terms: Terms,
        *,
        is_encrypted: bool = False,
        is_private: bool = False,
        overhear: Callable[[str, HeardReply], None] | None = None,
    ) -> None:
        self.terms = terms
        #: What the server has announced.
        self.capabilities = Capabilities()
        #: TLS has been established.
        self.is_encrypted = is_encrypted
        #: How many replies have come.
        self.heard = 0
        #: Nobody can listen although there is no TLS.
        self.is_private = is_private
        self._overhear = overhear
        self._reader = ReplyReader()
        #: For the parts of the session.
        self.pipeline = Pipeline()
        self._events: deque[ClientEvent] = deque()
        self._transaction: ClientTransaction | None = None
        self._farewell: HeardReply | None = None
        self._closed = False
        self._leaving = False
        self._is_introduced = False
        self._introduction = Introduction(self, self._introduced)

    # ── the application's side ───────────────────────────────────────────────────────────────────

    @property
    def is_secure(self) -> bool:
        """
        Nobody else reads what is said.
        """
        return self.is_encrypted or self.is_private

    @property
    def is_verified(self) -> bool:
        """
        The server has shown with its certificate that it is who it should be.
        """
        return self.is_encrypted and self.terms.tls is TLS.MUST

    @property
    def is_closed(self) -> bool:
        """
        Everything has been said: send what is left, and close the connection.
        """
        return self._closed

    @property
    def is_ready(self) -> bool:
        """
        A transaction may begin.
        """
        return self._is_introduced and not (
            self._closed
            or self._leaving
            or self._farewell is not None
            or self._transaction is not None
            or self.pipeline.awaited is not None
            or self._reader.has_unread
        )

    @property
    def is_chunking(self) -> bool:
        """
        The text of this transaction goes out with BDAT, each part of it being answered.
        """
        return self._transaction is not None and self._transaction.is_chunking

    @property
    def is_text_wanted(self) -> bool:
        """
        `send_text` may be called.
        """
        return self._transaction is not None and self._transaction.is_text_wanted

    @property
    def awaited(self) -> Stage | None:
        """
        Which reply is to come next; None if none is.
        """
        if self.is_text_wanted:
            return Stage.TEXT
        awaited = self.pipeline.awaited
        return None if awaited is None else awaited.stage

    @property
    def has_unread(self) -> bool:
        """
        The server has said something that was not heard yet.
        """
        return self._reader.has_unread

    def suits(self, mailing: Mailing) -> bool:
        """
        Whether *mailing* may go over this connection: the server may have been told with XCLIENT
        that we speak for somebody, which cannot be taken back.
        """
        return self._introduction.may_introduce(self._attributes(mailing))

    def receive(self, octets: bytes) -> None:
        """
        Take what the server has sent, after all of `data_to_send` has been written.
        """
        if self._closed:
            return
        self._reader.receive(octets)
        while not self._closed:
            try:
                reply = self._reader.next_reply()
            except MalformedReply as error:
                self.out_of_step(self.awaited, str(error))
                return
            if reply is None:
                return
            self._hear(reply)

    def next_event(self) -> ClientEvent | None:
        """
        The next event, or None if there is nothing to tell.
        """
        return self._events.popleft() if self._events else None

    def data_to_send(self) -> bytes:
        """
        Take what is to be written.
        """
        return self.pipeline.data_to_send()

    def tls_established(self) -> None:
        """
        TLS is there: all that was heard is forgotten (RFC 3207 §4.2).
        """
        self.is_encrypted = True
        self._introduction.tls_established()

    def begin(self, mailing: Mailing) -> None:
        """
        Open a transaction; `is_ready` is true, and so is `suits`.

        Raises:
            ValueError: There is no recipient; or an address or a parameter cannot be said, and
                nothing was.
        """
        if not (self.is_ready and self.suits(mailing)):
            raise RuntimeError("not ready for this transaction")
        if not mailing.recipients:
            raise ValueError("no recipients")
        transaction = ClientTransaction(self, mailing)
        self._transaction = transaction
        attributes = self._attributes(mailing)
        if self._introduction.introduces(attributes):
            transaction.begin()
        else:
            self._introduction.introduce(attributes, transaction.begin)

    def send_text(self, octets: bytes, *, last: bool) -> None:
        """
        Say the next *octets* of the text, CRLF at the ends of its lines; *last* with the end.

        A lone CR or LF is sent as CRLF (RFC 5321 §2.3.8), but for BDAT in LMTP or with BINARYMIME: all
        octets as they are.  If `is_chunking`, each call is a chunk, and the next may come when `TextWanted` does.

        Raises:
            RuntimeError: No text is wanted (`is_text_wanted`).
        """
        if self._transaction is None:
            raise RuntimeError("no text is wanted now")
        self._transaction.send_text(octets, last=last)

    def quit(self) -> None:
        """
        Take leave; `Ended` follows with the server's answer.
        """
        if self._closed or self._leaving:
            return
        self._leaving = True
        self.pipeline.say(Stage.QUIT, b"QUIT\r\n", self._goodbye)

    def connection_lost(self, reason: str = "") -> None:
        """
        There is no connection any more; *reason* is one line, if something is known.
        """
        if self._closed:
            return
        if self._farewell is not None:
            code = 451 if self._farewell.code == 421 else self._farewell.code
            self._end(self._present, self._farewell.as_reply(code), self._farewell)
            return
        text = f"Connection lost ({self._present.value})"
        self._end(self._present, _said(f"{text}: {reason}" if reason else text, (4, 2)))

    def give_up(self, reply: Reply, stage: Stage | None = None) -> None:
        """
        The application does not wait any longer, because of what *reply* says: it becomes the
        outcome of all recipients without one.
        """
        if not self._closed:
            self._end(stage or self._present, reply)

    # ── for the parts of the session ─────────────────────────────────────────────────────────────

    def tell(self, event: ClientEvent) -> None:
        """
        Tell the application.
        """
        self._events.append(event)

    def transaction_over(self) -> None:
        """
        The server is ready for the next one.
        """
        self._transaction = None
        self.tell(TransactionOver())

    def start_over(self) -> None:
        """
        All recipients are settled, but the server has a transaction open yet: end it with RSET.
        """

        def answered(reply: HeardReply) -> None:
            self.transaction_over()
            if not reply.is_success:
                self.part(
                    Stage.RSET, _said("The server cannot forget a transaction", (5, 0)), reply
                )

        self.pipeline.say(Stage.RSET, b"RSET\r\n", answered)

    def part(self, stage: Stage, reply: Reply, heard: HeardReply | None = None) -> None:
        """
        End the conversation with QUIT, without waiting for its answer.
        """
        octets = self.data_to_send()
        self._end(stage, reply, heard)
        self.pipeline.send(octets + b"QUIT\r\n")

    def out_of_step(self, stage: Stage | None, text: str) -> None:
        """
        End the conversation: nothing that is heard could be trusted any more.
        """
        self._end(stage or self._present, _said(f"Protocol error: {text}", (5, 0)))

    # ── replies ──────────────────────────────────────────────────────────────────────────────────

    @property
    def _present(self) -> Stage:
        return self.awaited or (Stage.TEXT if self._transaction is not None else Stage.QUIT)

    def _hear(self, reply: HeardReply) -> None:
        self.heard += 1
        awaited = self.pipeline.awaited
        if self._overhear is not None:
            self._overhear("" if awaited is None else awaited.shown, reply)
        if reply.code == 421:
            self._farewell = reply
        if self.pipeline.has_unsent or not self.pipeline.hear(reply):
            # What has not left us is not answered: a server that says too much is found out.
            self._hear_unasked(reply)
        elif (
            reply.code == 421
            and not self._closed
            and awaited is not None
            and awaited.stage is not Stage.MESSAGE
        ):
            # RFC 5321 §3.8: no more replies are to come.  (After the text of LMTP, 421 may be what
            # becomes of one recipient: there we see whether more is said.)
            self._end(awaited.stage, reply.as_reply(451), reply)

    def _hear_unasked(self, reply: HeardReply) -> None:
        """
        Something came although nothing was asked.
        """
        transaction = self._transaction
        if transaction is not None and transaction.interrupted(reply):
            self._end(Stage.TEXT, reply.as_reply(451 if reply.code == 421 else None), reply)
        elif reply.code == 421:
            self._end(self._present, reply.as_reply(451), reply)
        else:
            self.out_of_step(None, f"a reply to nothing: {reply.code}")

    def _attributes(self, mailing: Mailing) -> Mapping[str, str | None]:
        return self.terms.xclient if mailing.xclient is None else mailing.xclient

    def _introduced(self) -> None:
        self._is_introduced = True
        self.tell(Ready(self.capabilities))

    def _goodbye(self, reply: HeardReply) -> None:
        self._end(Stage.QUIT, Reply(221, "The connection was closed", (0, 0)), reply)

    def _end(self, stage: Stage, reply: Reply, heard: HeardReply | None = None) -> None:
        self._closed = True
        self.pipeline.drop_all()
        # What has not been taken yet asks for what cannot be done any more.
        stale = (Ready, TLSWanted, TextWanted)
        self._events = deque(each for each in self._events if not isinstance(each, stale))
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.settle_rest(reply, stage, heard)
            self.tell(TransactionOver())
        self.tell(Ended(stage, reply, heard))


def _said(text: str, status: tuple[int, int]) -> Reply:
    """
    A temporary failure that we tell of ourselves.
    """
    printable = "".join(each if each.isascii() and each.isprintable() else "?" for each in text)
    return Reply(451, printable[:490], status)
