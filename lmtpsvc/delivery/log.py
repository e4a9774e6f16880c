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

# The line is put together here: twisted.logger takes ten times as long for ten fields in a format,
# and there is a line for every recipient.
_FORMAT = "{line}"


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
    client, sender, to, said = envelope.client, str(envelope.sender), str(recipient), str(reply)
    _log.info(
        _FORMAT,
        line=(
            f"{transaction_id} to=<{to}> mailbox={mailboxes} from=<{sender}> client={client.host}"
            f" size={size} lookup={timing.lookup:.3f} store={timing.store:.3f}"
            f" total={timing.total:.3f} reply={said}"
        ),
        transaction=transaction_id,
        client=client.host,
        client_name=client.name,
        sender=sender,
        recipient=to,
        mailbox=mailboxes,
        size=size,
        reply=said,
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
