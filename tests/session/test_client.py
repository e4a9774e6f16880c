"""
Whole conversations from the client's side, without any I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import pytest
from attrs import evolve, field, frozen
from hypothesis import given
from hypothesis.strategies import integers, sampled_from, sets

from lmtpsvc.envelope import Address, DeliverBy, OriginalRecipient, Recipient, Sender
from lmtpsvc.session.client import ClientSession
from lmtpsvc.session.client_events import (
    Ended,
    Ready,
    RecipientAccepted,
    RecipientSettled,
    TextWanted,
    TLSWanted,
    TransactionOver,
)
from lmtpsvc.session.client_transaction import envelope_lines
from lmtpsvc.session.deliver_by import deliver_by
from lmtpsvc.session.dsn import DSN
from lmtpsvc.session.outcomes import Outcome, Stage
from lmtpsvc.session.priority import priority
from lmtpsvc.session.terms import TLS, Dialect, Mailing, Terms
from lmtpsvc.wire.paths import parse_mail, parse_rcpt

from ..rows import each_row

LMTP = Terms("client.example")
SMTP = Terms("client.example", Dialect.SMTP)

#: What the client says, and what it hears then; None starts TLS.
Script = list[tuple[bytes, bytes]]

GREETING = (b"", b"220 foo.edu ready\r\n")


def hello(*extensions: str, verb: str = "LHLO") -> tuple[bytes, bytes]:
    """
    The client's hello, and a server that announces *extensions*.
    """
    *others, last = ("foo.edu", *extensions)
    said = "".join(f"250-{line}\r\n" for line in others) + f"250 {last}\r\n"
    return f"{verb} client.example\r\n".encode(), said.encode()


def mailing(*names: str, **options: Any) -> Mailing:
    """
    From chris@bar.com to *names* at foo.edu.
    """
    recipients = tuple(Recipient(Address(name, "foo.edu")) for name in names)
    options.setdefault("body", "7BIT")
    return Mailing(Sender(Address("chris", "bar.com")), recipients, **options)


MAIL = b"MAIL FROM:<chris@bar.com>\r\n"
PAT, GREEN, JONES = (f"RCPT TO:<{name}@foo.edu>\r\n".encode() for name in ("pat", "green", "jones"))
DATA = b"DATA\r\n"
OK = b"250 OK\r\n"
NO = b"550 5.1.1 No such user\r\n"
GO = b"354 go\r\n"
RSET = (b"RSET\r\n", OK)


@frozen
class Talk:
    """
    A conversation up to the end of one transaction, and the codes that the recipients get.
    """

    script: Script
    codes: list[int]
    mailing: Mailing = field(factory=lambda: mailing("pat", "jones", "green"))
    terms: Terms = LMTP
    text: tuple[bytes, ...] = (b"Hi\r\n",)
    #: What becomes of the session: ready for more, or ended at this stage.
    end: Stage | None = None


class Converser:
    """
    A client that plays a script; *told* is what the session said, *outcomes* the recipients'.
    """

    def __init__(self, talk: Talk, cut: Callable[[bytes], Iterable[bytes]]) -> None:
        self.talk, self.cut = talk, cut
        self.session = ClientSession(talk.terms, overhear=lambda *said: self.overheard.append(said))
        self.overheard: list[tuple[str, object]] = []
        self.outcomes: dict[int, Outcome] = {}
        self.accepted: list[int] = []
        self.over = 0
        self.ended: Ended | None = None
        self._chunks = list(talk.text)
        self._said = b""

    def run(self) -> None:
        """
        Play all of it.
        """
        for expected, heard in self.talk.script:
            assert self._take_said() == expected
            for piece in self.cut(heard):
                self.session.receive(piece)
                self.go_on()

    def go_on(self) -> None:
        """
        Take the session as far as it goes.
        """
        while (event := self.session.next_event()) is not None:
            match event:
                case Ready():
                    self.session.begin(self.talk.mailing)
                case TLSWanted():
                    self._said += b"<TLS>"
                    self.session.tls_established()
                case RecipientAccepted():
                    self.accepted.append(event.position)
                case RecipientSettled():
                    assert event.position not in self.outcomes
                    self.outcomes[event.position] = event.outcome
                case TextWanted():
                    chunk = self._chunks.pop(0)
                    self.session.send_text(chunk, last=not self._chunks)
                case TransactionOver():
                    self.over += 1
                case Ended():
                    assert self.ended is None
                    self.ended = event
        self._said += self.session.data_to_send()

    def _take_said(self) -> bytes:
        said, self._said = self._said, b""
        return said

    @property
    def codes(self) -> list[int]:
        """
        The outcomes' codes, by recipient.
        """
        assert sorted(self.outcomes) == list(range(len(self.talk.mailing.recipients)))
        return [outcome.reply.code for _, outcome in sorted(self.outcomes.items())]

    @property
    def rest(self) -> bytes:
        """
        What was said behind the script.
        """
        return self._said


PIPELINING = [GREETING, hello("PIPELINING")]
PLAIN = [GREETING, hello()]
SMTP_PIPELINING = [GREETING, hello("PIPELINING", verb="EHLO")]

TALKS = {
    "the example of RFC 2033": Talk(
        [
            *PIPELINING,
            (MAIL + PAT + JONES + GREEN + DATA, OK + OK + NO + OK + GO),
            (b"Hi\r\n.\r\n", b"250 OK\r\n452 <green@foo.edu> is temporarily over quota\r\n"),
        ],
        [250, 550, 452],
    ),
    "without PIPELINING": Talk(
        [
            *PLAIN,
            *[(MAIL, OK), (PAT, OK), (JONES, NO), (GREEN, OK), (DATA, GO)],
            (b"Hi\r\n.\r\n", OK + OK),
        ],
        [250, 550, 250],
    ),
    "PIPELINING that is not wanted": Talk(
        [
            *PIPELINING,
            *[(MAIL, OK), (PAT, OK), (JONES, NO), (GREEN, OK), (DATA, GO)],
            (b"Hi\r\n.\r\n", OK + OK),
        ],
        [250, 550, 250],
        terms=evolve(LMTP, pipelining=False),
    ),
    "SMTP has one reply for all": Talk(
        [
            *SMTP_PIPELINING,
            (MAIL + PAT + JONES + GREEN + DATA, OK + OK + NO + OK + GO),
            (b"Hi\r\n.\r\n", b"451 4.3.0 later\r\n"),
        ],
        [451, 550, 451],
        terms=SMTP,
    ),
    "SMTP from before EHLO": Talk(
        [
            *[GREETING, (hello(verb="EHLO")[0], b"502 what?\r\n")],
            (b"HELO client.example\r\n", b"250 foo.edu\r\n"),
            *[(MAIL, OK), (PAT, OK), (DATA, GO), (b"Hi\r\n.\r\n", OK)],
        ],
        [250],
        mailing("pat"),
        SMTP,
    ),
    "the same recipient twice": Talk(
        [
            *PIPELINING,
            (MAIL + PAT + PAT + DATA, OK + OK + OK + GO),
            (b"Hi\r\n.\r\n", b"250 OK\r\n452 full\r\n"),
        ],
        [250, 452],
        mailing("pat", "pat"),
    ),
    "nobody accepted": Talk(
        [
            *PIPELINING,
            (MAIL + PAT + JONES + DATA, OK + NO + NO + b"503 5.5.1 nobody\r\n"),
            RSET,
        ],
        [550, 550],
        mailing("pat", "jones"),
    ),
    "nobody accepted, without PIPELINING": Talk(
        [*PLAIN, (MAIL, OK), (PAT, NO), (JONES, NO), RSET], [550, 550], mailing("pat", "jones")
    ),
    "354 for nobody in LMTP: a dot, and no word is believed any more": Talk(
        [*PIPELINING, (MAIL + PAT + DATA, OK + NO + GO), (b".\r\nQUIT\r\n", b"")],
        [550],
        mailing("pat"),
        end=Stage.DATA,
    ),
    "354 for nobody in SMTP: a dot, and one reply": Talk(
        [*SMTP_PIPELINING, (MAIL + PAT + DATA, OK + NO + GO), (b".\r\n", b"554 nobody\r\n")],
        [550],
        mailing("pat"),
        SMTP,
    ),
    "MAIL refused": Talk(
        [
            *PIPELINING,
            (MAIL + PAT + JONES + DATA, b"552 5.3.4 large\r\n" + b"503 no\r\n" * 3),
            RSET,
        ],
        [552, 552],
        mailing("pat", "jones"),
    ),
    "MAIL refused, without PIPELINING": Talk([*PLAIN, (MAIL, b"452 4.3.1 full\r\n")], [452] * 3),
    "MAIL refused, and everything else accepted": Talk(
        [*PIPELINING, (MAIL + PAT + DATA, b"451 no\r\n" + OK + GO), (b".\r\nQUIT\r\n", b"")],
        [451],
        mailing("pat"),
        end=Stage.DATA,
    ),
    "DATA refused": Talk(
        [*PIPELINING, (MAIL + PAT + JONES + DATA, OK + OK + NO + b"451 4.3.0 no\r\n"), RSET],
        [451, 550],
        mailing("pat", "jones"),
    ),
    "dots": Talk(
        [*PIPELINING, (MAIL + PAT + DATA, OK + OK + GO), (b"..\r\n..a\r\n.\r\n", OK)],
        [250],
        mailing("pat"),
        text=(b".\r\n.a",),
    ),
    "the null sender, and parameters": Talk(
        [
            GREETING,
            hello("8BITMIME", "SIZE 1000", "SMTPUTF8", "DSN"),
            (b"MAIL FROM:<> SIZE=4 BODY=8BITMIME RET=HDRS ENVID=a+20b\r\n", OK),
            (
                b"RCPT TO:<pat@foo.edu> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;p+2Bt@x\r\n",
                OK,
            ),
            (DATA, GO),
            (b"Hi\r\n.\r\n", OK),
        ],
        [250],
        Mailing(
            Sender(None, {"RET": "HDRS", "ENVID": "a b"}),
            (
                Recipient(
                    Address("pat", "foo.edu"),
                    {"NOTIFY": ("SUCCESS", "DELAY"), "ORCPT": "rfc822;p+t@x"},
                ),
            ),
            "8BITMIME",
            4,
        ),
    ),
    "no DSN": Talk(
        [*PLAIN, (b"MAIL FROM:<>\r\n", OK), (PAT, OK), (DATA, GO), (b"Hi\r\n.\r\n", OK)],
        [250],
        Mailing(
            Sender(None, {"RET": "HDRS"}),
            (Recipient(Address("pat", "foo.edu"), {"NOTIFY": "NEVER"}),),
            "7BIT",
            4,
        ),
    ),
    "SMTPUTF8": Talk(
        [
            GREETING,
            hello("8BITMIME", "SMTPUTF8", "PIPELINING"),
            (MAIL[:-2] + " SMTPUTF8\r\nRCPT TO:<jörg@foo.edu>\r\n".encode() + DATA, OK + OK + GO),
            (b"Hi\r\n.\r\n", OK),
        ],
        [250],
        mailing("jörg"),
    ),
    "no SMTPUTF8": Talk(PLAIN, [553, 553], mailing("pat", "jörg")),
    "no 8BITMIME": Talk(PLAIN, [554], mailing("pat", body="8BITMIME")),
    "no BINARYMIME": Talk(
        [GREETING, hello("BINARYMIME")], [554], mailing("pat", body="BINARYMIME")
    ),
    "no 8BITMIME, but nobody had looked": Talk(
        [*PLAIN, (MAIL, OK), (PAT, OK), (DATA, GO), (b"Hi\r\n.\r\n", OK)],
        [250],
        mailing("pat", body="8BITMIME", is_ascii=lambda: True),
    ),
    "larger than announced": Talk([GREETING, hello("SIZE 10")], [552], mailing("pat", size=11)),
    "CHUNKING": Talk(
        [
            GREETING,
            hello("CHUNKING", "PIPELINING", "BINARYMIME"),
            (MAIL[:-2] + b" BODY=BINARYMIME\r\n" + PAT + JONES + GREEN, OK + OK + NO + OK),
            (b"BDAT 4\r\n\n.\r\n", OK),
            (b"BDAT 3 LAST\r\n.\0\n", OK + b"452 full\r\n"),
        ],
        [250, 550, 452],
        mailing("pat", "jones", "green", body="BINARYMIME"),
        text=(b"\n.\r\n", b".\0\n"),
    ),
    "CHUNKING in SMTP": Talk(
        [
            GREETING,
            hello("CHUNKING", verb="EHLO"),
            *[(MAIL, OK), (PAT, OK), (JONES, OK), (b"BDAT 4 LAST\r\nHi\r\n", OK)],
        ],
        [250, 250],
        mailing("pat", "jones"),
        SMTP,
    ),
    "CHUNKING in SMTP, and lone LFs and CRs": Talk(
        [
            GREETING,
            hello("CHUNKING", verb="EHLO"),
            *[(MAIL, OK), (PAT, OK), (b"BDAT 6\r\na\r\nb\r\n", OK), (b"BDAT 4\r\n\r\n\r\n", OK)],
            (b"BDAT 5 LAST\r\n\r\nc\r\n", OK),
        ],
        [250],
        mailing("pat", body="7BIT"),
        SMTP,
        (b"a\nb\r\n", b"\n\r\n\r", b"c\r"),
    ),
    "CHUNKING in SMTP, and binary text": Talk(
        [
            *[GREETING, hello("CHUNKING", "BINARYMIME", verb="EHLO")],
            *[(MAIL[:-2] + b" BODY=BINARYMIME\r\n", OK), (PAT, OK)],
            (b"BDAT 4 LAST\r\n\r\n\r\0", OK),
        ],
        [250],
        mailing("pat", body="BINARYMIME"),
        SMTP,
        (b"\r\n\r\0",),
    ),
    "CHUNKING that is not wanted": Talk(
        [
            *[GREETING, hello("CHUNKING"), (MAIL, OK), (PAT, OK), (DATA, GO)],
            (b"Hi\r\n.\r\n", OK),
        ],
        [250],
        mailing("pat"),
        evolve(LMTP, chunking=False),
    ),
    "CHUNKING, and nobody accepted": Talk(
        [GREETING, hello("CHUNKING", "PIPELINING"), (MAIL + PAT, OK + NO), RSET],
        [550],
        mailing("pat"),
    ),
    "a chunk refused": Talk(
        [
            *[GREETING, hello("CHUNKING", "PIPELINING"), (MAIL + PAT + JONES, OK + OK + NO)],
            *[(b"BDAT 1\r\na", OK), (b"BDAT 1\r\nb", b"552 5.3.4 large\r\n"), RSET],
        ],
        [552, 550],
        mailing("pat", "jones"),
        text=(b"a", b"b", b"c"),
    ),
    "XFORWARD": Talk(
        [
            GREETING,
            hello("XFORWARD NAME ADDR", "PIPELINING"),
            (b"XFORWARD ADDR=192.0.2.1\r\n" + MAIL + PAT + DATA, b"500 no\r\n" + OK + OK + GO),
            (b"Hi\r\n.\r\n", OK),
        ],
        [250],
        mailing("pat", xforward={"ADDR": "192.0.2.1", "HELO": "x"}),
    ),
    "XCLIENT": Talk(
        [
            GREETING,
            hello("XCLIENT ADDR LOGIN", "SIZE 1"),
            (b"XCLIENT ADDR=IPV6:2001:db8::1 LOGIN=ann\r\n", b"220 foo.edu\r\n"),
            hello("PIPELINING"),
            (MAIL + PAT + DATA, OK + OK + GO),
            (b"Hi\r\n.\r\n", OK),
        ],
        [250],
        mailing("pat", size=4),
        evolve(LMTP, xclient={"ADDR": "2001:db8::1", "LOGIN": "ann", "TTL": "5"}),
    ),
    "XCLIENT for one message": Talk(
        [
            *[GREETING, hello("XCLIENT ADDR"), (b"XCLIENT ADDR=192.0.2.1\r\n", OK)],
            *[hello("XCLIENT ADDR"), (MAIL, OK), (PAT, OK), (DATA, GO), (b"Hi\r\n.\r\n", OK)],
        ],
        [250],
        mailing("pat", xclient={"ADDR": "192.0.2.1"}),
    ),
    "XCLIENT refused for one message": Talk(
        [
            *[GREETING, hello("XCLIENT ADDR")],
            *[(b"XCLIENT ADDR=192.0.2.1\r\n", b"550 5.7.0 no\r\n"), (b"QUIT\r\n", b"")],
        ],
        [451],
        mailing("pat", xclient={"ADDR": "192.0.2.1"}),
        end=Stage.XCLIENT,
    ),
    "STARTTLS": Talk(
        [
            GREETING,
            hello("STARTTLS", "SIZE 1", "PIPELINING"),
            (b"STARTTLS\r\n", b"220 go\r\n"),
            (b"<TLS>" + hello()[0], hello("AUTH PLAIN")[1]),
            *[(MAIL, OK), (PAT, OK), (DATA, GO), (b"Hi\r\n.\r\n", OK)],
        ],
        [250],
        mailing("pat", size=4),
        evolve(LMTP, tls=TLS.MUST),
    ),
    "STARTTLS if it is there": Talk(
        [*PLAIN, (MAIL, OK), (PAT, OK), (DATA, GO), (b"Hi\r\n.\r\n", OK)],
        [250],
        mailing("pat"),
        evolve(LMTP, tls=TLS.MAY),
    ),
    "STARTTLS if it works": Talk(
        [
            *[GREETING, hello("STARTTLS"), (b"STARTTLS\r\n", b"454 4.7.0 no\r\n")],
            *[(MAIL, OK), (PAT, OK), (DATA, GO), (b"Hi\r\n.\r\n", OK)],
        ],
        [250],
        mailing("pat"),
        evolve(LMTP, tls=TLS.MAY),
    ),
    "421 for one recipient of several": Talk(
        [
            *PIPELINING,
            (MAIL + PAT + JONES + DATA, OK * 3 + GO),
            (b"Hi\r\n.\r\n", b"421 4.3.2 later\r\n250 OK\r\n"),
        ],
        [451, 250],
        mailing("pat", "jones"),
    ),
    "421 to RCPT": Talk(
        [*PIPELINING, (MAIL + PAT + JONES + GREEN + DATA, OK + OK + b"421 4.3.2 bye\r\n")],
        [451, 451, 451],
        end=Stage.RCPT,
    ),
}


def whole(octets: bytes) -> list[bytes]:
    return [octets]


def octet_by_octet(octets: bytes) -> list[bytes]:
    return [octets[n : n + 1] for n in range(len(octets))]


class TestTalks:
    @each_row("cut", [whole, octet_by_octet])
    @each_row("talk", TALKS.values(), ids=TALKS)
    def test_whole_and_octet_by_octet(
        self, talk: Talk, cut: Callable[[bytes], list[bytes]]
    ) -> None:
        """
        The client says what it should, and each recipient has its outcome.
        """
        client = Converser(talk, cut)
        client.run()

        assert client.codes == talk.codes
        assert client.over == 1
        if talk.end is not None:
            assert client.ended is not None
            assert client.ended.stage is talk.end
        else:
            assert client.ended is None
        assert client.session.is_ready == (
            talk.end is None and not any(b"421" in heard for _, heard in talk.script)
        )
        assert client.rest == b""

    @given(sampled_from(sorted(TALKS)), sets(integers(1, 120)))
    def test_packet_boundaries_do_not_matter(self, name: str, cuts: set[int]) -> None:
        """
        However TCP slices what the server says, the outcomes are the same.
        """

        def cut(octets: bytes) -> list[bytes]:
            edges = [0, *sorted(n for n in cuts if n < len(octets)), len(octets)]
            return [octets[a:b] for a, b in pairwise(edges)]

        client = Converser(TALKS[name], cut)
        client.run()

        assert client.codes == TALKS[name].codes

    @pytest.mark.parametrize("talk", TALKS.values(), ids=TALKS)
    def test_lost_behind_each_octet(self, talk: Talk) -> None:
        """
        Wherever the connection is lost, every recipient has one outcome: what the server had said
        of it, or a temporary failure.
        """
        heard = sum(len(said) for _, said in talk.script)
        for limit in range(heard):
            left = limit

            def cut(octets: bytes) -> list[bytes]:
                nonlocal left
                taken, left = octets[:left], max(0, left - len(octets))
                return [taken]

            client = Converser(talk, cut)
            for _, said in talk.script:
                for piece in cut(said):
                    client.session.receive(piece)
                    client.go_on()
            client.session.connection_lost()
            client.go_on()

            assert client.ended is not None
            if client.outcomes:
                for code, full in zip(client.codes, talk.codes, strict=True):
                    assert code == full or code // 100 == 4
            assert client.over == (1 if client.outcomes else 0)


class TestWishes:
    """
    What MAIL says of the rest of the way, to a server that has announced it.
    """

    @each_row(
        ("parameters", "known", "said"),
        [
            ({"MT-PRIORITY": -3}, {"MT-PRIORITY"}, b" MT-PRIORITY=-3"),
            ({"MT-PRIORITY": 0}, {"MT-PRIORITY"}, b""),
            ({"MT-PRIORITY": 3}, {"DSN"}, b""),
            ({"BY": DeliverBy(120, is_returned=True)}, {"DELIVERBY"}, b" BY=120;R"),
            (
                {"BY": DeliverBy(-5, is_returned=False, is_traced=True)},
                {"DELIVERBY"},
                b" BY=-5;NT",
            ),
            ({"BY": DeliverBy(120, is_returned=False)}, set(), b""),
            ({"REQUIRETLS": True}, {"REQUIRETLS"}, b" REQUIRETLS"),
            ({"REQUIRETLS": True}, set(), b""),
            ({"RET": "FULL", "ENVID": "a b"}, {"DSN"}, b" RET=FULL ENVID=a+20b"),
            ({"AUTH": "<>"}, {"AUTH"}, b" AUTH=<>"),
            ({"AUTH": "<>"}, set(), b""),
            ({"X-OTHER": "1", "AUTH": "me@x"}, {"DSN", "AUTH", "X-OTHER"}, b""),
        ],
    )
    def test_said(self, parameters: dict[str, Any], known: set[str], said: bytes) -> None:
        """
        Our own server reads the same.
        """
        sender = Sender(None, parameters)
        mail, _ = envelope_lines(evolve(mailing("pat"), sender=sender), known)

        assert b"MAIL FROM:<>" + said + b"\r\n" == mail
        _, words = parse_mail(mail[len("MAIL ") : -2])
        if "BY" in words:
            assert deliver_by(words["BY"]) == sender.deliver_by
        if "MT-PRIORITY" in words:
            assert priority(words["MT-PRIORITY"]) == sender.priority

    @each_row(
        ("parameters", "terms", "options", "extensions", "lacking"),
        [
            ({"REQUIRETLS": True}, LMTP, {}, ["REQUIRETLS"], "REQUIRETLS"),
            (
                {"REQUIRETLS": True},
                evolve(LMTP, tls=TLS.ENCRYPT),
                {"is_encrypted": True},
                ["REQUIRETLS"],
                "REQUIRETLS",
            ),
            (
                {"REQUIRETLS": True},
                evolve(LMTP, tls=TLS.MUST),
                {"is_encrypted": True},
                ["8BITMIME"],
                "REQUIRETLS",
            ),
            (
                {"REQUIRETLS": True},
                evolve(LMTP, tls=TLS.MUST),
                {"is_encrypted": True},
                ["REQUIRETLS"],
                None,
            ),
            ({"REQUIRETLS": True}, LMTP, {"is_private": True}, ["8BITMIME"], None),
            ({"BY": DeliverBy(9, is_returned=True)}, SMTP, {}, ["SIZE"], "DELIVERBY"),
            ({"BY": DeliverBy(9, is_returned=True)}, SMTP, {}, ["DELIVERBY"], None),
            ({"BY": DeliverBy(9, is_returned=True)}, SMTP, {}, ["DELIVERBY 9"], None),
            ({"BY": DeliverBy(9, is_returned=True)}, SMTP, {}, ["DELIVERBY 10"], "DELIVERBY"),
            ({"BY": DeliverBy(9, is_returned=True)}, SMTP, {}, ["DELIVERBY 10,X"], "DELIVERBY"),
            ({"BY": DeliverBy(9, is_returned=True)}, SMTP, {}, ["DELIVERBY ,X"], None),
            ({"BY": DeliverBy(9, is_returned=False)}, SMTP, {}, ["DELIVERBY 10"], None),
            ({"BY": DeliverBy(9, is_returned=True)}, LMTP, {}, ["SIZE"], None),
            ({"BY": DeliverBy(9, is_returned=False)}, SMTP, {}, ["SIZE"], None),
        ],
    )
    def test_where_it_goes(
        self,
        parameters: dict[str, Any],
        terms: Terms,
        options: dict[str, Any],
        extensions: list[str],
        lacking: str | None,
    ) -> None:
        """
        What must stay secret goes to no server that was not looked at, or promises nothing; what must
        be in time, to no relay that knows nothing of time.
        """
        session = ClientSession(terms, **options)
        verb = "EHLO" if terms.dialect is Dialect.SMTP else "LHLO"
        session.receive(GREETING[1])
        session.data_to_send()
        session.receive(hello(*extensions, verb=verb)[1])
        session.begin(evolve(mailing("pat", "green"), sender=Sender(None, parameters)))

        said = session.data_to_send()
        settled = []
        while (event := session.next_event()) is not None:
            if isinstance(event, RecipientSettled):
                settled.append(event.outcome)
        if lacking is None:
            assert said.startswith(b"MAIL FROM:<>")
            assert [] == settled
        else:
            assert b"" == said
            assert [lacking] * 2 == [each.lacking for each in settled]
            assert all(each.is_permanent for each in settled)
            assert session.is_ready


class TestPassingOn:
    @given(
        sampled_from(["a b", "+=", "QQ314159"]),
        sampled_from([frozenset({"NEVER"}), frozenset({"SUCCESS", "DELAY"})]),
        sampled_from(
            [
                OriginalRecipient("rfc822", "a+b=c d@example.org"),
                OriginalRecipient("utf-8", "jörg\\x@bücher.example"),
                OriginalRecipient("x400", "/c=de/ =x"),
            ]
        ),
    )
    def test_what_our_server_has_read(
        self, envelope_id: str, notify: frozenset[str], original: OriginalRecipient
    ) -> None:
        """
        The parameters of a Sender and a Recipient, as our own server reads them, may be said again,
        and the next server of ours reads the same.
        """
        sender = Sender(None, {"ENVID": envelope_id, "RET": "HDRS"})
        recipient = Recipient(Address("pat", "foo.edu"), {"NOTIFY": notify, "ORCPT": original})

        mail, [rcpt] = envelope_lines(Mailing(sender, (recipient,), "7BIT"), {"DSN"})

        dsn = DSN()
        _, said = parse_mail(mail[len("MAIL ") : -2])
        assert {name: dsn.mail_parameters[name](value) for name, value in said.items()} == dict(
            sender.parameters
        )
        _, said = parse_rcpt(rcpt[len("RCPT ") : -2])
        assert {name: dsn.rcpt_parameters[name](value) for name, value in said.items()} == dict(
            recipient.parameters
        )
