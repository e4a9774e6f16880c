"""
What became of a recipient, as the client learns it.
"""

from __future__ import annotations

from enum import Enum

from attrs import frozen

from ..replies import Reply
from ..response_codes import ResponseCode, read
from ..wire.heard_replies import HeardReply


class Stage(Enum):
    """
    What a client waits for; the value is how it is called to a reader.
    """

    CONNECT = "connection"
    GREETING = "greeting"
    HELLO = "hello"
    STARTTLS = "STARTTLS"
    HANDSHAKE = "TLS handshake"
    AUTH = "AUTH"
    XCLIENT = "XCLIENT"
    XFORWARD = "XFORWARD"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    TEXT = "text"
    MESSAGE = "end of text"
    RSET = "RSET"
    QUIT = "QUIT"


@frozen
class Outcome:
    """
    What became of one recipient.

    *reply* says it in a form that may be passed on to whoever sent the message: its code is 2yz, 4yz
    or 5yz.  *stage* is the command that decided it.  *heard* is what the server really said; None if
    it said nothing, because it could not be reached, was lost, or never was asked.

    *server* is what the server calls itself, if it did.  *lacking* names an extension without which
    the message cannot be sent there (``8BITMIME``, ``BINARYMIME``, ``SMTPUTF8``, ``REQUIRETLS``,
    ``DELIVERBY``): nothing was sent, and who converts the message may try again.  *dsn* tells that the server knows RFC 3461, and so
    has got NOTIFY, RET, ENVID and ORCPT.  *unheard* tells that the connection was lost before the
    server had answered anything of this transaction.  *detail* is what only our own log should tell:
    which host, which error.
    """

    reply: Reply
    stage: Stage
    heard: HeardReply | None = None
    server: str = ""
    lacking: str | None = None
    dsn: bool = False
    unheard: bool = False
    detail: str = ""

    @property
    def codes(self) -> tuple[ResponseCode, ...]:
        """
        The response codes in its text, as a server gives them to a client that asks.
        """
        return read(self.reply.text)[0]

    @property
    def is_success(self) -> bool:
        """
        The server has taken responsibility for this recipient.
        """
        return self.reply.code < 300

    @property
    def is_temporary(self) -> bool:
        """
        It is worth trying again (4yz).
        """
        return 400 <= self.reply.code < 500

    @property
    def is_permanent(self) -> bool:
        """
        It would fail again (5yz).
        """
        return self.reply.code >= 500
