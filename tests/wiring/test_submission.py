"""
Where delivery reports are handed in, and by whom.
"""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred, execute, succeed
from twisted.internet.testing import MemoryReactorClock

from lmtpsvc.client import Client, Dialect, Outcome, Stage
from lmtpsvc.envelope import Address, Sender
from lmtpsvc.replies import Reply
from lmtpsvc.wiring.submission import SECONDS, Reporters, _sending, submission_client

ME = Address("me", "example.net")


@pytest.fixture
def reporters() -> Reporters:
    return Reporters(MemoryReactorClock(), execute)


class TestReporters:
    @pytest.mark.parametrize("words", ["no", "relayed"])
    def test_nobody(self, reporters: Reporters, words: str) -> None:
        """
        Where nobody reports, or the relay does, there is none.
        """
        assert reporters.reporter(words, "mx.example.org") is None

    def test_reload(self, reporters: Reporters) -> None:
        """
        As long as the words stay the same, what waits stays with the one who has it.
        """
        first = reporters.reporter("smtp:mail.example.org:25", "mx.example.org")

        assert first is not None
        assert first is reporters.reporter("smtp:mail.example.org:25", "mx.example.org")
        assert first is not reporters.reporter("smtp:mail.example.org:25", "mx2.example.org")
        assert first is not reporters.reporter("lmtp:unix:/run/lmtp.sock", "mx.example.org")


class TestClient:
    @pytest.mark.parametrize(
        ("words", "dialect"),
        [
            ("smtp:mail.example.org:25", Dialect.SMTP),
            ("mail.example.org:25", Dialect.SMTP),
            ("lmtp:mail.example.org:24", Dialect.LMTP),
            ("lmtp:unix:/run/lmtp.sock", Dialect.LMTP),
            ("smtp:/run/post.sock", Dialect.SMTP),
        ],
    )
    def test_words(self, words: str, dialect: Dialect) -> None:
        """
        SMTP, unless LMTP is said.
        """
        client = submission_client(MemoryReactorClock(), words, "mx")

        assert dialect == client._pool._terms.dialect

    @pytest.mark.parametrize("words", ["", "smtp:", "smtp", "maybe", "lmtp:mail.example.org"])
    def test_mistake(self, words: str) -> None:
        """
        What is no server is told as such.
        """
        with pytest.raises(ValueError, match="not a destination"):
            submission_client(MemoryReactorClock(), words, "mx")


class FakeClient:
    """
    Has one outcome for whatever is sent.
    """

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.sent: list[Any] = []

    def send(self, *words: Any, **options: Any) -> FakeClient:
        self.sent.append((words, options))
        return self

    def as_deferred(self) -> Deferred[list[Outcome]]:
        return succeed([self.outcome])


@pytest.mark.parametrize(
    ("outcome", "reply"),
    [
        (Outcome(Reply(250, "OK"), Stage.MESSAGE), Reply(250, "OK")),
        (Outcome(Reply(451, "Later"), Stage.CONNECT), Reply(451, "Later")),
        (Outcome(Reply(550, "No"), Stage.MAIL, lacking="SMTPUTF8"), None),
        (Outcome(Reply(550, "No"), Stage.MAIL, lacking="8BITMIME"), Reply(550, "No")),
    ],
)
def test_sending(outcome: Outcome, reply: Reply | None) -> None:
    """
    A report comes from nobody, and its outcome is a reply, or that SMTPUTF8 is lacking.
    """
    client = FakeClient(outcome)
    said: list[Any] = []

    _sending(cast("Client", client))(ME, b"report", True).addCallback(said.append)

    assert [reply] == said
    [(words, options)] = client.sent
    assert (Sender(None), [ME], b"report") == words
    assert {"smtputf8": True, "seconds": SECONDS} == options
