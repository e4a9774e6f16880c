"""
The deliverer: everybody is tried when due, and nobody again who has the mail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.policy import default
from typing import Any

import pytest
from sqlalchemy import text
from twisted.internet.defer import Deferred, succeed
from twisted.logger import capturedLogs, formatEvent

from lmtpsvc.client import TLS, Delivery, Dialect, Outcome, Stage
from lmtpsvc.envelope import DeliverBy, Sender
from lmtpsvc.errors import PermanentFailure, TemporaryFailure
from lmtpsvc.outgoing.text import Text
from lmtpsvc.relay import ledger
from lmtpsvc.relay.delivering import Deliverer, Rates
from lmtpsvc.relay.entries import Entry
from lmtpsvc.relay.queue import StoredText
from lmtpsvc.relay.routes import ConfiguredRoutes, Hop, Route
from lmtpsvc.relay.schedule import DAY, HOUR, MINUTE
from lmtpsvc.replies import INTERNAL_ERROR, Reply
from lmtpsvc.session.terms import Mailing
from lmtpsvc.wire.heard_replies import HeardReply

OK = Reply(250, "OK", (0, 0))
LATER = Reply(451, "Later", (2, 0))
NOBODY = Reply(550, "Nobody", (1, 1))
UNREACHED = Reply(451, "Connection refused", (4, 1))

LMTP = Route("lmtp", (Hop("unix:/lmtp", Dialect.LMTP),))
SMTP = Route("smtp", (Hop("one:25"), Hop("two:25")))


class Sent:
    """
    A transaction that a test answers by hand.
    """

    def __init__(self, hop: Hop, delivery: Delivery, text: bytes, body: str) -> None:
        self.hop, self.delivery, self.text, self.body = hop, delivery, text, body

    @property
    def to(self) -> list[str]:
        return [str(each) for each in self.delivery.recipients]

    def answer(self, *replies: Reply, **more: Any) -> None:
        """
        One for each recipient, or one for all.
        """
        for position in range(len(self.to)):
            self.answer_one(position, replies[min(position, len(replies) - 1)], **more)

    def answer_one(self, position: int, reply: Reply, **more: Any) -> None:
        heard = HeardReply(reply.code, (reply.text,), reply.status)
        outcome = Outcome(reply, Stage.MESSAGE, heard, "mx.example.org", **more)
        self.delivery.settle(position, outcome)

    def not_reached(self) -> None:
        self.delivery.settle_rest(UNREACHED, Stage.CONNECT)


class FakeClient:
    def __init__(self, hop: Hop, sent: list[Sent]) -> None:
        self._hop, self._sent = hop, sent
        self.is_closed = False

    def send(self, sender: Sender, recipients: Any, file: Any, *, body: Any) -> Delivery:
        delivery = Delivery(Mailing(sender, tuple(recipients), body), Text(b""))
        self._sent.append(Sent(self._hop, delivery, file.read(), body))

        def stop(reply: Reply) -> None:
            delivery.settle_rest(reply, Stage.DATA)

        delivery.on_its_way(stop)
        return delivery

    def close(self) -> Deferred[None]:
        self.is_closed = True
        return succeed(None)


class Relay(Deliverer):
    """
    A deliverer whose servers are played by the test, see `sent`.
    """

    sent: list[Sent]

    def client(self, hop: Hop) -> Any:
        return FakeClient(hop, self.sent)


class Play:
    """
    A queue, a relay, and what it sends.
    """

    def __init__(self, bench: Any, words: Any) -> None:
        self.bench, self.words = bench, words
        self.clock = bench.clock
        self.routes = ConfiguredRoutes([("example.org", LMTP), ("example.com", SMTP)])
        self.relays: list[Relay] = []
        self.relay()

    def relay(self, **rates: Any) -> Relay:
        queue = self.bench.queue()
        relay = Relay(
            queue,
            self.routes,
            self.clock,
            hostname="relay.example.net",
            rates=Rates(**rates),
            chance=lambda: 0.5,
        )
        relay.sent = []
        relay.startService()
        self.relays.append(relay)
        return relay

    @property
    def queue(self) -> Any:
        return self.bench.queues[0]

    @property
    def sent(self) -> list[Sent]:
        """
        What was sent since one asked last.
        """
        self.clock.advance(0)
        relay = self.relays[0]
        sent, relay.sent = relay.sent, []
        return sent

    def add(
        self, *to: str, text: bytes | None = None, sender: str = "me@example.net", **more: Any
    ) -> str:
        ids: list[str] = []
        recipients = self.words.recipients(*to, **more.pop("recipient", {}))
        adding = self.queue.add(
            self.words.sender(sender, **more), recipients, self.words.text if text is None else text
        )
        adding.addCallback(ids.append)
        return ids[0]

    def entries(self) -> list[Entry]:
        with self.queue._engine.connect() as connection:
            return ledger.entries(connection, ledger.everything())

    def states(self) -> list[str]:
        return [each.state for entry in self.entries() for each in entry.recipients]


@pytest.fixture
def stage(bench: Any, words: Any) -> Iterator[Play]:
    stage = Play(bench, words)
    yield stage
    for relay in stage.relays:
        relay.stopService()


class TestDelivery:
    def test_together(self, stage: Play) -> None:
        """
        Recipients with the same servers share a transaction; when all have it, the queue is empty.
        """
        stage.add("a@example.org", "b@example.com", "c@example.org")
        lmtp, smtp = stage.sent

        assert (lmtp.to, smtp.to) == (["a@example.org", "c@example.org"], ["b@example.com"])
        assert lmtp.text == stage.words.text
        assert lmtp.body == "7BIT"
        lmtp.answer(OK)
        assert stage.states() == ["done", "waiting", "done"]
        smtp.answer(OK)
        assert stage.entries() == []
        assert stage.sent == []

    def test_each_at_once(self, stage: Play) -> None:
        """
        What is said of one recipient is written down before the next is heard of.
        """
        stage.add("a@example.org", "b@example.org", "c@example.org")
        (sent,) = stage.sent
        sent.answer_one(2, OK)
        assert stage.states() == ["waiting", "waiting", "done"]
        sent.answer_one(0, LATER)
        assert [each.attempts for each in stage.entries()[0].recipients] == [1, 0, 1]
        sent.answer_one(1, OK)
        assert stage.states() == ["waiting", "done", "done"]

    def test_only_the_rest(self, stage: Play) -> None:
        """
        Those who were refused for now, and nobody else, are tried again, when the schedule says.
        """
        stage.add("a@example.org", "b@example.org", "c@example.org")
        (sent,) = stage.sent
        sent.answer(OK, LATER, OK)
        stage.clock.advance(5 * MINUTE - 1)
        assert stage.sent == []
        stage.clock.advance(1)
        (again,) = stage.sent
        assert again.to == ["b@example.org"]
        again.answer(LATER)
        stage.clock.advance(10 * MINUTE)
        (again,) = stage.sent
        again.answer(OK)
        assert stage.entries() == []

    def test_eight_bit(self, stage: Play) -> None:
        """
        A text that is not ASCII says so.
        """
        stage.add("a@example.org", text="Grüße\r\n".encode())
        assert stage.sent[0].body == "8BITMIME"

    def test_many(self, stage: Play) -> None:
        """
        No more than a hundred recipients in a transaction.
        """
        stage.add(*(f"u{n}@example.org" for n in range(201)))
        assert [len(each.to) for each in stage.sent] == [100, 100, 1]

    @pytest.mark.parametrize("what", ["open", "convert"])
    def test_no_descriptors(self, stage: Play, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
        """
        A machine that has no more files is no defect of ours: it is tried again.
        """

        def fails(*_: object) -> Any:
            raise OSError(24, "Too many open files")

        with capturedLogs() as logs:
            if what == "open":
                monkeypatch.setattr(StoredText, "open", fails)
                stage.add("a@example.com")
            else:
                monkeypatch.setattr("lmtpsvc.relay.round.seven_bit", fails)
                stage.add("a@example.com", text=TestLacking.TEXT)
                (sent,) = stage.sent
                sent.answer(NOBODY, lacking="8BITMIME")
            assert stage.sent == []
        (entry,) = stage.entries()
        assert (entry.owner, entry.recipients[0].attempts) == (None, 1)
        assert [each for each in logs if each.get("log_failure")] == []
        assert entry.recipients[0].reply == str(INTERNAL_ERROR)
        assert any(
            "cannot be read, or converted: [Errno 24]" in str(formatEvent(each)) for each in logs
        )

    def test_text_is_gone(self, stage: Play) -> None:
        """
        A text that has vanished is no reason to send an empty message.
        """
        from sqlalchemy import delete

        from lmtpsvc.relay import tables

        stage.relays[0].stopService()
        stage.add("a@example.org")
        with stage.queue._engine.begin() as connection:
            connection.execute(delete(tables.text))
        stage.relays[0].startService()
        assert stage.sent == []
        assert stage.entries()[0].recipients[0].reply.startswith("451")


class TestHops:
    def test_next(self, stage: Play) -> None:
        """
        If a server is not there, the next one is asked, and nobody has lost an attempt.
        """
        stage.add("a@example.com")
        (one,) = stage.sent
        one.not_reached()
        (two,) = stage.sent
        assert [one.hop.to, two.hop.to] == ["one:25", "two:25"]
        assert stage.entries()[0].recipients[0].attempts == 0
        two.answer(OK)
        assert stage.entries() == []

    def test_answered(self, stage: Play) -> None:
        """
        What a server has refused the next is not asked for.
        """
        stage.add("a@example.com")
        stage.sent[0].answer(LATER)
        assert stage.sent == []
        assert stage.states() == ["waiting"]

    def test_down(self, stage: Play) -> None:
        """
        Who is down is not asked by everybody; the mail waits.
        """
        for _ in range(4):
            stage.add("a@example.com")
            for _ in range(2):
                for each in stage.sent:
                    each.not_reached()
        assert stage.sent == []
        assert [each.recipients[0].attempts for each in stage.entries()] == [1] * 4
        replies = sorted(each.recipients[0].reply for each in stage.entries())
        assert replies == ["451 4.4.1 Connection refused"] * 3 + [
            "451 4.4.1 The next server does not answer"
        ]

    @pytest.mark.parametrize(
        ("error", "state"),
        [
            (PermanentFailure("No such domain", (1, 2)), "bounced"),
            (TemporaryFailure("DNS", (4, 3)), "waiting"),
            (RuntimeError("x"), "waiting"),
        ],
    )
    def test_no_route(self, stage: Play, error: Exception, state: str) -> None:
        """
        A domain that cannot be is a bounce; one of which nothing is known waits.
        """
        from twisted.internet.defer import fail

        class Nowhere:
            def route(self, domain: str) -> Any:
                return LMTP if domain == "example.org" else fail(error)

        stage.relays[0].router = Nowhere()  # type: ignore[assignment]
        stage.add("a@example.com", sender="me@example.org")
        stage.clock.advance(0)
        (entry,) = stage.entries()
        assert (entry.sender.address is None) == (state == "bounced")
        assert [each.to for each in stage.sent] == [["me@example.org"]] * (state == "bounced")


class TestLacking:
    TEXT = "Subject: x\r\nContent-Type: text/plain\r\n\r\nGrüße von uns allen hier\r\n".encode()

    def lacks(self, sent: Sent, extension: str) -> None:
        sent.answer(Reply(554, "No", (6, 3)), lacking=extension)

    def test_converted(self, stage: Play) -> None:
        """
        A server without 8BITMIME gets the same in seven bits, at once.
        """
        stage.add("a@example.org", "b@example.org", text=self.TEXT)
        self.lacks(stage.sent[0], "8BITMIME")
        (again,) = stage.sent

        assert again.body == "7BIT"
        assert again.to == ["a@example.org", "b@example.org"]
        assert b"Content-Transfer-Encoding: quoted-printable\r\n" in again.text
        assert b"Gr=C3=BC=C3=9Fe" in again.text
        again.answer(OK, LATER)
        assert stage.states() == ["done", "waiting"]
        assert [each.attempts for each in stage.entries()[0].recipients] == [1, 1]

    def test_signed(self, stage: Play) -> None:
        """
        What cannot be converted is returned, with the reason.
        """
        text = self.TEXT.replace(b"text/plain", b"multipart/signed; boundary=x")
        stage.add("a@example.org", text=text, sender="me@example.org")
        self.lacks(stage.sent[0], "8BITMIME")
        (bounce,) = stage.sent

        assert b"Status: 5.6.3\r\n" in bounce.text
        assert b"signed or encrypted cannot be converted" in bounce.text

    def test_utf8(self, stage: Play) -> None:
        """
        Addresses in UTF-8 cannot be converted.
        """
        stage.add("a@example.org", sender="me@example.org")
        stage.sent[0].answer(Reply(553, "No", (6, 7)), lacking="SMTPUTF8")
        (bounce,) = stage.sent
        assert b"Status: 5.6.7\r\n" in bounce.text

    def test_next_hop(self, stage: Play) -> None:
        """
        If the server is gone when the converted text is ready, the next one is asked.
        """
        stage.add("a@example.com", text=self.TEXT)
        self.lacks(stage.sent[0], "8BITMIME")
        stage.sent[0].not_reached()
        (two,) = stage.sent
        assert (two.hop.to, two.body) == ("two:25", "8BITMIME")


class TestReports:
    def report(self, stage: Play) -> Any:
        """
        What is sent back.
        """
        (sent,) = stage.sent
        assert sent.delivery.mailing.sender.address is None
        assert sent.to == ["me@example.org"]
        sent.answer(OK)
        return message_from_bytes(sent.text, policy=default)

    def fields(self, stage: Play) -> list[Any]:
        return list(list(self.report(stage).iter_parts())[1].iter_parts())

    def test_failed(self, stage: Play) -> None:
        """
        One bounce for all who were refused for good, and for nobody else.
        """
        stage.add(
            *("a@example.org", "b@example.org", "c@example.org", "d@example.org"),
            sender="me@example.org",
            ENVID="x1",
        )
        stage.sent[0].answer(OK, NOBODY, LATER, NOBODY)
        about, *told = self.fields(stage)

        assert about["Original-Envelope-Id"] == "x1"
        assert about["Reporting-MTA"] == "dns; relay.example.net"
        assert [each["Final-Recipient"] for each in told] == [
            "rfc822; b@example.org",
            "rfc822; d@example.org",
        ]
        assert {each["Diagnostic-Code"] for each in told} == {"smtp; 550 5.1.1 Nobody"}
        assert {each["Remote-MTA"] for each in told} == {"dns; mx.example.org"}
        stage.clock.advance(5 * MINUTE)
        (again,) = stage.sent
        assert again.to == ["c@example.org"]
        again.answer(NOBODY)
        assert [each["Final-Recipient"] for each in self.fields(stage)[1:]] == [
            "rfc822; c@example.org"
        ]

    def test_whole(self, stage: Play) -> None:
        """
        A small message comes back whole, unless its sender wants the headers only.
        """
        for wants, kind in ((None, "message/rfc822"), ("HDRS", "text/rfc822-headers")):
            more: dict[str, Any] = {} if wants is None else {"RET": wants}
            stage.add("a@example.org", sender="me@example.org", **more)
            stage.sent[0].answer(NOBODY)
            *_, returned = self.report(stage).iter_parts()
            assert returned.get_content_type() == kind

    def test_no_sender(self, stage: Play) -> None:
        """
        A report that cannot be delivered is the end of it.
        """
        stage.add("a@example.org", sender="")
        stage.sent[0].answer(NOBODY)
        assert stage.sent == []
        assert stage.entries() == []

    def test_never(self, stage: Play) -> None:
        """
        Who does not want to know is not told.
        """
        stage.add("a@example.org", recipient={"NOTIFY": frozenset({"NEVER"})})
        stage.sent[0].answer(NOBODY)
        assert stage.entries() == []

    def test_too_old(self, stage: Play) -> None:
        """
        After four hours a warning, once; after five days a last attempt, and a bounce.
        """
        stage.add("a@example.org", sender="me@example.org")
        told: list[tuple[float, str]] = []
        began = stage.clock.seconds()
        while stage.entries():
            for each in stage.sent:
                if each.delivery.mailing.sender.address is not None:
                    each.answer(LATER)
                    continue
                said = message_from_bytes(each.text, policy=default)
                told.append((stage.clock.seconds() - began, said["Subject"]))
                each.answer(OK)
            stage.clock.advance(HOUR)

        (warned, first), (ended, last) = told
        assert first == "Your message has not been delivered yet"
        assert 4 * HOUR <= warned <= 9 * HOUR
        assert last == "Your message could not be delivered"
        assert 5 * DAY <= ended <= 5 * DAY + HOUR

    @pytest.mark.parametrize(
        ("to", "dsn", "action"),
        [
            ("a@example.com", False, "relayed"),
            ("a@example.org", False, "delivered"),
            ("a@example.com", True, None),
        ],
    )
    def test_success(self, stage: Play, to: str, dsn: bool, action: str | None) -> None:
        """
        Who asked for it hears of success: from the next server if it knows reports, else from us.
        """
        stage.add(to, sender="me@example.org", recipient={"NOTIFY": frozenset({"SUCCESS"})})
        stage.sent[0].answer(OK, dsn=dsn)
        if action is None:
            assert stage.sent == []
        else:
            assert self.fields(stage)[1]["Action"] == action


class TestWishes:
    def test_returned_in_time(self, stage: Play) -> None:
        """
        What is to be returned when it is late is, and the next server hears how long it has.
        """
        stage.add("a@example.org", sender="me@example.org", BY=DeliverBy(400, is_returned=True))
        (sent,) = stage.sent
        assert sent.delivery.mailing.sender.deliver_by == DeliverBy(400, is_returned=True)
        sent.answer(LATER)
        stage.clock.advance(300)
        (sent,) = stage.sent
        assert sent.delivery.mailing.sender.deliver_by == DeliverBy(100, is_returned=True)
        sent.answer(LATER)
        stage.clock.advance(100)
        (bounce,) = stage.sent
        assert b"Status: 5.4.7\r\n" in bounce.text

    def test_told_in_time(self, stage: Play) -> None:
        """
        What is to be told of when it is late is, and is tried on.
        """
        stage.add("a@example.org", sender="me@example.org", BY=DeliverBy(200, is_returned=False))
        stage.sent[0].answer(LATER)
        stage.clock.advance(300)
        (sent,) = stage.sent
        assert sent.delivery.mailing.sender.deliver_by == DeliverBy(-100, is_returned=False)
        sent.answer(LATER)
        (warning,) = stage.sent
        assert b"Action: delayed\r\n" in warning.text

    def test_tls(self, stage: Play) -> None:
        """
        What must not travel in the clear is said to no server that we have not looked at.
        """
        asked: list[Hop] = []
        client = stage.relays[0].client
        stage.relays[0].client = lambda hop: (asked.append(hop), client(hop))[1]  # type: ignore[func-returns-value, method-assign]
        stage.add("a@example.com", "b@example.org", REQUIRETLS=True)
        assert len(stage.sent) == 2
        assert {hop.to: hop.tls for hop in asked} == {"one:25": TLS.MUST, "unix:/lmtp": TLS.MAY}


class TestLanes:
    def test_width(self, bench: Any, words: Any, stage: Play) -> None:
        """
        No more than so many transactions with one destination at a time; others are not held up.
        """
        for _ in range(12):
            stage.add("a@example.com")
        stage.add("a@example.org")
        sent = stage.sent
        assert sorted(each.hop.to for each in sent) == ["one:25"] * 10 + ["unix:/lmtp"]
        for each in sent[:2]:
            each.answer(OK)
        assert len(stage.sent) == 2

    def test_many_at_once(self, bench: Any, words: Any) -> None:
        """
        All who wait for a server learn in the same moment that it is down, however many they are.
        """
        play = Play(bench, words)
        play.relays.pop().stopService()
        relay = play.relay(per_destination=3, waiting=150)
        with capturedLogs() as logs:
            for number in range(150):
                play.add(f"a{number}@example.org")
            sent = play.sent
            assert len(sent) == 3
            for each in sent:
                each.not_reached()
            play.clock.advance(0)

        assert [each for each in logs if each.get("log_failure")] == []
        # Two were let in before the third failure in a row.
        assert len(play.sent) == 2
        tried = sorted(each.recipients[0].attempts for each in play.entries())
        assert tried == [0, 0] + [1] * 148
        relay.stopService()

    def test_full(self, bench: Any, words: Any, stage: Play) -> None:
        """
        When too many wait for one, the rest comes back later, one by one, with no attempt lost.
        """
        stage.relays[0].stopService()
        relay = stage.relay(per_destination=1, waiting=2)
        stage.relays.reverse()
        for _ in range(6):
            stage.add("a@example.com")
        relay.look()
        (first,) = stage.sent
        put_off = [each for each in stage.entries() if each.owner is None]
        assert len(put_off) == 3
        assert {each.recipients[0].attempts for each in put_off} == {0}
        assert len({each.due for each in put_off}) == 3
        answered = 0
        waiting = [first]
        while waiting:
            answered += len(waiting)
            for each in waiting:
                each.answer(OK)
            stage.clock.advance(1)
            waiting = stage.sent or stage.sent
            if not waiting and stage.entries():
                stage.clock.advance(5)
                waiting = stage.sent
        assert answered == 6
        assert stage.entries() == []


class TestLife:
    def test_stop(
        self, stage: Play, success_of: Callable[[Any], Any], no_result: Callable[[Any], None]
    ) -> None:
        """
        A relay that stops breaks off what has not been sent; it is due at once for the next.
        """
        stage.add("a@example.org")
        assert len(stage.sent) == 1
        success_of(stage.relays[0].stopService())

        (entry,) = stage.entries()
        assert (entry.owner, entry.recipients[0].attempts) == (None, 0)
        assert entry.due is not None
        assert entry.due <= stage.clock.seconds()
        stage.relays[0].startService()
        assert len(stage.sent) == 1

    def test_stop_while_asking(self, stage: Play, success_of: Callable[[Any], Any]) -> None:
        """
        Name servers that do not answer keep nobody from stopping; who was asked for was not tried.
        """
        asked: list[Deferred[Any]] = []

        class Silent:
            def route(self, domain: str) -> Any:
                asked.append(Deferred())
                return asked[-1]

        stage.relays[0].router = Silent()  # type: ignore[assignment]
        stage.add("a@example.org")
        assert stage.sent == []
        success_of(stage.relays[0].stopService())

        (entry,) = stage.entries()
        assert (entry.owner, entry.recipients[0].attempts) == (None, 0)
        (answer,) = asked
        answer.callback(LMTP)
        assert stage.sent == []

    @pytest.mark.parametrize("read", ["open_text", "in_thread"])
    def test_stop_while_reading(
        self,
        stage: Play,
        monkeypatch: pytest.MonkeyPatch,
        success_of: Callable[[Any], Any],
        read: str,
    ) -> None:
        """
        What is read when the relay stops is not sent any more, nor what is converted then.
        """
        works = getattr(stage.queue, read)
        held: list[tuple[Deferred[Any], Any]] = []

        def later(work: Any) -> Deferred[Any]:
            held.append((Deferred(), work))
            return held[-1][0]

        monkeypatch.setattr(stage.queue, read, later)
        stage.add("a@example.com", text=TestLacking.TEXT)
        if read == "in_thread":
            (first,) = stage.sent
            first.answer(NOBODY, lacking="8BITMIME")
        assert stage.sent == []
        stopping = stage.relays[0].stopService()
        ((reading, work),) = held
        works(work).chainDeferred(reading)

        assert stage.sent == []
        success_of(stopping)
        (entry,) = stage.entries()
        assert (entry.owner, entry.recipients[0].attempts) == (None, 0)

    def test_stop_waits(
        self, stage: Play, success_of: Callable[[Any], Any], no_result: Callable[[Any], None]
    ) -> None:
        """
        What the server has whole is waited for, and counts.
        """
        stage.add("a@example.org")
        (sent,) = stage.sent
        sent.delivery.text_sent()
        stopping = stage.relays[0].stopService()
        no_result(stopping)
        sent.answer(OK)
        success_of(stopping)
        assert stage.entries() == []

    def test_stop_at_last(
        self, stage: Play, success_of: Callable[[Any], Any], no_result: Callable[[Any], None]
    ) -> None:
        """
        A stop does not wait for the server for ever; its recipient is tried again.
        """
        stage.add("a@example.org")
        (sent,) = stage.sent
        sent.delivery.text_sent()
        stopping = stage.relays[0].stopService()
        stage.clock.advance(20)
        success_of(stopping)
        assert stage.states() == ["waiting"]

    def test_stop_hangs(
        self,
        stage: Play,
        monkeypatch: pytest.MonkeyPatch,
        success_of: Callable[[Any], Any],
        no_result: Callable[[Any], None],
    ) -> None:
        """
        A database that does not answer is waited for once, although the queue stops us once more.
        """
        stage.add("a@example.org")
        (sent,) = stage.sent
        monkeypatch.setattr(stage.queue, "record", lambda *_: Deferred())
        sent.answer(OK)
        with capturedLogs() as logs:
            stopping = stage.relays[0].stopService()
            stage.clock.advance(19)
            no_result(stopping)
            stage.clock.advance(1)
            success_of(stopping)
            stopping = stage.queue.stopService()
            stage.clock.advance(0)
            success_of(stopping)
        said = [formatEvent(each) for each in logs]
        assert said.count("1 messages are left to another relay") == 1

    def test_queue_stops_last(
        self, stage: Play, success_of: Callable[[Any], Any], no_result: Callable[[Any], None]
    ) -> None:
        """
        A queue that is told to stop lets those come to their end who need it.
        """
        stage.add("a@example.org")
        (sent,) = stage.sent
        sent.delivery.text_sent()
        stopping = stage.queue.stopService()
        no_result(stopping)
        sent.answer(OK)
        success_of(stopping)
        assert stage.entries() == []

    def test_taken_over(self, stage: Play) -> None:
        """
        Another relay goes on with what a dead one had, and tries nobody who has it.
        """
        stage.add("a@example.org", "b@example.org")
        (sent,) = stage.sent
        sent.answer_one(0, OK)
        dead = stage.relays.pop()
        dead._next_renewal.cancel()  # type: ignore[union-attr]
        dead._next_look.cancel()  # type: ignore[union-attr]
        dead.running = False
        stage.relay()
        stage.clock.advance(59)
        assert stage.sent == []
        stage.clock.advance(5)
        (again,) = stage.sent
        assert again.to == ["b@example.org"]

    def test_keeps_claims(self, stage: Play) -> None:
        """
        A delivery that takes long stays with its relay.
        """
        stage.add("a@example.org")
        (sent,) = stage.sent
        other = stage.relay()
        for _ in range(60):
            stage.clock.advance(10)
        assert other.sent == []
        sent.answer(OK)
        assert stage.entries() == []

    def test_cannot_record(self, stage: Play, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        What was answered is written down as soon as it can be, however long that takes.
        """
        stage.add("a@example.org")
        (sent,) = stage.sent
        with monkeypatch.context() as patch:

            def fails(*_: object) -> None:
                raise OSError("disk full")

            patch.setattr(ledger, "record", fails)
            sent.answer(OK)
            stage.clock.advance(1)
            assert stage.states() == ["waiting"]
        stage.clock.advance(5)
        stage.clock.advance(5)
        assert stage.entries() == []

    def test_keeps_quiet(self, stage: Play, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        What a database has against a statement is logged without the values: they are people's mail.
        """
        stage.add("a@example.org", sender="secret@example.net")
        (sent,) = stage.sent
        with monkeypatch.context() as patch, capturedLogs() as logs:

            def fails(connection: Any, *_: object) -> None:
                connection.execute(text("SELECT :value FROM nowhere"), {"value": "secret"})

            patch.setattr(ledger, "record", fails)
            sent.answer(OK)
        said = [formatEvent(each) for each in logs]
        assert any("cannot be written to: OperationalError: no such table" in line for line in said)
        assert not any("secret" in line for line in said)
        stage.clock.advance(1)
        assert stage.entries() == []

    def test_cannot_renew(self, stage: Play, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A relay that cannot renew its claims breaks off before others may take them.
        """
        stage.add("a@example.org")
        (sent,) = stage.sent

        def fails(*_: object) -> None:
            raise OSError("disk full")

        monkeypatch.setattr(ledger, "renew", fails)
        for _ in range(5):
            stage.clock.advance(11)
        assert sent.delivery.is_settled
        assert stage.entries()[0].recipients[0].attempts == 0

    def test_deleted(self, stage: Play) -> None:
        """
        A message that an operator deletes while it is sent is not there afterwards.
        """
        id = stage.add("a@example.org")
        (sent,) = stage.sent
        with stage.queue._engine.begin() as connection:
            ledger.remove(connection, id)
        sent.answer(LATER)
        assert stage.entries() == []
        assert stage.relays[0]._rounds == {}
