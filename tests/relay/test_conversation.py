"""
What an SMTP client of the relay hears, and what is in the queue then.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, execute, maybeDeferred, succeed
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.names import dns

from lmtpsvc import replies
from lmtpsvc.config import structure_as
from lmtpsvc.relay.config import RelayConfig
from lmtpsvc.relay.inbox import Inbox
from lmtpsvc.relay.routes import IRouter, Route
from lmtpsvc.server.factory import LMTPFactory
from lmtpsvc.session.smtp import SMTPSession
from lmtpsvc.wiring.agent import delivery_agent
from lmtpsvc.wiring.relay import RelayParts, make_relay_parts

INSIDE, OUTSIDE = "192.0.2.7", "198.51.100.7"


class DNS:
    """
    Knows one mail server for every domain.
    """

    def lookupMailExchange(self, name: str) -> Deferred[Any]:
        found = dns.RRHeader(name, dns.MX, payload=dns.Record_MX(10, f"mx.{name}"))
        return succeed(([found], [], []))


def parts(**said: Any) -> RelayParts:
    given = {"hostname": "relay.example.org", "domain": "example.org", "networks": "192.0.2.0/24"}
    config = structure_as(RelayConfig, {**given, **said})
    return make_relay_parts(config, MemoryReactorClock(), DNS())


class Relay:
    """
    A relay with a queue of the test's.
    """

    def __init__(self, queue: Any, **said: Any) -> None:
        self.queue = queue
        self.parts = parts(**said)
        agent = delivery_agent(
            MemoryReactorClock(),
            self.parts.config,
            self.parts.rules,
            self.parts.directory,
            Inbox(queue, self.parts.domains[0]),
            execute,
            self.parts.hostname,
            delivered_to="never",
            success=replies.queued,
        )
        self.factory = LMTPFactory(agent, self.parts.extensions)
        self.factory.speaks = SMTPSession

    def connect(self, host: str) -> Callable[[str], list[str]]:
        """
        A connection from *host*: what is said there is answered with lines.
        """
        protocol: Any = self.factory.buildProtocol(None)
        transport = StringTransport(peerAddress=IPv4Address("TCP", host, 4711))
        protocol.makeConnection(transport)
        transport.clear()

        def say(text: str) -> list[str]:
            protocol.dataReceived(text.replace("\n", "\r\n").encode())
            heard: list[str] = transport.value().decode().splitlines()
            transport.clear()
            return heard

        return say

    def entries(self) -> list[Any]:
        claimed: list[Any] = []
        self.queue.claim(10).addCallback(lambda found: claimed.extend(found[0]))
        return claimed


@pytest.fixture
def relay(bench: Any) -> Callable[..., Relay]:
    return lambda **said: Relay(bench.queue(), **said)


def test_taken(relay: Callable[..., Relay]) -> None:
    """
    One reply for all, when all are in the queue, with what was said of each.
    """
    made = relay()
    say = made.connect(INSIDE)

    hello = say("EHLO client.example.net\n")
    said = say(
        "MAIL FROM:<me@example.org> RET=HDRS ENVID=x\n"
        "RCPT TO:<Ann@example.org> NOTIFY=SUCCESS ORCPT=rfc822;a@b.example\n"
        "RCPT TO:<bob@elsewhere.example>\nDATA\n"
    )
    [last] = say("Subject: Hello\n\nHello.\n.\n")

    assert ["250-relay.example.org", "250 PRDR"] == [hello[0], hello[-1]]
    assert ["250", "250", "250", "354"] == [line[:3] for line in said]
    [entry] = made.entries()
    assert f"250 2.0.0 {entry.id} Queued" == last
    assert ("me@example.org", "HDRS", "x") == (
        str(entry.sender),
        entry.sender.returned,
        entry.sender.envelope_id,
    )
    assert ["Ann@example.org", "bob@elsewhere.example"] == [
        str(each.recipient) for each in entry.recipients
    ]
    assert {"SUCCESS"} == entry.recipients[0].recipient.notify


def test_each_is_answered(relay: Callable[..., Relay]) -> None:
    """
    A client that knows PRDR hears of each recipient, and of the message.
    """
    made = relay()
    say = made.connect(INSIDE)
    say("EHLO c\nMAIL FROM:<me@example.org> PRDR\nRCPT TO:<ann@example.org>\n")
    say("RCPT TO:<bob@example.org>\nDATA\n")

    said = say("Subject: Hello\n\n.\n")

    [entry] = made.entries()
    queued = f"250 2.0.0 {entry.id} Queued"
    assert [str(replies.EACH_FOLLOWS), queued, queued, queued] == said


def test_text(relay: Callable[..., Relay]) -> None:
    """
    Our Received is on top, and nothing that only a final delivery adds.
    """
    made = relay()
    say = made.connect(INSIDE)
    say("EHLO c\nMAIL FROM:<me@example.org>\nRCPT TO:<ann@example.org>\nDATA\n")
    say("Subject: Hello\n\nHello.\n.\n")

    [entry] = made.entries()
    stored: list[Any] = []
    made.queue.open_text(entry).addCallback(stored.append)

    with stored[0].open() as file:
        octets = file.read()
    stored[0].close()
    assert octets.startswith(b"Received: from c ([192.0.2.7])\r\n\tby relay.example.org (lmtpsvc)")
    assert f"with ESMTP id {entry.id}" in octets.decode()
    assert octets.endswith(b"\r\nSubject: Hello\r\n\r\nHello.\r\n")
    assert b"Return-Path" not in octets
    assert b"Delivered-To" not in octets


def test_what_is_not_promised(relay: Callable[..., Relay]) -> None:
    """
    Who passes mail on does not offer what only a store can do.
    """
    hello = " ".join(relay().connect(INSIDE)("EHLO client.example.net\n"))

    for keyword in ("BINARYMIME", "XRELAY", "STARTTLS", "AUTH"):
        assert keyword not in hello
    for keyword in (
        "PIPELINING",
        "8BITMIME",
        "CHUNKING",
        "SMTPUTF8",
        "DSN",
        "SIZE",
        "MT-PRIORITY",
        "DELIVERBY",
    ):
        assert keyword in hello


@pytest.mark.parametrize(
    ("to", "reply"),
    [
        ("ann@example.org", replies.RECIPIENT_OK),
        ("Postmaster", replies.RECIPIENT_OK),
        ("bob@elsewhere.example", replies.NO_RELAYING),
        ("bob%elsewhere.example@example.net", replies.NO_RELAYING),
        ("bob@relay.example.org", replies.NO_RELAYING),
    ],
)
def test_outside(to: str, reply: replies.Reply, relay: Callable[..., Relay]) -> None:
    """
    Strangers may write to us, and to nobody else.
    """
    say = relay().connect(OUTSIDE)
    say("EHLO c\n")

    assert str(reply) == say(f"MAIL FROM:<ann@example.org>\nRCPT TO:<{to}>\n")[-1]


def test_users(relay: Callable[..., Relay], tmp_path: Path) -> None:
    """
    If somebody knows who lives in our domains, others are refused before their mail is there; of
    other domains we cannot know.
    """
    (tmp_path / "users").write_text("ann@example.org\n")
    say = relay(users=f"file:{tmp_path}/users").connect(INSIDE)

    said = say(
        "EHLO c\nMAIL FROM:<me@example.org>\nRCPT TO:<ANN+x@example.org>\n"
        "RCPT TO:<bob@example.org>\nRCPT TO:<bob@elsewhere.example>\n"
    )

    assert [
        str(replies.RECIPIENT_OK),
        str(replies.NO_SUCH_USER),
        str(replies.RECIPIENT_OK),
    ] == said[-3:]


def test_postmaster(relay: Callable[..., Relay]) -> None:
    """
    The bare <Postmaster> is the one of our first domain.
    """
    made = relay()
    say = made.connect(OUTSIDE)

    say("EHLO c\nMAIL FROM:<>\nRCPT TO:<Postmaster>\nDATA\n")
    say("Subject: Hello\n\n.\n")

    [entry] = made.entries()
    assert ["postmaster@example.org"] == [str(each.recipient) for each in entry.recipients]


def test_queue_is_gone(relay: Callable[..., Relay], tmp_path: Path) -> None:
    """
    What cannot be kept is not taken: the client keeps it.
    """
    made = relay()
    say = made.connect(INSIDE)
    say("EHLO c\nMAIL FROM:<me@example.org>\nRCPT TO:<ann@example.org>\nDATA\n")
    made.queue.read(lambda _: None)
    with made.queue._engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE relay_text")

    [said] = say("Subject: Hello\n\n.\n")

    assert said.startswith("451 4.3.0 ")


class TestRoutes:
    """
    Where mail goes.
    """

    def test_usual(self) -> None:
        """
        Ours to LMTP on this machine, all else to its MX.
        """
        router = parts().router

        assert ["127.0.0.1:8024"] == [hop.to for hop in found(router, "example.org").hops]
        assert ["mx.example.net:25"] == [hop.to for hop in found(router, "example.net").hops]

    def test_said(self) -> None:
        """
        A route counts more than being ours, the smart host takes all that is left.
        """
        router = parts(
            domain="example.org,lists.example.org",
            route=["example.org=lmtp:unix:/a", "*.example.net=b:25,c:25"],
            **{"smart-host": "smart:587"},
            local="lmtp:unix:/local",
        ).router

        assert {
            "example.org": ["unix:/a"],
            "lists.example.org": ["unix:/local"],
            "sub.example.net": ["b:25", "c:25"],
            "example.net": ["smart:587"],
        } == {
            domain: [hop.to for hop in found(router, domain).hops]
            for domain in ("example.org", "lists.example.org", "sub.example.net", "example.net")
        }

    def test_terms(self) -> None:
        """
        The same server on other terms is another route: nobody's mail goes on somebody else's.
        """
        router = parts(route=["a.example=n:25:tls=must", "b.example=n:25", "c.example=n:25"]).router
        a, b, c = (found(router, f"{name}.example") for name in "abc")

        assert a.name != b.name
        assert b is c

    def test_hostname(self) -> None:
        """
        Who names no domain has that of the host.
        """
        assert ("relay.example.org",) == parts(domain=[]).domains

    def test_international(self) -> None:
        """
        A domain is the same in either form.
        """
        # However a route spells it, it is the one for that domain.
        said = parts(domain="Bücher.example", route="BÜCHER.example=lmtp:n:24")
        assert ["n:24"] == [hop.to for hop in found(said.router, "bücher.example").hops]

        made = parts(domain="Bücher.example")

        assert ("xn--bcher-kva.example",) == made.domains
        assert ["127.0.0.1:8024"] == [hop.to for hop in found(made.router, "bücher.example").hops]


def found(router: IRouter, domain: str) -> Route:
    routes: list[Any] = []
    maybeDeferred(router.route, domain).addCallback(routes.append)
    [route] = routes
    assert isinstance(route, Route)
    return route
