"""
The log of deliveries: one structured line per recipient.
"""

from __future__ import annotations

from attrs import frozen
from twisted.logger import Logger

from ..envelope import Envelope, Recipient
from ..replies import Reply

NAMESPACE = "lmtpsvc.delivery"

_log = Logger(namespace=NAMESPACE)

_FORMAT = (
    "{transaction} to=<{recipient}> mailbox={mailbox} from=<{sender}> client={client} size={size}"
    " lookup={lookup_seconds:.3f} store={store_seconds:.3f} total={total_seconds:.3f}"
    " reply={reply}"
)


@frozen
class Timing:
    """
    Seconds spent on one recipient: to find out who it is, to store the message, and in all since
    the client began to send the text.
    """

    lookup: float
    store: float
    total: float


def log_delivery(
    transaction_id: str,
    envelope: Envelope,
    recipient: Recipient,
    mailboxes: str,
    size: int,
    reply: Reply,
    timing: Timing,
) -> None:
    """
    Log what became of one recipient of a message.
    """
    _log.info(
        _FORMAT,
        transaction=transaction_id,
        client=envelope.client.host,
        client_name=envelope.client.name,
        sender=str(envelope.sender),
        recipient=str(recipient),
        mailbox=mailboxes,
        size=size,
        reply=str(reply),
        reply_code=reply.code,
        lookup_seconds=timing.lookup,
        store_seconds=timing.store,
        total_seconds=timing.total,
    )


def log_refusal(envelope_sender: str, client_host: str, recipient: Recipient, reply: Reply) -> None:
    """
    Log a recipient that was refused at RCPT.
    """
    _log.info(
        "refused to=<{recipient}> from=<{sender}> client={client} reply={reply}",
        client=client_host,
        sender=envelope_sender,
        recipient=str(recipient),
        reply=str(reply),
        reply_code=reply.code,
    )
