"""
What trusted clients say, as it reaches backends, deadlines and headers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, formatEvent

from lmtpsvc import replies
from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import refusal
from lmtpsvc.interfaces import IMessage
from lmtpsvc.quota import IGNORED, Quota, limit_of

PROXY = IPv4Address("TCP", "192.0.2.1", 1024)


@pytest.fixture
def wire(server: Any) -> Any:
    server.factory.trusts = lambda host: host == "192.0.2.1"
    return server.connect(PROXY)


def begin(wire: Any, *told: bytes, recipient: bytes = b"<ann@example.org>") -> None:
    for line in told:
        assert wire.says(line + b"\r\n")
    wire.says(b"LHLO proxy\r\nMAIL FROM:<>\r\nRCPT TO:" + recipient + b"\r\nDATA\r\n")
    wire.says(b"Hello\r\n.\r\n")


class Stubborn(Deferred[None]):
    """
    What a backend returns that has begun to commit.
    """

    def cancel(self) -> None: ...


class TestXClient:
    def test_header(self, wire: Any, world: Any) -> None:
        """
        Received says who the proxy's client is.
        """
        begin(wire, b"XCLIENT ADDR=198.51.100.7 HELO=a.example NAME=b.example PROTO=ESMTP")

        (message,) = world.messages
        with message.open() as file:
            head = file.read().replace(b"\r\n\t", b" ")
        assert b"Received: from a.example (b.example [198.51.100.7]) by mx.example.org" in head
        assert b" with ESMTP id " in head

    def test_deadline(self, wire: Any, server: Any, world: Any) -> None:
        """
        The proxy has its reply before it gives up, and the backend knows until when.
        """
        begin(wire, b"XCLIENT TIMEOUT=20")
        wire.heard()

        (message,) = world.messages
        assert message.deadline == pytest.approx(13.5)
        server.clock.advance(13.4)
        assert [] == wire.heard()
        server.clock.advance(0.2)
        assert [str(replies.OUT_OF_TIME).encode()] == wire.heard()

    def test_deadline_of_a_backend_that_hangs(
        self, wire: Any, server: Any, world: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        A backend that cannot be called off gets its grace, but not beyond the proxy's patience.
        """
        monkeypatch.setattr(world, "result", Stubborn)
        begin(wire, b"XCLIENT TIMEOUT=20")
        wire.heard()

        server.clock.pump([13.6, 4])
        assert [] == wire.heard()
        server.clock.advance(0.6)
        assert [str(replies.OUT_OF_TIME).encode()] == wire.heard()

    def test_log_of_a_refusal(self, wire: Any, logged: list[LogEvent]) -> None:
        """
        A recipient that is refused is logged with who asked.
        """
        wire.says(b"XCLIENT ADDR=198.51.100.7 LOGIN=eve\r\nLHLO x\r\nMAIL FROM:<>\r\n")
        wire.says(b"RCPT TO:<nobody@example.org>\r\n")

        assert any(
            " client=198.51.100.7 login=eve reply=550" in formatEvent(event) for event in logged
        )


class TestIgnoreQuota:
    @pytest.fixture(autouse=True)
    def full(self, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def verify(mailbox: Mailbox) -> None:
            if not (limit_of(mailbox, Quota(1)) or Quota()).has_room(2, 1):
                raise refusal(replies.MAILBOX_FULL)

        monkeypatch.setattr(world, "verify", verify)

    def test_full(self, wire: Any) -> None:
        """
        Without it, a full mailbox is full.
        """
        wire.says(b"MAIL FROM:<> SIZE=10\r\n")

        assert [str(replies.MAILBOX_FULL).encode()] == wire.says(b"RCPT TO:<ann@example.org>\r\n")

    def test_ignored(self, wire: Any, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        With it, backends are told that the quota does not count, when they are asked and when they
        deliver.
        """
        delivered: list[Mailbox] = []
        deliver = world.deliver

        def noted(message: IMessage, mailboxes: Sequence[Mailbox]) -> Any:
            delivered.extend(mailboxes)
            return deliver(message, mailboxes)

        monkeypatch.setattr(world, "deliver", noted)

        begin(wire, recipient=b"<ann@example.org> IGNOREQUOTA")

        assert [{IGNORED: "yes"}] == [mailbox.attributes for mailbox in delivered]
