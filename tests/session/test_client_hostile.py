"""
Servers that say too little, too much, or nonsense: nobody's mail is thought to be delivered because
of it, nothing is attributed to the wrong recipient, and nothing hangs.
"""

from __future__ import annotations

from attrs import field, frozen
from hypothesis import given
from hypothesis.strategies import binary, lists, one_of, sampled_from

from lmtpsvc.envelope import Address, Recipient, Sender
from lmtpsvc.replies import Reply
from lmtpsvc.session.client import ClientSession
from lmtpsvc.session.client_events import (
    Ended,
    Ready,
    RecipientSettled,
    TextWanted,
    TLSWanted,
)
from lmtpsvc.session.outcomes import Outcome, Stage
from lmtpsvc.session.terms import TLS, Dialect, Mailing, Terms

from ..rows import each_row

OK, GO = b"250 2.0.0 OK\r\n", b"354 go\r\n"
NO = b"550 5.1.1 no\r\n"
GREETING = b"220 foo.edu\r\n"
HELLO = b"250-foo.edu\r\n250 PIPELINING\r\n"
PLAIN = b"250 foo.edu\r\n"
CHUNKING = b"250-foo.edu\r\n250-CHUNKING\r\n250 PIPELINING\r\n"


class Victim:
    """
    A client with a message for *count* recipients, that sends it as soon as it may.
    """

    def __init__(
        self, terms: Terms | None = None, count: int = 3, text: tuple[bytes, ...] = (b"Hi\r\n",)
    ) -> None:
        self.session = ClientSession(terms or Terms("client.example"))
        self._mailing = Mailing(
            Sender(None),
            tuple(Recipient(Address(f"r{n}", "foo.edu")) for n in range(count)),
            "7BIT",
        )
        self._text = list(text)
        self.outcomes: dict[int, Outcome] = {}
        self.ended: Ended | None = None
        self.said = b""

    def hear(self, octets: bytes) -> None:
        """
        Let the server say something.
        """
        self.session.receive(octets)
        self.go_on()

    def lose(self) -> None:
        """
        Lose the connection.
        """
        self.session.connection_lost("gone")
        self.go_on()

    def go_on(self) -> None:
        while (event := self.session.next_event()) is not None:
            match event:
                case Ready():
                    self.session.begin(self._mailing)
                case TLSWanted():
                    self.session.tls_established()
                case RecipientSettled():
                    assert event.position not in self.outcomes
                    self.outcomes[event.position] = event.outcome
                case TextWanted():
                    if self._text:
                        chunk = self._text.pop(0)
                        self.session.send_text(chunk, last=not self._text)
                case Ended():
                    assert self.ended is None
                    self.ended = event
        self.said += self.session.data_to_send()

    @property
    def codes(self) -> list[int]:
        """
        The outcomes' codes, by recipient.
        """
        return [outcome.reply.code for _, outcome in sorted(self.outcomes.items())]


@frozen
class Hostility:
    """
    What a server says, and what becomes of three recipients, before the connection is lost and
    after.
    """

    says: list[bytes]
    codes: list[int]
    then: list[int]
    ended: bool = True
    terms: Terms = field(factory=lambda: Terms("client.example"))
    text: tuple[bytes, ...] = (b"Hi\r\n",)


ENVELOPE = OK * 4 + GO
BROKEN = [451] * 3

