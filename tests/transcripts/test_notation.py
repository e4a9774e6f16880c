"""
Reading conversations, and telling a wrong answer from a right one.
"""

from __future__ import annotations

from typing import ClassVar

import pytest

from ..rows import each_row
from .holding import BadReply, Heard, Verdict, first_reply, hold, judge
from .notation import Closed, Handshake, Reply, Send, Silence, Stored, Wait
from .reading import BrokenTranscript, octets, read
from .target import Target


class TestOctets:
    """
    What stands for octets that cannot be written.
    """

    @each_row(
        ("written", "meant"),
        [
            ("NOOP", b"NOOP"),
            ("a{CR}{LF}{CRLF}{NUL}{TAB}{SP}{DEL}b", b"a\r\n\r\n\0\t \x7fb"),
            ("{x C3 28}", b"\xc3\x28"),
            ("{3*ab}", b"ababab"),
            ("{0*ab}", b""),
            ("{{a}", b"{a}"),
            ("{{{{", b"{{"),
            ("é", b"\xc3\xa9"),
        ],
    )
    def test_valid(self, written: str, meant: bytes) -> None:
        """
        Names, hexadecimal digits, repetition, and a brace that is one.
        """
        assert meant == octets(written)

    @pytest.mark.parametrize("written", ["{", "{NIL}", "{x c3}", "{x C}", "{*a}", "{3*}", "a{CR"])
    def test_invalid(self, written: str) -> None:
        """
        Anything else in braces is a mistake of the writer.
        """
        with pytest.raises(ValueError):
            octets(written)


WHOLE = """\
# A comment.
needs: SIZE

=== A title
shows: 1.a 2.b
options: max-errors=3
begins: at once
ours: it is

S: 220
C: A
C+ B
C: (handshake)
S: 250 2.0.0 * ok
S| PIPELINING
S! AUTH *
T: 2.5
C*2: C
S*2: 500 *
S: (nothing)
S: (closed)
D> ann@x bob@x
D: one
D+ two
D> (nobody)
"""


class TestRead:
    """
    A file.
    """

    def test_whole(self) -> None:
        """
        All that the notation knows is read.
        """
        [conversation] = read("group", WHOLE)

        assert "group: A title" == conversation.name
        assert ("1.a", "2.b") == conversation.shows
        assert {"max-errors": "3"} == conversation.options
        assert ("SIZE",) == conversation.needs
        assert conversation.ours
        reply = Reply(250, "2.0.0", text="* ok", has=("PIPELINING",), lacks=("AUTH *",))
        assert [
            Reply(220),
            Send(b"A\r\nB"),
            Handshake(),
            reply,
            Wait(2.5),
            Send(b"C\r\nC\r\n"),
            Reply(500, any_status=True),
            Reply(500, any_status=True),
            Silence(),
            Closed(),
        ] == [step for _, step in conversation.steps]
        assert (Stored(("ann@x", "bob@x"), b"one\r\ntwo"),) == conversation.stored

    def test_usually_after_lhlo(self) -> None:
        """
        What comes before every conversation need not be written.
        """
        [conversation] = read("group", "=== A title\nC: NOOP\nS: 250 2.0.0\n")

        said = [step.octets for _, step in conversation.steps if isinstance(step, Send)]
        assert [b"LHLO client.example.net\r\n", b"NOOP\r\n"] == said

    @each_row(
        ("text", "complaint"),
        [
            ("C: A\n", ":1: a conversation begins with"),
            ("===\nS: 250\n", ":1: a title is"),
            ("=== A\nbegins: at once\nC: A\n", ":1: nothing is expected"),
            ("=== A\nX: A\n", ":2: who says this"),
            ("=== A\nS+ 250\n", ":2: who says this"),
            ("=== A\nS: 600\n", ":2: no reply looks like"),
            ("=== A\nS: soon\n", ":2: no reply looks like"),
            ("=== A\nC: {NIL}\nS: 250\n", ":2: {NIL} means nothing"),
            ("=== A\nC: A\nS| B\n", ":3: S| and S! stand behind a reply"),
            ("=== A\nS: 250\nD: text\n", ":3: D> comes before D:"),
            ("=== A\nbegins: anywhere\nS: 250\n", ":1: begins: at once | "),
            ("=== A\noptions: many\nS: 250\n", ":1: an option is NAME=VALUE"),
            ("=== A\nshows: a\nshows: b\nS: 250\n", ":1: shows is said twice"),
        ],
    )
    def test_mistakes(self, text: str, complaint: str) -> None:
        """
        A mistake is told with its place.
        """
        with pytest.raises(BrokenTranscript) as caught:
            read("group", text)
        assert f"group{complaint}" in str(caught.value)


def heard(*lines: str) -> Heard:
    return Heard(lines)


