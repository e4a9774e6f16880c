"""
Mail for other servers: where it goes, how each reply comes back, and what happens when nobody is there.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.plugin import IPlugin
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from lmtpsvc import replies
from lmtpsvc.backends.forward import MARGIN_SECONDS, STOP_SECONDS, ForwardBackend
from lmtpsvc.backends.forward_breaker import ENOUGH, Breaker
from lmtpsvc.backends.forward_factory import ForwardFactory
from lmtpsvc.backends.forward_referral import Referral, referral_in
from lmtpsvc.backends.forward_servers import Servers
from lmtpsvc.backends.forward_settings import ForwardSettings, from_words
from lmtpsvc.backends.forward_text import passed_on
from lmtpsvc.client import TLS, Delivery, Dialect, Outcome, Stage
from lmtpsvc.envelope import Client, DeliverBy, Mailbox, OriginalRecipient
from lmtpsvc.errors import DeliveryError
from lmtpsvc.interfaces import IBackend, IBackendFactory
from lmtpsvc.outgoing.text import Text
from lmtpsvc.replies import Reply
from lmtpsvc.session.terms import Mailing
from lmtpsvc.testing import MemoryMessage, envelope
from lmtpsvc.wire.heard_replies import HeardReply

from ..rows import each_row

TRACE = (
    b"Return-Path: <a@b>\r\nDelivered-To: ann@example.org\r\nReceived: from x\r\n\tby y; now\r\n"
)
TEXT = b"Subject: hello\r\n\r\nbody\r\n"
MESSAGE = MemoryMessage(TRACE + TEXT, trace=TRACE, deadline=240.0)

ANN = Mailbox("ann", "example.org", attributes={"node": "node1"})
BOB = Mailbox("bob", "example.org", "lists", attributes={"node": "node2"})
CID = Mailbox("cid", "example.org", attributes={"node": "node1"})

STORED = Reply(250, "Stored", (0, 0))
FULL = Reply(452, "Full", (2, 2))
NOBODY = Reply(451, "Nobody is there", (4, 1))


class Sent:
    """
    One message that was sent somewhere.
    """

    def __init__(
        self, to: Referral, tls: TLS, words: tuple[Any, ...], more: dict[str, Any]
    ) -> None:
        sender, recipients, self.text = words
        self.to, self.tls, self.more, self.sender = to, tls, more, sender
        self.recipients = recipients
        self.delivery = Delivery(Mailing(sender, tuple(recipients)), Text(b""))

    def answer(self, position: int, reply: Reply, stage: Stage = Stage.MESSAGE) -> None:
        """
        Let the server say something about a recipient, or not be there.
        """
        heard = None if stage is Stage.CONNECT else HeardReply(reply.code, (reply.text,))
        self.delivery.settle(position, Outcome(reply, stage, heard))

    def __str__(self) -> str:
        return f"{self.to.destination}: {', '.join(map(str, self.recipients))}"


class NoServers(Servers):
    """
    Those that nothing is sent to, but what would be is added to *sent*.
    """

    def __init__(self, settings: ForwardSettings, reactor: Any, sent: list[Sent]) -> None:
        super().__init__(settings, reactor)
        self._sent = sent

    def client(self, to: Referral, tls: TLS) -> Any:
        sent = self._sent

        class Sending:
            def send(self, *words: Any, **more: Any) -> Delivery:
                sent.append(Sent(to, tls, words, more))
                return sent[-1].delivery

        return Sending()


class Forward(ForwardBackend):
    """
    One that sends to nobody.
    """

    def __init__(self, *words: str, **options: str) -> None:
        self.reactor = MemoryReactorClock()
        settings = from_words(self.reactor, words or ("{node}:24",), options)
        super().__init__(settings, self.reactor)
        self.sent: list[Sent] = []
        self._servers = NoServers(settings, self.reactor, self.sent)

    def give(self, *mailboxes: Mailbox, message: MemoryMessage = MESSAGE) -> list[list[Any]]:
        """
        Deliver; returns, for each mailbox, a list that its outcome is put in: a reply, or what it
        fires with.
        """
        told: list[list[Any]] = []
        for result in self.deliver(message, mailboxes):
            outcome: list[Any] = []
            result.addBoth(_said).addCallback(outcome.append)
            told.append(outcome)
        return told


def _said(value: object) -> object:
    if isinstance(value, Failure):
        error = value.value
        assert isinstance(error, DeliveryError), value
        return error.reply
    return value


class TestLoggedIn:
    def test_nobody_else_is(self, tmp_path: Path) -> None:
        """
        The next server is told that the sender is not who has logged in there (RFC 4954 §5).
        """
        file = tmp_path / "password"
        file.write_text("secret\n")
        file.chmod(0o600)
        known = Forward(login="relay", password_file=str(file))
        unknown = Forward()
        for forward in (known, unknown):
            forward.give(ANN)

        assert "<>" == known.sent[0].sender.parameters["AUTH"]
        assert "AUTH" not in unknown.sent[0].sender.parameters


class TestPassedOn:
    @pytest.mark.parametrize(
        ("server", "name"), [("mx2", "mx2"), ("", ""), ("a b", ""), ("x" * 254, "")]
    )
    def test_to_smtp(self, server: str, name: str) -> None:
        """
        An SMTP server has not delivered: what it said, and its name, are for the report.
        """
        forward = Forward(protocol="smtp")
        [told] = forward.give(ANN)
        forward.sent[0].delivery.settle(0, Outcome(STORED, Stage.MESSAGE, server=server))

        assert [replies.PassedOn(STORED, name)] == told


class TestDestinations:
    def test_shared(self) -> None:
        """
        Recipients on the same node share a transaction there.
        """
        forward = Forward()
        forward.give(ANN, BOB, CID)

        assert [
            "node1:24: ann@example.org, cid@example.org",
            "node2:24: bob+lists@example.org",
        ] == list(map(str, forward.sent))

    def test_each_reply_when_it_arrives(self) -> None:
        """
        Nobody waits for a slow node but its own.
        """
        forward = Forward()
        ann, bob, cid = forward.give(ANN, BOB, CID)
        first, second = forward.sent

        second.answer(0, STORED)
        assert ([], [None], []) == (ann, bob, cid)
        first.answer(1, FULL)
        assert ([], [FULL]) == (ann, cid)
        first.answer(0, STORED)
        assert [None] == ann

    @pytest.mark.parametrize("node", ["", "a b"])
    def test_not_known(self, node: str) -> None:
        """
        A mailbox of which the directory says no node is refused, for now and alone.
        """
        lost = evolve(ANN, attributes={"node": node} if node else {})
        forward = Forward()
        with pytest.raises(DeliveryError) as caught:
            forward.verify(lost)
        assert replies.CANNOT_LOOK_UP == caught.value.reply

        (gone, bob) = forward.give(lost, BOB)

        assert ([replies.CANNOT_LOOK_UP], []) == (gone, bob)
        assert 1 == len(forward.sent)

    def test_fixed(self) -> None:
        """
        A destination without a field is the same for everybody.
        """
        forward = Forward("unix:/run/lmtp.sock")

        assert "unix:/run/lmtp.sock" == forward.where(ANN)
        forward.verify(ANN)

    def test_no_address(self) -> None:
        """
        A mailbox that cannot be an address is refused at RCPT.
        """
        with pytest.raises(DeliveryError) as caught:
            Forward().verify(evolve(ANN, user="a\nb"))

        assert replies.BAD_MAILBOX == caught.value.reply


class TestMessage:
    @pytest.mark.parametrize(
        ("trace", "kept"),
        [
            (TRACE, b"Received: from x\r\n\tby y; now\r\n"),
            (b"Received: from x\r\n", b"Received: from x\r\n"),
            (b"Return-Path: <>\r\n", b""),
            (b"", b""),
        ],
    )
    def test_headers(self, trace: bytes, kept: bytes) -> None:
        """
        What a final delivery adds stays here, and our Received goes along (RFC 5321 §4.4).
        """
        file, size = passed_on(MemoryMessage(trace + TEXT, trace=trace))

        with file:
            octets = file.read()
        assert kept + TEXT == octets
        assert size == len(octets)

    def test_by_and_by(self) -> None:
        """
        The same octets go on, in however small pieces they are read.
        """
        file, _ = passed_on(MESSAGE)

        with file:
            assert TRACE[TRACE.index(b"Received") :] + TEXT == b"".join(
                iter(lambda: file.read(7), b"")
            )

    def test_time(self) -> None:
        """
        The node has to answer before our own client gives up, and is told so; and who it is.
        """
        forward = Forward()
        said = Client("192.0.2.7", "mx.example.net", port=4711, login="relay")
        asked = evolve(MESSAGE, envelope=evolve(envelope("ann@example.org"), client=said))
        forward.reactor.advance(40)
        forward.give(ANN, message=asked)

        left = 200 - MARGIN_SECONDS
        (sent,) = forward.sent
        assert left == sent.more["seconds"]
        assert {
            "ADDR": "192.0.2.7",
            "PORT": "4711",
            "HELO": "mx.example.net",
            "PROTO": "LMTP",
            "LOGIN": "relay",
            "SESSION": MESSAGE.id,
            "TTL": "5",
            "TIMEOUT": str(int(left)),
        } == sent.more["xclient"]

    def test_unknown_client(self) -> None:
        """
        A client that our proxy does not know has no address that XCLIENT could carry; and it is not us.
        """
        forward = Forward()
        asked = evolve(
            MESSAGE, envelope=evolve(envelope("ann@example.org"), client=Client("unknown"))
        )

        forward.give(ANN, message=asked)

        (sent,) = forward.sent
        assert sent.more["xclient"]["ADDR"] is None

    def test_no_time(self) -> None:
        """
        What could not come back in time is not sent.
        """
        forward = Forward()
        forward.reactor.advance(236)

        assert [[replies.OUT_OF_TIME]] == forward.give(ANN)
        assert [] == forward.sent

    @pytest.mark.parametrize(
        "message",
        [
            evolve(MESSAGE, text=TRACE + b"Received: by x\r\n" * 100 + TEXT),
            evolve(
                MESSAGE,
                envelope=evolve(envelope("ann@example.org"), client=Client("192.0.2.7", ttl=0)),
            ),
        ],
        ids=["Received", "TTL"],
    )
    def test_loop(self, message: MemoryMessage) -> None:
        """
        What has come through too many hands goes no further.
        """
        forward = Forward()

        assert [[replies.LOOP]] == forward.give(ANN, message=message)
        assert [] == forward.sent

    def test_unreadable(self) -> None:
        """
        A message that cannot be opened waits with the client.
        """

        class Unreadable(MemoryMessage):
            def open(self, line_ending: str = "\r\n") -> Any:
                raise OSError(errno.EMFILE, "Too many open files")

        forward = Forward()

        message = Unreadable(TEXT, deadline=240.0)
        assert [[replies.INTERNAL_ERROR]] == forward.give(ANN, message=message)
        assert [] == forward.sent

    def test_defect(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        What goes wrong behind the last outcome is no secret.
        """

        def fails(*_: object) -> None:
            raise ZeroDivisionError

        forward = Forward()
        monkeypatch.setattr(forward, "_look_back", fails)
        told = forward.give(ANN)
        with capturedLogs() as logs:
            forward.sent[0].answer(0, Reply(250, "OK", (0, 0)))

        assert [1] == [len(each) for each in told]
        assert [ZeroDivisionError] == [
            each["log_failure"].type for each in logs if "log_failure" in each
        ]