HOSTILITIES = {
    "too few replies": Hostility([GREETING, HELLO, ENVELOPE, OK], [250], [250, 451, 451], False),
    "too many replies, in one packet": Hostility(
        [GREETING, HELLO, ENVELOPE, OK + NO + OK + OK], [250, 550, 250], [250, 550, 250]
    ),
    "too many replies, later": Hostility(
        [GREETING, HELLO, ENVELOPE, OK * 3, OK], [250] * 3, [250] * 3
    ),
    "nonsense between replies": Hostility(
        [GREETING, HELLO, ENVELOPE, OK + b"hello?\r\n" + OK], [250, 451, 451], [250, 451, 451]
    ),
    "354 after the text": Hostility(
        [GREETING, HELLO, ENVELOPE, OK + GO + OK], [250, 451, 451], [250, 451, 451]
    ),
    "two replies to LHLO": Hostility([GREETING, PLAIN + OK], [], []),
    "two replies to the greeting": Hostility([GREETING + GREETING], [], []),
    "a reply before its command": Hostility([GREETING, PLAIN, OK + OK], BROKEN, BROKEN),
    "all replies before any command": Hostility([GREETING + PLAIN + OK * 5 + GO + OK * 3], [], []),
    "outcomes before the text": Hostility([GREETING, HELLO, ENVELOPE + OK * 3], BROKEN, BROKEN),
    "a refusal before the text is at its end": Hostility(
        [GREETING, HELLO, ENVELOPE, b"552 5.3.4 too large\r\n"],
        [552] * 3,
        [552] * 3,
        text=(b"a", b""),
    ),
    "success before the text is at its end": Hostility(
        [GREETING, CHUNKING, OK * 4, OK + OK], BROKEN, BROKEN, text=(b"a", b"")
    ),
    "354 to MAIL": Hostility([GREETING, HELLO, GO], BROKEN, BROKEN),
    "354 to RCPT": Hostility([GREETING, HELLO, OK + NO + GO], [550, 451, 451], [550, 451, 451]),
    "250 to DATA": Hostility([GREETING, HELLO, OK * 5], BROKEN, BROKEN),
    "354 to BDAT": Hostility([GREETING, CHUNKING, OK * 4, GO], BROKEN, BROKEN, text=(b"a", b"")),
    "421 to DATA": Hostility([GREETING, HELLO, OK * 4 + b"421 bye\r\n"], BROKEN, BROKEN),
    "421 in the text": Hostility([GREETING, HELLO, ENVELOPE + b"421 bye\r\n"], BROKEN, BROKEN),
    "554 as greeting": Hostility([b"554 no SMTP here\r\n"], [], []),
    "no LHLO": Hostility([GREETING, b"500 what?\r\n"], [], []),
    "a greeting without end": Hostility([b"220-x\r\n" * 300], [], []),
    "in the clear behind STARTTLS": Hostility(
        [GREETING, b"250-foo\r\n250 STARTTLS\r\n", b"220 go\r\n250 evil\r\n"],
        [],
        [],
        terms=Terms("client.example", tls=TLS.MAY),
    ),
    "no STARTTLS where it must be": Hostility(
        [GREETING, HELLO], [], [], terms=Terms("client.example", tls=TLS.ENCRYPT)
    ),
    "STARTTLS refused where it must be": Hostility(
        [GREETING, b"250-foo\r\n250 STARTTLS\r\n", b"454 4.7.0 no\r\n"],
        [],
        [],
        terms=Terms("client.example", tls=TLS.MUST),
    ),
    "RSET refused": Hostility([GREETING, HELLO, OK + NO * 3 + NO, NO], [550] * 3, [550] * 3),
}


class TestHostilities:
    @each_row("whole", [True, False], ids=["whole", "octet by octet"])
    @each_row("hostility", HOSTILITIES.values(), ids=HOSTILITIES)
    def test_outcomes(self, hostility: Hostility, whole: bool) -> None:
        """
        What was said in its place stands, and everything else is a temporary failure.
        """
        client = Victim(hostility.terms, text=hostility.text)
        for octets in hostility.says:
            for piece in [octets] if whole else [octets[n : n + 1] for n in range(len(octets))]:
                client.hear(piece)

        if whole:
            assert client.codes == hostility.codes
            assert (client.ended is not None) == hostility.ended
        client.lose()
        if whole:
            assert client.codes == hostility.then
        assert client.ended is not None
        assert client.session.is_closed
        assert not client.session.is_ready

    @each_row("hostility", HOSTILITIES.values(), ids=HOSTILITIES)
    def test_everything_after_the_end_is_ignored(self, hostility: Hostility) -> None:
        """
        Once the conversation is over, nothing changes an outcome.
        """
        client = Victim(hostility.terms, text=hostility.text)
        for octets in [*hostility.says, b"xyz\r\n", OK * 10]:
            client.hear(octets)
        client.lose()
        before = dict(client.outcomes)

        client.hear(OK * 10)
        client.lose()

        assert before == client.outcomes


