"""
One Deferred out of whatever a plugin returns.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

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
        except Exception:
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
