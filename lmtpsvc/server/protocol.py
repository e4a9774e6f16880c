"""
LMTPProtocol: a connection.  It joins a session to a transport and to the delivery agent, and
knows no verb and no reply of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from typing import Protocol as Shape

from attrs import evolve
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IHandshakeListener, IPushProducer, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from .. import replies
from ..delivery.awaiting import as_deferred, in_time
from ..delivery.dispatch import reply_for
from ..delivery.held_lines import HELD, write_out
from ..delivery.log import log_refusal
from ..delivery.transaction import Accepted, Transaction
from ..envelope import Envelope, Mailbox, Recipient, Sender
from ..replies import Reply
from ..session.connection import NO_TERMS, Terms
from ..session.events import (
    Asked,
    EnvelopeOffered,
    Event,
    ExtensionFailed,
    MessageReceived,
    RecipientOffered,
    TextAbandoned,
    TextBegun,
    TextDiscarded,
    TextReceived,
    TLSBegins,
)
from ..session.server import ServerSession
from ..wire.proxy_header import ProxyHeader
from .direct import DirectConnection
from .facts import first_facts
from .outlet import Outlet
from .tls import handshake_facts

if TYPE_CHECKING:
    from .factory import LMTPFactory


_log = Logger(namespace="lmtpsvc.server")


class Transport(Shape):
    """
    What a connection does with its transport: TCP, UNIX and TLS all can.
    """

    def abortConnection(self) -> None: ...
    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...
    def registerProducer(self, producer: object, streaming: bool) -> None: ...
    def unregisterProducer(self) -> None: ...
    def startTLS(self, contextFactory: object) -> None: ...


@implementer(IPushProducer, IHandshakeListener)
class LMTPProtocol(Protocol):
    """
    One connection, from its greeting to its end.

    Input is left unread for three reasons: the session waits for an answer, the spool is behind, or
    the client does not read its replies (for the last one, the connection is its own producer).
    """

    factory: LMTPFactory
    _session: ServerSession

    # Set in the class, so that a connection is made sooner: most keep most of it to their end.
    _connection: Transport | None = None
    _outlet: Outlet | None = None
    _transaction: Transaction | None = None
    #: What a proxy in front has said before anything else.
    told: ProxyHeader | None = None
    #: When something was said or heard last.
    touched = 0.0
    #: A mail transaction has begun; until it has ended, `_agent` stays the same.
    is_in_transaction = False
    # When MAIL came, or shortly after.
    _mail_seconds = 0.0
    _running = False
    _closing = False
    _reading = True
    _spool_behind = False
    _output_full = False
    # What STARTTLS was offered with.
    _tls: Any = None
    # What an extension waits for.
    _asked: Deferred[Any] | None = None

    def __init__(self, factory: LMTPFactory, terms: Terms = NO_TERMS) -> None:
        self.factory, self._terms = factory, terms
        self._agent, self._idle = factory.agent, factory.idle

    # ── what Twisted calls ───────────────────────────────────────────────────────────────────────

    def connectionMade(self) -> None:
        transport: Any = self.transport
        self._connection = connection = transport
        self._outlet = outlet = Outlet(transport, self)
        factory = self.factory
        known = first_facts(transport, factory, self._terms, self.told)
        if not isinstance(transport, DirectConnection):
            if ITCPTransport.providedBy(transport) and hasattr(transport.getPeer(), "port"):
                # Several replies may leave on their own, each as soon as it is known.  (Twisted
                # 23.10 takes a UNIX connection for a TCP one.)
                transport.setTcpNoDelay(True)
            if not (known.tls or outlet.is_direct):
                connection.registerProducer(self, True)
        agent = factory.agent
        self._tls = factory.tls
        self._session = session = factory.speaks(
            agent.hostname, agent.limits, factory.extensions, known
        )
        session.take_envelopes()
        self._idle.watch(self)
        refusal = factory.admit(self)
        if refusal is not None:
            self._session = factory.speaks.refusing(refusal)
        self._send(connection)

    def handshakeCompleted(self) -> None:
        """
        With TLS, output is held back until the handshake is done: a producer that stopped reading
        because of that would never see its end.
        """
        cipher, certificate = handshake_facts(self.transport)
        session = self._session
        session.handshake_done(evolve(session.connection, cipher=cipher, certificate=certificate))
        if self._connection is not None and not self._closing:
            self._connection.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        self._session.receive(data)
        # What is said counts as well as what is heard, and either comes at the same moment.
        if not self._run():
            self.touched = self._agent.clock.seconds()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # Without the outlet, which has us, nothing is left for the garbage collector.
        self._connection = self._outlet = None
        self._idle.let_go(self)
        if self._transaction is not None:
            self._abandon()
        if self._asked is not None:
            self._asked.cancel()
        self.factory.forget(self)

    def pauseProducing(self) -> None:
        self._output_full = True
        self._regulate()

    def resumeProducing(self) -> None:
        self._output_full = False
        self._run()

    def stopProducing(self) -> None:
        """
        The transport has gone; connectionLost follows.
        """

    # ── what the factory calls ───────────────────────────────────────────────────────────────────

    def shut_down(self) -> None:
        """
        Say 421 as soon as no transaction is under way, and close.
        """
        self._session.finish(replies.SHUTTING_DOWN)
        self._run()

    def abort(self) -> None:
        """
        Close at once; what can still be called off is called off.
        """
        if self._connection is not None:
            self._connection.abortConnection()

    def idle_too_long(self) -> None:
        """
        Say 421 if it is the client's turn, and close; at once if it takes no notice of that.
        """
        if self._closing:
            # The client takes neither our last words nor the end of the connection.
            self.abort()
        elif not (self._session.owes_reply or self._spool_behind):
            self._session.close(replies.IDLE_TOO_LONG)
            self._run()

    # ── the conversation ─────────────────────────────────────────────────────────────────────────

    def _run(self) -> bool:
        """
        Take the session as far as it goes, then send what it has to say, in one write.  Where it has
        stopped because that is much, it goes on when the client has taken it.  Returns whether anything
        was sent.

        An answer that comes at once lands back here from inside the loop; the flag keeps that from
        nesting once per pipelined command.
        """
        if self._running:
            return False
        self._running, sent = True, False
        try:
            while self._connection is not None:
                session = self._session
                while (event := session.next_event()) is not None:
                    _TAKE[type(event)](self, event)
                if self.is_in_transaction and session.is_between_transactions:
                    self._end_transaction()
                has_unread = session.has_unread
                has_more = has_unread and session.has_much_to_say
                sent = self._send(self._connection, has_unread) or sent
                if self._output_full or not has_more:
                    break
        finally:
            self._running = False
        return sent

    def _end_transaction(self) -> None:
        self.is_in_transaction = False
        self.factory.transaction_ended(self)

    def _send(self, connection: Transport, has_unread: bool = False) -> bool:
        session = self._session
        octets = session.data_to_send()
        if octets:
            if HELD:
                write_out()
            self.touched = self._agent.clock.seconds()
        if session.closed and not self._closing:
            self._closing = True
            if not self._reading:
                # The last word of TLS is the other side's, and has to be read.
                self._reading = True
                connection.resumeProducing()
            assert self._outlet is not None, "made with the connection"
            self._outlet.finish(octets)
            return octets != b""
        if octets and self._outlet is not None:
            self._outlet.write(octets)
        if has_unread or not self._reading:
            # Else the reading goes on, and there is no reason to stop it.
            self._regulate()
        return octets != b""

    def _look_up_all(self, offered: EnvelopeOffered) -> None:
        """
        Look up all recipients of an envelope that came in one piece.  Usually all are known at once, and
        welcome.  If one is not, what was found out so far is told as if they had come one by one, and
        then it goes on like that.
        """
        if not self.is_in_transaction:
            self._begin_transaction()
        agent, session = self._agent, self._session
        look_up, seconds = agent.routing.look_up, agent.clock.seconds
        size = offered.sender.size
        began = seconds()
        accepted: list[Accepted] = []
        found: tuple[Mailbox, ...] | Deferred[tuple[Mailbox, ...]] | Failure | None = None
        for recipient in offered.recipients:
            try:
                found = look_up(recipient.address, size)
            except BaseException:
                found = Failure()
            if not isinstance(found, tuple):
                break
            now = seconds()
            accepted.append(Accepted(recipient, found, now - began))
            began = now
        else:
            if session.accept_envelope(offered):
                self._begin_text(offered.sender, offered.recipients, accepted)
            return
        offers = iter(session.take_apart(offered))
        for each, offer in zip(accepted, offers, strict=False):
            offer.found = each
            session.answer_recipient(offer, replies.RECIPIENT_OK)
        # The first of these has been looked up already.
        for offer in offers:
            if found is None:
                self._look_up(offer)
            elif isinstance(found, Failure):
                self._not_found(found, offer)
            else:
                self._found_later(found, offer, began)
            found = None

    def _begin_transaction(self) -> None:
        """
        The first recipient: what is in force now holds for the whole transaction.
        """
        self.is_in_transaction = True
        self._agent = self.factory.agent
        self._mail_seconds = self._agent.clock.seconds()

    def _look_up(self, offer: RecipientOffered) -> None:
        if not self.is_in_transaction:
            self._begin_transaction()
        began = self._agent.clock.seconds()
        recipient = offer.recipient
        try:
            found = self._agent.routing.look_up(
                recipient.address,
                offer.declared_size,
                recipient.valid_since,
                ignore_quota="IGNOREQUOTA" in recipient.parameters,
                binary=offer.is_binary,
            )
        except BaseException:
            self._not_found(Failure(), offer)
            return
        if isinstance(found, tuple):
            self._found(found, offer, began)
        else:
            self._found_later(found, offer, began)

    def _found_later(
        self, found: Deferred[tuple[Mailbox, ...]], offer: RecipientOffered, began: float
    ) -> None:
        found.addCallbacks(
            self._found, self._not_found, callbackArgs=(offer, began), errbackArgs=(offer,)
        )

    def _found(self, mailboxes: tuple[Mailbox, ...], offer: RecipientOffered, began: float) -> None:
        seconds = self._agent.clock.seconds() - began
        offer.found = Accepted(offer.recipient, mailboxes, seconds)
        self._session.answer_recipient(offer, replies.RECIPIENT_OK)
        if not self._running:
            self._run()

    def _not_found(self, failure: Failure, offer: RecipientOffered) -> None:
        reply = reply_for(failure)
        session = self._session
        log_refusal(session.sender_name, session.client, offer.recipient, reply)
        self._session.answer_recipient(offer, reply)
        self._run()

    def _begin(self, event: TextBegun) -> None:
        recipients = tuple([offer.recipient for offer in event.accepted])
        self._begin_text(event.sender, recipients, [offer.found for offer in event.accepted])

    def _begin_text(
        self, sender: Sender, recipients: tuple[Recipient, ...], accepted: list[Accepted]
    ) -> None:
        self._transaction = self._agent.begin(
            Envelope(sender, recipients, self._session.client),
            accepted,
            self._spool_is_behind,
            self._spool_has_caught_up,
            self._mail_seconds,
        )

    def _write(self, event: TextReceived) -> None:
        assert self._transaction is not None
        self._transaction.write(event.octets)

    def _deliver(self, event: MessageReceived) -> None:
        transaction = self._transaction
        assert transaction is not None
        if event.octets:
            transaction.write(event.octets)

        session, slots = self._session, event.slots

        def answer(position: int, reply: Reply) -> None:
            is_last = session.answer_message(slots[position], reply)
            if is_last:
                self._transaction = None
                self._end_transaction()
            # Else all is said by who runs.
            if not self._running and (is_last or session.has_something_to_say):
                self._run()

        transaction.deliver(answer)

    def _discard(self, _event: TextDiscarded) -> None:
        assert self._transaction is not None
        self._transaction.reject(replies.TOO_LARGE)
        self._transaction = None

    def _abandon(self, _event: TextAbandoned | None = None) -> None:
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.abandon()

    # ── what extensions need ─────────────────────────────────────────────────────────────────────

    def _find(self, asked: Asked) -> None:
        """
        Find out what an extension wants to know, within the time that a look-up may take.
        """

        def found(result: Any) -> None:
            self._asked = None
            self._session.answer_asked(asked, result)
            self._run()

        def not_found(failure: Failure) -> None:
            self._asked = None
            if self._connection is not None:
                self._session.refuse_asked(asked, reply_for(failure))
                self._run()

        agent = self.factory.agent
        answer = maybeDeferred(lambda: as_deferred(asked.find(agent)))
        self._asked = answer = in_time(answer, agent.limits.lookup_seconds, agent.clock)
        answer.addCallbacks(found, not_found)

    def _note_failure(self, event: ExtensionFailed) -> None:
        _log.failure("an extension failed in a way that it should not", Failure(event.error))

    def _begin_tls(self, _event: TLSBegins) -> None:
        """
        Nothing of what was said before may be trusted, and nothing of it comes along.
        """
        connection, transport = self._connection, self.transport
        assert connection is not None, "an event comes while there is a connection"
        assert transport is not None, "as before"
        self._send(connection)
        # Until the handshake is done, see handshakeCompleted.
        connection.unregisterProducer()
        # What it was offered with, if since then the operator wants no TLS any more.
        connection.startTLS(self.factory.tls or self._tls)
        self._outlet = Outlet(transport, self)
        self._session.encrypted(evolve(self._session.connection, tls=True, offers_tls=False))

    # ── flow and time ────────────────────────────────────────────────────────────────────────────

    def _spool_is_behind(self) -> None:
        self._spool_behind = True
        self._regulate()

    def _spool_has_caught_up(self) -> None:
        self._spool_behind = False
        self._regulate()

    def _regulate(self) -> None:
        """
        Read from the transport if there is reason to.

        A session that waits for an answer stops the reading only when something has come
        meanwhile: the usual client is silent then, and costs no system call.
        """
        connection, session = self._connection, self._session
        if self._closing or connection is None:
            return
        waits = session.has_unread and session.is_blocked
        reading = not (waits or self._spool_behind or self._output_full)
        if reading != self._reading:
            self._reading = reading
            if reading:
                connection.resumeProducing()
            else:
                connection.pauseProducing()


# What is done about each event: there are several for each message.
_TAKE: Mapping[type[Event], Callable[[LMTPProtocol, Any], None]] = {
    RecipientOffered: LMTPProtocol._look_up,
    EnvelopeOffered: LMTPProtocol._look_up_all,
    TextBegun: LMTPProtocol._begin,
    TextReceived: LMTPProtocol._write,
    MessageReceived: LMTPProtocol._deliver,
    TextDiscarded: LMTPProtocol._discard,
    TextAbandoned: LMTPProtocol._abandon,
    Asked: LMTPProtocol._find,
    TLSBegins: LMTPProtocol._begin_tls,
    ExtensionFailed: LMTPProtocol._note_failure,
}
