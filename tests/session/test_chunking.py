"""
BDAT: texts that come in counted pieces (RFC 3030, RFC 2033 §4.3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis.strategies import binary, builds, integers, lists, one_of, sampled_from, sets

from lmtpsvc import replies
from lmtpsvc.limits import Limits
from lmtpsvc.replies import MultilineReply, Reply
from lmtpsvc.session.connection import Connection, Terms
from lmtpsvc.session.server import ServerSession
from lmtpsvc.session.standard import standard_extensions
from lmtpsvc.session.states import State

from ..rows import each_row

SMALL = Limits(message_size=1000, recipients=3, errors=5, command_line=100)

OK, SENDER, RCPT, TEXT = (
    replies.OK,
    replies.SENDER_OK,
    replies.RECIPIENT_OK,
    replies.START_TEXT,
)
NO = replies.NO_SUCH_USER
REFUSED = replies.CHUNK_REFUSED
BYE = replies.goodbye("foo.edu")
MAIL = b"MAIL FROM:<chris@bar.com>\r\n"
EVIL = b"\r\n.\r\nRSET\r\nQUIT\r\n"


def stored(name: str) -> Reply:
    return replies.delivered("t1", f"{name}@foo.edu")


def full(name: str) -> Reply:
    return Reply(452, f"<{name}@foo.edu> is temporarily over quota", (2, 2))


def got(octets: int) -> Reply:
    return replies.chunk_received(octets)


def to(*names: str) -> bytes:
    return b"".join(f"RCPT TO:<{name}@foo.edu>\r\n".encode() for name in names)


def chunk(octets: bytes, word: str = "") -> bytes:
    return f"BDAT {len(octets)}{word}\r\n".encode() + octets


def last(octets: bytes) -> bytes:
    return chunk(octets, " LAST")


@frozen
class Talk:
    """
    What a client says after LHLO, what it is to hear, and the texts that are delivered.
    """

    octets: bytes
    heard: list[Reply | MultilineReply]
    texts: tuple[bytes, ...] = ()


TALKS = {
    "one chunk": Talk(
        MAIL + to("pat", "full") + last(b"Hi\r\n") + b"QUIT\r\n",
        [SENDER, RCPT, RCPT, stored("pat"), full("full"), BYE],
        (b"Hi\r\n",),
    ),
    "several chunks": Talk(
        MAIL + to("pat") + chunk(b"A") + chunk(b"") + chunk(b"\n.\r") + last(b"\nB") + b"NOOP\r\n",
        [SENDER, RCPT, got(1), got(0), got(3), stored("pat"), OK],
        (b"A\n.\r\nB",),
    ),
    "an empty last chunk": Talk(
        MAIL + to("pat") + chunk(b"\0.\r\n") + last(b""),
        [SENDER, RCPT, got(4), stored("pat")],
        (b"\0.\r\n",),
    ),
    "an empty message": Talk(MAIL + to("pat") + last(b""), [SENDER, RCPT, stored("pat")], (b"",)),
    "in any case, and with more white space": Talk(
        MAIL + to("pat") + b"bdat  002\r\nHibDaT 0 \t lasT \r\n",
        [SENDER, RCPT, got(2), stored("pat")],
        (b"Hi",),
    ),
    "commands in the text": Talk(
        MAIL + to("pat") + chunk(EVIL) + last(EVIL) + b"NOOP\r\n",
        [SENDER, RCPT, got(len(EVIL)), stored("pat"), OK],
        (EVIL * 2,),
    ),
    "the same recipient twice": Talk(
        MAIL + to("pat", "pat") + last(b"x"),
        [SENDER, RCPT, RCPT, stored("pat"), stored("pat")],
        (b"x",),
    ),
    "two messages, and DATA between": Talk(
        MAIL
        + to("pat")
        + last(b"A")
        + MAIL
        + to("pat")
        + b"DATA\r\nB\r\n.\r\n"
        + MAIL
        + to("pat")
        + last(b"C"),
        [
            SENDER,
            RCPT,
            stored("pat"),
            SENDER,
            RCPT,
            TEXT,
            stored("pat"),
            SENDER,
            RCPT,
            stored("pat"),
        ],
        (b"A", b"B\r\n", b"C"),
    ),
    "it waits for the answers": Talk(
        MAIL + to("late1", "late-no", "pat") + chunk(EVIL) + last(EVIL) + b"NOOP\r\n",
        [SENDER, RCPT, NO, RCPT, got(len(EVIL)), stored("late1"), stored("pat"), OK],
        (EVIL * 2,),
    ),
    "the next message waits": Talk(
        (MAIL + to("slow1", "pat") + last(b"x")) * 2,
        [SENDER, RCPT, RCPT, stored("slow1"), stored("pat")] * 2,
        (b"x", b"x"),
    ),
    "nobody accepted: LAST has no reply": Talk(
        MAIL + to("no") + last(EVIL) + b"NOOP\r\n" + MAIL,
        [SENDER, NO, OK, SENDER],
    ),
    "nobody accepted, in the end": Talk(
        MAIL + to("late-no1", "late-no2") + last(EVIL) + b"NOOP\r\n",
        [SENDER, NO, NO, OK],
    ),
    "nobody accepted: the others have one": Talk(
        MAIL + to("no") + chunk(EVIL) + chunk(EVIL) + last(EVIL) + b"NOOP\r\n",
        [SENDER, NO, replies.NO_RECIPIENTS, REFUSED, OK],
    ),
    "nobody came to be asked": Talk(MAIL + last(b"NOOP\r\n") + b"NOOP\r\n", [SENDER, OK]),
    "MAIL refused": Talk(
        b"MAIL FROM:<> SIZE=1001\r\n" + to("pat") + chunk(EVIL) + last(EVIL) + b"NOOP\r\n",
        [replies.TOO_LARGE, replies.MAIL_FIRST, replies.MAIL_FIRST, OK],
    ),
    "no MAIL": Talk(
        chunk(EVIL) + last(EVIL) + b"NOOP\r\n", [replies.MAIL_FIRST, replies.MAIL_FIRST, OK]
    ),
    "behind the last": Talk(
        MAIL + to("pat") + last(b"x") + last(EVIL) + chunk(EVIL) + MAIL,
        [SENDER, RCPT, stored("pat"), replies.MAIL_FIRST, replies.MAIL_FIRST, SENDER],
        (b"x",),
    ),
    "other commands between chunks": Talk(
        MAIL
        + to("pat")
        + chunk(b"x")
        + b"NOOP\r\nVRFY a\r\n"
        + MAIL
        + to("a")
        + b"DATA\r\n"
        # None of those has ended it.
        + last(b"y"),
        [
            SENDER,
            RCPT,
            got(1),
            OK,
            replies.CANNOT_VERIFY,
            replies.NESTED_MAIL,
            replies.CHUNKS_BEGUN,
            replies.CHUNKS_BEGUN,
            stored("pat"),
        ],
        (b"xy",),
    ),
    "RSET between chunks": Talk(
        MAIL + to("pat") + chunk(b"x") + b"RSET\r\n" + last(EVIL) + MAIL + to("a") + last(b"y"),
        [SENDER, RCPT, got(1), OK, replies.MAIL_FIRST, SENDER, RCPT, stored("a")],
        (b"y",),
    ),
    "LHLO between chunks": Talk(
        MAIL + to("pat") + chunk(b"x") + b"LHLO b\r\n" + MAIL,
        [SENDER, RCPT, got(1), MultilineReply(250, ("?",)), SENDER],
    ),
    "QUIT between chunks": Talk(
        MAIL + to("pat") + chunk(b"x") + b"QUIT\r\n" + last(b"y"), [SENDER, RCPT, got(1), BYE]
    ),
    "a wrong word": Talk(
        MAIL + to("pat", "full") + chunk(EVIL, " FIRST") + chunk(EVIL) + last(EVIL) + MAIL,
        [SENDER, RCPT, RCPT, replies.BAD_BDAT, REFUSED, *[replies.BAD_BDAT] * 2, SENDER],
    ),
    "a wrong word between chunks": Talk(
        MAIL + to("pat") + chunk(b"x") + chunk(EVIL, " LAST LAST") + last(EVIL) + MAIL,
        [SENDER, RCPT, got(1), replies.BAD_BDAT, replies.BAD_BDAT, SENDER],
    ),
    "as large as may be": Talk(
        MAIL + to("pat") + chunk(b"x" * 600) + last(b"x" * 400),
        [SENDER, RCPT, got(600), stored("pat")],
        (b"x" * 1000,),
    ),
    "a chunk too large": Talk(
        MAIL
        + to("pat", "no", "full")
        + chunk(b"x" * 600)
        + chunk(EVIL * 50)
        + chunk(EVIL)
        + last(EVIL)
        + MAIL,
        [
            SENDER,
            RCPT,
            NO,
            RCPT,
            got(600),
            replies.TOO_LARGE,
            REFUSED,
            replies.TOO_LARGE,
            replies.TOO_LARGE,
            SENDER,
        ],
    ),
    "the last chunk too large": Talk(
        MAIL + to("pat", "full") + chunk(b"x" * 600) + last(EVIL * 50) + MAIL,
        [SENDER, RCPT, RCPT, got(600), replies.TOO_LARGE, replies.TOO_LARGE, SENDER],
    ),
    "the only chunk too large": Talk(
        MAIL + to("pat") + last(EVIL * 100) + MAIL, [SENDER, RCPT, replies.TOO_LARGE, SENDER]
    ),
    "nothing but RSET behind a refusal": Talk(
        MAIL + to("pat") + chunk(EVIL * 100) + to("a") + b"DATA\r\n" + b"RSET\r\n" + MAIL,
        [SENDER, RCPT, replies.TOO_LARGE, REFUSED, REFUSED, OK, SENDER],
    ),
    "refused chunks in the pipeline are no errors": Talk(
        MAIL + to("pat") + chunk(EVIL * 100) + chunk(EVIL) * 50 + last(EVIL) + MAIL,
        [SENDER, RCPT, replies.TOO_LARGE, *[REFUSED] * 50, replies.TOO_LARGE, SENDER],
    ),
    "too many errors": Talk(
        chunk(EVIL) * 10 + b"NOOP\r\n",
        [*[replies.MAIL_FIRST] * 5, replies.TOO_MANY_ERRORS],
    ),
    "a size for which there is no room": Talk(
        MAIL + to("pat") + b"BDAT 99999999999999999999 LAST\r\n" + EVIL * 100, [SENDER, RCPT]
    ),
    "a chunk that does not end": Talk(
        MAIL + to("pat") + b"BDAT 999\r\n" + EVIL * 20, [SENDER, RCPT]
    ),
    **{
        f"no size: {argument!r}": Talk(
            MAIL + to("pat") + b"BDAT" + argument + b"\r\n" + EVIL,
            [SENDER, RCPT, replies.UNREADABLE_BDAT],
        )
        for argument in (
            *[b"", b" ", b" LAST", b" x", b" -1", b" +1", b" 1_0", b" 0x10", b" 1.5", b" 1,5"],
            *[b" 10LAST", b" \xd9\xa1", b" 1" + b"0" * 20, b" =5", b' "5"'],
        )
    },
    "BDAT in a line that is too long": Talk(
        b"bdat " + b"0" * 95 + b"5\r\n" + EVIL, [replies.LINE_TOO_LONG]
    ),
    "BDAT in a line that ends wrongly": Talk(b"BDAT 5\n" + EVIL, [replies.LINE_ENDING]),
    "BDAT in a line with a NUL": Talk(b"BDAT 5\0\r\n" + EVIL, [replies.LINE_ENDING]),
    "BDAT with something else than a space behind it": Talk(
        b"BDAT\t5 LAST\r\n" + EVIL, [replies.UNKNOWN_COMMAND]
    ),
    "another verb": Talk(
        b"BDATA 5\r\nXBDAT 5\r\n", [replies.UNKNOWN_COMMAND, replies.UNKNOWN_COMMAND]
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
    Play a talk in packets, then answer what is held; returns the application.
    """

    def play(
        chunks: Iterable[bytes],
        pick: Callable[[int], int] = lambda _count: 0,
        limits: Limits = SMALL,
    ) -> Any:
        played = application(limits)
        played.feed([b"LHLO a\r\n"])
        played.take_sent()
        played.feed(chunks)
        played.settle(pick)
        return played

    return play


