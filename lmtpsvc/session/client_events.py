"""
What a conversation tells the application on the client's side.
"""

from __future__ import annotations

from attrs import frozen

from ..replies import Reply
from ..wire.heard_replies import HeardReply
from .capabilities import Capabilities
from .outcomes import Outcome, Stage


@frozen
class TLSWanted:
    """
    Begin TLS on the connection now, then say `ClientSession.tls_established`.
    """


@frozen
class Ready:
    """
    The server is ready for a first transaction.
    """

    capabilities: Capabilities


@frozen
class RecipientAccepted:
    """
    RCPT number *position*, counted from 0, was accepted; its outcome is still to come.
    """

    position: int
    reply: HeardReply


@frozen
class RecipientSettled:
    """
    The outcome of recipient number *position*; each gets exactly one.
    """

    position: int
    outcome: Outcome


@frozen
class TextWanted:
    """
    Say (more of) the text with `ClientSession.send_text`.
    """


@frozen
class TransactionOver:
    """
    All recipients are settled.  The next transaction may begin if `ClientSession.is_ready`.
    """


@frozen
class Ended:
    """
    The conversation is over: close the connection.  *reply* says why, as an outcome would; *heard*
    is what the server said, if that ended it.
    """

    stage: Stage
    reply: Reply
    heard: HeardReply | None = None


ClientEvent = (
    TLSWanted | Ready | RecipientAccepted | RecipientSettled | TextWanted | TransactionOver | Ended
)
