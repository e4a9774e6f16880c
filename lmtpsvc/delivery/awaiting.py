"""
One Deferred out of whatever a plugin returns.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

T = TypeVar("T")

_log = Logger()


def drop(result: object) -> None:
    """
    Nobody will wait for *result*: a coroutine is not started, and a Deferred is cancelled.
    """
    if isinstance(result, Coroutine):
        result.close()
    elif isinstance(result, Deferred):
        result.addErrback(lambda _: None)
        try:
            result.cancel()
        except BaseException:
            _log.failure("what nobody waits for could not be called off")


def as_deferred(result: Awaitable[T] | T) -> Deferred[T]:
    """
    A Deferred is itself, a coroutine is started, and a plain value has fired already.

    Raises:
        TypeError: *result* is some other awaitable, which only its own event loop can await.
    """
    if isinstance(result, Deferred):
        return result
    if isinstance(result, Coroutine):
        return Deferred.fromCoroutine(cast("Coroutine[Deferred[Any], Any, T]", result))
    if hasattr(result, "__await__"):
        raise TypeError(f"neither a Deferred nor a coroutine: {result!r}")
    return succeed(result)


def in_time(result: Deferred[T], seconds: float, clock: IReactorTime) -> Deferred[T]:
    """
    What *result* gives, called off after so many *seconds* of *clock*; what takes no notice of that,
    or fails at it, is not waited for.

    Fails:
        TimeoutError: Nothing was known by then.
    """

    def cancel() -> None:
        try:
            result.cancel()
        except BaseException:
            _log.failure("what is not waited for any more could not be called off")

    def too_late() -> None:
        cancel()
        if not told.called:
            told.errback(TimeoutError())

    def tell(outcome: T | Failure) -> None:
        if told.called:
            # Nobody waits any more.
            return
        if timer.active():
            timer.cancel()
        elif isinstance(outcome, Failure) and outcome.check(CancelledError):
            outcome = Failure(TimeoutError())
        told.callback(outcome)

    def call_off(_: Deferred[T]) -> None:
        cancel()
        if timer.active():
            timer.cancel()

    told: Deferred[T] = Deferred(call_off)
    timer = clock.callLater(seconds, too_late)
    result.addBoth(tell)
    return told
