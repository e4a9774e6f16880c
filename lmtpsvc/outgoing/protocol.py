"""
ClientProtocol: a connection to a server.  It joins a session to a transport, and knows no verb.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast
from typing import Protocol as Shape

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IHandshakeListener,
    IReactorTime,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..replies import Reply
from ..session.client import ClientSession
from ..session.client_events import (
    Ended,
    Ready,
    RecipientSettled,
    TextWanted,
    TLSWanted,
    TransactionOver,
)
from ..session.outcomes import Outcome, Stage
from ..session.terms import TLS, Terms
from ..wire.heard_replies import HeardReply
from .encryption import Encryption, handshake_failure
from .text import CHUNK, PIECE, TextProducer
from .timeouts import Patience, Timeouts

if TYPE_CHECKING:
    from .delivery import Delivery

_log = Logger()

_TOO_MUCH: Final = "the server says more than it was asked"


class Transport(Shape):
    """
    What a connection does with its transport: TCP, UNIX and TLS all can.
    """

    def write(self, data: bytes) -> None: ...
    def loseConnection(self) -> None: ...
    def abortConnection(self) -> None: ...
    def startTLS(self, contextFactory: Any) -> None: ...
    def registerProducer(self, producer: object, streaming: bool) -> None: ...
    def unregisterProducer(self) -> None: ...


class Owner(Shape):
    """
    Who keeps connections, and is told by them.
    """

    def connection_ready(self, connection: ClientProtocol) -> None:
        """
        *connection* takes a delivery.
        """

    def connection_ended(self, connection: ClientProtocol, ended: Ended) -> None:
        """
        *connection* takes no delivery any more.
        """

    def connection_gone(self, connection: ClientProtocol) -> None:
        """
        *connection* is closed.
        """

    def send_again(self, delivery: Delivery) -> None:
        """
        A connection that was kept was lost before anything of *delivery* was heard: nothing has
        become of it.
        """


@implementer(IHandshakeListener)
class ClientProtocol(Protocol):
    """
    One connection, from the server's greeting to its end.
    """

    def __init__(
        self,
        owner: Owner,
        terms: Terms,
        encryption: Encryption,
        timeouts: Timeouts,
        clock: IReactorTime,
        overhear: Callable[[str, HeardReply], None] | None = None,
    ) -> None:
        self._owner, self._terms, self._encryption = owner, terms, encryption
        self._timeouts, self._overhear = timeouts, overhear
        self._patience = Patience(clock, self._out_of_patience)
        self._session: ClientSession | None = None
        self._connection: Transport | None = None
        self._delivery: Delivery | None = None
        self._again = False
        self._producer: TextProducer | None = None
        self._running = False
        self._closing = False
        self._timed_out = False
        self._handshaking = False
        # TLS was begun, and nothing has come through it.
        self._is_tls_new = False
        self._waited_for: tuple[Stage | None, int] | None = None
        #: Transactions that were begun here.
        self.transactions = 0

    # ── what Twisted calls ───────────────────────────────────────────────────────────────────────

    def connectionMade(self) -> None:
        transport = self.transport
        assert transport is not None
        self._connection = cast("Transport", transport)
        is_unix = getattr(transport.getPeer(), "host", None) is None
        if ITCPTransport.providedBy(transport) and not is_unix:
            # What is written is complete, and waited for.
            transport.setTcpNoDelay(True)
        # TLS from the first octet on, of an endpoint that wraps another one.
        self._handshaking = self._is_tls_new = ISSLTransport.providedBy(transport)
        self._session = ClientSession(
            self._terms,
            is_encrypted=self._handshaking,
            is_private=is_unix,
            overhear=self._overhear,
        )
        self._run()

    def dataReceived(self, data: bytes) -> None:
        self._is_tls_new = False
        if self._session is not None:
            self._session.receive(data)
            self._run()

    def handshakeCompleted(self) -> None:
        self._handshaking = False

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # First: a transport that is lost need not be told, and with TLS it fails if it is.
        self._connection = None
        self._stop_producing()
        self._patience.stop()
        session = self._session
        if session is not None and not session.is_closed:
            if self._handshaking or self._is_refused_by_tls(reason):
                why = handshake_failure(reason, self._encryption.server_name)
                session.give_up(_reply(f"TLS handshake failed: {why}", (7, 5)), Stage.HANDSHAKE)
            else:
                done = isinstance(reason.value, ConnectionDone)
                session.connection_lost("" if done else reason.getErrorMessage())
            self._run()
        self._owner.connection_gone(self)

    def _is_refused_by_tls(self, reason: Failure) -> bool:
        """
        RFC 8446 §4.4.2.4: the server may refuse us, or our certificate, when the handshake is over for
        us.  Its alert is lost where it closes with our LHLO unread; so where TLS need not be, any end
        before its first word is taken for that.
        """
        return self._is_tls_new and (
            self._terms.tls is TLS.MAY or isinstance(reason.value, SSL.Error)
        )

    # ── what the owner calls ─────────────────────────────────────────────────────────────────────

    @property
    def is_ready(self) -> bool:
        """
        It takes a delivery.
        """
        return self._session is not None and self._session.is_ready and not self._closing

    def suits(self, delivery: Delivery) -> bool:
        """
        It may go over this connection.
        """
        return self._session is not None and self._session.suits(delivery.mailing)

    def deliver(self, delivery: Delivery) -> None:
        """
        Send it; `is_ready` is true, and so is `suits`.

        Raises:
            ValueError: It has an address or a parameter that cannot be said; nothing was.
        """
        session = self._session
        assert session is not None, "said by is_ready"
        session.begin(delivery.mailing)
        self._delivery = delivery
        self._again = False
        self.transactions += 1
        delivery.on_its_way(self._called_off)
        self._run()

    def keep(self, seconds: float) -> None:
        """
        Nothing is to be sent now: take leave after so many *seconds*.
        """
        self._patience.wait(seconds)

    def quit(self) -> None:
        """
        Take leave.
        """
        if self._session is not None:
            self._session.quit()
            self._run()

    def abort(self) -> None:
        """
        Close at once.
        """
        if self._connection is not None:
            self._connection.abortConnection()

    # ── the conversation ─────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        """
        Take the session as far as it goes, and send what it has to say.

        What is called from here may come back, with the next delivery: the flag keeps that from
        nesting.
        """
        session = self._session
        if self._running or session is None:
            return
        self._running = True
        try:
            self._flush(session)
            while (event := session.next_event()) is not None:
                match event:
                    case TLSWanted():
                        self._start_tls(session)
                    case RecipientSettled():
                        self._settle(event.position, event.outcome)
                    case TextWanted():
                        self._begin_text(session)
                    case TransactionOver():
                        self._over(session)
                    case Ready():
                        self._introduced(session)
                    case Ended():
                        self._end(event)
                self._flush(session)
        finally:
            self._running = False
        self._wait(session)

    def _flush(self, session: ClientSession) -> None:
        octets = session.data_to_send()
        if octets and self._connection is not None:
            self._connection.write(octets)

    def _start_tls(self, session: ClientSession) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            options = self._encryption.options(self._terms.tls)
        except ValueError as error:
            session.give_up(_reply(f"TLS: {error}", (7, 5)), Stage.HANDSHAKE)
            return
        self._handshaking = self._is_tls_new = True
        connection.startTLS(options)
        session.tls_established()

    def _settle(self, position: int, outcome: Outcome) -> None:
        if self._delivery is None:
            return
        if outcome.unheard and self.transactions > 1 and not self._timed_out:
            # The server had closed a connection that was kept, before it read anything.
            self._again = True
        else:
            self._delivery.settle(position, outcome)

    def _introduced(self, session: ClientSession) -> None:
        if session.is_ready:
            self._owner.connection_ready(self)
        else:
            session.out_of_step(Stage.HELLO, _TOO_MUCH)

    def _over(self, session: ClientSession) -> None:
        self._stop_producing()
        delivery, self._delivery = self._delivery, None
        if delivery is not None:
            delivery.on_its_way(None)
            if self._again:
                self._owner.send_again(delivery)
        if session.is_ready:
            self._owner.connection_ready(self)
        else:
            session.quit()

    def _end(self, event: Ended) -> None:
        self._closing = True
        self._owner.connection_ended(self, event)
        if self._connection is not None:
            if self._timed_out:
                self._connection.abortConnection()
            else:
                self._connection.loseConnection()

    # ── the text ─────────────────────────────────────────────────────────────────────────────────

    def _begin_text(self, session: ClientSession) -> None:
        if session.has_unread:
            # Whose reply is whose is not known any more, nor who would get the text.
            session.out_of_step(Stage.TEXT, _TOO_MUCH)
            return
        if session.is_text_wanted:
            self._send_piece(session)
        if session.is_text_wanted and not session.is_chunking and self._connection is not None:
            # More than one piece: each leaves when the transport has room.
            self._producer = TextProducer(self._more_text)
            self._connection.registerProducer(self._producer, False)

    def _more_text(self) -> None:
        session = self._session
        if session is None or self._producer is None:
            return
        if session.is_text_wanted:
            self._send_piece(session)
            self._flush(session)
        if not session.is_text_wanted:
            self._stop_producing()
        self._waited_for = None
        self._run()

    def _send_piece(self, session: ClientSession) -> None:
        delivery = self._delivery
        assert delivery is not None, "said by TextWanted"
        try:
            octets, last = delivery.text.read(CHUNK if session.is_chunking else PIECE)
        except Exception as error:
            # Whoever gives us a file may give us any.
            if isinstance(error, OSError):
                _log.error("a message cannot be read: {error}", error=error)
            else:
                _log.failure("a message cannot be read")
            # What has left must not look like all of it.
            self._timed_out = True
            session.give_up(_reply("The message cannot be read", (3, 0)), Stage.TEXT)
            return
        if last and session.has_unread:
            # The end of what is no reply to the text would be taken for one.
            session.out_of_step(Stage.TEXT, _TOO_MUCH)
            return
        if last:
            delivery.text_sent()
        session.send_text(octets, last=last)

    def _stop_producing(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
            if self._connection is not None:
                self._connection.unregisterProducer()

    # ── time ─────────────────────────────────────────────────────────────────────────────────────

    def _wait(self, session: ClientSession) -> None:
        """
        Give the server the time for what is waited for now, anew whenever that changes.
        """
        if self._connection is None:
            return
        if self._closing:
            self._patience.wait(self._timeouts.quit)
            return
        stage = session.awaited
        waited_for = (stage, session.heard)
        if stage is not None and waited_for != self._waited_for:
            self._waited_for = waited_for
            self._patience.wait(self._timeouts.seconds(stage))

    def _out_of_patience(self) -> None:
        session = self._session
        if session is None or self._closing:
            # Our last words are not taken.
            self.abort()
        elif session.awaited is None:
            self.quit()
        else:
            stage = Stage.HANDSHAKE if self._handshaking else session.awaited
            self._timed_out = True
            session.give_up(_reply(f"Timed out ({stage.value})", (4, 2)), stage)
            self._run()

    def _called_off(self, reply: Reply) -> None:
        session = self._session
        if session is not None:
            self._timed_out = True
            session.give_up(reply)
            self._run()


def _reply(text: str, status: tuple[int, int]) -> Reply:
    printable = "".join(each if each.isascii() and each.isprintable() else "?" for each in text)
    return Reply(451, printable[:490], status)