def wishing(sender: dict[str, Any], *recipients: dict[str, Any]) -> MemoryMessage:
    """
    A message whose sender has asked for something.
    """
    names = ("ann@example.org", "bob+lists@example.org")
    plain = envelope(*names[: len(recipients)])
    to = tuple(
        evolve(each, parameters=asked)
        for each, asked in zip(plain.recipients, recipients, strict=True)
    )
    asked = evolve(plain, sender=evolve(plain.sender, parameters=sender), recipients=to)
    return evolve(MESSAGE, envelope=asked)


class TestWishes:
    """
    What the sender has asked for (RFC 3461, RFC 8689).
    """

    STAFF = OriginalRecipient("rfc822", "staff@example.org")

    @pytest.mark.parametrize(
        ("notify", "handed_on"),
        [
            ({"SUCCESS", "FAILURE"}, {"FAILURE"}),
            ({"SUCCESS"}, {"NEVER"}),
            ({"NEVER"}, {"NEVER"}),
            ({"DELAY"}, {"DELAY"}),
        ],
    )
    def test_handed_on(self, notify: set[str], handed_on: set[str]) -> None:
        """
        All but success, which is reported here.
        """
        forward = Forward()
        asked = {"NOTIFY": frozenset(notify), "ORCPT": self.STAFF, "RRVS": "x"}
        forward.give(
            ANN, message=wishing({"ENVID": "QQ", "RET": "FULL", "BODY": "8BITMIME"}, asked)
        )

        [sent] = forward.sent
        [recipient] = sent.recipients
        assert {"NOTIFY": handed_on, "ORCPT": self.STAFF} == recipient.parameters
        assert {"ENVID": "QQ", "RET": "FULL"}.items() <= sent.sender.parameters.items()
        assert "BODY" not in sent.sender.parameters

    def test_of_several(self) -> None:
        """
        Each mailbox goes with the wishes of the recipient that leads there.
        """
        forward = Forward()
        never = {"NOTIFY": frozenset({"NEVER"})}
        forward.give(BOB, ANN, message=wishing({}, {"ORCPT": self.STAFF}, never))

        assert [never, {"ORCPT": self.STAFF}] == [
            sent.recipients[0].parameters for sent in forward.sent
        ]

    @pytest.mark.parametrize(
        ("by", "handed_on"),
        [
            (
                DeliverBy(60, is_returned=True, is_traced=True),
                DeliverBy(39, is_returned=True, is_traced=True),
            ),
            (DeliverBy(60, is_returned=False), DeliverBy(39, is_returned=False)),
            (DeliverBy(20, is_returned=False), DeliverBy(-1, is_returned=False)),
            (DeliverBy(20, is_returned=True), DeliverBy(1, is_returned=True)),
        ],
    )
    def test_time(self, by: DeliverBy, handed_on: DeliverBy) -> None:
        """
        The time since MAIL is over, and what is to be returned is never asked for in none.
        """
        forward = Forward()
        forward.reactor.advance(30.5)
        forward.give(ANN, message=evolve(wishing({"BY": by, "MT-PRIORITY": 4}, {}), begun=10.0))

        [sent] = forward.sent
        assert (handed_on, 4) == (sent.sender.deliver_by, sent.sender.priority)

    @pytest.mark.parametrize(
        ("words", "options", "policy"),
        [
            (("node:24",), {}, TLS.MUST),
            (("node:24",), {"tls": "may"}, TLS.MUST),
            (("node:24",), {"tls": "encrypt"}, TLS.MUST),
            (("/run/lmtp.sock",), {}, TLS.NONE),
            (("unix:/run/lmtp.sock",), {}, TLS.NONE),
        ],
    )
    def test_requiring_tls(self, words: tuple[str, ...], options: Any, policy: TLS) -> None:
        """
        What must not travel in the clear goes with TLS and a look at the certificate, whatever others
        go with.
        """
        forward = Forward(*words, **options)
        forward.give(ANN, message=wishing({"REQUIRETLS": True}, {}))

        [sent] = forward.sent
        assert policy is sent.tls
        assert sent.sender.requires_tls

    @pytest.mark.parametrize(("required", "heard"), [(True, replies.NEEDS_TLS), (False, NOBODY)])
    def test_no_starttls(self, *, required: bool, heard: Reply) -> None:
        """
        A server that cannot encrypt is no place for it, tomorrow neither.
        """
        forward = Forward()
        wishes = {"REQUIRETLS": True} if required else {"MT-PRIORITY": 1}
        [told] = forward.give(ANN, message=wishing(wishes, {}))
        forward.sent[0].answer(0, NOBODY, Stage.STARTTLS)

        assert [heard] == told

    def test_binary(self) -> None:
        """
        Clients may send binary content where the operator says that all nodes take it.
        """
        assert not Forward().capabilities.binary
        assert Forward(binary="yes").capabilities.binary


