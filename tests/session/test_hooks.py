"""
What a session does for extensions that need more than one line and one reply.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lmtpsvc import replies
from lmtpsvc.limits import Limits
from lmtpsvc.replies import Reply
from lmtpsvc.session.connection import Connection
from lmtpsvc.session.events import Asked, Event, RecipientOffered, TLSBegins
from lmtpsvc.session.extensions import Extension, Extensions
from lmtpsvc.session.server import ServerSession
from lmtpsvc.session.states import State
from lmtpsvc.wire.commands import CommandError

LATER = Reply(450, "Not now", (4, 1))
GO_ON = Reply(334, "Go on")


class Riddle(Extension):
    """
    ``XASK name`` asks the application, ``XLINE`` reads a line of at most 40 octets, ``XTLS`` begins
    TLS.  Only for who is trusted; its verbs wait for what is before them.
    """

    keyword = "XRIDDLE"
    barriers = frozenset({b"XASK", b"XTLS"})

    def __init__(self) -> None:
        self.verbs = {b"XASK": self.ask, b"XLINE": self.line, b"XTLS": self.tls}
        self.rcpt_parameters = {"XHINT": lambda value: value}

    def is_available(self, session: ServerSession) -> bool:
        return session.connection.is_trusted

    def announcement(self, session: ServerSession) -> str:
        return f"XRIDDLE {len(session.notes)}"

    def ask(self, session: ServerSession, argument: bytes) -> None:
        def then(found: str) -> None:
            if found == "nothing":
                raise CommandError(LATER)
            session.notes[self] = found
            session.reply(Reply(250, f"It is {found}"))

        session.ask(lambda agent: (agent, argument), then)

    def line(self, session: ServerSession, _argument: bytes) -> None:
        def read(line: bytes) -> None:
            if line == b"*":
                raise CommandError(replies.SYNTAX)
            session.reply(Reply(250, f"Read {len(line)}"))

        session.reply(GO_ON)
        session.read_line(read, 40)

    def tls(self, session: ServerSession, _argument: bytes) -> None:
        session.begin_tls(Reply(220, "Go ahead"))


TRUSTED = Connection("192.0.2.1", 4711, is_trusted=True, offers_tls=True)


class Talk:
    """
    A conversation over *connection* with a riddler.
    """

    def __init__(self, connection: Connection = TRUSTED, limits: Limits | None = None) -> None:
        extensions = Extensions([Riddle()])
        self.session = ServerSession("mx", limits or Limits(), extensions, connection)
        self.session.data_to_send()

    def __call__(self, *packets: bytes) -> tuple[list[bytes], list[Event]]:
        """
        Say *packets*; returns the lines that came back, and the events.
        """
        events = []
        for packet in packets:
            self.session.receive(packet)
            events += self.take()
        return self.heard(), events

    def take(self) -> list[Event]:
        return list(iter(self.session.next_event, None))

    def heard(self) -> list[bytes]:
        return self.session.data_to_send().splitlines()


@pytest.fixture
def talk() -> Talk:
    return Talk()


def only(events: list[Event]) -> Any:
    assert 1 == len(events), events
    return events[0]


class TestAvailability:
    def test_for_who_is_trusted(self, talk: Talk) -> None:
        """
        What it announces may depend on the conversation.
        """
        assert [b"250-mx", b"250 XRIDDLE 0"] == talk(b"LHLO x\r\n")[0]
        talk.session.notes["one"] = 1
        assert [b"250-mx", b"250 XRIDDLE 1"] == talk(b"LHLO x\r\n")[0]

    def test_for_nobody_else(self) -> None:
        """
        Nobody else sees it, and to them its verbs and parameters are unknown.
        """
        talk = Talk(Connection("192.0.2.1"))

        assert [b"250 mx"] == talk(b"LHLO x\r\n")[0]
        said, events = talk(b"XASK\r\nMAIL FROM:<>\r\nRCPT TO:<a@b> XHINT=1\r\n")
        assert ([b"500", b"250", b"555"], []) == ([line[:3] for line in said], events)

    def test_a_verb_of_the_session(self) -> None:
        """
        One that it takes over is the session's own where the extension is not available.
        """

        class Verify(Extension):
            keyword = "XVRFY"

            def __init__(self) -> None:
                self.verbs = {b"VRFY": lambda session, _: session.reply(Reply(250, "Ann"))}

            def is_available(self, session: ServerSession) -> bool:
                return session.connection.is_trusted

        for connection, said in (
            (TRUSTED, b"250 Ann\r\n"),
            (Connection(), replies.CANNOT_VERIFY.wire),
        ):
            session = ServerSession("mx", Limits(), Extensions([Verify()]), connection)
            session.data_to_send()
            session.receive(b"VRFY ann\r\n")
            assert session.next_event() is None
            assert said == session.data_to_send()


class TestAsking:
    def test_nothing_is_read_meanwhile(self, talk: Talk) -> None:
        """
        The command behind it waits, and the client is owed a reply.
        """
        said, events = talk(b"XASK who\r\nNOOP\r\n")
        asked = only(events)

        assert ([], True, True) == (said, talk.session.is_blocked, talk.session.owes_reply)
        assert isinstance(asked, Asked)
        assert ("agent", b"who") == asked.find("agent")

        talk.session.answer_asked(asked, "ann")

        assert [] == talk.take()
        assert [b"250 It is ann", replies.OK.wire[:-2]] == talk.heard()
        assert not talk.session.is_blocked

    @pytest.mark.parametrize(
        "answer",
        [
            lambda session, asked: session.answer_asked(asked, "nothing"),
            lambda session, asked: session.refuse_asked(asked, LATER),
        ],
        ids=["by the extension", "by the application"],
    )
    def test_refused(self, answer: Callable[[ServerSession, Asked], None], talk: Talk) -> None:
        """
        A failure is the command's reply, and the conversation goes on.
        """
        answer(talk.session, only(talk(b"XASK who\r\n")[1]))

        assert [b"450 4.4.1 Not now"] == talk.heard()
        assert [replies.OK.wire[:-2]] == talk(b"NOOP\r\n")[0]

    def test_it_waits_for_what_is_before_it(self, talk: Talk) -> None:
        """
        It is not asked before each command in front of it is answered.
        """
        talk(b"LHLO x\r\nMAIL FROM:<>\r\n")
        offer = only(talk(b"RCPT TO:<a@b>\r\nXASK who\r\n")[1])
        assert isinstance(offer, RecipientOffered)
        assert talk.session.is_blocked

        talk.session.answer_recipient(offer, replies.RECIPIENT_OK)

        assert isinstance(only(talk.take()), Asked)

    def test_after_the_end(self, talk: Talk) -> None:
        """
        An answer that comes when the conversation has been ended is not told.
        """
        asked = only(talk(b"XASK who\r\n")[1])
        talk.session.close(replies.SHUTTING_DOWN)

        talk.session.answer_asked(asked, "ann")
        talk.session.refuse_asked(asked, LATER)

        assert [replies.SHUTTING_DOWN.wire[:-2]] == talk.heard()
        assert talk.session.closed


class TestLines:
    @pytest.mark.parametrize(
        ("line", "said"),
        [
            (b"QUIT\r\n", b"250 Read 4"),
            (b"\r\n", b"250 Read 0"),
            (b"x" * 38 + b"\r\n", b"250 Read 38"),
            (b"x" * 39 + b"\r\n", replies.LINE_TOO_LONG.wire[:-2]),
            (b"x" * 5000 + b"\r\n", replies.LINE_TOO_LONG.wire[:-2]),
            (b"*\r\n", replies.SYNTAX.wire[:-2]),
            (b"bare\n", replies.LINE_ENDING.wire[:-2]),
        ],
    )
    @pytest.mark.parametrize("cut", [10_000, 1])
    def test_read(self, line: bytes, said: bytes, cut: int, talk: Talk) -> None:
        """
        The next line is no command, whatever stands in it; the one behind it is.
        """
        octets = b"XLINE\r\n" + line + b"NOOP\r\n"
        packets = [octets[at : at + cut] for at in range(0, len(octets), cut)]

        assert [GO_ON.wire[:-2], said, replies.OK.wire[:-2]] == talk(*packets)[0]

    def test_a_longer_line_than_a_command(self) -> None:
        """
        Its limit is its own: an answer of AUTH may be longer than any command.
        """
        talk = Talk(limits=Limits(command_line=30))

        assert [GO_ON.wire[:-2], b"250 Read 35"] == talk(b"XLINE\r\n", b"y" * 35, b"\r\n")[0]
        assert [replies.LINE_TOO_LONG.wire[:-2]] == talk(b"NOOP " + b"y" * 30 + b"\r\n")[0]


class TestTLS:
    def test_begins_anew(self, talk: Talk) -> None:
        """
        Nothing that was said before the handshake is known behind it (RFC 3207 §4.2).
        """
        talk(b"LHLO x\r\nMAIL FROM:<>\r\n")
        talk.session.notes["who"] = "ann"
        said, events = talk(b"XTLS\r\n")
        assert [b"220 Go ahead"] == said
        assert isinstance(only(events), TLSBegins)
        assert talk.session.is_blocked

        talk.session.encrypted(Connection("192.0.2.1", tls=True, is_trusted=True))

        session = talk.session
        assert (State.NEW, {}, "") == (session.state, session.notes, session.client.name)
        assert session.client.tls
        assert session.is_between_transactions
        assert [replies.LHLO_FIRST.wire[:-2]] == talk(b"MAIL FROM:<>\r\n")[0]

    @pytest.mark.parametrize("behind", [b"NOOP\r\n", b"N", b"\0"])
    def test_clear_text_behind_it(self, behind: bytes, talk: Talk) -> None:
        """
        What came in the clear is not read, and the connection ends (CVE-2011-0411).
        """
        said, events = talk(b"XTLS\r\n" + behind)

        assert ([replies.TOO_EARLY.wire[:-2]], []) == (said, events)
        assert talk.session.closed
