"""
A backend that waits to be told, and what was logged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from lmtpsvc.delivery import spool_file
from lmtpsvc.delivery.past_cache import PastCache
from lmtpsvc.envelope import Mailbox
from lmtpsvc.interfaces import Capabilities, IBackend, IMessage


@implementer(IBackend)
class HeldBackend:
    """
    Takes any message, and delivers it to a mailbox when the test says so, through *held*.
    """

    capabilities = Capabilities()

    def __init__(self) -> None:
        self.messages: list[IMessage] = []
        self.mailboxes: list[Mailbox] = []
        self.held: dict[str, Deferred[None]] = {}

    def verify(self, mailbox: Mailbox) -> Any:
        return None

    def deliver(self, message: IMessage, mailboxes: Sequence[Mailbox]) -> list[Any]:
        self.messages.append(message)
        self.mailboxes += mailboxes
        results = [self.result() for _ in mailboxes]
        self.held.update(zip(map(str, mailboxes), results, strict=True))
        return results

    def result(self) -> Deferred[None]:
        return Deferred()


@pytest.fixture
def backend() -> HeldBackend:
    return HeldBackend()


@implementer(ILogObserver)
class Logged:
    """
    What was logged by the package, as it was said.
    """

    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        self.events.append(event)

    @property
    def defects(self) -> list[Failure]:
        """
        The failures that were logged, and are taken for mistakes of a programmer.
        """
        return [
            event["log_failure"] for event in self.events if event["log_level"] >= LogLevel.critical
        ]

    def of(self, namespace: str) -> list[LogEvent]:
        """
        What *namespace* said.
        """
        return [event for event in self.events if event["log_namespace"] == namespace]


@pytest.fixture
def logged() -> Iterator[Logged]:
    """
    What is logged from now on.
    """
    logged = Logged()
    globalLogPublisher.addObserver(logged)
    yield logged
    globalLogPublisher.removeObserver(logged)


@pytest.fixture
def past_cache(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """
    The descriptors of spooled files that are written past the kernel's cache.
    """
    begun: list[int] = []

    class Noted(PastCache):
        def __init__(self, descriptor: int) -> None:
            begun.append(descriptor)
            super().__init__(descriptor)

    monkeypatch.setattr(spool_file, "PastCache", Noted)
    return begun
