"""
What the agent knows of a transaction when it begins.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import execute
from twisted.internet.task import Clock

from lmtpsvc.delivery.agent import DeliveryAgent
from lmtpsvc.delivery.past_cache import ROOM
from lmtpsvc.delivery.routing import AddressRules, Routing
from lmtpsvc.delivery.spool import SpoolSettings
from lmtpsvc.delivery.transaction import Accepted
from lmtpsvc.directory.anyone import Anyone
from lmtpsvc.envelope import Address, Client, Envelope, Mailbox, Recipient, Sender
from lmtpsvc.limits import Limits

OURS = Mailbox("ann", "example.org")
OURS_BY_NUMBER = Mailbox("bob", "example.org", uid=os.geteuid(), gid=os.getegid())
OTHERS = Mailbox("cid", "example.org", uid=os.geteuid() + 1, gid=os.getegid())
OTHER_GROUP = Mailbox("dan", "example.org", uid=os.geteuid(), gid=os.getegid() + 1)


@pytest.mark.parametrize(
    ("mailboxes", "expected"),
    [
        ([OURS, OURS_BY_NUMBER], True),
        ([OURS, OTHERS], False),
        ([OTHER_GROUP], False),
    ],
)
def test_past_the_cache(
    mailboxes: list[Mailbox], expected: bool, tmp_path: Path, past_cache: list[int]
) -> None:
    """
    A large message is written past the cache if nobody gets a copy, as those do who own their mail.
    """
    clock = Clock()
    backend: Any = None  # nobody asks for it
    agent = DeliveryAgent(
        Routing(Anyone(), backend, AddressRules("mx.example.org"), clock, 60.0),
        backend,
        clock,
        "mx.example.org",
        Limits(),
        SpoolSettings(10, str(tmp_path), "\n", execute, is_kept=True),
    )
    accepted = [
        Accepted(Recipient(Address(each.user, each.domain)), (each,), 0.0) for each in mailboxes
    ]
    envelope = Envelope(
        Sender(None), tuple(each.recipient for each in accepted), Client("::1", "x")
    )
    transaction = agent.begin(envelope, accepted, lambda: None, lambda: None)

    transaction.write(b"x" * ROOM)
    transaction.abandon()

    assert expected == bool(past_cache)