class TestJudge:
    """
    Two replies compared.
    """

    cases: ClassVar = [
        (Reply(250), heard("250 OK"), Verdict.SAME),
        (Reply(250), heard("250 2.0.0 OK"), Verdict.OTHER_CODE),
        (Reply(250, "2.0.0"), heard("250 2.0.0 OK"), Verdict.SAME),
        (Reply(250, "2.0.0"), heard("250 2.0.0"), Verdict.SAME),
        (Reply(250, "2.0.0"), heard("250 2.1.0 OK"), Verdict.OTHER_CODE),
        (Reply(250, "2.0.0"), heard("250 OK"), Verdict.OTHER_CODE),
        (Reply(250, any_status=True), heard("250 2.1.0 OK"), Verdict.SAME),
        (Reply(250, any_status=True), heard("251 2.1.0 OK"), Verdict.OTHER_CODE),
        (Reply(250, any_status=True), heard("550 5.1.0 no"), Verdict.OTHER),
        (Reply(250, "2.0.0", text="<a> *"), heard("250 2.0.0 <a> OK"), Verdict.SAME),
        (Reply(250, "2.0.0", text="<a> *"), heard("250 2.0.0 <b> OK"), Verdict.OTHER_CODE),
        (Reply(250, has=("B *",)), heard("250-A", "250-B 7", "250 C"), Verdict.SAME),
        (Reply(250, has=("B",)), heard("250-A", "250-B 7", "250 C"), Verdict.OTHER_CODE),
        (Reply(250, lacks=("B",)), heard("250-A", "250-B 7", "250 C"), Verdict.SAME),
        (Reply(250, lacks=("B*",)), heard("250-A", "250-B 7", "250 C"), Verdict.OTHER_CODE),
        (Reply(214, "2.0.0"), heard("214-2.0.0 A", "214 2.0.0 B"), Verdict.SAME),
        (Reply(250, "2.0.0"), heard("250 2.0.0 <jörg@a>"), Verdict.OTHER_CODE),
        (Reply(250, "2.0.0", text="<jörg@a>"), heard("250 2.0.0 <jörg@a>"), Verdict.SAME),
        # RFC 2034 §4: every line, or none.
        (Reply(214, "2.0.0"), heard("214-A", "214 2.0.0 B"), Verdict.OTHER_CODE),
    ]

    @each_row(("expected", "got", "verdict"), cases)
    def test_judge(self, expected: Reply, got: Heard, verdict: Verdict) -> None:
        """
        The first digit weighs most.
        """
        assert verdict is judge(expected, got)


class TestFirstReply:
    """
    Replies on the wire.
    """

    @pytest.mark.parametrize(
        ("said", "lines", "rest"),
        [
            (b"", None, b""),
            (b"250 OK", None, b"250 OK"),
            (b"250 OK\r\n2", ("250 OK",), b"2"),
            (b"250-A\r\n", None, b"250-A\r\n"),
            (b"250-A\r\n250 B\r\n", ("250-A", "250 B"), b""),
            (b"250 \r\n", ("250 ",), b""),
        ],
    )
    def test_valid(self, said: bytes, lines: tuple[str, ...] | None, rest: bytes) -> None:
        """
        One at a time, when it is complete.
        """
        assert (None if lines is None else Heard(lines), rest) == first_reply(said)

    @each_row(
        "said",
        [
            b"OK\r\n",
            b"250OK\r\n",
            b"250\r\n",
            b"150 OK\r\n",
            b"250 a\nb\r\n",
            b"250 \xc3\xa9\x07\r\n",
            b"250-A\r\n251 B\r\n",
            b"250 " + 507 * b"a" + b"\r\n",
        ],
    )
    def test_invalid(self, said: bytes) -> None:
        """
        What is no reply is told from one (RFC 5321 §4.2, §4.2.1, §4.5.3.1.5).
        """
        with pytest.raises(BadReply):
            first_reply(said)


class Server:
    """
    Somebody who answers what he was told to, whatever is said.
    """

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)

    def send(self, said: bytes) -> None: ...

    def wait(self, seconds: float) -> None: ...

    def handshake(self) -> None: ...

    def hear(self, *, brief: bool = False) -> Heard | None:
        return Heard((self.answers.pop(0),)) if self.answers else None

    closed = False


class TestHold:
    """
    A conversation with somebody who answers wrongly.
    """

    @pytest.mark.parametrize(
        ("answers", "complaints"),
        [
            (["250 A", "250 B"], []),
            (["250 A", "251 B"], ["250 expected, got 251 B"]),
            (["550 A", "250 B"], ["250 expected, got 550 A"]),
            (["250 A"], ["250 expected, got (nothing)"]),
            (["250 A", "250 B", "250 C"], ["(nothing) expected, got 250 C"]),
        ],
    )
    def test_differences(self, answers: list[str], complaints: list[str]) -> None:
        """
        Another answer, no answer, and one too many are told.
        """
        [conversation] = read("group", "=== A\nbegins: at once\nC: X\nS: 250\nC: Y\nS: 250\n")

        differences = hold(conversation, Server(*answers))

        assert complaints == [str(each).partition("': ")[2] for each in differences]

    def test_not_closed(self) -> None:
        """
        A connection that should be closed and is not.
        """
        [conversation] = read("group", "=== A\nbegins: at once\nC: X\nS: (closed)\n")

        [difference] = hold(conversation, Server())

        assert difference.verdict is Verdict.OTHER


class TestTarget:
    """
    Where another server is.
    """

    def test_valid(self) -> None:
        """
        A TCP port or a UNIX socket.
        """
        assert Target.parse("tcp:127.0.0.1:24").address == ("127.0.0.1", 24)
        assert Target.parse("tcp:[::1]:24").address == ("::1", 24)
        assert Target.parse("unix:/run/lmtp").address == "/run/lmtp"

    @pytest.mark.parametrize("text", ["", "tcp:24", "tcp:::1:24", "127.0.0.1:24", "unix:"])
    def test_invalid(self, text: str) -> None:
        """
        Anything else is a mistake.
        """
        with pytest.raises(ValueError):
            Target.parse(text)
