"""
From an address to mailboxes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from zope.interface import implementer

from lmtpsvc import replies
from lmtpsvc.delivery.dispatch import reply_for
from lmtpsvc.delivery.routing import AddressRules, Routing
from lmtpsvc.envelope import Address, Mailbox, ValidSince
from lmtpsvc.errors import PermanentFailure, TemporaryFailure, refusal
from lmtpsvc.interfaces import Capabilities, IBackend, IDirectory

from ..rows import each_row

ANN = Address("ann", "example.org")
ANN_BOX, BOB_BOX = Mailbox("ann", "example.org"), Mailbox("bob", "example.org")
NO_SUCH_USER = refusal(replies.NO_SUCH_USER)


class TestAddressRules:
    """
    How an address is read.
    """

    @each_row(
        ("rules", "local", "mailbox"),
        [
            ({}, "ann", ("ann", "")),
            ({}, "Ann", ("ann", "")),
            ({"fold_case": False}, "Ann", ("Ann", "")),
            ({}, "ann+lists", ("ann", "lists")),
            ({}, "ann+a+b", ("ann", "a+b")),
            ({}, "ann+", ("ann", "")),
            ({}, "+lists", ("+lists", "")),
            ({}, "+a+b", ("+a", "b")),
            ({}, "+", ("+", "")),
            ({}, "Ann+Lists", ("ann", "lists")),
            ({"delimiter": ""}, "ann+lists", ("ann+lists", "")),
            ({"delimiter": "-"}, "ann-lists", ("ann", "lists")),
            ({"delimiter": "-"}, "ann+x-y", ("ann+x", "y")),
            ({}, "a b", ("a b", "")),
            ({}, "", ("", "")),
            ({}, "JÖRG", ("jörg", "")),
            ({}, "jo\u0308rg", ("jörg", "")),
            ({"fold_case": False}, "jo\u0308rg", ("jörg", "")),
        ],
    )
    def test_mailbox(self, rules: dict[str, Any], local: str, mailbox: tuple[str, str]) -> None:
        """
        Case and spelling do not matter, and what stands behind the delimiter is a detail.
        """
        read = AddressRules("mx.example.org", **rules).mailbox(Address(local, "example.org"))

        assert Mailbox(mailbox[0], "example.org", mailbox[1]) == read

    @pytest.mark.parametrize("local", ["Postmaster", "postmaster"])
    def test_postmaster(self, local: str) -> None:
        """
        The bare Postmaster is one of this host (RFC 5321 §4.1.1.3).
        """
        read = AddressRules("mx.example.org").mailbox(Address(local, ""))

        assert Mailbox("postmaster", "mx.example.org") == read


@implementer(IDirectory)
class Directory:
    def __init__(self, answer: Callable[[Mailbox], Any]) -> None:
        self.resolve = answer


@implementer(IBackend)
class Store:
    capabilities = Capabilities()

    def __init__(self, *verdicts: Any) -> None:
        self.verdicts, self.asked = list(verdicts), list[Mailbox]()

    def verify(self, mailbox: Mailbox) -> Any:
        self.asked.append(mailbox)
        verdict = self.verdicts.pop(0) if self.verdicts else None
        if isinstance(verdict, Exception):
            raise verdict
        return verdict() if callable(verdict) else verdict

    def deliver(self, message: object, mailboxes: Sequence[Mailbox]) -> list[Any]:
        raise NotImplementedError


async def coroutine(result: Any) -> Any:
    if isinstance(result, Exception):
        raise result
    return result


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def resolve(clock: Clock) -> Callable[..., Deferred[tuple[Mailbox, ...]]]:
    """
    Ask where mail for Ann goes, of a directory and a store.
    """

    def resolve(answer: Callable[[Mailbox], Any], *verdicts: Any) -> Deferred[tuple[Mailbox, ...]]:
        routing = Routing(
            Directory(answer), Store(*verdicts), AddressRules("mx.example.org"), clock, 60.0
        )
        return routing.resolve(ANN)

    return resolve


class TestDirectory:
    """
    What a directory may answer.
    """

    @pytest.mark.parametrize(
        "answer",
        [
            lambda mailbox: [mailbox],
            lambda mailbox: (mailbox,),
            lambda mailbox: succeed([mailbox]),
            lambda mailbox: coroutine([mailbox]),
        ],
        ids=["list", "tuple", "Deferred", "coroutine"],
    )
    def test_known(
        self, answer: Any, resolve: Callable[..., Any], success_of: Callable[..., Any]
    ) -> None:
        """
        A directory answers at once or later, whatever way it is written.
        """
        assert (ANN_BOX,) == success_of(resolve(answer))

    def test_alias(self, resolve: Callable[..., Any], success_of: Callable[..., Any]) -> None:
        """
        An alias is several mailboxes, in the directory's order.
        """
        assert (BOB_BOX, ANN_BOX) == success_of(resolve(lambda _: [BOB_BOX, ANN_BOX]))

    @pytest.mark.parametrize(
        "answer",
        [
            lambda _: [],
            lambda _: fail(NO_SUCH_USER),
            lambda _: coroutine(NO_SUCH_USER),
        ],
        ids=["nobody", "Deferred", "coroutine"],
    )
    def test_unknown(
        self, answer: Any, resolve: Callable[..., Any], failure_of: Callable[..., Failure]
    ) -> None:
        """
        Nobody of that name, however it is said, is 550 5.1.1.
        """
        failure = failure_of(resolve(answer), PermanentFailure)

        assert replies.NO_SUCH_USER == reply_for(failure)

    @pytest.mark.parametrize(
        "answer",
        [
            lambda _: 1 / 0,
            lambda _: fail(ZeroDivisionError()),
            lambda _: coroutine(ZeroDivisionError()),
            lambda _: None,
            lambda _: coroutine(None),
            lambda _: 7,
            lambda _: (_ for _ in ()).throw(asyncio.CancelledError()),
        ],
        ids=[
            *["raises", "fails", "coroutine", "None", "None from a coroutine", "a number"],
            "asyncio has cancelled it",
        ],
    )
    def test_defect(
        self, answer: Any, resolve: Callable[..., Any], failure_of: Callable[..., Failure]
    ) -> None:
        """
        A directory that is broken never makes a user unknown.
        """
        assert replies.INTERNAL_ERROR == reply_for(failure_of(resolve(answer)))

    def test_asyncio(self, resolve: Callable[..., Any], failure_of: Callable[..., Failure]) -> None:
        """
        What only an event loop of another kind could await is an error, and not somebody's mail.
        """

        class Future:
            def __await__(self) -> Any:
                yield self

        failure_of(resolve(lambda _: Future()), TypeError)


class TestVerify:
    """
    What a backend says to a mailbox.
    """

    @pytest.mark.parametrize(
        "verdicts",
        [
            (None, None),
            (lambda: succeed(None), lambda: coroutine(None)),
            (None, lambda: coroutine(None)),
        ],
    )
    def test_taken(
        self, verdicts: Any, resolve: Callable[..., Any], success_of: Callable[..., Any]
    ) -> None:
        """
        All mailboxes of an alias must be taken.
        """
        assert (ANN_BOX, BOB_BOX) == success_of(resolve(lambda _: [ANN_BOX, BOB_BOX], *verdicts))

    @pytest.mark.parametrize(
        "verdicts",
        [
            (None, PermanentFailure("no")),
            (PermanentFailure("no"), None),
            (lambda: succeed(None), lambda: fail(PermanentFailure("no"))),
            (lambda: coroutine(PermanentFailure("no")), Deferred),
        ],
        ids=[
            "raised, second",
            "raised, first",
            "Deferred",
            "coroutine, and one that never answers",
        ],
    )
    def test_refused(
        self, verdicts: Any, resolve: Callable[..., Any], failure_of: Callable[..., Failure]
    ) -> None:
        """
        One refusal is the reply for all, as soon as it is known, in its own words.
        """
        failure = failure_of(resolve(lambda _: [ANN_BOX, BOB_BOX], *verdicts), PermanentFailure)

        assert "no" == str(failure.value)

    @pytest.mark.parametrize(
        "verdict",
        [lambda: False, lambda: succeed(False), lambda: coroutine(False), lambda: ValueError("no")],
        ids=["False", "Deferred", "coroutine", "an exception"],
    )
    def test_a_no_that_was_not_raised(
        self, verdict: Any, resolve: Callable[..., Any], failure_of: Callable[..., Failure]
    ) -> None:
        """
        Yes is None, and a refusal is raised: who says no in another way takes nobody's mail.
        """
        failure = failure_of(resolve(lambda _: [ANN_BOX], verdict))

        assert replies.INTERNAL_ERROR == reply_for(failure)

    def test_one_answer_for_several(self, clock: Clock, failure_of: Callable[..., Failure]) -> None:
        """
        Directory and backend may ask somebody once on behalf of several recipients, and give them the
        same Deferred: each of those hears of a failure.
        """
        asked: Deferred[None] = Deferred()

        @implementer(IBackend)
        class Asking:
            capabilities = Capabilities()

            def verify(self, mailbox: Mailbox) -> Deferred[None]:
                return asked

            def deliver(self, message: object, mailboxes: object) -> list[Any]:
                return []

        directory = Directory(lambda mailbox: [mailbox])
        routing = Routing(directory, Asking(), AddressRules("mx.example.org"), clock, 60.0)
        resolved = [routing.resolve(ANN) for _ in range(2)]
        asked.errback(PermanentFailure("no"))
        resolved.append(routing.resolve(ANN))

        for each in resolved:
            failure_of(each, PermanentFailure)

    @pytest.mark.parametrize("found", [[ANN_BOX], PermanentFailure("no")], ids=["found", "failed"])
    def test_one_look_up_for_several(
        self, found: Any, resolve: Callable[..., Any], failure_of: Callable[..., Failure]
    ) -> None:
        """
        The same for who is found out only once.
        """
        asked: Deferred[Any] = Deferred()
        resolved = [resolve(lambda _: asked) for _ in range(2)]

        if isinstance(found, Exception):
            asked.errback(found)
            for each in resolved:
                failure_of(each, PermanentFailure)
        else:
            asked.callback(found)
            assert [(ANN_BOX,)] * 2 == [each.result for each in resolved]

    def test_first_refusal_is_the_reply(
        self, resolve: Callable[..., Any], failure_of: Callable[..., Failure]
    ) -> None:
        """
        Who refuses first is quoted; who refuses later is no error of anybody's.
        """
        first, second = Deferred[None](), Deferred[None]()
        resolved = resolve(lambda _: [ANN_BOX, BOB_BOX], lambda: first, lambda: second)

        second.errback(TemporaryFailure("later"))
        first.errback(PermanentFailure("never"))

        failure_of(resolved, TemporaryFailure)


class TestOwner:
    """
    Mail that was meant for whoever had the mailbox before (RFC 7293).
    """

    @pytest.mark.parametrize(
        ("known", "address", "reply"),
        [
            ({}, ANN, None),
            ({"since": "2024-05-01T12:00:00+00:00"}, ANN, None),
            ({"since": "2024-05-01T14:00:01+02:00"}, ANN, replies.OWNER_CHANGED),
            (
                {"since": "2020-01-01", "domain_since": "2024-06-01"},
                ANN,
                replies.DOMAIN_OWNER_CHANGED,
            ),
            ({"since": "2030-01-01"}, Address("Postmaster", "example.org"), None),
            ({"since": "2030-01-01"}, Address("abuse", "example.org"), None),
            ({"domain_since": "2030-01-01"}, Address("Sales", "example.org"), None),
        ],
    )
    def test_since(
        self, clock: Clock, known: dict[str, str], address: Address, reply: replies.Reply | None
    ) -> None:
        """
        It is refused; where nobody knows of another owner, there was none, and an office has none.
        """
        box = Mailbox("ann", "example.org", attributes=known)
        staff = [BOB_BOX, box]
        routing = Routing(Directory(lambda _: staff), Store(), AddressRules("mx"), clock, 60.0)
        then = ValidSince(datetime(2024, 5, 1, 12, tzinfo=UTC))
        said: list[Any] = []

        routing.resolve(address, since=then).addBoth(said.append)

        [found] = said
        assert reply == (reply_for(found) if isinstance(found, Failure) else None)


class TestTimeout:
    """
    Who does not answer in time.
    """

    @pytest.mark.parametrize("who", ["directory", "backend", "coroutine"])
    def test_too_slow(
        self,
        who: str,
        clock: Clock,
        resolve: Callable[..., Any],
        no_result: Callable[..., None],
        failure_of: Callable[..., Failure],
    ) -> None:
        """
        A look-up that takes a minute is called off: the client may try again.
        """
        waiting: Deferred[Any] = Deferred()

        async def wait() -> Any:
            return await waiting

        resolved = {
            "directory": lambda: resolve(lambda _: waiting),
            "backend": lambda: resolve(lambda mailbox: [mailbox], lambda: waiting),
            "coroutine": lambda: resolve(lambda _: wait()),
        }[who]()
        clock.advance(59)
        no_result(resolved)
        clock.advance(1)

        assert replies.CANNOT_LOOK_UP == reply_for(failure_of(resolved, TimeoutError))
        assert waiting.called
        waiting.addErrback(lambda failure: failure.trap(CancelledError))

    @pytest.mark.parametrize("who", ["directory", "backend", "broken"])
    def test_takes_no_notice(
        self,
        who: str,
        clock: Clock,
        resolve: Callable[..., Any],
        failure_of: Callable[..., Failure],
    ) -> None:
        """
        What goes on although it was called off, or cannot be, is not waited for, and what comes of it
        does no harm.
        """
        first, waiting = Deferred[Any](), Deferred[Any]()

        async def stubborn() -> Any:
            try:
                await first
            except CancelledError:
                return await waiting

        class Broken(Deferred[Any]):
            def cancel(self) -> None:
                raise ZeroDivisionError

        broken = Broken()
        resolved = {
            "directory": lambda: resolve(lambda _: stubborn()),
            "backend": lambda: resolve(lambda mailbox: [mailbox], stubborn),
            "broken": lambda: resolve(lambda _: broken),
        }[who]()
        clock.advance(60)

        assert replies.CANNOT_LOOK_UP == reply_for(failure_of(resolved, TimeoutError))
        (broken if who == "broken" else waiting).errback(ZeroDivisionError())
        assert [] == clock.getDelayedCalls()

    def test_fails_when_called_off(
        self,
        clock: Clock,
        resolve: Callable[..., Any],
        failure_of: Callable[..., Failure],
    ) -> None:
        """
        Whoever does not want the answer any more, as the client is gone, hears nothing of what fails
        at that, and nothing is left behind.
        """

        class Broken(Deferred[Any]):
            def cancel(self) -> None:
                raise ZeroDivisionError

        broken = Broken()
        resolved = resolve(lambda _: broken)
        with capturedLogs() as logs:
            resolved.cancel()

        failure_of(resolved, CancelledError)
        assert ["what is not waited for any more could not be called off"] == [
            formatEvent(each) for each in logs
        ]
        broken.callback([])
        assert [] == clock.getDelayedCalls()

    def test_in_time(
        self, clock: Clock, resolve: Callable[..., Any], success_of: Callable[..., Any]
    ) -> None:
        """
        One that answers leaves no timer behind.
        """
        waiting: Deferred[Any] = Deferred()
        resolved = resolve(lambda _: waiting)

        waiting.callback([ANN_BOX])

        assert (ANN_BOX,) == success_of(resolved)
        assert [] == clock.getDelayedCalls()

    def test_at_once(self, clock: Clock, resolve: Callable[..., Any]) -> None:
        """
        One that answers at once never has a timer.
        """
        resolve(lambda mailbox: [mailbox])

        assert [] == clock.getDelayedCalls()


def test_the_first_verdict_is_dropped_when_the_second_raises(
    failure_of: Callable[..., Any],
) -> None:
    """
    An alias of two, the second impossible: the coroutine for the first is closed, not forgotten.
    """
    asked: list[str] = []

    async def yes(user: str) -> None:
        asked.append(user)

    @implementer(IBackend)
    class Picky:
        capabilities = Capabilities()

        def verify(self, mailbox: Mailbox) -> Any:
            if mailbox.user == "bob":
                raise refusal(replies.BAD_MAILBOX)
            return yes(mailbox.user)

        def deliver(self, message: object, mailboxes: object) -> list[Any]:
            return []

    @implementer(IDirectory)
    class Alias:
        def resolve(self, mailbox: Mailbox) -> list[Mailbox]:
            return [Mailbox("ann", "example.org"), Mailbox("bob", "example.org")]

    routing = Routing(Alias(), Picky(), AddressRules("mx.example.org"), Clock(), 60.0)

    failure_of(routing.resolve(Address("all", "example.org")), PermanentFailure)
    assert [] == asked
