"""
Who may send mail to whom.
"""

from __future__ import annotations

import pytest
from attrs import evolve

from lmtpsvc import replies
from lmtpsvc.envelope import Client
from lmtpsvc.limits import Limits
from lmtpsvc.networks import Networks
from lmtpsvc.relay.policy import RelayPolicy, relay_networks
from lmtpsvc.session.connection import Connection
from lmtpsvc.session.events import RecipientOffered
from lmtpsvc.session.smtp import SMTPSession
from lmtpsvc.session.standard import standard_extensions

from ..rows import each_row

POLICY = RelayPolicy(Networks(["192.0.2.0/24", "local"]), {"example.org"}.__contains__)


def rcpt(to: bytes, connection: Connection, client: Client | None = None) -> str:
    """
    What a client that says RCPT hears.
    """
    extensions = standard_extensions(Limits(), [POLICY])
    session = SMTPSession("mx.example.org", Limits(), extensions, connection)
    session.receive(b"EHLO client.example.net\r\n")
    assert session.next_event() is None
    assert b"XRELAY" not in session.data_to_send()
    if client is not None:
        session.client = client
    session.receive(b"MAIL FROM:<me@example.net>\r\nRCPT TO:<" + to + b">\r\n")
    while (event := session.next_event()) is not None:
        assert isinstance(event, RecipientOffered)
        session.answer_recipient(event, replies.RECIPIENT_OK)
    return session.data_to_send().decode().splitlines()[-1]


INSIDE, OUTSIDE = Connection("192.0.2.7"), Connection("198.51.100.7")
YES, NO = str(replies.RECIPIENT_OK), str(replies.NO_RELAYING)


@each_row(
    ("connection", "to", "said"),
    [
        (INSIDE, b"ann@example.org", YES),
        (INSIDE, b"bob@elsewhere.example", YES),
        (Connection(), b"bob@elsewhere.example", YES),
        (OUTSIDE, b"ann@example.org", YES),
        (OUTSIDE, b"ann@EXAMPLE.org", YES),
        (OUTSIDE, b"postmaster", YES),
        (OUTSIDE, b"bob@elsewhere.example", NO),
        (OUTSIDE, b"ann@sub.example.org", NO),
        (OUTSIDE, b"bob@[192.0.2.1]", NO),
        # RFC 5321 §4.1.1.3: a source route is dropped, so that it cannot hide where mail goes.
        (OUTSIDE, b"@example.org:bob@elsewhere.example", NO),
        (OUTSIDE, b"ann@example.org@elsewhere.example", str(replies.BAD_RECIPIENT)),
    ],
)
def test_networks(connection: Connection, to: bytes, said: str) -> None:
    """
    Our domains are for everybody, all others for our networks.
    """
    assert said == rcpt(to, connection)


def test_login() -> None:
    """
    Who has logged in may send to anybody, wherever he is.
    """
    said = Client("198.51.100.7", login="ann")

    assert YES == rcpt(b"bob@elsewhere.example", OUTSIDE, said)


def test_behind_a_proxy() -> None:
    """
    That a proxy is one of us says nothing about its clients.
    """
    trusted = evolve(INSIDE, is_trusted=True)

    assert NO == rcpt(b"bob@elsewhere.example", trusted, Client("198.51.100.7"))


@pytest.mark.parametrize("word", ["0.0.0.0/0", "128.0.0.0/1", "::/0", "0.0.0.0/7", "2000::/3"])
def test_no_open_relay(word: str) -> None:
    """
    The world is no network of ours: that is a mistake at the start.
    """
    with pytest.raises(ValueError, match="anybody"):
        relay_networks(["127.0.0.0/8", word])


def test_usual() -> None:
    """
    Networks are those that were named; what is none is a mistake.
    """
    networks = relay_networks(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "local"])

    assert "10.9.8.7" in networks
    assert "local" in networks
    assert "192.0.2.8" not in networks
    with pytest.raises(ValueError, match="no network"):
        relay_networks(["home"])
