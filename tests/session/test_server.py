"""
Whole conversations, without any I/O.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis.strategies import binary, integers, lists, one_of, sampled_from, sets

from lmtpsvc import replies
from lmtpsvc.limits import Limits
from lmtpsvc.replies import MultilineReply, Reply
from lmtpsvc.session.conversation import MAX_OUTSTANDING
from lmtpsvc.session.events import RecipientOffered
from lmtpsvc.session.extensions import Extensions
from lmtpsvc.session.help import help_on
from lmtpsvc.session.server import ServerSession
from lmtpsvc.session.states import State

from ..rows import each_row

HELLO: list[Reply | MultilineReply] = [
    replies.greeting("foo.edu"),
    MultilineReply(
        250,
        (
            *("foo.edu", "PIPELINING", "ENHANCEDSTATUSCODES", "8BITMIME", "CHUNKING"),
            *("SIZE 1000", "SMTPUTF8", "LIMITS RCPTMAX=3", "DELIVERBY", "MT-PRIORITY"),
        ),
    ),
]
SMALL = Limits(message_size=1000, recipients=3, errors=5, command_line=100)

OK, SENDER, RCPT, TEXT = (
    replies.OK,
    replies.SENDER_OK,
    replies.RECIPIENT_OK,
    replies.START_TEXT,
)
BYE = replies.goodbye("foo.edu")


def stored(name: str) -> Reply:
    return replies.delivered("t1", f"{name}@foo.edu")


def full(name: str) -> Reply:
    return Reply(452, f"<{name}@foo.edu> is temporarily over quota", (2, 2))


@frozen
class Talk:
    """
    What a client says after LHLO, and what it is to hear.
    """

    octets: bytes
    heard: list[Reply | MultilineReply]


def to(*names: str) -> bytes:
    return b"".join(f"RCPT TO:<{name}@foo.edu>\r\n".encode() for name in names)


MAIL = b"MAIL FROM:<chris@bar.com>\r\n"

TALKS = {
    "a message": Talk(
        MAIL + to("pat") + b"DATA\r\nHi\r\n.\r\nQUIT\r\n",
        [SENDER, RCPT, TEXT, stored("pat"), BYE],
    ),
    "two messages": Talk(
        (MAIL + to("pat", "full") + b"DATA\r\n..\r\n.\r\n") * 2 + b"QUIT\r\n",
        [*[SENDER, RCPT, RCPT, TEXT, stored("pat"), full("full")] * 2, BYE],
    ),
    "the same recipient twice": Talk(
        MAIL + to("pat", "pat") + b"DATA\r\nHi\r\n.\r\n",
        [SENDER, RCPT, RCPT, TEXT, stored("pat"), stored("pat")],
    ),
    "refused recipients get no reply after the text": Talk(
        MAIL + to("no1", "pat", "no2", "green", "no3") + b"DATA\r\nHi\r\n.\r\n",
        [
            *[SENDER, replies.NO_SUCH_USER, RCPT, replies.NO_SUCH_USER, RCPT],
            *[replies.NO_SUCH_USER, TEXT, stored("pat"), stored("green")],
        ],
    ),
    "nobody accepted": Talk(
        MAIL + to("no1", "no2") + b"DATA\r\nRSET\r\nQUIT\r\n",
        [SENDER, *[replies.NO_SUCH_USER] * 2, replies.NO_RECIPIENTS, OK, BYE],
    ),
    "nobody accepted, in the end": Talk(
        MAIL + to("late-no1", "late-no2") + b"DATA\r\nQUIT\r\n",
        [SENDER, *[replies.NO_SUCH_USER] * 2, replies.NO_RECIPIENTS, BYE],
    ),
    "RSET in the middle": Talk(
        MAIL + to("pat") + b"RSET\r\n" + MAIL + to("green") + b"DATA\r\nHi\r\n.\r\n",
        [SENDER, RCPT, OK, SENDER, RCPT, TEXT, stored("green")],
    ),
    "answers that come after RSET": Talk(
        MAIL + to("late1", "late-no") + b"RSET\r\n" + MAIL + to("pat", "late2") + b"DATA\r\n"
        b"Hi\r\n.\r\n",
        [
            *[SENDER, RCPT, replies.NO_SUCH_USER, OK],
            *[SENDER, RCPT, RCPT, TEXT, stored("pat"), stored("late2")],
        ],
    ),
    "nothing but answers from before RSET": Talk(
        MAIL + to("late1") + b"RSET\r\n" + MAIL + b"DATA\r\nRCPT TO:<x@foo.edu>\r\n",
        [SENDER, RCPT, OK, SENDER, replies.NO_RECIPIENTS, RCPT],
    ),
    "LHLO again": Talk(
        MAIL + to("late1") + b"LHLO b\r\nDATA\r\n" + MAIL,
        [SENDER, RCPT, HELLO[1], replies.MAIL_FIRST, SENDER],
    ),
    "DATA waits": Talk(
        MAIL + to("late1", "pat", "late2") + b"DATA\r\n.\r\nNOOP\r\n",
        [SENDER, RCPT, RCPT, RCPT, TEXT, *map(stored, ("late1", "pat", "late2")), OK],
    ),
    "the next message waits": Talk(
        MAIL
        + to("slow1", "pat", "slow2")
        + b"DATA\r\nA\r\n.\r\n"
        + MAIL
        + to("late1")
        + b"DATA\r\n"
        b"B\r\n.\r\nQUIT\r\n",
        [
            *[SENDER, RCPT, RCPT, RCPT, TEXT, *map(stored, ("slow1", "pat", "slow2"))],
            *[SENDER, RCPT, TEXT, stored("late1"), BYE],
        ],
    ),
    "QUIT before the answers": Talk(
        MAIL + to("late1", "late-no") + b"QUIT\r\nNOOP\r\n" + MAIL,
        [SENDER, RCPT, replies.NO_SUCH_USER, BYE],
    ),
    "out of order": Talk(
        to("pat") + b"DATA\r\n" + MAIL + MAIL + b"DATA\r\n" + b"QUIT\r\n",
        [
            *[replies.MAIL_FIRST, replies.MAIL_FIRST, SENDER],
            *[replies.NESTED_MAIL, replies.NO_RECIPIENTS, BYE],
        ],
    ),
    "small talk": Talk(
        b"NOOP\r\nnoop x\r\nHelp\r\nVRFY pat\r\nVRFY\r\nRSET\r\nRSET x\r\nQUIT x\r\nQUIT\r\n",
        [
            *(OK, OK, help_on(b"", {b"BDAT": ""}), replies.CANNOT_VERIFY, replies.SYNTAX, OK),
            *(replies.NO_PARAMETERS, replies.NO_PARAMETERS, BYE),
        ],
    ),
    "HELO and EHLO": Talk(
        b"HELO a\r\nEHLO a\r\nehlo\r\n" + MAIL,
        [*[replies.SAY_LHLO] * 3, SENDER],
    ),
    "a bad LHLO keeps the transaction": Talk(
        MAIL + to("pat") + b"LHLO\r\nLHLO (a)\r\nDATA\r\n.\r\n",
        [SENDER, RCPT, replies.BAD_HELLO, replies.BAD_HELLO, TEXT, stored("pat")],
    ),
    "DATA with a word": Talk(
        MAIL + to("pat") + b"DATA x\r\nDATA\r\n.\r\n",
        [SENDER, RCPT, replies.NO_PARAMETERS, TEXT, stored("pat")],
    ),
    "addresses that are none": Talk(
        b"MAIL FROM:chris\r\nMAIL FROM:<@>\r\nMAIL <a@b>\r\n" + MAIL + b"RCPT TO:<pat@>\r\n",
        [
            *[replies.BAD_MAIL, replies.BAD_SENDER, replies.BAD_MAIL],
            *[SENDER, replies.BAD_RECIPIENT],
        ],
    ),
    "as large as may be": Talk(
        MAIL + to("pat") + b"DATA\r\n" + b"x" * 998 + b"\r\n.\r\n",
        [SENDER, RCPT, TEXT, stored("pat")],
    ),
    "too large": Talk(
        MAIL + to("pat", "no", "green") + b"DATA\r\n" + b"x" * 999 + b"\r\n.\r\n" + MAIL,
        [
            *[SENDER, RCPT, replies.NO_SUCH_USER, RCPT, TEXT],
            *[replies.TOO_LARGE, replies.TOO_LARGE, SENDER],
        ],
    ),
    "said to be too large": Talk(
        b"MAIL FROM:<> SIZE=1001\r\nMAIL FROM:<> SIZE=1000\r\n" + to("pat"),
        [replies.TOO_LARGE, SENDER, RCPT],
    ),
    "parameters": Talk(
        b"MAIL FROM:<> BODY=8BITMIME SIZE=10 SMTPUTF8\r\nRCPT TO:<j\xc3\xb6rg@foo.edu>\r\n"
        b"RSET\r\nMAIL FROM:<> RET=FULL\r\nMAIL FROM:<> SIZE=1 SIZE=1\r\nMAIL FROM:<>\r\n"
        b"RCPT TO:<a@b> NOTIFY=NEVER\r\nRCPT TO:<j\xc3\xb6rg@foo.edu>\r\n",
        [
            *[SENDER, RCPT, OK, replies.UNKNOWN_PARAMETER, replies.REPEATED_PARAMETER],
            *[SENDER, replies.UNKNOWN_PARAMETER, replies.NEED_UTF8],
        ],
    ),
    "a long line": Talk(
        b"NOOP " + b"x" * 93 + b"\r\nNOOP " + b"x" * 94 + b"\r\n" + b"\0" * 5000 + b"\r\nNOOP\r\n",
        [OK, replies.LINE_TOO_LONG, replies.LINE_TOO_LONG, OK],
    ),
    "lines that end wrongly": Talk(
        b"NOOP\nNOOP\r\nNOOP\rNOOP\r\nNO\0OP\r\n\nNOOP\r\n",
        [
            *[replies.LINE_ENDING, OK, replies.LINE_ENDING, replies.LINE_ENDING],
            *[replies.LINE_ENDING, OK],
        ],
    ),
    "too many errors": Talk(
        b"\r\nX\r\nMAIL\r\nNOOP\r\nHELO\r\nDATA\r\n" + MAIL,
        [
            *[replies.UNKNOWN_COMMAND, replies.UNKNOWN_COMMAND, replies.BAD_MAIL, OK],
            *[replies.SAY_LHLO, replies.MAIL_FIRST, replies.TOO_MANY_ERRORS],
        ],
    ),
    "unknown recipients are no errors": Talk(
        MAIL + to(*["no"] * 9) + to("pat") + b"DATA\r\n.\r\n",
        [SENDER, *[replies.NO_SUCH_USER] * 9, RCPT, TEXT, stored("pat")],
    ),
    "too many recipients": Talk(
        MAIL + to("a", "no", "b", "late", "c", "d") + b"DATA\r\n.\r\n",
        [
            *[SENDER, RCPT, replies.NO_SUCH_USER, RCPT, RCPT, *[replies.TOO_MANY_RECIPIENTS] * 2],
            *[TEXT, *map(stored, ("a", "b", "late"))],
        ],
    ),
    "too many recipients are no errors": Talk(
        MAIL + to(*"abcdefghij") + b"DATA\r\n.\r\n",
        [SENDER, *[RCPT] * 3, *[replies.TOO_MANY_RECIPIENTS] * 7, TEXT, *map(stored, "abc")],
    ),
    "a text that never ends": Talk(
        MAIL + to("pat") + b"DATA\r\nQUIT\r\nQUIT\n.\nQUIT\r\n",
        [SENDER, RCPT, TEXT],
    ),
}


def cut(octets: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(place for place in places if 0 < place < len(octets)), len(octets)]
    return [octets[start:end] for start, end in pairwise(edges)]


def single(octets: bytes) -> list[bytes]:
    return cut(octets, range(len(octets)))


@pytest.fixture(scope="module")
def play(application: Any) -> Callable[..., Any]:
    """
    Play a talk in packets, then answer what is held; tells what each side has come to know.
    """

    def play(
        chunks: Iterable[bytes], pick: Callable[[int], int] = lambda _count: 0
    ) -> tuple[list[tuple[object, ...]], bytes]:
        played = application(SMALL)
        played.feed([b"LHLO a\r\n"])
        played.feed(chunks)
        played.settle(pick)
        return played.told, played.sent

    return play


class TestTalks:
    """
    What is said, and what is answered.
    """

    @each_row("talk", TALKS.values(), ids=TALKS)
    def test_whole(self, talk: Talk, play: Callable[..., Any]) -> None:
        """
        All that is pipelined in one packet is answered in order.
        """
        _, sent = play([talk.octets])

        assert [reply.wire for reply in [*HELLO, *talk.heard]] == complete_replies(sent)

    @each_row("talk", TALKS.values(), ids=TALKS)
    def test_octet_by_octet(self, talk: Talk, play: Callable[..., Any]) -> None:
        """
        It is no different if every octet is a packet of its own.
        """
        assert play([talk.octets]) == play(single(talk.octets))

    @given(
        talk=sampled_from(list(TALKS.values())),
        places=sets(integers(1, 300)),
        seed=integers(0, 7),
    )
    def test_any_cut_and_any_order(
        self, talk: Talk, places: set[int], seed: int, play: Callable[..., Any]
    ) -> None:
        """
        However TCP slices a conversation, and in whatever order answers come, the events and the
        replies are the same.
        """
        whole = play([talk.octets])

        assert whole == play(cut(talk.octets, places), lambda count: seed % count)


def complete_replies(sent: bytes) -> list[bytes]:
    """
    Part what the client gets into replies, which must be well formed (RFC 5321 §4.2).
    """
    assert re.fullmatch(rb"(?:[2-5]\d\d[- ][ -~]*\r\n)*", sent)
    found = re.findall(rb"(?:\d\d\d-[^\r]*\r\n)*\d\d\d [^\r]*\r\n", sent)
    assert sent == b"".join(found)
    for reply in found:
        for line in reply.splitlines():
            status = re.match(rb"(\d)\d\d[- ](\d)\.\d+\.\d+ ", line)
            # RFC 2034 §4: all but the greeting, the answer to LHLO and 3yz.
            assert status is None or status[1] == status[2]
            assert status is not None or re.match(rb"220|250[- ]|354", line)
    return found


class TestRFC2033:
    """
    The example of RFC 2033 §4.2.
    """

    # The order is the RFC's, the words are ours.
    EXAMPLE = """
        S: 220 foo.edu LMTP lmtpsvc ready
        C: LHLO foo.edu
        S: 250-foo.edu
        S: 250-PIPELINING
        S: 250-ENHANCEDSTATUSCODES
        S: 250-8BITMIME
        S: 250-CHUNKING
        S: 250-SIZE 67108864
        S: 250-SMTPUTF8
        S: 250-LIMITS RCPTMAX=10000
        S: 250-DELIVERBY
        S: 250 MT-PRIORITY
        C: MAIL FROM:<chris@bar.com>
        S: 250 2.1.0 Sender OK
        C: RCPT TO:<pat@foo.edu>
        S: 250 2.1.5 Recipient OK
        C: RCPT TO:<nojones@foo.edu>
        S: 550 5.1.1 No such user
        C: RCPT TO:<fullgreen@foo.edu>
        S: 250 2.1.5 Recipient OK
        C: DATA
        S: 354 Start mail input; end with <CRLF>.<CRLF>
        C: Blah blah blah...
        C: ...etc. etc. etc.
        C: .
        S: 250 2.0.0 <pat@foo.edu> t1 Delivered
        S: 452 4.2.2 <fullgreen@foo.edu> is temporarily over quota
        C: QUIT
        S: 221 2.0.0 foo.edu closing connection
    """

    def test_example(self, application: Any) -> None:
        """
        Each line of the client is answered with the lines below it, and with no others.
        """
        lines = [line.strip() for line in self.EXAMPLE.strip().splitlines()]
        played = application()
        played.go_on()
        spoken: list[str] = []

        for line in lines:
            who, _, words = line.partition(": ")
            if who == "C":
                assert b"" == played.sent, line
                played.feed([f"{words}\r\n".encode()])
            else:
                head = f"{words}\r\n".encode()
                assert head == played.sent[: len(head)]
                played.sent = played.sent[len(head) :]
            spoken.append(line)

        assert (lines, b"") == (spoken, played.sent)
        assert played.session.closed


class TestOrder:
    """
    When something is answered, and when something has to wait.
    """

    def test_early(self, application: Any) -> None:
        """
        The first reply leaves while the second mailbox is busy; the third waits for it.
        """
        played = application()
        played.feed([b"LHLO a\r\n", MAIL, to("pat", "slow1", "green"), b"DATA\r\nHi\r\n.\r\n"])

        assert played.take_sent().endswith(TEXT.wire + stored("pat").wire)

        played.settle()
        assert stored("slow1").wire + stored("green").wire == played.take_sent()

    def test_order_is_kept(self, application: Any) -> None:
        """
        Whoever is done first does not overtake.
        """
        played = application()
        played.feed([b"LHLO a\r\n", MAIL, to("slow1", "slow2"), b"DATA\r\nHi\r\n.\r\n"])
        played.take_sent()

        played.held.pop()()
        played.go_on()
        assert b"" == played.take_sent()

        played.settle()
        assert stored("slow1").wire + stored("slow2").wire == played.take_sent()

    def test_rcpt_is_pipelined_in_front_of_lookups(self, application: Any) -> None:
        """
        All look-ups are under way at the same time: the second is not kept for the first.
        """
        played = application()
        played.feed([b"LHLO a\r\n" + MAIL + to("late1", "late2", "late3") + b"DATA\r\n"])

        assert 3 == len(played.held)
        assert played.take_sent().endswith(SENDER.wire)
        assert played.session.is_blocked
        assert played.session.has_unread

        played.settle()
        assert RCPT.wire * 3 + TEXT.wire == played.take_sent()
        assert not played.session.is_blocked

    def test_nothing_is_read_while_delivering(self, application: Any) -> None:
        """
        Commands that come during a delivery stay unread until each recipient has its reply.
        """
        played = application()
        played.feed([b"LHLO a\r\n", MAIL, to("slow1"), b"DATA\r\n.\r\n"])
        played.take_sent()
        assert played.session.is_blocked
        assert not played.session.has_unread

        played.feed([b"NO", b"OP\r\nQUIT\r\n"])
        assert played.session.has_unread
        assert b"" == played.take_sent()

        played.settle()
        assert stored("slow1").wire + OK.wire + BYE.wire == played.take_sent()

    def test_outstanding_replies_are_bounded(self, application: Any) -> None:
        """
        A client that pipelines for ever in front of a slow look-up is not read for ever.
        """
        played = application()
        played.feed([b"LHLO a\r\n", MAIL, to("late1")])
        played.take_sent()

        played.feed([b"NOOP\r\n" * (2 * MAX_OUTSTANDING)])
        assert played.session.is_blocked
        assert played.session.has_unread

        played.settle()
        assert RCPT.wire + OK.wire * (2 * MAX_OUTSTANDING) == played.take_sent()
        assert not played.session.is_blocked

    def test_lookups_are_bounded(self, application: Any) -> None:
        """
        Nor does it start more look-ups than that at a time; in the end each RCPT is answered.
        """
        played = application()
        played.feed([b"LHLO a\r\n", MAIL, to("late") * 3000])
        played.take_sent()
        assert MAX_OUTSTANDING == len(played.held)

        played.settle()
        assert RCPT.wire * 3000 == played.take_sent()


class TestLimits:
    """
    The limits with their defaults, each at its edge.
    """

    def test_errors(self, application: Any) -> None:
        """
        The twentieth error is answered, then comes 421, and nothing after it is heard.
        """
        played = application()
        played.go_on()
        played.take_sent()

        played.feed([b"X\r\n"] * 19)
        assert replies.UNKNOWN_COMMAND.wire * 19 == played.take_sent()
        assert not played.session.closed

        played.feed([b"X\r\nNOOP\r\n", b"NOOP\r\n"])
        assert replies.UNKNOWN_COMMAND.wire + replies.TOO_MANY_ERRORS.wire == played.take_sent()
        assert played.session.closed

    @pytest.mark.parametrize(
        ("length", "reply"),
        [(4096, OK), (4097, replies.LINE_TOO_LONG), (70_000, replies.LINE_TOO_LONG)],
    )
    def test_command_line(self, length: int, reply: Reply, application: Any) -> None:
        """
        A line may have 4,096 octets with its CRLF; a longer one is read to its end, and refused.
        """
        line = b"NOOP ".ljust(length - 2, b"x") + b"\r\n"
        for chunks in ([line + b"NOOP\r\n"], cut(line + b"NOOP\r\n", range(0, 80_000, 1000))):
            played = application()
            played.go_on()
            played.take_sent()

            played.feed(chunks)

            assert reply.wire + OK.wire == played.take_sent()

    def test_long_line_is_not_kept(self, application: Any) -> None:
        """
        A line without end costs no memory.
        """
        played = application()
        for _ in range(100):
            played.feed([b"x" * 60_000])
            assert len(played.session._buffer) <= 4096

    @pytest.mark.parametrize(("size", "fits"), [(1000, True), (1001, False)])
    def test_message_size(self, size: int, fits: bool, application: Any) -> None:
        """
        The announced size is what may come, dots unstuffed, and the connection outlives more.
        """
        text = b".." + b"x" * (size - 3) + b"\r\n"
        for chunks in ([text + b".\r\n"], single(text + b".\r\n")):
            played = application(SMALL)
            played.feed([b"LHLO a\r\n", MAIL, to("pat", "full"), b"DATA\r\n"])
            played.take_sent()

            played.feed(chunks)

            heard = stored("pat").wire + full("full").wire if fits else replies.TOO_LARGE.wire * 2
            assert heard == played.take_sent()
            assert ("complete",) if fits else ("discarded",) == played.told[-1]
            assert State.READY is played.session.state

    def test_recipients(self, application: Any) -> None:
        """
        Recipients beyond the limit are told to come again; those before it get their mail.
        """
        played = application()
        played.feed([b"LHLO a\r\n", MAIL, to("pat") * 10_030, b"DATA\r\nHi\r\n.\r\n"])

        heard = complete_replies(played.take_sent())[3:]

        assert [RCPT.wire] * 10_000 == heard[:10_000]
        assert [replies.TOO_MANY_RECIPIENTS.wire] * 30 == heard[10_000:10_030]
        assert [TEXT.wire, *[stored("pat").wire] * 10_000] == heard[10_030:]


class TestFarewells:
    """
    How the server ends a conversation of its own accord.
    """

    def test_refusing(self) -> None:
        """
        A conversation may end with its first line; what the client says is not heard.
        """
        session = ServerSession.refusing(replies.TOO_MANY_CONNECTIONS)

        session.receive(b"LHLO a\r\n")

        assert session.next_event() is None
        assert replies.TOO_MANY_CONNECTIONS.wire == session.data_to_send()
        assert session.closed

    @pytest.mark.parametrize("end", ["close", "finish"])
    def test_idle(self, end: str, application: Any) -> None:
        """
        A client that is in no transaction hears 421 at once.
        """
        played = application()
        played.feed([b"LHLO a\r\n", MAIL, to("pat"), b"DAT"])
        played.take_sent()

        getattr(played.session, end)(replies.SHUTTING_DOWN)
        played.feed([b"A\r\n"])

        assert replies.SHUTTING_DOWN.wire == played.take_sent()
        assert played.session.closed

    @pytest.mark.parametrize("end", ["close", "finish"])
    def test_while_looking_up(self, end: str, application: Any) -> None:
        """
        Questions that have been asked are answered before the 421.
        """
        played = application()
        played.feed([b"LHLO a\r\n", MAIL, to("late", "late-no"), b"DATA\r\n"])
        played.take_sent()

        getattr(played.session, end)(replies.SHUTTING_DOWN)
        played.go_on()
        assert b"" == played.take_sent()
        assert not played.session.closed

        played.settle()
        heard = RCPT.wire + replies.NO_SUCH_USER.wire + replies.SHUTTING_DOWN.wire
        assert heard == played.take_sent()
        assert played.session.closed

    @pytest.mark.parametrize("end", ["close", "finish"])
    def test_while_delivering(self, end: str, application: Any) -> None:
        """
        A message that is being delivered gets all its replies first.
        """
        played = application()
        played.feed([b"LHLO a\r\n", MAIL, to("slow1", "slow2"), b"DATA\r\n.\r\n" + MAIL])
        played.take_sent()

        getattr(played.session, end)(replies.SHUTTING_DOWN)
        played.go_on()
        assert b"" == played.take_sent()

        played.settle()
        heard = stored("slow1").wire + stored("slow2").wire + replies.SHUTTING_DOWN.wire
        assert heard == played.take_sent()
        assert played.session.closed

    def test_finish_lets_the_text_come(self, application: Any) -> None:
        """
        A text that has begun to come is waited for, and delivered.
        """
        played = application()
        played.feed([b"LHLO a\r\n", MAIL, to("pat"), b"DATA\r\nHi"])
        played.take_sent()

        played.session.finish(replies.SHUTTING_DOWN)
        played.go_on()
        assert b"" == played.take_sent()

        played.feed([b"\r\n.\r\n", MAIL])
        assert stored("pat").wire + replies.SHUTTING_DOWN.wire == played.take_sent()
        assert ("octets", b"Hi\r\n") in played.told

    def test_close_does_not(self, application: Any) -> None:
        """
        A text that stopped coming is dropped with the connection.
        """
        played = application()
        played.feed([b"LHLO a\r\n", MAIL, to("pat"), b"DATA\r\nHi"])
        played.take_sent()

        played.session.close(replies.IDLE_TOO_LONG)
        played.feed([b"\r\n.\r\n"])

        assert replies.IDLE_TOO_LONG.wire == played.take_sent()
        assert ("complete",) not in played.told

    def test_only_one_farewell(self, application: Any) -> None:
        """
        Whoever says goodbye first has the last word.
        """
        played = application()
        played.feed([b"LHLO a\r\n", MAIL, to("slow1"), b"DATA\r\n.\r\n"])
        played.take_sent()

        played.session.close(replies.IDLE_TOO_LONG)
        played.session.finish(replies.SHUTTING_DOWN)
        played.settle()
        played.session.close(replies.SHUTTING_DOWN)
        played.go_on()

        assert stored("slow1").wire + replies.IDLE_TOO_LONG.wire == played.take_sent()

    def test_quit_before_shutdown(self, application: Any) -> None:
        """
        A client that said QUIT hears 221, not 421.
        """
        played = application()
        played.feed([b"QUIT\r\n"])
        played.take_sent()

        played.session.finish(replies.SHUTTING_DOWN)
        played.go_on()

        assert b"" == played.take_sent()


# What some other server takes for the end of a text.
LOOK_ALIKES = [
    *[b"\n.\n", b"\n.\r", b"\r.\n", b"\r.\r", b"\n.\r\n", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r"],
    *[b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\n.\r\0\n"],
]


class TestSmuggling:
    """
    A second message hidden in the text of a first.
    """

    @each_row("false_end", LOOK_ALIKES)
    def test_look_alikes(self, false_end: bytes, play: Callable[..., Any]) -> None:
        """
        Nothing but CRLF.CRLF ends a text, whole or octet by octet: there is one message.
        """
        hidden = MAIL + to("eve") + b"DATA\r\nI am from your bank\r\n"
        talk = MAIL + to("pat") + b"DATA\r\nHi" + false_end + hidden + b".\r\n"

        for chunks in ([talk], single(talk)):
            told, sent = play(chunks)

            assert [SENDER.wire, RCPT.wire, TEXT.wire, stored("pat").wire] == complete_replies(
                sent
            )[2:]
            assert [("recipient", "pat@foo.edu")] == [
                each for each in told if each[0] == "recipient"
            ]
            assert hidden in told[-2][1]

    @given(octets=binary(min_size=1).filter(lambda octets: b"\r\n.\r\n" not in b"\r\n" + octets))
    def test_any_text(self, octets: bytes, application: Any) -> None:
        """
        Whatever octets come, none of them is taken for a command before the end.
        """
        played = application()
        played.feed([b"LHLO a\r\n", MAIL, to("pat"), b"DATA\r\n"])
        played.take_sent()

        played.feed([octets])

        assert b"" == played.take_sent()
        assert State.TEXT is played.session.state


FRAGMENTS = [
    *[b"LHLO a\r\n", b"HELO a\r\n", b"EHLO a\r\n", b"helo\r\n", b"MAIL FROM:<>\r\n", MAIL],
    *[b"MAIL FROM:<a@b> SIZE=9999999999\r\n", b"MAIL FROM:<j\xc3\xb6rg@b> SMTPUTF8\r\n"],
    *[to(name) for name in ("a", "no", "late1", "late-no", "slow1", "full", "pat")],
    *[b"RCPT TO:<\xff@b>\r\n", b"RCPT TO:<a@b> X\r\n", b"DATA\r\n", b"RSET\r\n", b"NOOP\r\n"],
    *[b"VRFY a\r\n", b"HELP\r\n", b"QUIT\r\n", b"STARTTLS\r\n"],
    *[b"\r\n.\r\n", b".\r\n", b"\r\n", b"\n", b"\r", b".", b" ", b"\0", b"DATA", b"RCPT TO:<"],
    *[b"\r\n.\n", b"x" * 150, b"Subject: x\r\n\r\n"],
    MAIL + to("a", "slow1", "late1") + b"DATA\r\n",
    MAIL + to("a", "full") + b"DATA\r\nHi\r\n.\r\n",
]


def check_final_replies(told: list[tuple[object, ...]], sent: bytes) -> None:
    """
    Behind each 354 stand the replies to the accepted recipients, and nobody else's.
    """
    heard = complete_replies(sent)
    final = [
        reply for reply in heard if re.match(rb"250 2\.0\.0.* t1 Delivered|452 4\.2\.2 ", reply)
    ]
    expected = []
    begun = iter(at for at, reply in enumerate(heard) if reply == TEXT.wire)
    accepted: tuple[str, ...] = ()
    for event in told:
        if event[0] == "text":
            assert isinstance(event[2], tuple)
            accepted, at = event[2], next(begun)
        elif event[0] == "complete":
            named = [
                (full if name.startswith("full") else stored)(name.removesuffix("@foo.edu")).wire
                for name in accepted
            ]
            assert named == heard[at + 1 : at + 1 + len(named)]
            expected += named
    assert expected == final


class TestNonsense:
    """
    Clients that speak no LMTP, or hardly any.
    """

    @given(
        pieces=lists(one_of(sampled_from(FRAGMENTS), binary(max_size=20)), max_size=40),
        places=sets(integers(1, 2000), max_size=20),
        seed=integers(0, 7),
    )
    def test_never_out_of_step(
        self, pieces: list[bytes], places: set[int], seed: int, application: Any
    ) -> None:
        """
        No octets raise an exception, all replies are well formed, and each accepted recipient of
        a complete message has exactly one.
        """
        played = application(Limits(message_size=1000, command_line=100, errors=15))

        played.feed([b"LHLO a\r\n", *cut(b"".join(pieces), places)])
        played.settle(lambda count: seed % count)

        check_final_replies(played.told, played.sent)

    @given(pieces=lists(one_of(sampled_from(FRAGMENTS), binary(max_size=20)), max_size=40))
    def test_cut_nonsense(self, pieces: list[bytes], application: Any) -> None:
        """
        Nonsense too means the same octet by octet.
        """
        talk = b"".join(pieces)
        limits = Limits(message_size=1000, command_line=100, errors=15)
        whole, slow = application(limits), application(limits)

        for played, chunks in ((whole, [talk]), (slow, single(talk))):
            played.feed([b"LHLO a\r\n", *chunks])
            played.settle()

        assert (whole.told, whole.sent) == (slow.told, slow.sent)

    @given(
        pieces=lists(sampled_from([piece for piece in FRAGMENTS if piece[-2:] == b"\r\n"])),
        hello=sampled_from([b"HELO", b"EHLO", b"helo", b"EhLo"]),
        name=sampled_from([b"", b" a", b" a.example", b" [192.0.2.1]", b" \xff", b"\t"]),
    )
    def test_helo_is_never_welcome(
        self, pieces: list[bytes], hello: bytes, name: bytes, application: Any
    ) -> None:
        """
        Wherever HELO or EHLO stands, it is answered 500 (RFC 2033 §4.1).
        """
        played = application(Limits(errors=1000))
        played.feed([b"RSET\r\n", *pieces])
        played.settle()
        if played.session.state in {State.TEXT, State.CLOSED}:
            return
        played.take_sent()

        played.feed([hello + name + b"\r\n"])

        assert b"500 5.5." == played.take_sent()[:8]


class TestApplication:
    """
    What a session promises to who uses it.
    """

    def test_late_answer_after_the_end(self) -> None:
        """
        A look-up that ends when the conversation has is no error.
        """
        session = ServerSession("mx", Limits(), Extensions([]))
        session.receive(b"LHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\n")
        offer = session.next_event()
        assert isinstance(offer, RecipientOffered)
        session.close(replies.IDLE_TOO_LONG)

        session.answer_recipient(offer, RCPT)

        assert session.data_to_send().endswith(RCPT.wire + replies.IDLE_TOO_LONG.wire)
        assert session.closed

    def test_answered_twice(self) -> None:
        """
        To answer one recipient twice is an error of the application, and said so.
        """
        session = ServerSession("mx", Limits(), Extensions([]))
        session.receive(b"LHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\n")
        offer = session.next_event()
        assert isinstance(offer, RecipientOffered)
        session.answer_recipient(offer, RCPT)

        with pytest.raises(RuntimeError, match="answered twice"):
            session.answer_recipient(offer, RCPT)

    def test_names_for_the_log(self) -> None:
        """
        Who speaks, and for whom, is known while it matters.
        """
        session = ServerSession("mx", Limits(), Extensions([]))
        assert ("", "") == (session.client.name, session.sender_name)

        session.receive(b"LHLO mx.example.net\r\n" + MAIL)
        session.next_event()
        assert ("mx.example.net", "chris@bar.com") == (session.client.name, session.sender_name)

        session.receive(b"RSET\r\n")
        session.next_event()
        assert "" == session.sender_name