class TestEnding:
    def test_says_why(self) -> None:
        """
        The end carries the stage, a temporary reply, and what the server said.
        """
        client = Victim()
        client.hear(b"554 5.3.2 not today\r\n")

        assert client.ended is not None
        assert client.ended.stage is Stage.GREETING
        assert client.ended.reply == Reply(451, "The server said 554 (greeting): not today", (3, 2))
        assert client.ended.heard is not None
        assert client.ended.heard.code == 554
        assert client.said == b"QUIT\r\n"

    def test_unheard(self) -> None:
        """
        An outcome tells when the server cannot have begun anything.
        """
        for says, unheard in (([], True), ([b"421 idle\r\n"], True), ([OK], False)):
            client = Victim()
            for octets in [GREETING, HELLO, *says]:
                client.hear(octets)
            client.lose()
            assert {outcome.unheard for outcome in client.outcomes.values()} == {unheard}

    def test_421_while_idle(self) -> None:
        """
        A server that takes leave is not used any more.
        """
        client = Victim(count=1)
        for octets in [GREETING, HELLO, OK * 2 + GO, OK]:
            client.hear(octets)
        assert client.session.is_ready
        client.hear(b"421 4.4.2 idle\r\n")

        assert client.ended is not None
        assert client.codes == [250]

    def test_half_a_reply_to_nothing(self) -> None:
        """
        Where something has come already, no transaction begins.
        """
        client = Victim(count=1)
        for octets in [GREETING, HELLO, OK * 2 + GO, OK]:
            client.hear(octets)
        client.hear(b"25")

        assert not client.session.is_ready

    def test_given_up(self) -> None:
        """
        When the application has no more patience, its words are the outcome of all who wait.
        """
        client = Victim()
        for octets in [GREETING, HELLO, ENVELOPE, OK]:
            client.hear(octets)
        client.session.give_up(Reply(451, "too slow", (4, 7)))
        client.go_on()

        assert [outcome.reply.text for _, outcome in sorted(client.outcomes.items())] == [
            "OK",
            "too slow",
            "too slow",
        ]


class TestAnything:
    @given(
        lists(
            one_of(
                sampled_from(
                    [
                        *(GREETING, HELLO, CHUNKING, PLAIN, OK, OK, OK * 4, NO, GO, ENVELOPE),
                        *(b"421 bye\r\n", b"250-", b"2", b"50 OK\r\n", b"334 \r\n", b"x\r\n"),
                    ]
                ),
                binary(max_size=10),
            ),
            max_size=12,
        ),
        sampled_from(list(Dialect)),
        sampled_from(list(TLS)),
    )
    def test_one_outcome_each(self, says: list[bytes], dialect: Dialect, tls: TLS) -> None:
        """
        Whatever a server says: each recipient gets one outcome at most, and has it when the
        connection is lost if a transaction was begun; success only where a 250 was heard.
        """
        client = Victim(Terms("client.example", dialect, tls), text=(b"a", b"b"))
        for octets in says:
            client.hear(octets)
        client.lose()

        assert client.ended is not None
        assert len(client.outcomes) == (3 if b"MAIL" in client.said else 0)
        for outcome in client.outcomes.values():
            if outcome.is_success:
                assert outcome.stage is Stage.MESSAGE
                assert outcome.heard is not None
                assert outcome.heard.is_success
