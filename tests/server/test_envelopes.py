"""
RCPTs and DATA that come in one packet are taken together: nobody may notice.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from attrs import evolve
from twisted.logger import LogEvent

from lmtpsvc import replies
from lmtpsvc.envelope import Mailbox
from lmtpsvc.limits import Limits
from lmtpsvc.replies import Reply
from lmtpsvc.session.events import Asked, EnvelopeOffered, RecipientOffered
from lmtpsvc.session.extensions import Extension, Extensions
from lmtpsvc.session.server import ServerSession
from lmtpsvc.session.standard import standard_extensions
from lmtpsvc.wire.commands import CommandError

from ..rows import each_row

MAIL = b"MAIL FROM:<ann@example.net>\r\n"
TEXT = b"Subject: x\r\n\r\n..Hi\r\n.\r\n"


def to(*names: str) -> bytes:
    return b"".join(f"RCPT TO:<{name}@example.org>\r\n".encode() for name in names)


BOB, ALL = to("quickbob"), to("quickbob", "quickcarl", "quickdora")

#: What a client says, packet by packet.  Behind each, ``late...`` is looked up and all is delivered.
TALKS: dict[str, Sequence[bytes]] = {
    "one": [MAIL + BOB + b"DATA\r\n", TEXT],
    "three": [MAIL + ALL + b"DATA\r\n", TEXT],
    "MAIL alone": [MAIL, ALL + b"DATA\r\n", TEXT],
    "twice the same": [MAIL + BOB + BOB + b"DATA\r\n", TEXT],
    "two messages": [MAIL + BOB + b"DATA\r\n", TEXT + MAIL + ALL + b"DATA\r\n", TEXT],
    "text in pieces": [MAIL + ALL + b"DATA\r\n", TEXT[:20], TEXT[20:-4], TEXT[-4:-1], TEXT[-1:]],
    "text as well": [MAIL + BOB + b"DATA\r\n" + TEXT],
    "unknown": [MAIL + to("no", "quickbob") + b"DATA\r\n", TEXT],
    "unknown in the middle": [MAIL + to("quickbob", "no", "quickcarl") + b"DATA\r\n", TEXT],
    "unknown at the end": [MAIL + to("quickbob", "quickcarl", "no") + b"DATA\r\n", TEXT],
    "all unknown": [MAIL + to("no", "nobody") + b"DATA\r\n", b"RSET\r\n"],
    "late": [MAIL + to("late") + b"DATA\r\n", TEXT],
    "late among others": [MAIL + to("quickbob", "late1", "no", "late2") + b"DATA\r\n", TEXT],
    "slow to store": [MAIL + to("carl", "quickbob", "dora") + b"DATA\r\n", TEXT],
    "size": [MAIL[:-2] + b" SIZE=40\r\n" + BOB + b"DATA\r\n", TEXT],
    "size and body": [MAIL[:-2] + b" SIZE=40 BODY=8BITMIME\r\n" + ALL + b"DATA\r\n", TEXT],
    "body": [MAIL[:-2] + b" BODY=7BIT\r\n" + BOB + b"DATA\r\n", TEXT],
    "size, no sender": [b"MAIL FROM:<> SIZE=40\r\n" + BOB + b"DATA\r\n", TEXT],
    "size, twice": [
        MAIL[:-2] + b" SIZE=9\r\n" + BOB + b"DATA\r\n",
        TEXT + MAIL + BOB + b"DATA\r\n",
    ],
    "size, in other words": [MAIL[:-2] + b" body=8bitmime  Size=40 \r\n" + BOB + b"DATA\r\n", TEXT],
    "as large as may be": [MAIL[:-2] + b" SIZE=4000\r\n" + BOB + b"DATA\r\n", TEXT],
    "larger than may be": [MAIL[:-2] + b" SIZE=4001\r\n" + BOB + b"DATA\r\n", b"NOOP\r\n"],
    "larger than numbers": [MAIL[:-2] + b" SIZE=" + b"9" * 21 + b"\r\n" + BOB + b"DATA\r\n"],
    "no size": [MAIL[:-2] + b" SIZE=\r\n" + BOB + b"DATA\r\n", b"NOOP\r\n"],
    "size again": [MAIL[:-2] + b" SIZE=1 SIZE=2\r\n" + BOB + b"DATA\r\n", b"NOOP\r\n"],
    "unknown body": [MAIL[:-2] + b" BODY=9BIT\r\n" + BOB + b"DATA\r\n", b"NOOP\r\n"],
    "no address but a size": [b"MAIL FROM:<ann@> SIZE=4\r\n" + BOB + b"DATA\r\n", b"NOOP\r\n"],
    "size within quotes": [b'MAIL FROM:<"> SIZE=9"@example.net>\r\n' + BOB + b"DATA\r\n", TEXT],
    "size for a stranger": [MAIL[:-2] + b" SIZE=40\r\n" + to("no", "quickbob") + b"DATA\r\n", TEXT],
    "size for nobody": [MAIL[:-2] + b" SIZE=40\r\nDATA\r\n", b"RSET\r\n"],
    "size behind RSET": [b"RSET\r\n" + MAIL[:-2] + b" SIZE=40\r\n" + BOB + b"DATA\r\n", TEXT],
    "binary": [MAIL[:-2] + b" BODY=BINARYMIME\r\n" + BOB + b"DATA\r\n", b"RSET\r\n"],
    "null sender": [b"MAIL FROM:<>\r\n" + BOB + b"DATA\r\n", TEXT],
    "refused MAIL": [b"MAIL FROM:ann\r\n" + BOB + b"DATA\r\n", b"NOOP\r\n"],
    "other cases": [MAIL + BOB.lower() + b"rcpt  to:<X@y.example>\r\nDATA\r\n", TEXT],
    "data": [MAIL + BOB + b"data\r\n", TEXT],
    "a space": [MAIL + b"RCPT TO: <quickbob@example.org> \r\nDATA \r\n", TEXT],
    "an argument": [MAIL + BOB + b"DATA x\r\n", b"DATA\r\n", TEXT],
    "no recipient": [MAIL + b"DATA\r\n", b"RSET\r\n"],
    "no recipient behind others": [b"RSET\r\n" + MAIL + b"DATA\r\n", b"NOOP\r\n"],
    "an empty line": [MAIL + b"\r\n" + BOB + b"DATA\r\n", TEXT],
    "nothing but a line end": [MAIL, b"\r\nDATA\r\n", b"RSET\r\n"],
    "bare LF": [MAIL + BOB + b"RCPT TO:<x@example.org>\nRCPT TO:<y@z>\r\nDATA\r\n", TEXT],
    "bare CR": [MAIL + BOB + b"RCPT TO:<x@exa\rmple.org>\r\nDATA\r\n", TEXT],
    "NUL": [MAIL + BOB + b"RCPT TO:<x@exa\0mple.org>\r\nDATA\r\n", TEXT],
    "no address": [MAIL + BOB + b"RCPT TO:<x@@y>\r\nDATA\r\n", TEXT],
    "utf8": [MAIL + BOB + "RCPT TO:<jörg@example.org>\r\n".encode() + b"DATA\r\n", TEXT],
    "utf8 asked for": [
        MAIL[:-2] + b" SMTPUTF8\r\n" + "RCPT TO:<quickjörg@example.org>\r\n".encode() + b"DATA\r\n",
        TEXT,
    ],
    "a parameter": [MAIL + BOB + b"RCPT TO:<x@example.org> NOTIFY=NEVER\r\nDATA\r\n", TEXT],
    "another verb": [MAIL + BOB + b"NOOP\r\n" + BOB + b"DATA\r\n", TEXT],
    "RSET": [MAIL + BOB + b"RSET\r\n" + MAIL + BOB + b"DATA\r\n", TEXT],
    "RSET behind a late one": [MAIL + to("late1") + b"RSET\r\n" + MAIL + BOB + b"DATA\r\n", TEXT],
    "MAIL again": [MAIL + MAIL + BOB + b"DATA\r\n", TEXT],
    "postmaster": [MAIL + b"RCPT TO:<Postmaster>\r\nDATA\r\n", TEXT],
    "a long address": [MAIL + to("quick" + "x" * 59, "y" * 65) + b"DATA\r\n", TEXT],
    "a long domain": [MAIL + b"RCPT TO:<x@" + b"y." * 70 + b"z>\r\nDATA\r\n", TEXT],
    "too many": [MAIL + to(*(f"quick{n}" for n in range(8))) + b"DATA\r\n", TEXT],
    "as many as there may be": [MAIL + to(*(f"quick{n}" for n in range(7))) + b"DATA\r\n", TEXT],
    "too large": [MAIL + ALL + b"DATA\r\n", b"x" * 5000 + b"\r\n", b".\r\n", b"NOOP\r\n"],
    "a chunk": [MAIL + BOB, b"BDAT 4 LAST\r\nHi\r\n"],
    "a refused chunk": [MAIL + ALL + b"BDAT x\r\n", b"NOOP\r\n"],
    "QUIT behind it": [MAIL + BOB + b"DATA\r\n", TEXT + b"QUIT\r\n"],
}

LIMITS = Limits(recipients=7, message_size=4000, spool_memory=1000)


class Held:
    """
    What a talk comes to, with *take_envelopes* or without it.
    """

    def __init__(
        self, make_server: Callable[..., Any], world: Any, logged: list[LogEvent], *, together: bool
    ) -> None:
        self._world, self._logged = world, logged
        self._wire = make_server(LIMITS).connect()
        self.session = self._wire.protocol._session
        self.session._takes_envelopes &= together
        # LHLO has been said.
        self.session._may_be_together &= together
        self.asked: list[str] = []
        resolve = world.resolve

        def asked(mailbox: Mailbox) -> Any:
            self.asked.append(str(mailbox))
            return resolve(mailbox)

        world.resolve = asked
        logged.clear()

    def says(self, packets: Sequence[bytes]) -> tuple[object, ...]:
        world, heard = self._world, []
        for packet in packets:
            heard.append(self._wire.says(packet))
            while world.lookups or world.held:
                for waiting in (world.lookups, world.held):
                    while waiting:
                        waiting.pop(max(waiting)).callback(None)
                heard.append(self._wire.heard())
        states = (self.session.state, self.session.has_said_mail, self.session._errors)
        lines = [_known(event.get("line", "")) for event in self._logged]
        envelopes = [message.envelope for message in world.messages]
        names = [(each.sender, *map(str, each.recipients)) for each in envelopes]
        answers = [[_known(line.decode()) for line in lines] for lines in heard]
        return answers, states, lines, names, world.texts(), self.asked


def _known(said: str) -> str:
    return re.sub(r"\b[0-9a-f]{16}\b", "ID", said)


def spy(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Any]:
    """
    What the method *name* of sessions returns from now on.
    """
    returned: list[Any] = []
    method = getattr(ServerSession, name)

    def spied(session: ServerSession) -> Any:
        returned.append(method(session))
        return returned[-1]

    monkeypatch.setattr(ServerSession, name, spied)
    return returned


class TestTogether:
    """
    The short way is the long one, but shorter.
    """

    @pytest.fixture
    def ways(
        self,
        tmp_path: Any,
        world: Any,
        logged: Any,
        server: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> Callable[[Sequence[bytes]], list[object]]:
        """
        ``ways(packets)``: what a talk comes to in both ways.
        """
        # Messages have the time in them, in seconds.
        monkeypatch.setattr("lmtpsvc.delivery.agent.time.time", lambda: 1_000_000_000.0)
        make = type(server)
        worlds = world, type(world)()

        def ways(packets: Sequence[bytes]) -> list[object]:
            return [
                Held(
                    lambda limits, its=its: make(tmp_path / "spool", its, limits),
                    its,
                    logged,
                    together=its is world,
                ).says(packets)
                for its in worlds
            ]

        return ways

    @pytest.mark.parametrize("packets", TALKS.values(), ids=TALKS)
    def test_no_difference(
        self, packets: Sequence[bytes], ways: Callable[[Sequence[bytes]], list[object]]
    ) -> None:
        """
        Replies in each packet, what is looked up and in which order, what is logged and delivered,
        and the state behind it are the same.
        """
        short, long = ways(packets)

        assert short == long

    @pytest.mark.parametrize("seed", range(60))
    def test_no_difference_by_chance(
        self, seed: int, ways: Callable[[Sequence[bytes]], list[object]]
    ) -> None:
        """
        So they are whatever comes behind whatever, and wherever it is cut.
        """
        dice = random.Random(seed)
        lines = b"".join(b"".join(talk) for talk in dice.choices([*TALKS.values()], k=3))
        cuts = sorted(dice.choices(range(len(lines)), k=dice.randrange(4)))
        if dice.random() < 0.8:
            # As clients do.
            cuts = [lines.rfind(b"\n", 0, cut) + 1 for cut in cuts]
        packets = [lines[i:j] for i, j in pairwise([0, *cuts, len(lines)]) if i < j]
        short, long = ways(packets)

        assert short == long

    @pytest.mark.parametrize(
        "parameters", [b"", b" SIZE=40", b" BODY=7BIT", b" SIZE=4 BODY=8BITMIME"]
    )
    def test_common_case(
        self, parameters: bytes, server: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        A usual client is answered the short way.
        """
        offered = spy(monkeypatch, "next_event")
        commands = spy(monkeypatch, "_take_command")
        wire = server.connect()
        commands.clear()

        wire.says(MAIL[:-2] + parameters + b"\r\n" + ALL + b"DATA\r\n")

        assert [] == commands
        (envelope,) = [each for each in offered if each is not None]
        assert isinstance(envelope, EnvelopeOffered)
        assert 3 == len(envelope.recipients)

    @pytest.mark.parametrize(
        ("packets", "attempts"),
        [
            ([MAIL, to("no"), to("no"), to("no") + b"DATA\r\n"], 0),
            ([MAIL[:-2] + b" SIZE=4\r\n" + to("no") * 50 + b"DATA\r\n"], 1),
            ([MAIL[:-2] + b" SIZE=9999999999\r\n" + to("no") * 50 + b"DATA\r\n"], 0),
            ([MAIL + to("no") + to("no") * 50 + b"DATA\r\n"], 1),
            ([MAIL + to("no") + b"RCPT TO:<no@x> X\r\n" * 50 + b"DATA\r\n"], 1),
            ([MAIL + b"RSET\r\n" * 50 + b"DATA\r\n"], 1),
            ([b"RSET\r\n" * 50 + b"DATA\r\n"], 0),
            ([MAIL + to("quickbob") * 400 + b"DATA\r\n" + TEXT + MAIL], 0),
        ],
    )
    def test_one_attempt(
        self,
        packets: Sequence[bytes],
        attempts: int,
        server: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """
        Who sends RCPTs apart, or any that are not usual, pays for one attempt, not for one each.
        """
        made = []

        def attempt(lines: Sequence[bytes]) -> None:
            made.append(lines)

        monkeypatch.setattr("lmtpsvc.session.envelopes.plain_recipients", attempt)
        wire = server.connect()

        wire.says(*packets)

        assert attempts == len(made)


class _Objects(Extension):
    """
    *objects* when it is asked about a MAIL that is not plain, and keeps quiet about all others.
    """

    keyword = "XOBJECTS"
    checks_plain = False

    def __init__(self, objects: Callable[[ServerSession], object]) -> None:
        self._objects = objects

    def check_sender(self, session: ServerSession, sender: Any) -> None:
        if sender.parameters:
            self._objects(session)


def _refuses(_session: ServerSession) -> None:
    raise CommandError(replies.TOO_LARGE)


class _Says(_Objects):
    def change_sender(self, session: ServerSession, sender: Any) -> Any:
        return evolve(sender, parameters={**sender.parameters, "X": 1}), Reply(250, "So be it")


@each_row(
    "extension",
    [
        _Objects(_refuses),
        _Objects(lambda session: session.refuse(replies.SYNTAX)),
        _Objects(lambda session: session.ask(lambda _: None, lambda _: None)),
        _Objects(lambda session: session.read_line(lambda _: None, 100)),
        _Objects(lambda session: session.end(replies.SHUTTING_DOWN)),
        _Says(lambda _: None),
    ],
    ids=["refuses", "answers", "asks", "reads a line", "ends it", "says something else"],
)
@each_row("errors", [1, 20])
def test_extensions_and_sizes(extension: Extension, errors: int) -> None:
    """
    What an extension has to say to a SIZE is heard, asked for once, and changes what comes next as ever.
    """
    ways = []
    limits = Limits(errors=errors)
    for together in (True, False):
        session = ServerSession("mx.example", limits, standard_extensions(limits, [extension]))
        if together:
            session.take_envelopes()
            assert session._takes_envelopes
        session.receive(b"LHLO c.example\r\n")
        assert session.next_event() is None
        session.receive(MAIL[:-2] + b" SIZE=40\r\n" + BOB + b"DATA\r\n")
        events = []
        while (event := session.next_event()) is not None:
            if isinstance(event, EnvelopeOffered):
                for offer in session.take_apart(event):
                    session.answer_recipient(offer, replies.RECIPIENT_OK)
            elif isinstance(event, RecipientOffered):
                session.answer_recipient(event, replies.RECIPIENT_OK)
            elif isinstance(event, Asked):
                events.append(session.data_to_send())
                session.answer_asked(event, None)
        said = session.data_to_send()
        ways.append((events, said, session.state, session._errors, session._sender))

    assert ways[0] == ways[1]


class _Plain(Extension):
    keyword = "XPLAIN"


class _Looks(Extension):
    keyword = "XLOOKS"

    def check_recipient(self, session: ServerSession, sender: Any, recipient: Any) -> None: ...


class _LooksElsewhere(_Looks):
    checks_plain = False


class _LooksAgain(_LooksElsewhere):
    def check_sender(self, session: ServerSession, sender: Any) -> None: ...


class _Takes(Extension):
    keyword = "XTAKES"

    def __init__(self) -> None:
        self.verbs = {b"RCPT": lambda _session, _argument: None}


class _Waits(Extension):
    keyword = "XWAITS"
    barriers = frozenset({b"RCPT"})


@pytest.mark.parametrize(
    ("extension", "is_open"),
    [
        (_Plain(), True),
        (_LooksElsewhere(), True),
        (_Looks(), False),
        # It has not said that of its own look.
        (_LooksAgain(), False),
        (_Takes(), False),
        (_Waits(), False),
    ],
)
def test_extensions(extension: Extension, *, is_open: bool) -> None:
    """
    The short way is closed where an extension wants to see each RCPT.
    """
    assert is_open is Extensions([extension]).passes_plain
