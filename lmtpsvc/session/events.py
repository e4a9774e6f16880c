"""
What a conversation tells the application.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field

from ..envelope import Recipient, Sender
from .reply_queue import Slot


@define(eq=False)
class RecipientOffered:
    """
    A RCPT, to be answered with `ServerSession.answer_recipient`, at once or later, in any order.
    """

    recipient: Recipient
    slot: Slot = field(repr=False)
    #: Octets of the message, if MAIL said so (RFC 1870).
    declared_size: int | None = None
    #: None of its octets may change (RFC 3030 §3).
    is_binary: bool = False
    #: For the application: what it found out about the recipient.
    found: Any = field(default=None, repr=False)


@define(eq=False)
class EnvelopeOffered:
    """
    The RCPTs of a transaction and the DATA behind them, which have come together, as they mostly do
    (RFC 2033 §4.2): only who has asked with `ServerSession.take_envelopes` is told so.

    To be settled before anything else is asked of the session: with `ServerSession.accept_envelope`
    if all are welcome, and their text is about to come; else `ServerSession.take_apart` makes of it
    what there would have been without it.
    """

    sender: Sender
    recipients: tuple[Recipient, ...]


@define(eq=False)
class TextBegun:
    """
    The text of a message for *accepted*, at least one, in RCPT order, is about to come.
    """

    sender: Sender
    accepted: tuple[RecipientOffered, ...]


@define(eq=False)
class TextReceived:
    """
    Some more of the text, dots unstuffed (RFC 5321 §4.5.2).
    """

    octets: bytes


@define(eq=False)
class TextDiscarded:
    """
    The text grew too large: no more of it will be told, and the session answers the recipients.
    """


@define(eq=False)
class TextAbandoned:
    """
    The text will not be completed: the client took it back (RSET between two BDATs), or has said
    something wrong.
    """


@define(eq=False)
class MessageReceived:
    """
    The text is complete: answer each of *slots*, one per accepted recipient in RCPT order, with
    `ServerSession.answer_message`, at once or later, in any order.

    Who has asked with `ServerSession.take_envelopes` gets the last of the text, *octets*, with it.
    """

    slots: tuple[Slot, ...]
    octets: bytes = b""


@define(eq=False)
class Asked:
    """
    An extension wants to know something that takes time: call *find* with the delivery agent, and
    give what it returns, once that is known, to `ServerSession.answer_asked`; or, if it fails, the
    reply that says so to `ServerSession.refuse_asked`.
    """

    find: Callable[[Any], Any]
    then: Callable[[Any], None] = field(repr=False)


@define(eq=False)
class TLSBegins:
    """
    Send what there is to send, let the handshake begin, and call `ServerSession.encrypted`.
    """


@define(eq=False)
class ExtensionFailed:
    """
    An extension has failed with *error*, in a way that it should not: log it.  The client has been told to
    come again.
    """

    error: BaseException


Event = (
    RecipientOffered
    | EnvelopeOffered
    | TextBegun
    | TextReceived
    | TextDiscarded
    | TextAbandoned
    | MessageReceived
    | Asked
    | TLSBegins
    | ExtensionFailed
)
