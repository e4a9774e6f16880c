"""
Backends that are one method.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest_twisted  # type: ignore[import-untyped]  # it has no types
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from lmtpsvc.commitment import Commitment
from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import PermanentFailure
from lmtpsvc.interfaces import IBackend, IMessage
from lmtpsvc.per_recipient import BlockingBackend, PerRecipientBackend, to_the_end
from lmtpsvc.testing import MemoryMessage

ANN, BOB = Mailbox("ann", "example.org"), Mailbox("bob", "example.org")
#: The test, a coroutine, is run in the reactor.
in_reactor: Callable[[Callable[..., Any]], Callable[..., Any]] = pytest_twisted.ensureDeferred

MESSAGE = MemoryMessage(b"Subject: hello\r\n\r\nbody\r\n")


class Awaiting(PerRecipientBackend):
    """
    Waits in each store until the test says so.
    """

    def __init__(self, wait: Callable[[], Deferred[None]] = Deferred) -> None:
        super().__init__()
        self.wait = wait
        self.waiting: dict[Mailbox, Deferred[None]] = {}
        self.stored: list[Mailbox] = []

    async def store(self, message: IMessage, mailbox: Mailbox) -> None:
        self.waiting[mailbox] = self.wait()
        await self.waiting[mailbox]
        self.stored.append(mailbox)


class TestPerRecipientBackend:
    def test_provides(self) -> None:
        """
        It is a backend, and takes everybody.
        """
        backend = Awaiting()

        assert verifyObject(IBackend, backend)
        assert backend.verify(ANN) is None

    def test_each_on_its_own(
        self,
        success_of: Callable[[Awaitable[Any]], Any],
        failure_of: Callable[..., Failure],
        no_result: Callable[[Deferred[Any]], None],
    ) -> None:
        """
        All are under way at once, and end in any order and any way.
        """
        backend = Awaiting()

        ann, bob = backend.deliver(MESSAGE, [ANN, BOB])
        backend.waiting[BOB].errback(PermanentFailure("no"))
        no_result(ann)
        failure_of(bob, PermanentFailure)
        backend.waiting[ANN].callback(None)
        assert success_of(ann) is None

    def test_no_coroutine(self, failure_of: Callable[..., Failure]) -> None:
        """
        A store that fails at once harms nobody else.
        """

        class Plain(PerRecipientBackend):
            def store(self, message: IMessage, mailbox: Mailbox) -> Any:
                if mailbox == ANN:
                    raise PermanentFailure("no")

        ann, bob = Plain().deliver(MESSAGE, [ANN, BOB])

        failure_of(ann, PermanentFailure)
        assert bob.called

    def test_cancelled(self, failure_of: Callable[..., Failure]) -> None:
        """
        A store that waits is called off.
        """
        backend = Awaiting()

        (ann,) = backend.deliver(MESSAGE, [ANN])
        ann.cancel()

        failure_of(ann, CancelledError)
        assert [] == backend.stored

    def test_cancelled_too_late(
        self,
        no_result: Callable[[Deferred[Any]], None],
        success_of: Callable[[Awaitable[Any]], Any],
    ) -> None:
        """
        A commit that has begun is waited for, however often it is cancelled.
        """
        commits: list[Deferred[None]] = []

        def wait() -> Deferred[None]:
            commits.append(Deferred())
            return to_the_end(commits[-1])

        backend = Awaiting(wait)

        (ann,) = backend.deliver(MESSAGE, [ANN])
        ann.cancel()
        ann.cancel()
        no_result(ann)
        commits[0].callback(None)

        assert success_of(ann) is None
        assert [ANN] == backend.stored

    def test_commitment(self, no_result: Callable[[Deferred[Any]], None]) -> None:
        """
        A coroutine that awaits a `Commitment` gets what that says about cancelling.
        """
        backend = Awaiting(Commitment)

        ann, bob = backend.deliver(MESSAGE, [ANN, BOB])
        begun = backend.waiting[ANN]
        assert isinstance(begun, Commitment)
        assert begun.begin()
        ann.cancel()
        bob.cancel()

        no_result(ann)
        assert bob.called
        bob.addErrback(lambda failure: failure.trap(CancelledError))

    def test_named_twice(self, success_of: Callable[[Awaitable[Any]], Any]) -> None:
        """
        One copy, and a result for each.
        """
        backend = Awaiting()

        results = backend.deliver(MESSAGE, [ANN, BOB, ANN])
        for waiting in backend.waiting.values():
            waiting.callback(None)

        assert [None] * 3 == [success_of(result) for result in results]
        assert [ANN, BOB] == backend.stored

    def test_named_twice_cancelled(
        self, no_result: Callable[[Deferred[Any]], None], failure_of: Callable[..., Failure]
    ) -> None:
        """
        The copy that somebody still wants is made, and the other is told so.
        """
        backend = Awaiting()

        first, second = backend.deliver(MESSAGE, [ANN, ANN])
        first.cancel()
        first.cancel()
        no_result(first)
        second.cancel()

        failure_of(first, CancelledError)
        failure_of(second, CancelledError)

    def test_stop(
        self,
        no_result: Callable[[Deferred[Any]], None],
        success_of: Callable[[Awaitable[Any]], Any],
    ) -> None:
        """
        A stop waits for what has been begun.
        """
        backend = Awaiting()
        backend.startService()

        (ann,) = backend.deliver(MESSAGE, [ANN])
        stopped = backend.stopService()
        no_result(stopped)
        backend.waiting[ANN].callback(None)

        success_of(stopped)
        success_of(ann)


class Held(BlockingBackend):
    """
    Its one thread waits until the test says so.
    """

    def __init__(self, reactor: object) -> None:
        super().__init__(reactor, threads=1)
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.stored: list[Mailbox] = []

    def store(self, message: IMessage, mailbox: Mailbox) -> None:
        self.begun.set()
        self.go_on.wait(60)
        if mailbox.user == "nobody":
            raise PermanentFailure("no")
        self.stored.append(mailbox)


class TestBlockingBackend:
    @in_reactor
    async def test_results(self) -> None:
        """
        What a thread stored is a success, and what it raised is the failure.
        """
        from twisted.internet import reactor

        backend = Held(reactor)
        backend.go_on.set()

        good, bad = backend.deliver(MESSAGE, [ANN, Mailbox("nobody", "example.org")])
        await good
        caught = await bad.addErrback(lambda failure: failure.value)
        await backend.stopService()

        assert [ANN] == backend.stored
        assert isinstance(caught, PermanentFailure)

    @in_reactor
    async def test_cancelled(self) -> None:
        """
        What has begun is brought to its end, and what has not is never begun.
        """
        from twisted.internet import reactor

        backend = Held(reactor)
        ann, bob = backend.deliver(MESSAGE, [ANN, BOB])
        assert backend.begun.wait(60)

        ann.cancel()
        bob.cancel()
        assert not ann.called
        assert bob.called
        bob.addErrback(lambda failure: failure.trap(CancelledError))
        backend.go_on.set()
        await ann
        await backend.stopService()

        assert [ANN] == backend.stored


def test_to_the_end_of_a_coroutine(success_of: Callable[[Awaitable[Any]], Any]) -> None:
    """
    What is awaited to its end may be a coroutine.
    """

    async def answer() -> int:
        return 42

    assert 42 == success_of(to_the_end(answer()))
