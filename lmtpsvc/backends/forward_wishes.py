"""
What the sender of a forwarded message has asked for, as far as the next server has to know it.

Whether that server knows of such things is for the client to see.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from attrs import evolve

from ..client import TLS
from ..envelope import NO_PARAMETERS, Mailbox
from ..interfaces import IMessage

_FOR_ALL: Final = ("ENVID", "RET", "MT-PRIORITY", "REQUIRETLS")


def wishes_for_all(message: IMessage, now: float) -> dict[str, Any]:
    """
    Parameters of MAIL at *now*, in seconds of the reactor: what the sender calls the message (RFC
    3461 §5.2.1), how urgent it is (RFC 6710 §4.4), when it has to be there (RFC 2852), and that it
    must not travel in the clear (RFC 8689).
    """
    sender = message.envelope.sender
    given = sender.parameters
    wishes: dict[str, Any] = {name: given[name] for name in _FOR_ALL if name in given}
    by = sender.deliver_by
    if by is not None:
        # RFC 2852 §4.1.4: less what is over.  To return it after no time at all is not for MAIL to
        # say; whoever is late is told so here.
        left = by.seconds - math.ceil(now - message.begun)
        wishes["BY"] = evolve(by, seconds=max(left, 1) if by.is_returned else left)
    return wishes


def wishes_for_recipient(message: IMessage, mailbox: Mailbox) -> Mapping[str, Any]:
    """
    Parameters of RCPT for *mailbox*: those of the recipient that leads there, the first if there are
    several.

    Success is reported here, once the next server has said yes: it gets NOTIFY without it, as the
    targets of an alias do (RFC 3461 §5.2.7.3).
    """
    for recipient in message.recipients_of(mailbox):
        if not recipient.parameters:
            return NO_PARAMETERS
        wishes: dict[str, Any] = {}
        if recipient.original is not None:
            wishes["ORCPT"] = recipient.original
        if recipient.notify is not None:
            wishes["NOTIFY"] = (recipient.notify - {"SUCCESS"}) or frozenset({"NEVER"})
        return wishes
    return NO_PARAMETERS


def policy(message: IMessage, destination: str, tls: TLS) -> TLS:
    """
    How *message* is encrypted on its way to *destination*, where the operator wants *tls*: its sender
    may ask for more (RFC 8689 §4.2.1).  A UNIX socket needs none.
    """
    if not message.envelope.sender.requires_tls or destination.startswith(("unix:", "/")):
        return tls
    return TLS.MUST
