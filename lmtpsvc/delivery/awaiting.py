"""
One Deferred out of whatever a plugin returns.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred, succeed

T = TypeVar("T")


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
