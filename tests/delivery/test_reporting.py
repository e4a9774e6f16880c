"""
Who is told that a message has been delivered, and when.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from twisted.internet.defer import Deferred, execute, fail, succeed
from twisted.internet.task import Clock

from lmtpsvc.delivery.agent import DeliveryAgent
from lmtpsvc.delivery.reporting import LAST_SECONDS, MOST_WAITING, PAUSES, Reporter
from lmtpsvc.delivery.routing import AddressRules, Routing
from lmtpsvc.delivery.spool import SpoolSettings
from lmtpsvc.delivery.transaction import Accepted
from lmtpsvc.directory.anyone import Anyone
from lmtpsvc.envelope import Address, Client, Envelope, Mailbox, Recipient, Sender
from lmtpsvc.errors import PermanentFailure
from lmtpsvc.limits import Limits
from lmtpsvc.replies import PassedOn, Reply
from lmtpsvc.response_codes import ResponseCode

SENT, LATER, NEVER = Reply(250, "OK"), Reply(451, "Later", (3, 0)), Reply(550, "No", (1, 1))
ME = Address("me", "example.net")
ON_SUCCESS = {"NOTIFY": frozenset({"SUCCESS", "FAILURE"})}


class Post:
    """
    What sends reports: each attempt ends as *answers* says, the last of which is for ever.
    """

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.sent: list[tuple[str, bytes, bool]] = []
        self.closed = 0

    def __call__(self, to: Address, report: bytes, utf8: bool) -> Deferred[Any]:
        self.sent.append((str(to), report, utf8))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            return fail(answer)
        return answer if isinstance(answer, Deferred) else succeed(answer)

    def close(self) -> Deferred[None]:
        self.closed += 1
        return succeed(None)


class Desk:
    """
    A delivery agent that reports.
    """

    def __init__(self, backend: Any, post: Post) -> None:
        self.clock, self.backend, self.post = Clock(), backend, post
        self.reporter = Reporter(
            post, post.close, "mx.example.org", self.clock, execute, lambda: 1_700_000_000.0
        )
        self.reporter.startService()
        self.agent = DeliveryAgent(
            Routing(Anyone(), backend, AddressRules("mx"), self.clock, 60.0),
            backend,
            self.clock,
            "mx",
            Limits(),
            SpoolSettings(100_000, "/nonexistent", "\n", execute),
            reporter=self.reporter,
        )
        self.replied: list[int] = []
        self.said: list[Reply] = []
        self.reported_at: list[int] = []

    def deliver(
        self,
        *to: tuple[str, Mapping[str, Any]],
        sender: Sender | None = None,
        text: bytes = b"Subject: x\r\n\r\nHello\r\n",
    ) -> Any:
        recipients = tuple(Recipient(Address(name, "example.org"), asked) for name, asked in to)
        accepted = [
            Accepted(each, (Mailbox(each.address.local, "example.org"),), 0.0)
            for each in recipients
        ]
        envelope = Envelope(sender or Sender(ME), recipients, Client("192.0.2.7", "client"))
        transaction = self.agent.begin(envelope, accepted, lambda: None, lambda: None)
        transaction.write(text)
        transaction.deliver(self._answer)
        return transaction

    def _answer(self, _position: int, reply: Reply) -> None:
        # The reply is not held up by any report.
        self.reported_at.append(len(self.post.sent))
        self.replied.append(reply.code)
        self.said.append(reply)

    def store(self, *names: str) -> None:
        for name in names:
            self.backend.held[f"{name}@example.org"].callback(None)


@pytest.fixture
def desk(backend: Any) -> Callable[..., Desk]:
    return lambda *answers: Desk(backend, Post(*(answers or (SENT,))))


class TestRelayed:
    """
    What is not in a mailbox yet (RFC 3461 §5.2.2).
    """

    def test_report_of_its_own(self, desk: Callable[..., Desk]) -> None:
        """
        Who has the message is told of in one report, and who was passed on in another, with what the
        next server said.
        """
        one = desk()
        one.deliver(("ann", ON_SUCCESS), ("bob", ON_SUCCESS), ("cid", {}))
        there = PassedOn(Reply(250, "queued as 7", (1, 5)), "mx.example.com")
        one.backend.held["bob@example.org"].callback(there)
        one.backend.held["cid@example.org"].callback(there)
        one.store("ann")

        assert [250] * 3 == one.replied
        (_, delivered, _), (_, relayed, _) = one.post.sent
        assert b"Action: delivered\r\n" in delivered
        assert b"rfc822; bob@" not in delivered
        assert relayed.count(b"Final-Recipient:") == 1
        for line in (
            b"Final-Recipient: rfc822; bob@example.org",
            b"Action: relayed",
            b"Status: 2.1.5",
            b"Remote-MTA: dns; mx.example.com",
            b"Diagnostic-Code: smtp; 250 2.1.5 queued as 7",
        ):
            assert line + b"\r\n" in relayed

    def test_codes(self, desk: Callable[..., Desk]) -> None:
        """
        Codes are for the reply, as else.
        """
        one = desk()
        one.deliver(("ann", {}), sender=Sender(ME, {"XRESPCODES": True}))
        codes = (ResponseCode("QUEUED"),)
        one.backend.held["ann@example.org"].callback(PassedOn(SENT, codes=codes))

        [said] = one.said
        assert (250, codes) == (said.code, said.codes)
        assert [] == one.post.sent


class TestWho:
    def test_after_all_replies(self, desk: Callable[..., Desk]) -> None:
        """
        One report names all who have the message and for whom it was asked, in the order of RCPT,
        and leaves when the last reply has.
        """
        one = desk()
        one.deliver(("ann", ON_SUCCESS), ("bob", ON_SUCCESS), ("cid", {}), ("dan", ON_SUCCESS))
        one.store("dan", "cid", "ann")
        assert [] == one.post.sent

        one.backend.held["bob@example.org"].errback(PermanentFailure("No"))

        assert [0] * 4 == one.reported_at
        [(to, report, utf8)] = one.post.sent
        assert ("me@example.net", False) == (to, utf8)
        names = [line for line in report.splitlines() if line.startswith(b"Final-Recipient")]
        assert [
            b"Final-Recipient: rfc822; ann@example.org",
            b"Final-Recipient: rfc822; dan@example.org",
        ] == names
        assert b"\r\nSubject: x\r\n" in report
        assert b"Hello" not in report

    @pytest.mark.parametrize(
        ("sender", "asked"),
        [
            (Sender(None), ON_SUCCESS),
            (Sender(ME), {}),
            (Sender(ME), {"NOTIFY": frozenset({"NEVER"})}),
            (Sender(ME), {"NOTIFY": frozenset({"FAILURE", "DELAY"})}),
        ],
    )
    def test_nobody(
        self, desk: Callable[..., Desk], sender: Sender, asked: Mapping[str, Any]
    ) -> None:
        """
        The null sender is never told, nor is who has not asked, or has asked not to be.
        """
        one = desk()
        one.deliver(("ann", asked), sender=sender)
        one.store("ann")

        assert ([250], []) == (one.replied, one.post.sent)

    def test_refused(self, desk: Callable[..., Desk]) -> None:
        """
        A refusal is the client's to tell.
        """
        one = desk()
        one.deliver(("ann", ON_SUCCESS))
        one.backend.held["ann@example.org"].errback(PermanentFailure("No"))

        assert ([550], []) == (one.replied, one.post.sent)

    def test_client_gone(self, desk: Callable[..., Desk]) -> None:
        """
        A client that has not heard us comes again: then is the time.
        """
        one = desk()
        transaction = one.deliver(("ann", ON_SUCCESS))
        transaction.abandon()

        assert [] == one.post.sent

    def test_requiring_tls(self, desk: Callable[..., Desk]) -> None:
        """
        Of a message that must not leave in the clear, nothing is given back (RFC 8689 §5).
        """
        one = desk()
        one.deliver(("ann", ON_SUCCESS), sender=Sender(ME, {"REQUIRETLS": True}))
        one.store("ann")

        [(_, report, _)] = one.post.sent
        assert b"Subject: x" not in report


class TestUtf8:
    SENDER = Sender(Address("jörg", "example.net"), {"SMTPUTF8": True})

    def test_asked(self, desk: Callable[..., Desk]) -> None:
        """
        Who writes in UTF-8 is told in UTF-8.
        """
        one = desk()
        one.deliver(("ann", ON_SUCCESS), sender=self.SENDER)
        one.store("ann")

        [(to, report, utf8)] = one.post.sent
        assert ("jörg@example.net", True) == (to, utf8)
        assert b"message/global-delivery-status" in report

    def test_lacking(self, desk: Callable[..., Desk]) -> None:
        """
        A server that does not know SMTPUTF8 gets the report in ASCII.
        """
        one = desk(None, SENT)
        one.deliver(
            ("ann", ON_SUCCESS),
            sender=Sender(ME, {"SMTPUTF8": True}),
            text="Subject: Grüße\r\n\r\n".encode(),
        )
        one.store("ann")

        assert [True, False] == [utf8 for _, _, utf8 in one.post.sent]
        assert one.post.sent[1][1].isascii()

    def test_no_way(self, desk: Callable[..., Desk], logged: Any) -> None:
        """
        To a sender who is in UTF-8, there is none.
        """
        one = desk(None)
        one.deliver(("ann", ON_SUCCESS), sender=self.SENDER)
        one.store("ann")

        assert 1 == len(one.post.sent)
        assert [] == one.clock.getDelayedCalls()
        assert "does not know SMTPUTF8" in logged.of("lmtpsvc.reports")[-1]["reason"]


class TestAgain:
    @pytest.mark.parametrize("trouble", [LATER, RuntimeError("a defect")])
    def test_later(self, desk: Callable[..., Desk], trouble: Any) -> None:
        """
        A server that is away for a while gets it later, the same report.
        """
        one = desk(trouble, trouble, SENT)
        one.deliver(("ann", ON_SUCCESS))
        one.store("ann")
        assert [250] == one.replied
        one.clock.advance(PAUSES[0] - 1)
        assert 1 == len(one.post.sent)

        one.clock.pump([1, PAUSES[1]])

        assert 3 == len(one.post.sent)
        assert 1 == len({report for _, report, _ in one.post.sent})
        assert [] == one.clock.getDelayedCalls()

    def test_in_vain(self, desk: Callable[..., Desk], logged: Any) -> None:
        """
        After about two hours it is given up, and the log says who does not know what.
        """
        one = desk(LATER)
        one.deliver(("ann", ON_SUCCESS))
        one.store("ann")

        one.clock.pump(PAUSES)

        assert 1 + len(PAUSES) == len(one.post.sent)
        assert [] == one.clock.getDelayedCalls()
        last = logged.of("lmtpsvc.reports")[-1]
        assert ("me@example.net", "<ann@example.org>") == (last["sender"], last["to"])

    def test_refused(self, desk: Callable[..., Desk]) -> None:
        """
        A server that does not want it is not asked again.
        """
        one = desk(NEVER)
        one.deliver(("ann", ON_SUCCESS))
        one.store("ann")

        assert (1, []) == (len(one.post.sent), one.clock.getDelayedCalls())

    def test_too_many(self, desk: Callable[..., Desk]) -> None:
        """
        However long the server is away, memory is bounded.
        """
        one = desk(LATER)
        for _ in range(MOST_WAITING + 3):
            one.deliver(("ann", ON_SUCCESS))
            one.store("ann")

        assert MOST_WAITING == len(one.post.sent)
        assert 250 == one.replied[-1]

    def test_unreadable(self, desk: Callable[..., Desk]) -> None:
        """
        If the headers cannot be read any more, the report does without them.
        """
        one = desk()
        one.reporter._in_thread = lambda _job: fail(OSError(5, "Input/output error"))
        one.deliver(("ann", ON_SUCCESS))
        one.store("ann")

        [(_, report, _)] = one.post.sent
        assert b"text/rfc822-headers" not in report


class TestStop:
    def test_last_try(self, desk: Callable[..., Desk]) -> None:
        """
        What waits is tried once more, then the connections are closed.
        """
        one = desk(LATER, SENT)
        one.deliver(("ann", ON_SUCCESS))
        one.store("ann")

        stopped: list[None] = []
        one.reporter.stopService().addCallback(stopped.append)

        assert (2, 1, 1) == (len(one.post.sent), one.post.closed, len(stopped))
        assert [] == one.clock.getDelayedCalls()

    def test_on_its_way(self, desk: Callable[..., Desk]) -> None:
        """
        What is being sent is waited for, and not sent twice.
        """
        sending: Deferred[Any] = Deferred()
        one = desk(sending)
        one.deliver(("ann", ON_SUCCESS))
        one.store("ann")

        stopped: list[None] = []
        one.reporter.stopService().addCallback(stopped.append)
        assert ([], 0) == (stopped, one.post.closed)
        sending.callback(SENT)

        assert ([None], 1, 1) == (stopped, one.post.closed, len(one.post.sent))
        assert [] == one.clock.getDelayedCalls()

    def test_never_closed(self, desk: Callable[..., Desk]) -> None:
        """
        A server that does not let go does not keep the service from stopping.
        """
        one = desk()
        one.reporter._close = Deferred

        stopped: list[None] = []
        one.reporter.stopService().addCallback(stopped.append)
        one.clock.advance(LAST_SECONDS)

        assert [None] == stopped

    @pytest.mark.parametrize("answer", [LATER, Deferred])
    def test_lost(self, desk: Callable[..., Desk], logged: Any, answer: Any) -> None:
        """
        What cannot be sent then is told in the log, and the service does stop.
        """
        one = desk(LATER, answer() if answer is Deferred else answer)
        one.deliver(("ann", ON_SUCCESS))
        one.store("ann")

        stopped: list[None] = []
        one.reporter.stopService().addCallback(stopped.append)
        one.clock.advance(LAST_SECONDS)

        assert [None] == stopped
        assert "the service stops" == logged.of("lmtpsvc.reports")[-1]["reason"]
        assert [] == one.clock.getDelayedCalls()
