"""
Work that may block, and where it is done.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorThreads
from twisted.internet.threads import deferToThreadPool

Result = TypeVar("Result")


class InThread(Protocol):
    """
    Calls a function outside of the reactor thread.

    The Deferred fires, in the reactor thread, with what it returned or raised; with an OSError if the
    system has no more threads to give.
    """

    def __call__(self, function: Callable[[], Result], /) -> Deferred[Result]: ...


def in_pool_of(reactor: object) -> InThread:
    """
    In the thread pool of *reactor*, of which nothing is asked before the first call.
    """

    def in_pool(function: Callable[[], Result], /) -> Deferred[Result]:
        threads = IReactorThreads(reactor)
        try:
            return deferToThreadPool(threads, threads.getThreadPool(), function)
        except RuntimeError as error:
            # Raised here and now, by whoever starts a thread.
            return fail(OSError(errno.EAGAIN, str(error)))

    return in_pool