class TestCancelling:
    def test_all(self) -> None:
        """
        When nobody is left, the transaction is called off; before that, it is not.
        """
        forward = Forward()
        ann, cid = forward.deliver(MESSAGE, [ANN, CID])
        for each in (ann, cid):
            each.addErrback(lambda _: None)
        stopped: list[Reply] = []
        forward.sent[0].delivery.on_its_way(stopped.append)

        ann.cancel()
        assert [] == stopped
        cid.cancel()
        assert 1 == len(stopped)

    def test_too_late(self) -> None:
        """
        What the node has is delivered or not, and only the node knows.
        """
        forward = Forward()
        (result,) = forward.deliver(MESSAGE, [ANN])
        told: list[object] = []
        result.addBoth(told.append)
        sent = forward.sent[0]
        sent.delivery.text_sent()

        result.cancel()
        assert [] == told
        sent.answer(0, STORED)
        assert [None] == told


class TestReferrals:
    ELSEWHERE = Reply(450, "[REFERRAL lmtp://node3:2400/] Redirected", (4, 4))
    DOVECOT = Reply(550, "<bob@example.org> robert%40example.net@node3:2400 Referral", (2, 900))

    def test_followed(self) -> None:
        """
        The recipient alone goes there.
        """
        forward = Forward()
        ann, cid = forward.give(ANN, CID)
        forward.sent[0].answer(0, self.ELSEWHERE, Stage.RCPT)

        assert "node3:2400: ann@example.org" == str(forward.sent[1])
        assert [] == ann
        forward.sent[1].answer(0, STORED)
        assert ([None], []) == (ann, cid)

    def test_another_name(self) -> None:
        """
        Under the name that it has there.
        """
        forward = Forward()
        forward.give(BOB)
        forward.sent[0].answer(0, self.DOVECOT, Stage.RCPT)

        assert "node3:2400: robert@example.net" == str(forward.sent[1])

    @pytest.mark.parametrize("to", ["node1:24", "node3:{}"])
    def test_loop(self, to: str) -> None:
        """
        Round in circles, or ever on: it ends.
        """
        forward = Forward()
        (ann,) = forward.give(ANN)
        for count in range(9):
            if ann:
                break
            reply = Reply(450, f"[REFERRAL lmtp://{to.format(count + 1)}/] Redirected", (4, 4))
            forward.sent[-1].answer(0, reply, Stage.RCPT)

        assert [replies.STORE_UNREACHABLE] == ann
        assert len(forward.sent) <= 4

    def test_not_wanted(self) -> None:
        """
        With referrals=no it is a reply like any other.
        """
        forward = Forward(referrals="no")
        (ann,) = forward.give(ANN)
        forward.sent[0].answer(0, self.ELSEWHERE)

        assert 1 == len(forward.sent)
        assert "450 4.4.4 Redirected" == str(ann[0])
        assert {} == forward.sent[0].sender.parameters

    @each_row(
        ("said", "found"),
        [
            ("450 [REFERRAL lmtp://node2/] x", Referral("node2:24")),
            ("450 [REFERRAL smtp://node2] x", Referral("node2:25", Dialect.SMTP)),
            ('550 [REFERRAL "lmtp://[2001:db8::1]:2424/"] x', Referral("[2001:db8::1]:2424")),
            ("450 [REFERRAL lmtp://ann%40x@node2/] x", Referral("node2:24", user="ann@x")),
            ("250 [REFERRAL lmtp://node2/] x", None),
            ("450 [REFERRAL http://node2/] x", None),
            ("450 [REFERRAL lmtp://node2:99999/] x", None),
            ("450 [REFERRAL lmtp:///etc/passwd] x", None),
            ("450 [REFERRAL unix:/run/x] x", None),
            ('450 [REFERRAL "lmtp://[node2/"] x', None),
            ("450 [REFERRAL] x", None),
            ("550 5.2.900 node2 Referral", Referral("node2:24")),
            ("550 5.2.900 <ann@x> bob@node2:2400 Referral", Referral("node2:2400", user="bob")),
            ("550 5.2.900 <ann@x> unix:/run/x Referral", None),
            ("550 5.2.900 No such user", None),
            ("550 5.2.1 node2 Referral", None),
        ],
    )
    def test_read(self, said: str, found: Referral | None) -> None:
        """
        A host and a port, and nothing else.
        """
        code, _, text = said.partition(" ")
        status = None
        if text.startswith("5.2."):
            words, _, text = text.partition(" ")
            _, subject, detail = words.split(".")
            status = int(subject), int(detail)

        assert found == referral_in(Outcome(Reply(int(code), text, status), Stage.RCPT))


