"""
One message, from the first octet of its text to the last reply.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import lists, permutations, sampled_from
from twisted.internet.defer import Deferred, execute, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from lmtpsvc import replies
from lmtpsvc.commitment import Commitment
from lmtpsvc.delivery.agent import DeliveryAgent
from lmtpsvc.delivery.routing import AddressRules, Routing
from lmtpsvc.delivery.spool import SpoolSettings
from lmtpsvc.delivery.trace import DeliveredTo
from lmtpsvc.delivery.transaction import Accepted, Transaction
from lmtpsvc.directory.anyone import Anyone
from lmtpsvc.envelope import (
    NO_PARAMETERS,
    Address,
    Client,
    DeliverBy,
    Envelope,
    Mailbox,
    Recipient,
    Sender,
)
from lmtpsvc.errors import PermanentFailure, TemporaryFailure
from lmtpsvc.interfaces import Capabilities, IBackend, IMessage
from lmtpsvc.limits import Limits
from lmtpsvc.replies import Reply

TEXT = b"Subject: x\r\n\r\nHello\r\n"
LATER, NEVER = Reply(451, "Later", (0, 0)), Reply(550, "Never", (0, 0))
LATE = replies.OUT_OF_TIME


class Delivery:
    """
    A transaction, and what its client is told: one reply per recipient, None while there is none.

    *to* has a name for each recipient, with the names of mailboxes behind a colon if it is an
    alias: ``staff:ann,bob``.
    """

    def __init__(
        self,
        backend: IBackend,
        directory: Path,
        *to: str,
        delivered_to: DeliveredTo = "single",
        in_thread: Callable[..., Deferred[Any]] = execute,
        parameters: Mapping[str, Any] = NO_PARAMETERS,
    ) -> None:
        self.clock = Clock()
        self.limits = Limits(spool_memory=1000)
        self.paused = 0
        agent = DeliveryAgent(
            Routing(Anyone(), backend, AddressRules("mx.example.org"), self.clock, 60.0),
            backend,
            self.clock,
            "mx.example.org",
            self.limits,
            SpoolSettings(self.limits.spool_memory, str(directory), "\n", in_thread),
            delivered_to,
        )
        accepted = []
        for each in to:
            name, _, boxes = each.partition(":")
            mailboxes = [Mailbox(box, "example.org") for box in (boxes or name).split(",")]
            accepted.append(
                Accepted(Recipient(Address(name, "example.org")), tuple(mailboxes), 0.25)
            )
        envelope = Envelope(
            Sender(Address("sender", "example.net"), parameters),
            tuple(each.recipient for each in accepted),
            Client("192.0.2.7", "client.example.net"),
        )
        self.replied: list[Reply | None] = [None] * len(accepted)
        self.transaction: Transaction = agent.begin(envelope, accepted, self._pause, self._resume)

    def deliver(self, text: bytes = TEXT) -> None:
        self.transaction.write(text)
        self.transaction.deliver(self.answer)

    def answer(self, position: int, reply: Reply) -> None:
        assert self.replied[position] is None, "answered twice"
        self.replied[position] = reply

    @property
    def codes(self) -> list[int | None]:
        return [None if reply is None else reply.code for reply in self.replied]

    def _pause(self) -> None:
        self.paused += 1

    def _resume(self) -> None:
        self.paused -= 1


@implementer(IBackend)
class Given:
    """
    Returns what it was given.
    """

    capabilities = Capabilities()

    def __init__(self, results: Sequence[Any]) -> None:
        self.results = results

    def verify(self, mailbox: Mailbox) -> None: ...

    def deliver(self, message: IMessage, mailboxes: Sequence[Mailbox]) -> Sequence[Any]:
        return self.results


async def _store() -> None: ...


@pytest.fixture
def deliver(backend: Any, tmp_path: Path) -> Iterator[Callable[..., Delivery]]:
    """
    Begin a transaction for some recipients; at the end, no timer may be left of it.
    """
    begun: list[Delivery] = []

    def deliver(*to: str, store: Any = backend, **words: Any) -> Delivery:
        begun.append(Delivery(store, tmp_path / "spool", *to, **words))
        return begun[-1]

    yield deliver
    for delivery in begun:
        assert [] == delivery.clock.getDelayedCalls()


class TestRecipientsOf:
    """
    What a backend learns of the transaction.
    """

    def test_recipients_of(self, deliver: Callable[..., Delivery]) -> None:
        """
        Who leads to a mailbox, through an alias too; nobody leads to others.
        """
        seen: list[IMessage] = []

        class Looking(Given):
            def deliver(self, message: IMessage, mailboxes: Sequence[Mailbox]) -> Sequence[Any]:
                seen.append(message)
                return super().deliver(message, mailboxes)

        store = Looking([succeed(None), succeed(None)])
        delivery = deliver("ann", "staff:ann,bob", store=store)
        delivery.deliver()

        def names(user: str) -> list[str]:
            found = seen[0].recipients_of(Mailbox(user, "example.org"))
            return [each.address.local for each in found]

        assert ["ann", "staff"] == names("ann")
        assert ["staff"] == names("bob")
        assert [] == names("staff")
        assert 0.0 == seen[0].begun


class TestAnswers:
    """
    Each recipient's reply, as soon as it is known.
    """

    def test_at_once(self, deliver: Callable[..., Delivery]) -> None:
        """
        A backend that answers before it returns is answered for at once.
        """
        delivery = deliver("ann", "bob", store=Given([succeed(None), succeed(None)]))
        delivery.deliver()

        assert [250, 250] == delivery.codes

    def test_early(self, deliver: Callable[..., Delivery], backend: Any) -> None:
        """
        Nobody waits for anybody else.
        """
        delivery = deliver("ann", "bob", "eve")
        delivery.deliver()

        backend.held["bob@example.org"].callback(None)
        assert [None, 250, None] == delivery.codes
        backend.held["eve@example.org"].errback(TemporaryFailure("Later"))
        assert [None, 250, 451] == delivery.codes
        backend.held["ann@example.org"].callback(None)

        assert 250 == delivery.codes[0]
        assert LATER == delivery.replied[2]

    def test_names_transaction_and_recipient(
        self, deliver: Callable[..., Delivery], backend: Any
    ) -> None:
        """
        A 250 says who it is for and which transaction it was, as the Received header does.
        """
        delivery = deliver("ann")
        delivery.deliver()
        backend.held["ann@example.org"].callback(None)

        (message,) = backend.messages
        assert f"<ann@example.org> {message.id} Delivered" == delivery.replied[0].text  # type: ignore[union-attr]  # it is there
        with message.open() as file:
            assert f" id {message.id}\r\n".encode() in file.read()

    def test_defect(self, deliver: Callable[..., Delivery], backend: Any, logged: Any) -> None:
        """
        A mailbox that fails as it should not is 451, and logged.
        """
        delivery = deliver("ann")
        delivery.deliver()
        backend.held["ann@example.org"].errback(ZeroDivisionError("secret"))

        assert [replies.INTERNAL_ERROR] == delivery.replied
        assert [ZeroDivisionError] == [failure.type for failure in logged.defects]

    def test_mailboxes_are_not_the_backends(
        self, deliver: Callable[..., Delivery], logged: Any
    ) -> None:
        """
        A backend that takes the mailboxes off what it was given, one by one, is told that this cannot
        be, and the client to come again.
        """

        class Popping(Given):
            def deliver(self, message: IMessage, mailboxes: Any) -> Sequence[Any]:
                while mailboxes:
                    mailboxes.pop()
                return self.results

        delivery = deliver("ann", "bob", store=Popping([succeed(None), succeed(None)]))
        delivery.deliver()

        assert [replies.INTERNAL_ERROR] * 2 == delivery.replied
        assert [AttributeError] * 2 == [failure.type for failure in logged.defects]

    def test_mailbox_that_is_none(self, deliver: Callable[..., Delivery], logged: Any) -> None:
        """
        What a directory has made of a mailbox may be such that it cannot even be looked up; the client
        is answered all the same.
        """
        delivery = deliver("ann", "bob")
        accepted: Any = delivery.transaction._accepted
        odd: Any = ["ann"]
        accepted[0] = accepted[0]._replace(mailboxes=(Mailbox(odd, "example.org"),))
        delivery.deliver()

        assert [replies.INTERNAL_ERROR] * 2 == delivery.replied
        assert [TypeError] == [failure.type for failure in logged.defects]
        assert [] == delivery.clock.getDelayedCalls()

    def test_value_that_is_neither_true_nor_false(self, deliver: Callable[..., Delivery]) -> None:
        """
        Nobody asks that of what a delivery ends with: rows of numpy, for instance, will not say.
        """

        class Rows:
            def __bool__(self) -> bool:
                raise ValueError

        delivery = deliver("ann", store=Given([succeed(Rows())]))
        delivery.deliver()

        assert [250] == delivery.codes

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
    @given(
        order=permutations(range(5)),
        ends=lists(
            sampled_from([None, PermanentFailure("no"), ValueError()]), min_size=5, max_size=5
        ),
    )
    def test_any_order(
        self, order: Sequence[int], ends: Sequence[Exception | None], tmp_path: Path
    ) -> None:
        """
        Whoever ends first and however, each recipient is answered once, with its own reply.
        """
        held = [Deferred[None]() for _ in order]
        delivery = Delivery(Given(held), tmp_path, *"abcde")
        delivery.deliver()

        for done, n in enumerate(order, start=1):
            end = ends[n]
            if end is None:
                held[n].callback(None)
            else:
                held[n].errback(end)
            assert done == 5 - delivery.replied.count(None)

        expected = {type(None): 250, PermanentFailure: 550, ValueError: 451}
        assert [expected[type(end)] for end in ends] == delivery.codes
        assert [] == delivery.clock.getDelayedCalls()


class TestSameMailbox:
    """
    Several names for one mailbox, and several mailboxes for one name.
    """

    def test_named_twice(self, deliver: Callable[..., Delivery], backend: Any) -> None:
        """
        A mailbox that is named twice gets one copy, and its recipients two replies.
        """
        delivery = deliver("ann", "bob", "ann", "boss:ann")
        delivery.deliver()
        assert ["ann", "bob"] == [mailbox.user for mailbox in backend.mailboxes]

        backend.held["ann@example.org"].callback(None)
        assert [250, None, 250, 250] == delivery.codes
        backend.held["bob@example.org"].errback(PermanentFailure("Never"))

        assert [250, 550, 250, 250] == delivery.codes
        assert "<boss@example.org>" in delivery.replied[3].text  # type: ignore[union-attr]  # it is there

    @pytest.mark.parametrize(
        ("first", "second", "reply"),
        [
            (None, None, None),
            (None, LATER, LATER),
            (LATER, None, LATER),
            (None, NEVER, NEVER),
            (NEVER, LATER, LATER),
            (LATER, NEVER, LATER),
        ],
    )
    def test_alias(
        self,
        first: Reply | None,
        second: Reply | None,
        reply: Reply | None,
        deliver: Callable[..., Delivery],
        backend: Any,
    ) -> None:
        """
        An alias has one reply, when all its mailboxes are done: the worst, and "later" is worse
        than "never", or its mailboxes that could have it later would never get it.
        """
        delivery = deliver("staff:ann,bob")
        delivery.deliver()
        for name, outcome in (("ann", first), ("bob", second)):
            assert [None] == delivery.replied
            held = backend.held[f"{name}@example.org"]
            if outcome is None:
                held.callback(None)
            else:
                kind = TemporaryFailure if outcome is LATER else PermanentFailure
                held.errback(kind(outcome.text))

        (said,) = delivery.replied
        assert said is not None
        assert (reply or replies.DELIVERED).code == said.code
        if reply is not None:
            assert reply == said

    @pytest.mark.parametrize("late", [True, False])
    def test_one_result_for_several_messages(
        self, late: bool, deliver: Callable[..., Delivery]
    ) -> None:
        """
        A backend that commits several messages together may give the same Deferred for all of them:
        who is told of its failure first keeps nobody from hearing of it.
        """
        result: Deferred[None] = Deferred()
        if not late:
            result.errback(TemporaryFailure("Later"))
        store = Given([result])
        deliveries = [deliver("ann", store=store), deliver("bob", store=store)]
        for delivery in deliveries:
            delivery.deliver()
        if late:
            result.errback(TemporaryFailure("Later"))
        late_comer = deliver("eve", store=store)
        late_comer.deliver()

        assert [[LATER], [LATER], [LATER]] == [each.replied for each in (*deliveries, late_comer)]

    def test_one_result_that_is_not_waited_for(
        self, deliver: Callable[..., Delivery], logged: Any
    ) -> None:
        """
        Nor does a message for which there are too few results, so that they are called off.
        """
        result: Deferred[None] = Deferred()
        store = Given([result])
        deliveries = [deliver("ann", "bob", store=store), deliver("eve", store=store)]
        for delivery in deliveries:
            delivery.deliver()

        assert [[451, 451], [451]] == [each.codes for each in deliveries]
        assert logged.defects

    @pytest.mark.parametrize(
        "value",
        [lambda: False, lambda: ValueError("no"), _store],
        ids=["False", "an exception", "a coroutine"],
    )
    def test_a_no_that_was_not_raised(
        self, value: Callable[[], Any], deliver: Callable[..., Delivery], logged: Any
    ) -> None:
        """
        What ends with a no, or with what has not been done, is no success: one store that is async
        where it is called in a thread would lose all mail otherwise.
        """
        delivery = deliver("ann", store=Given([succeed(value())]))
        delivery.deliver()

        assert [replies.INTERNAL_ERROR] == delivery.replied
        assert logged.defects

    def test_refusal_that_was_not_raised(self, deliver: Callable[..., Delivery]) -> None:
        """
        One of our own, returned and not raised, is meant.
        """
        delivery = deliver("ann", store=Given([succeed(PermanentFailure("Never"))]))
        delivery.deliver()

        assert [NEVER] == delivery.replied

    @pytest.mark.parametrize(
        ("failure", "codes"), [(None, [250, 250, 250]), (TemporaryFailure("Later"), [451] * 3)]
    )
    def test_one_result_for_all(
        self,
        failure: Exception | None,
        codes: list[int],
        deliver: Callable[..., Delivery],
    ) -> None:
        """
        A backend may return the same Deferred for all mailboxes: its failure is everybody's.
        """
        result: Deferred[None] = Deferred()
        delivery = deliver("ann", "bob", "staff:eve,joe", store=Given([result] * 4))
        delivery.deliver()
        if failure is None:
            result.callback(None)
        else:
            result.errback(failure)

        assert codes == delivery.codes

    def test_fired_and_waiting(self, deliver: Callable[..., Delivery]) -> None:
        """
        A result that has fired and waits for another is not told before that one ends.
        """
        disk: Deferred[None] = Deferred()
        written = succeed(None).addCallback(lambda _: disk)
        delivery = deliver("ann", "bob", store=Given([written, succeed(None)]))
        delivery.deliver()

        assert [None, 250] == delivery.codes
        disk.errback(TemporaryFailure("Later"))
        assert [451, 250] == delivery.codes


class TestMessage:
    """
    What a backend gets.
    """

    def test_shared(self, deliver: Callable[..., Delivery], backend: Any) -> None:
        """
        There is one message for all recipients, trace headers first.
        """
        delivery = deliver("ann", "bob")
        delivery.clock.advance(100)
        delivery.deliver()
        (message,) = backend.messages

        with message.open() as file:
            octets = file.read()
        assert octets.startswith(b"Return-Path: <sender@example.net>\r\nReceived: ")
        assert octets.endswith(TEXT)
        assert ["ann", "bob"] == [each.address.local for each in message.envelope.recipients]
        assert delivery.clock.seconds() + delivery.limits.delivery_seconds == message.deadline
        assert 16 == len(message.id)
        finish(backend)

    def test_single(self, deliver: Callable[..., Delivery], backend: Any) -> None:
        """
        Where there is one recipient, it is named.
        """
        deliver("ann").deliver()
        (message,) = backend.messages

        with message.open() as file:
            assert b"Delivered-To: ann@example.org\r\n" in file.read()
        finish(backend)

    @pytest.mark.parametrize("text", [TEXT, TEXT + b"x" * 2000 + b"\r\n"], ids=["small", "large"])
    def test_always(self, text: bytes, deliver: Callable[..., Delivery], backend: Any) -> None:
        """
        With delivered-to=always, each mailbox gets a message with a header of its own.
        """
        delivery = deliver("ann", "boss:ann", "staff:bob,eve", delivered_to="always")
        delivery.deliver(text)

        heads = []
        for message in backend.messages:
            with message.open() as file:
                head, _, rest = file.read().partition(b"\r\n")
            heads.append(head)
            assert rest.startswith(b"Return-Path: <sender@example.net>\r\nReceived: ")
            assert rest.endswith(text)
        assert [
            b"Delivered-To: ann@example.org",
            b"Delivered-To: staff@example.org",
            b"Delivered-To: staff@example.org",
        ] == heads
        assert 1 == len({message.digest for message in backend.messages})

        finish(backend)
        assert [250, 250, 250] == delivery.codes

    def test_never(self, deliver: Callable[..., Delivery], backend: Any) -> None:
        """
        With never, nobody is named.
        """
        deliver("ann", delivered_to="never").deliver()

        with backend.messages[0].open() as file:
            assert b"Delivered-To" not in file.read()
        finish(backend)


def finish(backend: Any) -> None:
    for held in backend.held.values():
        held.callback(None)


class TestDeadline:
    """
    A delivery that takes too long.
    """

    def test_cancelled(self, deliver: Callable[..., Delivery], backend: Any) -> None:
        """
        After four minutes who is still open is called off, and told to come again.
        """
        delivery = deliver("ann", "bob")
        delivery.deliver()
        backend.held["ann@example.org"].callback(None)
        delivery.clock.advance(239)
        assert [250, None] == delivery.codes

        delivery.clock.advance(1)

        assert [250, 451] == delivery.codes
        assert LATE == delivery.replied[1]

    def test_begun(self, deliver: Callable[..., Delivery]) -> None:
        """
        What has begun to commit is waited for, and its truth is told.
        """
        begun, open = Commitment(), Commitment()
        delivery = deliver("ann", "bob", store=Given([begun, open]))
        delivery.deliver()
        begun.begin()

        delivery.clock.advance(240)
        assert [None, 451] == delivery.codes
        delivery.clock.advance(29)
        begun.callback(None)

        assert [250, 451] == delivery.codes
        assert not open.begin()

    def test_given_up(self, deliver: Callable[..., Delivery]) -> None:
        """
        A commit that never ends is given up after the grace: the client gets an answer while it
        listens, and what comes after that does no harm.
        """
        late, later = Commitment(), Commitment()
        delivery = deliver("ann", "bob", store=Given([late, later]))
        delivery.deliver()
        for each in (late, later):
            each.begin()

        delivery.clock.advance(240)
        delivery.clock.advance(29)
        assert [None, None] == delivery.codes
        delivery.clock.advance(1)
        assert [LATE, LATE] == delivery.replied

        late.callback(None)
        later.errback(TemporaryFailure("Later"))
        assert [LATE, LATE] == delivery.replied

    def test_alias_given_up(self, deliver: Callable[..., Delivery]) -> None:
        """
        An alias of which one mailbox never answers is given up as a whole.
        """
        done, late = Commitment(), Commitment()
        delivery = deliver("staff:ann,bob", store=Given([done, late]))
        delivery.deliver()
        done.callback(None)
        late.begin()

        delivery.clock.advance(240)
        delivery.clock.advance(30)

        assert [LATE] == delivery.replied
        late.callback(None)

    @pytest.mark.parametrize("error", [ZeroDivisionError(), asyncio.CancelledError()], ids=repr)
    def test_canceller_raises(
        self, error: BaseException, deliver: Callable[..., Delivery], logged: Any
    ) -> None:
        """
        A backend that cannot be called off does not keep the others from it, nor from an answer.
        """

        class Unwilling(Deferred[None]):
            def cancel(self) -> None:
                raise error

        delivery = deliver("ann", "bob", store=Given([Unwilling(), Deferred()]))
        delivery.deliver()

        delivery.clock.advance(240)
        assert [None, 451] == delivery.codes
        delivery.clock.advance(30)

        assert [LATE, LATE] == delivery.replied
        assert [error] == [failure.value for failure in logged.defects]

    def test_slow_spool(self, deliver: Callable[..., Delivery], backend: Any) -> None:
        """
        The time that the spool takes for the last octets counts: the client waits for it too.
        """
        disk = Disk()
        delivery = deliver("ann", in_thread=disk)
        delivery.deliver(b"x" * 2000)
        delivery.clock.advance(200)
        disk.go_on()
        disk.go_on()
        assert 1 == len(backend.messages)
        assert 240 == backend.messages[0].deadline

        delivery.clock.advance(40)
        told = list(delivery.replied)
        delivery.clock.advance(270)

        assert [LATE] == told

    def test_stuck_spool(self, deliver: Callable[..., Delivery], backend: Any) -> None:
        """
        A disk that hangs does not keep the client from its answer; a message that comes out of it
        later is not delivered, as the client will send it again.
        """
        disk = Disk()
        delivery = deliver("ann", "bob", in_thread=disk)
        delivery.deliver(b"x" * 2000)
        delivery.clock.advance(240)
        delivery.clock.advance(30)
        assert [LATE, LATE] == delivery.replied

        disk.go_on()
        disk.go_on()
        assert [] == backend.messages


class Disk:
    """
    A thread that works when it is told to.
    """

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def __call__(self, job: Callable[[], Any]) -> Deferred[Any]:
        self.jobs.append((job, Deferred()))
        return self.jobs[-1][1]

    def go_on(self) -> None:
        jobs, self.jobs = self.jobs, []
        for job, result in jobs:
            execute(job).chainDeferred(result)


class TestDeliverBy:
    """
    A message that is of use for some time only (RFC 2852).
    """

    BY = {"BY": DeliverBy(20, is_returned=True)}  # noqa: RUF012 - never changed

    def test_called_off(self, deliver: Callable[..., Delivery], backend: Any) -> None:
        """
        Who has not got it by then does not get it, and the client need not come again.
        """
        delivery = deliver("ann", "bob", parameters=self.BY)
        delivery.clock.advance(5)
        delivery.deliver()
        backend.held["ann@example.org"].callback(None)
        assert 20.0 == backend.messages[0].deadline
        delivery.clock.advance(14)
        assert [250, None] == delivery.codes

        delivery.clock.advance(1)

        assert [250, 550] == delivery.codes
        assert replies.TOO_LATE == delivery.replied[1]

    def test_too_late(self, deliver: Callable[..., Delivery], backend: Any) -> None:
        """
        A text that takes longer than that is not delivered at all.
        """
        delivery = deliver("ann", "bob", parameters=self.BY)
        delivery.clock.advance(20)

        delivery.deliver()

        assert [replies.TOO_LATE] * 2 == delivery.replied
        assert [] == backend.messages

    def test_committing(self, deliver: Callable[..., Delivery]) -> None:
        """
        Of what may have been delivered, nobody says that it has not.
        """
        late = Commitment()
        delivery = deliver("ann", store=Given([late]), parameters=self.BY)
        delivery.deliver()
        late.begin()

        delivery.clock.advance(20)
        assert [None] == delivery.codes
        delivery.clock.advance(30)

        assert [LATE] == delivery.replied

    def test_longer(self, deliver: Callable[..., Delivery]) -> None:
        """
        Our own deadline comes first: then it is worth to come again.
        """
        by = {"BY": DeliverBy(1000, is_returned=True)}
        delivery = deliver("ann", parameters=by)
        delivery.deliver()

        delivery.clock.advance(240)

        assert [LATE] == delivery.replied

    def test_notified(self, deliver: Callable[..., Delivery], backend: Any) -> None:
        """
        Who only wants to be told of a delay has the message delivered in any case.
        """
        delivery = deliver("ann", parameters={"BY": DeliverBy(-5, is_returned=False)})
        delivery.clock.advance(100)
        delivery.deliver()
        delivery.clock.advance(200)
        backend.held["ann@example.org"].callback(None)

        assert [250] == delivery.codes


class TestEndings:
    """
    Transactions that end otherwise.
    """

    @pytest.mark.parametrize("size", [100, 5000])
    def test_rejected(
        self, size: int, deliver: Callable[..., Delivery], backend: Any, logged: Any
    ) -> None:
        """
        A text that is refused as a whole is delivered to nobody, and the log says why.
        """
        delivery = deliver("ann", "bob")
        delivery.transaction.write(b"x" * size)

        delivery.transaction.reject(replies.TOO_LARGE)

        assert [] == backend.messages
        events = logged.of("lmtpsvc.delivery")
        assert [552, 552] == [event["reply_code"] for event in events]
        assert [None, None] == delivery.replied, "the session has told the client"

    def test_client_gone_before_the_end(
        self, deliver: Callable[..., Delivery], backend: Any
    ) -> None:
        """
        A client that is lost in the middle of a text leaves nothing behind.
        """
        delivery = deliver("ann")
        delivery.transaction.write(b"x" * 5000)

        delivery.transaction.abandon()

        assert [] == backend.messages

    def test_client_gone_while_spooling(
        self, deliver: Callable[..., Delivery], backend: Any
    ) -> None:
        """
        One that is lost before the last octets are spooled gets no mail delivered: it has no
        answer, and will send it again.
        """
        disk = Disk()
        delivery = deliver("ann", in_thread=disk)
        delivery.deliver(b"x" * 5000)

        delivery.transaction.abandon()
        disk.go_on()
        disk.go_on()

        assert [] == backend.messages
        assert [None] == delivery.replied
        delivery.clock.advance(270)

    def test_client_gone_while_delivering(self, deliver: Callable[..., Delivery]) -> None:
        """
        What has not begun to commit is called off; what has, goes on.
        """
        begun, open = Commitment(), Commitment()
        delivery = deliver("ann", "bob", store=Given([begun, open]))
        delivery.deliver()
        begun.begin()

        delivery.transaction.abandon()

        assert not open.begin()
        begun.callback(None)
        assert [None, None] == delivery.replied, "there is nobody to tell"

    @pytest.mark.parametrize(
        ("error", "reply"),
        [
            (OSError(errno.ENOSPC, "No space"), replies.NO_SPACE),
            (OSError(errno.EDQUOT, "Disk quota exceeded"), replies.NO_SPACE),
            (OSError(errno.EIO, "I/O error"), replies.CANNOT_STORE),
            (ZeroDivisionError(), replies.INTERNAL_ERROR),
        ],
    )
    def test_not_spooled(
        self,
        error: Exception,
        reply: Reply,
        deliver: Callable[..., Delivery],
        backend: Any,
        logged: Any,
    ) -> None:
        """
        A message that the spool cannot take is refused for now, to all recipients.
        """

        def fail(_: object) -> Deferred[Any]:
            result: Deferred[Any] = Deferred()
            result.errback(Failure(error))
            return result

        delivery = deliver("ann", "bob", in_thread=fail)
        delivery.deliver(b"x" * 5000)

        assert [reply, reply] == delivery.replied
        assert [] == backend.messages

    def test_paused(self, deliver: Callable[..., Delivery], backend: Any) -> None:
        """
        A client that is faster than the disk is paused.
        """
        disk = Disk()
        delivery = deliver("ann", in_thread=disk)
        for _ in range(3):
            delivery.transaction.write(b"x" * 900)
        assert 0 == delivery.paused
        delivery.transaction.write(b"x" * 900)
        assert 1 == delivery.paused

        disk.go_on()
        assert 0 == delivery.paused
        delivery.transaction.deliver(delivery.answer)
        disk.go_on()
        disk.go_on()
        finish(backend)
        assert [250] == delivery.codes


class TestLog:
    """
    What the log says of each recipient.
    """

    def test_line(self, deliver: Callable[..., Delivery], backend: Any, logged: Any) -> None:
        """
        Who, from where, how large, what was said, and where the time went.
        """
        delivery = deliver("staff:ann,bob", "eve")
        delivery.transaction.write(TEXT)
        delivery.clock.advance(1)
        delivery.transaction.deliver(delivery.answer)
        delivery.clock.advance(2)
        finish(backend)

        said = [
            {
                name: event[name]
                for name in (
                    *["client", "client_name", "sender", "recipient", "mailbox", "size"],
                    *["reply_code", "lookup_seconds", "store_seconds", "total_seconds"],
                )
            }
            for event in logged.of("lmtpsvc.delivery")
        ]
        common = {
            "client": "192.0.2.7",
            "client_name": "client.example.net",
            "sender": "sender@example.net",
            "size": len(TEXT),
            "reply_code": 250,
            "lookup_seconds": 0.25,
            "store_seconds": 2,
            "total_seconds": 3,
        }
        assert [
            common
            | {"recipient": "staff@example.org", "mailbox": "ann@example.org,bob@example.org"},
            common | {"recipient": "eve@example.org", "mailbox": "eve@example.org"},
        ] == said
        for event, reply in zip(logged.of("lmtpsvc.delivery"), delivery.replied, strict=True):
            assert backend.messages[0].id == event["transaction"]
            assert str(reply) == event["reply"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    results=lists(
        sampled_from(["stored", "refused", "broken", "open", "begun", "stuck"]),
        min_size=1,
        max_size=6,
    )
)
def test_never_out_of_step(results: list[str], tmp_path: Path) -> None:
    """
    Whatever a backend does or does not, within deadline and grace each has exactly one reply.
    """
    made: list[Deferred[None]] = []
    for how in results:
        made.append(Commitment() if how in {"begun", "stuck"} else Deferred())
        if isinstance(made[-1], Commitment):
            made[-1].begin()
    delivery = Delivery(Given(made), tmp_path, *map(str, range(len(made))))
    delivery.deliver()
    for how, result in zip(results, made, strict=True):
        if how == "stored":
            result.callback(None)
        elif how == "refused":
            result.errback(PermanentFailure("no"))
        elif how == "broken":
            result.errback(ValueError())
    delivery.clock.advance(240)
    for how, result in zip(results, made, strict=True):
        if how == "begun":
            result.callback(None)
    delivery.clock.advance(30)

    expected = {
        "stored": 250,
        "refused": 550,
        "broken": 451,
        "open": 451,
        "begun": 250,
        "stuck": 451,
    }
    assert [expected[how] for how in results] == delivery.codes
    assert [] == delivery.clock.getDelayedCalls()
