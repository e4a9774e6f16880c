"""
Exim hands mail over: its lmtp transport to the UNIX socket, its smtp transport to the TCP port.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from attrs import frozen

from .exim import Exim
from .service import DOMAIN, Service, running_service

USERS = [f"{name}@{DOMAIN}" for name in ("ann", "bob", "cat")]
UNKNOWN = f"nobody.here@{DOMAIN}"
SENDER = f"sender@{DOMAIN}"
# With the header fields that Exim would add to a message without them.
TEXT = """\
Message-ID: <1@example.net>
Date: Sun, 22 Nov 2026 12:00:00 +0000
From: Ann <ann@example.net>
Subject: by Exim

.dot
..
Käse
""".encode()


@frozen
class Relay:
    """
    Exim, when its queue is empty.
    """

    exim: Exim
    service: Service


@pytest.fixture(params=["over_unix", "over_tcp"], scope="module")
def relay(
    request: pytest.FixtureRequest,
    top: Path,
    exim_program: Path,
    unavailable: Callable[[str], NoReturn],
) -> Iterator[Relay]:
    """
    One message for several users, an unknown one among them, and then the bounce.
    """
    if os.geteuid() != 0:
        unavailable("the root account, for an Exim that is not installed")
    with running_service(top) as service:
        directory = top / f"exim-{request.param}"
        exim = Exim(exim_program, directory, DOMAIN, request.param, service.unix, service.tcp[1])
        exim.configure()
        exim.send(SENDER, [USERS[0], UNKNOWN, *USERS[1:]], TEXT)
        exim.run_queue()
        exim.run_queue()
        assert exim.queued() == "", exim.log
        yield Relay(exim, service)


def test_delivered(relay: Relay) -> None:
    """
    Every user has the message, once, as it was sent.
    """
    for user in USERS:
        [stored] = relay.service.store.mailbox(user)

        assert stored.header["Return-Path"] == f"<{SENDER}>"
        assert stored.text.endswith(TEXT)


def test_one_transaction(relay: Relay) -> None:
    """
    All users were served in one transaction, whose id Exim logs for each.
    """
    [name] = {
        stored.transaction_id for user in USERS for stored in relay.service.store.mailbox(user)
    }

    for user in USERS:
        assert f'C="250 2.0.0 <{user}> {name} Delivered"' in relay.exim.log


def test_bounce_for_the_unknown_user_only(relay: Relay) -> None:
    """
    The sender gets one bounce, which names the unknown user and 5.1.1.
    """
    [bounce] = relay.service.store.mailbox(SENDER)

    assert bounce.header["Return-Path"] == "<>"
    assert bounce.header["X-Failed-Recipients"] == UNKNOWN
    assert b"550 5.1.1 " in bounce.text
