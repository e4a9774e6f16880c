"""
One Deferred out of whatever a plugin returns, and what the end of it says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar, cast

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

T = TypeVar("T")

_log = Logger()


@frozen
class Failed:
    """
    What is left behind in a Deferred whose failure has been taken.  A plugin may have given the same one
    to somebody else, who would find None there otherwise, and take that for a success.
    """

    error: BaseException


def failure_in(value: object) -> Failure | None:
    """
    What is wrong with *value*, which something ended with that did not fail; None if nothing is.

    An exception that was returned is one that should have been raised; False is a no, whatever it
    was meant for; and what is still to be awaited has not been done.
    """
    if isinstance(value, Failed):
        return Failure(value.error)
    if isinstance(value, BaseException):
        return Failure(value)
    if value is False or isinstance(value, Awaitable):
        drop(value)
        return Failure(TypeError(f"it ended with {value!r}, which is no success"))
    return None


def check_success(value: object) -> None:
    """
    Raises:
        BaseException: What `failure_in` finds.
    """
    failure = failure_in(value)
    if failure is not None:
        failure.raiseException()


def drop(result: object) -> None:
    """
    Nobody will wait for *result*: a coroutine is not started, and a Deferred is cancelled.
    """
    if isinstance(result, Coroutine):
        result.close()
    elif isinstance(result, Deferred):
        # Somebody else may wait for the same one.
        result.addErrback(_left_behind)
        try:
            result.cancel()
        except BaseException:
            _log.failure("what nobody waits for could not be called off")


def as_deferred(result: Awaitable[T] | T) -> Deferred[T]:
    """
    A Deferred fires when the *result* that it is does, a coroutine is started, and a plain value has
    fired already.

    Raises:
        TypeError: *result* is some other awaitable, which only its own event loop can await.
    """
    if isinstance(result, Deferred):
        return _seen_by_others(result)
    if isinstance(result, Coroutine):
        return Deferred.fromCoroutine(cast("Coroutine[Deferred[Any], Any, T]", result))
    if hasattr(result, "__await__"):
        raise TypeError(f"neither a Deferred nor a coroutine: {result!r}")
    return succeed(result)


def _seen_by_others(result: Deferred[T]) -> Deferred[T]:
    """
    What *result* gives, which stays as it is for whoever else was given the same one.
    """

    def tell(outcome: Any) -> object:
        if not told.called:
            told.callback(Failure(outcome.error) if isinstance(outcome, Failed) else outcome)
        if isinstance(outcome, Failure):
            return _left_behind(outcome)
        return outcome

    told: Deferred[T] = Deferred(lambda _: result.cancel())
    result.addBoth(tell)
    return told


def _left_behind(failure: Failure) -> Failed:
    return Failed(failure.value)  # type: ignore[arg-type]  # what has failed has one


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
