"""
Case: a backend that is started for one test of its contract.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Coroutine, Sequence
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define
from twisted.application.service import IService
from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.python.failure import Failure

from ..envelope import Mailbox
from ..interfaces import IBackend
from ..replies import PassedOn
from ..response_codes import ResponseCode
from .message import MemoryMessage, envelope

if TYPE_CHECKING:
    from .contract import BackendContract

T = TypeVar("T")


@define(eq=False)
class Case:
    """
    A started backend, and what a test wants of it.
    """

    contract: BackendContract
    backend: IBackend
    clock: IReactorTime
    #: Of its mail, and of messages that are spooled for it.
    directory: Path
    spool: Path
    _is_stopped: bool = False

    def start(self) -> None:
        """
        Start it, if it is a service, as the service itself does: nobody waits for anything.
        """
        if IService.providedBy(self.backend):
            begun: object = self.backend.startService()
            if isinstance(begun, Coroutine):
                begun.close()
                raise AssertionError("startService is async: nobody would wait for it")

    async def stop(self) -> None:
        """
        Stop it, once, and wait until it is over.
        """
        if not self._is_stopped:
            self._is_stopped = True
            if IService.providedBy(self.backend):
                await self.within(maybeDeferred(self.backend.stopService))

    def verify(self, mailbox: Mailbox) -> Deferred[Any] | None:
        """
        Ask whether mail for *mailbox* would be taken; None is a yes at once.
        """
        verdict = self.backend.verify(mailbox)
        return None if verdict is None else _deferred(verdict)

    def deliver(self, text: bytes, mailboxes: Sequence[Mailbox]) -> list[Deferred[None]]:
        """
        Deliver a message, and return a Deferred for each mailbox.
        """
        return self.results(self.message(text, mailboxes), mailboxes)

    def message(self, text: bytes, mailboxes: Sequence[Mailbox]) -> MemoryMessage:
        """
        A message for them.
        """
        id = hashlib.sha256(text).hexdigest()[:16]
        recipients = envelope(*(f"{each.user}@{each.domain}" for each in mailboxes))
        return MemoryMessage(text, id, recipients, self._deadline)

    def results(self, message: MemoryMessage, mailboxes: Sequence[Mailbox]) -> list[Deferred[Any]]:
        """
        The same for a message that is made already.
        """
        results = self.backend.deliver(message, mailboxes)
        assert len(results) == len(mailboxes), (
            f"{len(results)} results for {len(mailboxes)} mailboxes"
        )
        deferreds: list[Deferred[Any]] = [_deferred(result) for result in results]
        return deferreds

    async def outcome(self, result: Deferred[Any]) -> BaseException | None:
        """
        None if it was a success, or the exception.
        """
        try:
            value = await self.within(result)
        except AssertionError:
            raise
        except Exception as error:
            return error
        codes = value.codes if isinstance(value, PassedOn) else value
        is_yes = codes is None or (
            isinstance(codes, (list, tuple))
            and all(isinstance(each, ResponseCode) for each in codes)
        )
        assert is_yes, f"a delivery ended with {value!r}; yes is None or codes, and no an exception"
        return None

    async def stored(self, mailbox: Mailbox) -> list[bytes]:
        """
        What is in *mailbox*, with LF.
        """
        return [_with_lf(text) for text in await self.stored_octets(mailbox)]

    async def stored_octets(self, mailbox: Mailbox) -> Sequence[bytes]:
        """
        What is in *mailbox*, as it is.
        """
        found = self.contract.stored(self.directory, mailbox)
        return found if isinstance(found, Sequence) else await self.within(_deferred(found))

    def form(self, text: bytes) -> bytes:
        """
        How `stored` should show *text*.
        """
        return _with_lf(self.contract.expected(text))

    def sleep(self, seconds: float) -> Deferred[None]:
        """
        Fires after so many seconds.
        """
        waiting: Deferred[None] = Deferred()
        self.clock.callLater(seconds, waiting.callback, None)
        return waiting

    def within(self, result: Deferred[T]) -> Deferred[T]:
        """
        *result*, or a failure if it takes for ever; it is not cancelled, which might not help.
        """
        waiting: Deferred[T] = Deferred()
        patience = self.contract.patience

        def give_up() -> None:
            waiting.errback(AssertionError(f"no result within {patience} s"))

        def fired_elsewhere() -> None:
            if timer.active():
                timer.cancel()
                said = "a result was fired in a thread: see IReactorFromThreads.callFromThread"
                waiting.errback(AssertionError(said))

        timer = self.clock.callLater(patience, give_up)
        ours = get_ident()

        def tell(outcome: T | Failure) -> None:
            if get_ident() != ours:
                IReactorFromThreads(self.clock).callFromThread(fired_elsewhere)
            elif timer.active():
                timer.cancel()
                # A Failure makes it fail.
                waiting.callback(outcome)

        result.addBoth(tell)
        return waiting

    @property
    def _deadline(self) -> float:
        return self.clock.seconds() + 2 * self.contract.patience


def _with_lf(text: bytes) -> bytes:
    # Octets are found sooner than pairs of them, and large texts are mostly there with LF already.
    return text.replace(b"\r\n", b"\n") if b"\r" in text else text


def _deferred(result: Awaitable[T]) -> Deferred[T]:
    """
    A Deferred of what a plugin returned, which is one, or a coroutine.
    """
    return ensureDeferred(result)  # type: ignore[arg-type]  # takes Deferreds too
