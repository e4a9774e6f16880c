"""
What the sender of a forwarded message has asked for, as far as the next server has to know it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..client import TLS
from ..envelope import NO_PARAMETERS, Envelope


def wishes_for_all(envelope: Envelope) -> dict[str, Any]:
    """
    Parameters of MAIL: what the sender calls the message (RFC 3461 §5.2.1).
    """
    return {
        name: value
        for name, value in envelope.sender.parameters.items()
        if name in {"ENVID", "RET"}
    }


def wishes_for_recipient(envelope: Envelope) -> Mapping[str, Any]:
    """
    Parameters of RCPT, if the message came for a single one: of several, nobody knows which of
    them a mailbox comes of.

    Success is reported here, once the next server has said yes: it gets NOTIFY without it, as the
    targets of an alias do (RFC 3461 §5.2.7.3).
    """
    if len(envelope.recipients) != 1:
        return NO_PARAMETERS
    [recipient] = envelope.recipients
    wishes: dict[str, Any] = {}
    if recipient.original is not None:
        wishes["ORCPT"] = recipient.original
    if recipient.notify is not None:
        wishes["NOTIFY"] = (recipient.notify - {"SUCCESS"}) or frozenset({"NEVER"})
    return wishes


def may_be_passed_on(envelope: Envelope, tls: TLS, destination: str) -> bool:
    """
    Whether a message that must not be sent in the clear (RFC 8689) may go to *destination*: over
    TLS, or a UNIX socket.
    """
    if not envelope.sender.requires_tls:
        return True
    return tls in {TLS.ENCRYPT, TLS.MUST} or destination.startswith(("unix:", "/"))