class TestClients:
    """
    Who is connected to, and what he is told of ours.
    """

    def make(self, tmp_path: Path, **options: str) -> Servers:
        (tmp_path / "password").write_text("secret\n")
        words = {"login": "front", "password_file": str(tmp_path / "password"), **options}
        reactor = MemoryReactorClock()
        return Servers(from_words(reactor, ["node1", "24"], words), reactor)

    def test_the_password(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Is for the servers that the operator has named, and not for those that others refer to.
        """
        made: list[dict[str, Any]] = []

        def make(*_: object, **more: Any) -> object:
            made.append(more)
            return object()

        monkeypatch.setattr("lmtpsvc.backends.forward_servers.Client", make)
        servers = self.make(tmp_path)
        there = referral_in(Outcome(TestReferrals.DOVECOT, Stage.RCPT))
        assert there is not None
        servers.client(Referral("node1:24"), TLS.NONE)
        servers.client(there, TLS.NONE)

        assert ["front", None] == [each["login"] and each["login"].user for each in made]

    def test_not_without_end(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Ever new servers push out those that have been known the longest.
        """
        monkeypatch.setattr("lmtpsvc.backends.forward_servers.MOST_DESTINATIONS", 3)
        servers = self.make(tmp_path)
        for number in range(9):
            servers.client(Referral(f"node{number}:24"), TLS.NONE)
            servers.breaker(f"node{number}:24")

        assert [f"node{number}:24" for number in (6, 7, 8)] == [
            each[0] for each in servers._clients
        ]
        assert len(servers._breakers) <= 3
        assert not servers._closing


class TestMaildata:
    TOLD = Reply(250, "<ann@example.org> [MAILDATA abc] Stored", (0, 0))

    def test_shared(self) -> None:
        """
        The second node hears where the copy of the first lies.
        """
        forward = Forward(maildata="yes")
        forward.give(ANN, BOB)
        (first,) = forward.sent
        assert {"XRESPCODES": "MAILDATA"} == first.sender.parameters

        first.answer(0, self.TOLD)

        assert {"MAILDATA": "abc"} == forward.sent[1].recipients[0].parameters

    def test_not_told(self) -> None:
        """
        Where the first says nothing of it, or fails, the others are not kept waiting for more.
        """
        forward = Forward(maildata="yes")
        ann, bob = forward.give(ANN, BOB)
        forward.sent[0].answer(0, FULL)

        assert {} == forward.sent[1].recipients[0].parameters
        forward.sent[1].answer(0, STORED)
        assert ([FULL], [None]) == (ann, bob)


class TestDown:
    def test_only_its_own(self) -> None:
        """
        Who is on a node that is down hears so at RCPT, and nobody else.
        """
        forward = Forward(retry="10s")
        with capturedLogs() as events:
            for _ in range(ENOUGH):
                (ann,) = forward.give(ANN)
                forward.sent[-1].answer(0, NOBODY, Stage.CONNECT)
                assert [NOBODY] == ann

        with pytest.raises(DeliveryError) as caught:
            forward.verify(ANN)
        assert replies.STORE_UNREACHABLE == caught.value.reply
        forward.verify(BOB)
        said = [formatEvent(event) or "" for event in events]
        assert 1 == sum("node1:24 is down" in line for line in said)

        count = len(forward.sent)
        assert [[replies.STORE_UNREACHABLE]] == forward.give(ANN)
        assert count == len(forward.sent)

    def test_up_again(self) -> None:
        """
        After a while one delivery may find out; when it arrives, all is as before.
        """
        forward = Forward(retry="10s")
        for _ in range(ENOUGH):
            forward.give(ANN)
            forward.sent[-1].answer(0, NOBODY, Stage.CONNECT)
        forward.reactor.advance(10)
        forward.verify(ANN)

        forward.give(ANN)
        assert [[replies.STORE_UNREACHABLE]] == forward.give(CID)
        forward.sent[-1].answer(0, STORED)

        forward.give(CID)
        assert "node1:24: cid@example.org" == str(forward.sent[-1])

    def test_refusals_are_no_failures(self) -> None:
        """
        A node that says no is there.
        """
        breaker = Breaker(lambda: 0.0, 10)
        assert [False, False, True] == [breaker.not_reached() for _ in range(ENOUGH)]
        assert breaker.reached()
        assert not breaker.reached()
        assert breaker.may_try()


class TestWords:
    def test_all(self) -> None:
        """
        All options are read.
        """
        settings = from_words(
            MemoryReactorClock(),
            ["tcp", "node1", "24"],
            {"protocol": "smtp", "tls": "may", "connections": "3", "retry": "1m", "xclient": "no"},
        )

        assert ("tcp:node1:24", Dialect.SMTP, TLS.MAY, 3, 60.0, True, False, False) == (
            settings.destination,
            settings.dialect,
            settings.tls,
            settings.connections,
            settings.retry,
            settings.referrals,
            settings.xclient,
            settings.maildata,
        )

    @each_row(
        ("words", "options", "said"),
        [
            ((), {}, "expected forward:DESTINATION"),
            (("node1",), {}, "not a destination"),
            (("{user}", "24"), {}, "{user} is not a field"),
            (("node1", "24"), {"protocol": "http"}, "protocol=http: expected lmtp or smtp"),
            (("node1", "24"), {"tls": "ssl"}, "tls=ssl: expected none or may"),
            (("/run/x",), {"tls": "must"}, "whose name"),
            (("node1", "24"), {"login": "x"}, "go together"),
            (("node1", "24"), {"login": "x", "password_file": "/nowhere"}, "/nowhere"),
            (("node1", "24"), {"ca": "/nowhere"}, "/nowhere"),
            (("node1", "24"), {"connections": "0"}, "connections: "),
            (("node1", "24"), {"retry": "never"}, "retry: "),
            (("node1", "24"), {"referrals": "maybe"}, "referrals=maybe: expected yes or no"),
            (("node1", "24"), {"colour": "red"}, "colour: no such option"),
        ],
    )
    def test_mistakes(self, words: tuple[str, ...], options: dict[str, str], said: str) -> None:
        """
        Each is one line.
        """
        with pytest.raises(ValueError) as caught:
            from_words(MemoryReactorClock(), words, options)

        assert said in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_factory(self) -> None:
        """
        The plugin is one, and makes a backend.
        """
        factory = ForwardFactory()
        assert verifyObject(IPlugin, factory)
        assert verifyObject(IBackendFactory, factory)
        assert verifyObject(IBackend, factory.build(MemoryReactorClock(), "{node}", "24"))


def test_stop(success_of: Callable[[Any], Any]) -> None:
    """
    One that has sent nothing has nothing to wait for.
    """
    success_of(Forward().stopService())


def test_stop_at_last(success_of: Callable[[Any], Any], no_result: Callable[[Any], None]) -> None:
    """
    A server that does not answer is not waited for for ever.
    """
    reactor = MemoryReactorClock()
    forward = ForwardBackend(from_words(reactor, ("unix:/run/lmtp",), {}), reactor)
    (result,) = forward.deliver(MESSAGE, [ANN])
    stopping = forward.stopService()
    reactor.advance(STOP_SECONDS - 1)
    no_result(stopping)
    reactor.advance(1)

    success_of(stopping)
    told: list[Any] = []
    result.addErrback(_said).addCallback(told.append)
    assert told == [replies.OUT_OF_TIME]
    assert reactor.getDelayedCalls() == []
