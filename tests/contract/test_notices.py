"""
The contract can be broken, and each way to break it is noticed.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from socket import socketpair
from typing import Any
from unittest import SkipTest

import pytest
import pytest_twisted  # type: ignore[import-untyped]  # it has no types
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import TemporaryFailure
from lmtpsvc.interfaces import IBackend, IMessage
from lmtpsvc.per_recipient import PerRecipientBackend, to_the_end
from lmtpsvc.replies import PassedOn, Reply
from lmtpsvc.testing import BackendContract

#: The test, a coroutine, is run in the reactor.
in_reactor: Callable[[Callable[..., Any]], Callable[..., Any]] = pytest_twisted.ensureDeferred

clock = IReactorTime(reactor)


def pause(seconds: float = 0.001) -> Deferred[None]:
    return deferLater(clock, seconds)


class Shelf(PerRecipientBackend):
    """
    Keeps the contract, in memory.
    """

    #: The one that it could use.
    directory: Path

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[Mailbox, list[bytes]] = {}
        self.full: Mailbox | None = None

    async def store(self, message: IMessage, mailbox: Mailbox) -> None:
        await pause()
        if mailbox == self.full:
            raise TemporaryFailure("Full")
        self.keep(mailbox, message)

    def keep(self, mailbox: Mailbox, message: IMessage) -> None:
        with message.open() as file:
            self.kept.setdefault(mailbox, []).append(file.read())


class Contract(BackendContract):
    """
    The contract of a kind of shelf.
    """

    kind: type[Shelf] = Shelf
    shelf: Shelf
    # What comes late here comes by a timer of the same reactor, of a hundredth of a second.
    settling = 0.05

    def make(self, reactor: Any, directory: Path) -> IBackend:
        self.shelf = self.kind()
        self.shelf.directory = directory
        return self.shelf

    def stored(self, directory: Path, mailbox: Mailbox) -> Awaitable[Sequence[bytes]]:
        async def stored() -> Sequence[bytes]:
            return self.shelf.kept.get(mailbox, [])

        return stored()

    def broken(self, directory: Path, mailbox: Mailbox) -> AbstractContextManager[object]:
        return self.full(mailbox)

    @contextmanager
    def full(self, mailbox: Mailbox) -> Iterator[None]:
        self.shelf.full = mailbox
        yield
        self.shelf.full = None


class TestShelf(Contract):
    """
    What is right passes.
    """


class PassesOn(Shelf):
    async def store(self, message: IMessage, mailbox: Mailbox) -> Any:
        await super().store(message, mailbox)
        return PassedOn(Reply(250, "Queued", (0, 0)), "mx.example.org")


class TestPassesOn(Contract):
    """
    So does a backend that says that a message is with an SMTP server.
    """

    kind = PassesOn


def contract(kind: type[Shelf]) -> Contract:
    """
    The contract of *kind*.
    """
    made = Contract()
    made.kind = kind
    return made


# ── what is not right ────────────────────────────────────────────────────────────────────────────


class NoInterface(Shelf):
    capabilities = None  # type: ignore[assignment]


class SaysNo(Shelf):
    def verify(self, mailbox: Mailbox) -> Any:
        async def verdict() -> bool:
            return False

        return verdict()


class TooFew(Shelf):
    def deliver(self, message: IMessage, mailboxes: Sequence[Mailbox]) -> list[Deferred[None]]:
        return super().deliver(message, mailboxes)[1:]


class TooEarly(Shelf):
    async def store(self, message: IMessage, mailbox: Mailbox) -> None:
        clock.callLater(0.01, self.keep, mailbox, message)


class SaysSomething(Shelf):
    async def store(self, message: IMessage, mailbox: Mailbox) -> Any:
        await super().store(message, mailbox)
        return False


class SameDeferred(Shelf):
    def deliver(self, message: IMessage, mailboxes: Sequence[Mailbox]) -> list[Deferred[None]]:
        return super().deliver(message, mailboxes[:1]) * len(mailboxes)


class Mixes(Shelf):
    async def store(self, message: IMessage, mailbox: Mailbox) -> None:
        self.message = message
        await pause()
        self.keep(mailbox, self.message)


class NothingEmpty(Shelf):
    def keep(self, mailbox: Mailbox, message: IMessage) -> None:
        if message.sizes().physical:
            super().keep(mailbox, message)


class Text(Shelf):
    def keep(self, mailbox: Mailbox, message: IMessage) -> None:
        with message.open() as file:
            text = file.read().decode("ascii", "replace")
        self.kept.setdefault(mailbox, []).append(text.encode())


class Truncates(Shelf):
    def keep(self, mailbox: Mailbox, message: IMessage) -> None:
        with message.open() as file:
            self.kept.setdefault(mailbox, []).append(file.read(1 << 20))


class WritesToIt(Shelf):
    def keep(self, mailbox: Mailbox, message: IMessage) -> None:
        super().keep(mailbox, message)
        if message.path is not None:
            with open(message.path, "ab") as file:
                file.write(b"x")


class AllOrNothing(Shelf):
    async def store(self, message: IMessage, mailbox: Mailbox) -> None:
        await pause()
        if self.full is not None:
            raise TemporaryFailure("Full")
        self.keep(mailbox, message)


class Defect(Shelf):
    async def store(self, message: IMessage, mailbox: Mailbox) -> None:
        await pause()
        if mailbox == self.full:
            raise OSError("full")
        self.keep(mailbox, message)


class CommitsAllTheSame(Shelf):
    async def store(self, message: IMessage, mailbox: Mailbox) -> None:
        clock.callLater(0.01, self.keep, mailbox, message)
        await pause(0.02)


class Forgets(Shelf):
    def deliver(self, message: IMessage, mailboxes: Sequence[Mailbox]) -> list[Deferred[None]]:
        inner = super().deliver(message, mailboxes)
        outer: list[Deferred[None]] = []
        for each in inner:
            waiting: Deferred[None] = to_the_end(Deferred())
            each.addErrback(lambda _: None)
            outer.append(waiting)
        return outer


class Sleeps(Shelf):
    async def store(self, message: IMessage, mailbox: Mailbox) -> None:
        time.sleep(0)  # noqa: ASYNC251 - which is the point
        self.keep(mailbox, message)


class Syncs(Shelf):
    async def store(self, message: IMessage, mailbox: Mailbox) -> None:
        await super().store(message, mailbox)
        read, write = os.pipe()
        with suppress(OSError):
            os.fsync(write)
        os.close(read)
        os.close(write)


class WritesAtOnce(Shelf):
    """
    Makes all the calls that are quick, each once, and perhaps another.
    """

    def wait(self) -> None:
        pass

    async def store(self, message: IMessage, mailbox: Mailbox) -> None:
        await super().store(message, mailbox)
        one, two = self.directory / "one", self.directory / "two"
        self.wait()
        descriptor = os.open(one, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(descriptor, b"octets")
        os.close(descriptor)
        os.link(one, two)
        os.remove(two)
        os.rename(one, two)
        os.replace(two, one)
        os.stat(one)
        os.lstat(one)
        os.unlink(one)


def send(_: int) -> None:
    """
    What may wait for somebody else.
    """
    one, other = socketpair()
    with one, other:
        one.send(b"octets")


class AsksDatabase(Shelf):
    def __init__(self) -> None:
        super().__init__()
        self.database = sqlite3.connect(":memory:")

    async def store(self, message: IMessage, mailbox: Mailbox) -> None:
        await super().store(message, mailbox)
        self.database.execute("SELECT 1")

    def stopService(self) -> Deferred[Any]:
        self.database.close()
        return super().stopService()


class WaitsForThread(Shelf):
    async def store(self, message: IMessage, mailbox: Mailbox) -> None:
        done = threading.Event()
        thread = threading.Thread(target=done.set)
        thread.start()
        done.wait()
        thread.join()
        self.keep(mailbox, message)


class LooksInVerify(Shelf):
    def verify(self, mailbox: Mailbox) -> None:
        os.path.exists(f"/home/{mailbox.user}")


class Computes(Shelf):
    async def store(self, message: IMessage, mailbox: Mailbox) -> None:
        # Once is enough to be noticed.
        end = time.thread_time() + (0.3 if mailbox.user == "ann" else 0)
        while time.thread_time() < end:
            pass
        await super().store(message, mailbox)


class StopsAtOnce(Shelf):
    def stopService(self) -> Any:
        return None


class StartsAsync(Shelf):
    async def startService(self) -> None:  # type: ignore[override]  # the mistake
        super().startService()


class StartsLater(Shelf):
    """
    What it says of its start is waited for by nobody.
    """

    is_ready = False

    def startService(self) -> Any:
        super().startService()
        return pause(0.01).addCallback(lambda _: setattr(self, "is_ready", True))

    async def store(self, message: IMessage, mailbox: Mailbox) -> None:
        if self.is_ready:
            await super().store(message, mailbox)


class StartsAsRoot(StartsLater):
    """
    Nobody calls this: backends start when the service is who it is to be.
    """

    def privilegedStartService(self) -> None:
        self.is_ready = True

    def startService(self) -> None: ...


class ChangesHeaders(Shelf):
    async def store(self, message: IMessage, mailbox: Mailbox) -> None:
        message.headers()["X-Seen"] = "yes"
        await super().store(message, mailbox)


class FiresInThread(Shelf):
    def deliver(self, message: IMessage, mailboxes: Sequence[Mailbox]) -> list[Deferred[None]]:
        results = [Deferred[None]() for _ in mailboxes]
        for mailbox in mailboxes:
            self.keep(mailbox, message)

        def fire() -> None:
            for result in results:
                result.callback(None)

        # Not before somebody waits for it.
        clock.callLater(0.01, threading.Thread(target=fire).start)
        return results


class TestNotices:
    @pytest.mark.parametrize(
        ("kind", "test"),
        [
            (NoInterface, "provides_the_interface"),
            (SaysNo, "takes_mail_for_the_mailboxes"),
            (TooFew, "one_result_for_each"),
            (TooEarly, "one_result_for_each"),
            (SaysSomething, "one_result_for_each"),
            (SameDeferred, "named_twice"),
            (Mixes, "many_at_the_same_time"),
            (NothingEmpty, "no_octets"),
            (Text, "any_octets"),
            (Truncates, "large_message"),
            (WritesToIt, "large_message"),
            (AllOrNothing, "one_fails_alone"),
            (Defect, "one_fails_alone"),
            (CommitsAllTheSame, "cancelled_at_once"),
            (CommitsAllTheSame, "cancelled_on_the_way"),
            (Sleeps, "does_not_wait_in_the_reactor"),
            (Syncs, "does_not_wait_in_the_reactor"),
            (AsksDatabase, "does_not_wait_in_the_reactor"),
            (WaitsForThread, "does_not_wait_in_the_reactor"),
            (LooksInVerify, "does_not_wait_in_the_reactor"),
            (Computes, "does_not_hold_the_reactor"),
            (StopsAtOnce, "stops_in_order"),
            (StartsAsync, "one_result_for_each"),
            (StartsLater, "one_result_for_each"),
            (StartsAsRoot, "one_result_for_each"),
            (ChangesHeaders, "one_result_for_each"),
        ],
    )
    @in_reactor
    async def test_each_mistake(self, kind: type[Shelf], test: str) -> None:
        """
        The test that is there for it fails.
        """
        with pytest.raises(AssertionError):
            await getattr(contract(kind), f"test_{test}")()

    @in_reactor
    async def test_quick_calls(self) -> None:
        """
        A call for a file is refused however quick it is: it says which.
        """
        with pytest.raises(AssertionError, match=r"waits in posix\.open"):
            await contract(WritesAtOnce).test_does_not_wait_in_the_reactor()

    @in_reactor
    async def test_result_of_a_thread(self) -> None:
        """
        A Deferred that is fired in another thread than the reactor's seems to work, until two things
        happen at the same time: it is told at once.
        """
        with pytest.raises(AssertionError, match="a result was fired in a thread"):
            await contract(FiresInThread).test_one_result_for_each()

    @in_reactor
    async def test_for_ever(self) -> None:
        """
        A delivery that never ends is not waited for in vain.
        """

        class Impatient(Contract):
            kind = Forgets
            patience = 0.1

        with pytest.raises(AssertionError, match="no result within"):
            await Impatient().test_cancelled_at_once()

    @in_reactor
    async def test_not_applicable(self) -> None:
        """
        Where nobody has said how to break a mailbox, the test says that it has not been made.
        """

        class Unbroken(Contract):
            broken = BackendContract.broken

        with pytest.raises(SkipTest, match="not applicable"):
            await Unbroken().test_one_fails_alone()

    def test_no_reactor(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A runner that would not wait for the tests is told so.
        """
        monkeypatch.setattr(reactor, "running", False)

        with pytest.raises(RuntimeError, match="pytest-twisted"):
            Contract().test_no_octets()
