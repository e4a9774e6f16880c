"""
What a backend may do, and what a client hears of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists, sampled_from
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from lmtpsvc import replies
from lmtpsvc.delivery.dispatch import dispatch, has_succeeded, reply_for
from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import DeliveryError, PermanentFailure, TemporaryFailure
from lmtpsvc.interfaces import Capabilities, IBackend, IMessage
from lmtpsvc.replies import Reply
from lmtpsvc.testing import MemoryMessage

MESSAGE = MemoryMessage(b"Subject: x\r\n\r\n")
THREE = [Mailbox(name, "example.org") for name in ("ann", "bob", "eve")]


@implementer(IBackend)
class Backend:
    """
    Delivers as it is told to.
    """

    capabilities = Capabilities()

    def __init__(self, results: Callable[[], Any]) -> None:
        self.results = results

    def verify(self, mailbox: Mailbox) -> None: ...

    def deliver(self, message: IMessage, mailboxes: Sequence[Mailbox]) -> Any:
        return self.results()


async def stored() -> None: ...


async def full() -> None:
    raise TemporaryFailure("Mailbox full", (2, 2), 452)


async def broken() -> None:
    raise ZeroDivisionError


def raising(error: BaseException) -> Any:
    raise error


def outcomes(results: Sequence[Deferred[None]]) -> list[Reply | None]:
    """
    The reply of each that has ended.
    """
    replied: list[Reply | None] = [None] * len(results)
    for at, result in enumerate(results):

        def note(outcome: object, at: int = at) -> None:
            failed = isinstance(outcome, Failure)
            replied[at] = reply_for(outcome) if failed else replies.DELIVERED  # type: ignore[arg-type]  # it is one

        result.addBoth(note)
    return replied


class TestReplyFor:
    """
    Where failures become words.
    """

    @pytest.mark.parametrize(
        ("error", "reply"),
        [
            (PermanentFailure("Gone", (1, 6)), Reply(550, "Gone", (1, 6))),
            (TemporaryFailure("Later"), Reply(451, "Later", (0, 0))),
            (CancelledError(), replies.OUT_OF_TIME),
            (TimeoutError(), replies.CANNOT_LOOK_UP),
        ],
    )
    def test_answers(self, error: Exception, reply: Reply, logged: Any) -> None:
        """
        A refusal is sent as it is, and is no news for the log of errors.
        """
        assert reply == reply_for(Failure(error))
        assert [] == logged.defects

    @pytest.mark.parametrize(
        "error",
        [
            ZeroDivisionError("secret"),
            OSError(28, "No space", "/srv/secret"),
            KeyError("a\r\n250 OK"),
            SystemExit(1),
            AssertionError(),
        ],
    )
    def test_defects(self, error: BaseException, logged: Any) -> None:
        """
        Anything else is 451, its text is never shown, and the log has its traceback.
        """
        assert replies.INTERNAL_ERROR == reply_for(Failure(error))
        assert [error] == [failure.value for failure in logged.defects]

    def test_refusal_without_words(self, logged: Any) -> None:
        """
        A plugin's own refusal that forgot to make its reply is a defect like any other.
        """

        class QuotaExceeded(TemporaryFailure):
            def __init__(self) -> None:
                pass

        assert replies.INTERNAL_ERROR == reply_for(Failure(QuotaExceeded()))
        assert [QuotaExceeded] == [failure.type for failure in logged.defects]

    @pytest.mark.parametrize("reply", [None, "550 No\r\n250 OK", Reply(250, "Delivered")], ids=repr)
    def test_refusal_that_refuses_nobody(self, reply: Any, logged: Any) -> None:
        """
        One that has made something else of its reply is another: it is no 250, nor anything that has
        no words for the client.
        """
        refused = TemporaryFailure("Later")
        refused.reply = reply

        assert replies.INTERNAL_ERROR == reply_for(Failure(refused))
        assert [TemporaryFailure] == [failure.type for failure in logged.defects]


class TestDispatch:
    """
    One result for each mailbox, in their order.
    """

    def test_each_kind(self) -> None:
        """
        Deferreds and coroutines may be mixed, and each stands for its own mailbox.
        """
        results = dispatch(
            Backend(lambda: [stored(), fail(PermanentFailure("Gone")), full()]), MESSAGE, THREE
        )

        assert [
            replies.DELIVERED,
            Reply(550, "Gone", (0, 0)),
            Reply(452, "Mailbox full", (2, 2)),
        ] == outcomes(results)

    def test_in_any_order(self) -> None:
        """
        Nobody waits for anybody.
        """
        held = [Deferred[None]() for _ in THREE]
        replied = outcomes(dispatch(Backend(lambda: held), MESSAGE, THREE))

        held[2].callback(None)
        assert [None, None, replies.DELIVERED] == replied
        held[0].errback(TemporaryFailure("Later"))
        assert [Reply(451, "Later", (0, 0)), None, replies.DELIVERED] == replied

    def test_defect_of_one(self, logged: Any) -> None:
        """
        A mailbox that fails as it should not has no part in the others.
        """
        results = dispatch(Backend(lambda: [stored(), broken(), succeed(None)]), MESSAGE, THREE)

        assert [replies.DELIVERED, replies.INTERNAL_ERROR, replies.DELIVERED] == outcomes(results)
        assert [ZeroDivisionError] == [failure.type for failure in logged.defects]

    @pytest.mark.parametrize(
        "results",
        [
            list,
            lambda: [succeed(None)] * 2,
            lambda: [succeed(None) for _ in range(4)],
            lambda: [Deferred(), fail(ZeroDivisionError())],
            lambda: None,
            lambda: 3,
            lambda: (1 // 0 for _ in range(3)),
            lambda: 1 // 0,
            lambda: succeed(None),
            partial(raising, asyncio.CancelledError()),
            partial(raising, SystemExit(1)),
        ],
        ids=[
            *["none", "too few", "too many", "too few, open and failed", "None", "a number"],
            *["a generator that raises", "raises", "one for all"],
            *["asyncio has cancelled it", "ends the process"],
        ],
    )
    def test_wrong_count(self, results: Callable[[], Any], logged: Any) -> None:
        """
        A backend that says nothing of use is answered 451 for everybody: nobody knows whose
        results those are.
        """
        replied = outcomes(dispatch(Backend(results), MESSAGE, THREE))

        assert [replies.INTERNAL_ERROR] * 3 == replied
        assert logged.defects

    def test_wrong_count_is_called_off(self) -> None:
        """
        What is still open of them is called off, as the client will send it all again.
        """
        ended: list[Deferred[None]] = []
        held = [Deferred[None](ended.append) for _ in range(2)]

        outcomes(dispatch(Backend(lambda: held), MESSAGE, THREE))

        assert held == ended

    @pytest.mark.parametrize("error", [ZeroDivisionError(), asyncio.CancelledError()], ids=repr)
    def test_wrong_count_that_cannot_be_called_off(self, error: BaseException, logged: Any) -> None:
        """
        Not even a backend that fails in being called off keeps anybody from an answer.
        """

        class Unwilling(Deferred[None]):
            def cancel(self) -> None:
                raise error

        results = dispatch(Backend(lambda: [Unwilling()]), MESSAGE, THREE)

        assert [replies.INTERNAL_ERROR] * 3 == outcomes(results)
        assert error in [failure.value for failure in logged.defects]

    def test_not_awaitable(self, logged: Any) -> None:
        """
        A result that nobody here can await fails alone.
        """

        class Future:
            def __await__(self) -> Any:
                yield self

        results = dispatch(Backend(lambda: [stored(), Future(), stored()]), MESSAGE, THREE)

        assert [replies.DELIVERED, replies.INTERNAL_ERROR, replies.DELIVERED] == outcomes(results)
        assert [TypeError] == [failure.type for failure in logged.defects]

    @given(
        kinds=lists(
            sampled_from([stored, full, broken, Deferred, lambda: succeed(None), lambda: None]),
            max_size=6,
        ),
        count=integers(1, 6),
    )
    def test_as_many_as_mailboxes(self, kinds: list[Callable[[], Any]], count: int) -> None:
        """
        Whatever comes back, there are as many results as mailboxes, and no 250 out of step.
        """
        mailboxes = [Mailbox(str(n), "example.org") for n in range(count)]
        results = dispatch(Backend(lambda: [kind() for kind in kinds]), MESSAGE, mailboxes)
        replied = outcomes(results)

        assert count == len(results)
        if len(kinds) != count:
            assert [replies.INTERNAL_ERROR] * count == replied
        for result in results:
            result.cancel()
        assert None not in replied


def test_base_class_is_no_refusal() -> None:
    """
    A failure is temporary or permanent: there is nothing between.
    """
    with pytest.raises(AttributeError):
        DeliveryError("which?")


class TestWrongCount:
    """
    Results that cannot be told apart are not begun.
    """

    def test_coroutines_are_not_started(self, failure_of: Callable[..., Any]) -> None:
        """
        Mail that is answered 451 is not stored all the same.
        """
        begun: list[str] = []

        async def store(name: str) -> None:
            begun.append(name)

        backend = Backend(lambda: [store("ann"), store("bob")])

        [result] = dispatch(backend, MESSAGE, THREE[:1])

        failure_of(result, RuntimeError)
        assert [] == begun


class TestHasSucceeded:
    """
    What is told at once is true: nothing that still waits, or fails, is taken for a success.
    """

    def test_fired(self) -> None:
        """
        With a value, whatever it is.
        """
        assert has_succeeded(succeed(None))
        assert has_succeeded(succeed([]).addCallback(lambda _: "codes"))

    def test_not_yet(self) -> None:
        """
        It has not fired; or has, and waits for another, or for leave to go on.
        """
        other: Deferred[None] = Deferred()
        chained = succeed(None).addCallback(lambda _: other)
        paused = succeed(None)
        paused.pause()

        assert not any(map(has_succeeded, (Deferred(), chained, paused)))
        other.callback(None)
        assert has_succeeded(chained)

    def test_failed(self) -> None:
        """
        It is told why, the usual way.
        """
        failed: Deferred[Any] = fail(ZeroDivisionError())

        assert not has_succeeded(failed)
        failed.addErrback(lambda _: None)
        assert has_succeeded(failed)

    def test_about_to_change(self) -> None:
        """
        Somebody is at work on the result, and more are to come.
        """
        seen = []
        result: Deferred[Any] = Deferred()
        result.addCallback(lambda _: seen.append(has_succeeded(result)))
        result.addCallback(lambda _: Failure(ZeroDivisionError()))
        result.addErrback(lambda _: seen.append(has_succeeded(result)))

        result.callback(None)

        assert [False, False] == seen