class TestTalks:
    """
    What is said, and what is answered.
    """

    @each_row("talk", TALKS.values(), ids=TALKS)
    def test_whole(self, talk: Talk, play: Callable[..., Any]) -> None:
        """
        All that is pipelined in one packet is answered in order, and nothing of it lost.
        """
        played = play([talk.octets])

        hello = played.session._extensions.capabilities("foo.edu", played.session).wire
        heard = [hello if b"?" in reply.wire else reply.wire for reply in talk.heard]
        assert heard == split_replies(played.sent)
        told = played.told
        texts = [told[at - 1][1] for at, event in enumerate(told) if event == ("complete",)]
        assert list(talk.texts) == texts

    @each_row("talk", TALKS.values(), ids=TALKS)
    def test_octet_by_octet(self, talk: Talk, play: Callable[..., Any]) -> None:
        """
        It is no different if every octet is a packet of its own.
        """
        whole, slow = play([talk.octets]), play(single(talk.octets))

        assert (whole.told, whole.sent) == (slow.told, slow.sent)

    @given(
        talk=sampled_from(list(TALKS.values())),
        places=sets(integers(1, 400)),
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
        slow = play(cut(talk.octets, places), lambda count: seed % count)

        assert (whole.told, whole.sent) == (slow.told, slow.sent)


def split_replies(sent: bytes) -> list[bytes]:
    """
    Part what the client gets into replies.
    """
    found: list[bytes] = []
    for line in sent.splitlines(keepends=True):
        if found and found[-1].splitlines()[-1][3:4] == b"-":
            found[-1] += line
        else:
            found.append(line)
    return found


class TestContent:
    @given(pieces=lists(binary(max_size=50), min_size=1), places=sets(integers(1, 600)))
    def test_any_octets(self, pieces: list[bytes], places: set[int], play: Any) -> None:
        """
        Whatever octets come, in whatever chunks and packets, they are what is delivered.
        """
        talk = b"".join(map(chunk, pieces[:-1])) + last(pieces[-1])

        played = play(cut(MAIL + to("pat") + talk + b"NOOP\r\n", places), limits=Limits())

        assert [("octets", b"".join(pieces)), ("complete",)] == played.told[-2:]
        assert played.sent.endswith(stored("pat").wire + OK.wire)

    def test_large_packets_are_passed_on(self, application: Any) -> None:
        """
        A packet in the midst of a chunk is passed on itself, and not copied.
        """
        played = application()
        played.feed([b"LHLO a\r\n", MAIL, to("pat"), b"BDAT 5000000\r\n"])
        packet = b"x" * 60_000
        passed: list[Any] = []
        played._take = passed.append

        played.feed([packet])

        assert [packet] == [event.octets for event in passed]
        assert packet is passed[0].octets
        assert not played.session.has_unread


PIECES = [
    *[MAIL, b"MAIL FROM:<> BODY=BINARYMIME\r\n", b"RSET\r\n", b"NOOP\r\n", b"LHLO a\r\n"],
    *[b"DATA\r\nHi\r\n.\r\n", b"MAIL FROM:<> SIZE=9999\r\n"],
    *[to(name) for name in ("a", "no", "late1", "late-no", "slow1", "full", "pat")],
    *[chunk(b""), last(b""), chunk(EVIL), last(EVIL), chunk(EVIL, " X"), chunk(b"x" * 700)],
    *[b"BDAT 5 LAST\r\n", b"BDAT 5\r\n", b"BDAT 12", b"BDAT x\r\n", b"BDAT 7\n", b"\r\n"],
    MAIL + to("a", "slow1", "late1") + chunk(b"x"),
    MAIL + to("a", "full") + chunk(b"x") + last(b"y"),
]


class TestNonsense:
    @given(
        pieces=lists(one_of(sampled_from(PIECES), binary(max_size=20)), max_size=40),
        places=sets(integers(1, 2000), max_size=20),
        seed=integers(0, 7),
    )
    def test_never_out_of_step(
        self, pieces: list[bytes], places: set[int], seed: int, play: Callable[..., Any]
    ) -> None:
        """
        No octets raise an exception, and each accepted recipient of a complete message, and no
        other, has exactly one final reply, in the order of RCPT.
        """
        talk = b"".join(pieces)
        limits = Limits(message_size=1000, command_line=100, errors=15)
        whole = play([talk], limits=limits)
        slow = play(cut(talk, places), lambda count: seed % count, limits=limits)

        assert (whole.told, whole.sent) == (slow.told, slow.sent)
        final = [
            reply
            for reply in split_replies(whole.sent)
            if b"t1 Delivered" in reply or b"452 4.2.2" in reply
        ]
        expected: list[bytes] = []
        accepted: tuple[str, ...] = ()
        for event in whole.told:
            if event[0] == "text":
                accepted = event[2]
            elif event[0] == "complete":
                names = [name.removesuffix("@foo.edu") for name in accepted]
                expected += [
                    (full if name.startswith("full") else stored)(name).wire for name in names
                ]
        assert expected == final

    @given(
        sizes=lists(
            builds(
                lambda size, word: (size, word),
                integers(0, 40),
                sampled_from(["", " LAST", " FIRST"]),
            ),
            max_size=20,
        ),
        before=sampled_from(
            [b"", MAIL, MAIL + to("a"), MAIL + to("no"), MAIL + to("a", "full") + chunk(b"z")]
        ),
    )
    def test_octets_are_never_commands(
        self, sizes: list[tuple[int, str]], before: bytes, play: Callable[..., Any]
    ) -> None:
        """
        Wherever a BDAT comes, what stands behind it is not run: no QUIT in it is obeyed.
        """
        text = b"\r\nQUIT\r\n" * 6
        talk = b"".join(chunk(text[:size], word) for size, word in sizes)

        played = play([before, talk, b"NOOP\r\n"], limits=Limits(message_size=100, errors=1000))

        assert played.sent.endswith(OK.wire)
        assert not played.session.closed


class TestFlow:
    def test_octets_stay_unread(self, application: Any) -> None:
        """
        What stands behind a BDAT that waits for an answer is not read, and the transport stopped.
        """
        played = application()
        played.feed([b"LHLO a\r\n", MAIL, to("late1"), last(b"Hi")])
        assert played.session.is_blocked
        assert played.session.has_unread
        assert ("octets", b"") not in played.told

        played.settle()

        assert ("octets", b"Hi") in played.told
        assert not played.session.is_blocked

    def test_reply_comes_behind_the_octets(self, application: Any) -> None:
        """
        No BDAT is answered before its last octet is there, accepted or not.
        """
        for said in (MAIL + to("pat"), MAIL + to("no"), b""):
            played = application()
            played.feed([b"LHLO a\r\n", said])
            played.take_sent()

            played.feed([b"BDAT 3\r\nab"])
            assert b"" == played.take_sent()

            played.feed([b"c"])
            assert played.take_sent()

    def test_many_small_chunks_in_one_packet(self, application: Any) -> None:
        """
        Ten thousand chunks of an octet are ten thousand replies, and one text.
        """
        played = application()
        played.feed([b"LHLO a\r\n", MAIL, to("pat")])
        played.take_sent()

        played.feed([chunk(b"x") * 10_000 + last(b"")])

        assert got(1).wire * 10_000 + stored("pat").wire == played.take_sent()
        assert ("octets", b"x" * 10_000) == played.told[-2]


class TestFarewells:
    def test_finish_lets_the_chunks_come(self, application: Any) -> None:
        """
        A text of which a chunk has come is waited for, and delivered, when the service stops.
        """
        played = application()
        played.feed([b"LHLO a\r\n", MAIL, to("pat"), chunk(b"x")])
        played.take_sent()

        played.session.finish(replies.SHUTTING_DOWN)
        played.go_on()
        assert b"" == played.take_sent()

        played.feed([last(b"y"), MAIL])
        assert stored("pat").wire + replies.SHUTTING_DOWN.wire == played.take_sent()
        assert ("octets", b"xy") in played.told

    @pytest.mark.parametrize("said", [b"RSET\r\n", b"LHLO a\r\n"])
    def test_finish_and_reset(self, said: bytes, application: Any) -> None:
        """
        If the client takes it back instead, the end has come, too.
        """
        played = application()
        played.feed([b"LHLO a\r\n", MAIL, to("pat"), chunk(b"x")])
        played.session.finish(replies.SHUTTING_DOWN)

        played.feed([said + MAIL])

        assert played.take_sent().endswith(replies.SHUTTING_DOWN.wire)
        assert played.session.closed
        assert ("abandoned",) == played.told[-1]

    def test_finish_in_refused_octets(self, application: Any) -> None:
        """
        The octets of a chunk that is refused are taken first.
        """
        played = application()
        played.feed([b"LHLO a\r\n", b"BDAT 5\r\nab"])
        played.session.finish(replies.SHUTTING_DOWN)
        played.take_sent()

        played.feed([b"cdeNOOP\r\n"])

        assert replies.MAIL_FIRST.wire + replies.SHUTTING_DOWN.wire == played.take_sent()

    @pytest.mark.parametrize("said", [chunk(b"x"), b"BDAT 5\r\nab"])
    def test_close(self, said: bytes, application: Any) -> None:
        """
        A client that falls silent between chunks, or in one, loses the connection and the text.
        """
        played = application()
        played.feed([b"LHLO a\r\n", MAIL, to("pat"), said])
        played.take_sent()

        played.session.close(replies.IDLE_TOO_LONG)
        played.go_on()

        assert replies.IDLE_TOO_LONG.wire == played.take_sent()
        assert ("abandoned",) == played.told[-1]
        assert played.session.closed


class TestState:
    @pytest.mark.parametrize(
        ("said", "state"),
        [
            (chunk(b"x"), State.CHUNKS),
            (b"BDAT 5\r\nab", State.TEXT),
            (b"BDAT 5 FIRST\r\nab", State.TEXT),
            (chunk(b"x", " FIRST"), State.REFUSED),
            (last(b"x"), State.READY),
            (chunk(b"x") + b"RSET\r\n", State.READY),
        ],
    )
    def test_state(self, said: bytes, state: State, application: Any) -> None:
        """
        How far the conversation has come.
        """
        played = application()
        played.feed([b"LHLO a\r\n", MAIL, to("pat"), said])

        assert state is played.session.state

    def test_before_lhlo(self, application: Any) -> None:
        """
        Before LHLO no BDAT makes a conversation begin.
        """
        played = application()
        played.feed([MAIL, chunk(EVIL), last(EVIL)])

        assert [replies.LHLO_FIRST.wire] * 3 == split_replies(played.sent)[1:]
        assert State.NEW is played.session.state


class TestTerms:
    @pytest.mark.parametrize("terms", [Terms(tls_required=True), Terms(login_required=True)])
    def test_in_step(self, terms: Terms) -> None:
        """
        Where MAIL is refused because of what the listener wants, the octets behind it are taken, too,
        and as nobody was accepted LAST has no reply.
        """
        connection = Connection("192.0.2.1", terms=terms, offers_tls=True)
        session = ServerSession("mx", Limits(), standard_extensions(Limits()), connection)
        session.receive(b"LHLO a\r\n")
        assert session.next_event() is None
        session.data_to_send()

        session.receive(MAIL + to("pat") + chunk(EVIL) + last(EVIL) + b"NOOP\r\n" + last(EVIL))

        assert session.next_event() is None
        codes = [reply[:3] for reply in split_replies(session.data_to_send())]
        assert [b"530", b"503"] == [codes[0], codes[2]]
        # MAIL, RCPT, the first chunk, NOOP; and a LAST that belongs to nothing.
        assert 5 == len(codes)
        assert b"250" == codes[3]

    def test_before_lhlo(self) -> None:
        """
        MAIL before LHLO is no transaction either.
        """
        terms = Terms(tls_required=True)
        session = ServerSession(
            "mx", Limits(), standard_extensions(Limits()), Connection("192.0.2.1", terms=terms)
        )
        session.data_to_send()

        session.receive(MAIL + last(EVIL))

        assert session.next_event() is None
        assert 2 == len(split_replies(session.data_to_send()))
        assert State.NEW is session.state


BINARY = b"MAIL FROM:<> BODY=BINARYMIME\r\n"


class TestBinary:
    def test_announced_where_it_is_kept(self, application: Any) -> None:
        """
        BINARYMIME is announced only where each octet is kept.
        """
        for binary_too in (True, False):
            played = application(binary=binary_too)
            played.feed([b"LHLO a\r\n"])

            assert binary_too == (b"250-BINARYMIME\r\n" in played.take_sent())

    def test_refused_elsewhere(self, application: Any) -> None:
        """
        Where it is not, MAIL is refused, and a client without the parameter welcome.
        """
        played = application()
        played.feed([b"LHLO a\r\n"])
        played.take_sent()

        played.feed([BINARY, MAIL])

        assert replies.BINARY_NOT_STORED.wire + SENDER.wire == played.take_sent()

    def test_needs_bdat(self, application: Any) -> None:
        """
        DATA is refused for it, and BDAT still possible (RFC 3030 §3).
        """
        played = application(binary=True)
        played.feed([b"LHLO a\r\n", BINARY, to("pat")])
        played.take_sent()

        played.feed([b"DATA\r\n", last(b"\n\0")])

        assert replies.NEEDS_BDAT.wire + stored("pat").wire == played.take_sent()
        assert ("octets", b"\n\0") in played.told
