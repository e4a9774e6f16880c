"""
A backend that is one method: store a message for one mailbox.

Inherit `PerRecipientBackend` if that method awaits Deferreds, and `BlockingBackend` if it waits by
itself, for files or for a database: it is called in a thread then.  Both see to the rest of
`lmtpsvc.interfaces.IBackend`: one result for each mailbox, all under way at once, one copy for a
mailbox that is named twice, and what it means to cancel.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Final, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred, maybeDeferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure
from zope.interface import implementer

from .backends.pool import WorkerPool
from .commitment import Commitment
from .envelope import Mailbox
from .interfaces import Capabilities, IBackend, IMessage
from .response_codes import Codes

T = TypeVar("T")

#: Messages that a `BlockingBackend` stores at the same time, if it does not say otherwise.
THREADS: Final = 8


@implementer(IBackend)
class _OneByOne(Service):
    """
    What both have in common.
    """

    #: The default is CRLF, and any directory for the spool.
    capabilities = Capabilities()

    def __init__(self) -> None:
        self._open: set[Deferred[Any]] = set()

    def verify(self, mailbox: Mailbox) -> Awaitable[None] | None:
        """
        Say whether mail for *mailbox* would be taken; it is, if this is not overridden.
        """
        return None

    def deliver(self, message: IMessage, mailboxes: Sequence[Mailbox]) -> list[Deferred[Any]]:
        """
        Store *message* once for each different mailbox.
        """
        positions: dict[Mailbox, list[int]] = {}
        for position, mailbox in enumerate(mailboxes):
            positions.setdefault(mailbox, []).append(position)
        results: dict[int, Deferred[Any]] = {}
        for mailbox, named in positions.items():
            copy = self._begin(message, mailbox)
            self._open.add(copy)
            copy.addBoth(self._ended, copy)
            results.update(zip(named, _shared(copy, len(named)), strict=True))
        return [results[position] for position in range(len(mailboxes))]

    def startService(self) -> None:
        """
        Mail comes when this has returned; nobody waits for anything else.  (Twisted's has no types.)
        """
        super().startService()

    def stopService(self) -> Deferred[Any]:
        """
        Fires when all that has been begun is over.
        """
        super().stopService()
        # What became of them is for those who wait for them, who may be later in the line.
        ends: list[Deferred[None]] = []
        for copy in self._open:
            end: Deferred[None] = Deferred()
            copy.addBoth(_pass_on, end)
            ends.append(end)
        return DeferredList(ends)

    def _begin(self, message: IMessage, mailbox: Mailbox) -> Deferred[Any]:
        raise NotImplementedError

    def _ended(self, result: T, copy: Deferred[Any]) -> T:
        self._open.discard(copy)
        return result


class PerRecipientBackend(_OneByOne):
    """
    A backend whose `store` awaits Deferreds.
    """

    async def store(self, message: IMessage, mailbox: Mailbox) -> Codes:
        """
        Store *message* so that it would survive a power cut.  Returns None, or codes for the reply.

        A delivery that is cancelled gets CancelledError from the ``await`` where it is.  The one
        that commits should be ``await to_the_end(...)``.

        Raises:
            TemporaryFailure, PermanentFailure: The reply this recipient gets.
        """
        raise NotImplementedError

    def _begin(self, message: IMessage, mailbox: Mailbox) -> Deferred[Any]:
        return maybeDeferred(self.store, message, mailbox)


class BlockingBackend(_OneByOne):
    """
    A backend whose `store` waits by itself.  At most *threads* are called at the same time.
    """

    def __init__(self, reactor: object, threads: int = THREADS) -> None:
        super().__init__()
        self._pool = WorkerPool(IReactorFromThreads(reactor), threads, type(self).__name__)

    def store(self, message: IMessage, mailbox: Mailbox) -> Codes:
        """
        Store *message* so that it would survive a power cut; called in a thread.  Returns None, or
        codes for the reply.

        A delivery that is cancelled is not begun; one that has begun is brought to its end.

        Raises:
            TemporaryFailure, PermanentFailure: The reply this recipient gets.
        """
        raise NotImplementedError

    def stopService(self) -> Deferred[Any]:
        return super().stopService().addCallback(lambda _: self._pool.stop())

    def _begin(self, message: IMessage, mailbox: Mailbox) -> Deferred[Any]:
        result = Commitment()

        def work() -> None:
            if not result.begin():
                return
            try:
                codes = self.store(message, mailbox)
            except BaseException:
                self._pool.post(result.errback, Failure())
            else:
                self._pool.post(result.callback, codes)

        self._pool.run(work, message.envelope.sender.priority)
        return result


def to_the_end(awaitable: Awaitable[T]) -> Deferred[T]:
    """
    What *awaitable*, a Deferred or coroutine, gives; to cancel this does nothing.

    For a commit: once it has begun, only its result tells whether the message is there.
    """
    result: Deferred[T] = _Unstoppable()
    ensureDeferred(awaitable).chainDeferred(result)  # type: ignore[arg-type]  # takes Deferreds too
    return result


class _Unstoppable(Deferred[T]):
    def cancel(self) -> None:
        """
        Wait for the result all the same.
        """


class _Sharing(Deferred[Any]):
    """
    One of several who wait for one copy.  It is called off when none of them wants it any more:
    whoever said no while it is stored for another would get a second one later.
    """

    def __init__(self, copy: Deferred[Any], wanting: set[_Sharing]) -> None:
        super().__init__()
        self._copy, self._wanting = copy, wanting
        wanting.add(self)

    def cancel(self) -> None:
        self._wanting.discard(self)
        if not self._wanting:
            self._copy.cancel()


def _shared(copy: Deferred[Any], count: int) -> Sequence[Deferred[Any]]:
    """
    The result *copy* for as many as there are.
    """
    if count == 1:
        return [copy]
    wanting: set[_Sharing] = set()
    all_of_them = [_Sharing(copy, wanting) for _ in range(count)]

    def tell(result: object) -> None:
        for each in all_of_them:
            # A Failure makes it fail.
            each.callback(result)

    copy.addBoth(tell)
    return all_of_them


def _pass_on(result: T, end: Deferred[None]) -> T:
    end.callback(None)
    return result
