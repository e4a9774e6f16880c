"""
All verbs and parameters at once, in any order and cut anywhere: nothing that a client says gets the
conversation out of step.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis.strategies import binary, integers, lists, one_of, sampled_from, sets
from twisted.internet.defer import succeed

from lmtpsvc import replies
from lmtpsvc.auth.stored_keys import make_keys
from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import refusal
from lmtpsvc.limits import Limits
from lmtpsvc.replies import Reply
from lmtpsvc.response_codes import ResponseCode
from lmtpsvc.session.auth import Auth
from lmtpsvc.session.connection import Connection, Terms
from lmtpsvc.session.dsn import DSN
from lmtpsvc.session.events import (
    Asked,
    MessageReceived,
    RecipientOffered,
    TextAbandoned,
    TextBegun,
    TextDiscarded,
    TextReceived,
    TLSBegins,
)
from lmtpsvc.session.sasl import StoredKeys
from lmtpsvc.session.server import ServerSession
from lmtpsvc.session.standard import standard_extensions
from lmtpsvc.session.states import State
from lmtpsvc.session.valid_since import ValidSinceThen
from lmtpsvc.session.verification import Verification

KEYS = make_keys("secret", 4096, b"salt" * 4)
LIMITS = Limits(message_size=1000, command_line=512, errors=15, recipients=5)


class Clerk:
    """
    An authority that knows Ann, and does not know whether there is a Bob.
    """

    takes_passwords = has_keys = takes_proof = True

    def check_password(self, user: str, password: str) -> Any:
        if user == "bob":
            raise refusal(replies.LOGIN_UNCHECKED)
        return user if (user, password) == ("ann", "secret") else None

    def stored_keys(self, user: str) -> StoredKeys:
        return KEYS

    def check_proven(self, name: str) -> Any:
        return name if name == "postfix" else None

    def name_of(self, uid: int) -> str | None:
        return {117: "postfix"}.get(uid)

    def wait(self, clock: object, seconds: float) -> Any:
        return None

    def tell(self, host: str, mechanism: str, login: str | None) -> None:
        pass


class Agent:
    """
    Knows Ann, and the list ``all``.
    """

    clock = None
    limits = LIMITS

    class routing:  # noqa: N801 - as an agent has it
        class rules:  # noqa: N801
            @staticmethod
            def mailbox(address: Any) -> Mailbox:
                return Mailbox(address.local, address.domain or "foo.edu")

    def resolve(self, address: Any) -> Any:
        if address.local == "no":
            raise refusal(replies.NO_SUCH_USER)
        names = ("ann", "j\u00f6rg") if address.local == "all" else (address.local,)
        return succeed(tuple(Mailbox(name, address.domain or "foo.edu") for name in names))


#: What each connection is, for a client that may do the most.
TRUSTED = Connection("local", uid=117, offers_tls=True, is_trusted=True)
STRANGER = Connection("192.0.2.1", offers_tls=True)
CLEAR = Connection("192.0.2.1", offers_tls=True, is_trusted=True, terms=Terms(tls_required=True))
UNKNOWN = Connection("192.0.2.1", tls=True, terms=Terms(login_required=True))
CONNECTIONS = [TRUSTED, STRANGER, CLEAR, UNKNOWN]


class Played:
    """
    A conversation over *connection*, with somebody who answers all that comes up.  *messages* has the
    names of those whom each complete message was for.
    """

    def __init__(self, connection: Connection) -> None:
        more = [DSN(), Auth(Clerk()), Verification(), ValidSinceThen(lambda: True)]
        extensions = standard_extensions(LIMITS, more, binary=True)
        self.session = ServerSession("foo.edu", LIMITS, extensions, connection)
        self.sent = b""
        self.said = 0
        self.messages: list[list[str]] = []
        self.texts: list[bytes] = []
        self.is_text_open = False
        self._text = b""
        self._accepted: tuple[RecipientOffered, ...] = ()

    def feed(self, chunks: Iterable[bytes]) -> None:
        for chunk in chunks:
            self.session.receive(chunk)
            while (event := self.session.next_event()) is not None:
                self._take(event)
                sent = self.session.data_to_send()
                self.sent += sent
            self.sent += self.session.data_to_send()
            # What is not a whole command, or in front of a text.
            assert len(self.session._buffer) <= len(chunk) + 13_000

    def take_sent(self) -> bytes:
        sent, self.sent = self.sent, b""
        return sent

    def _take(self, event: Any) -> None:
        session = self.session
        match event:
            case RecipientOffered():
                no = event.recipient.address.local == "no"
                session.answer_recipient(
                    event, replies.NO_SUCH_USER if no else replies.RECIPIENT_OK
                )
            case TextBegun():
                assert not self.is_text_open
                self._accepted, self._text, self.is_text_open = event.accepted, b"", True
            case TextReceived():
                assert self.is_text_open
                self._text += event.octets
                assert len(self._text) <= LIMITS.message_size
            case TextDiscarded() | TextAbandoned():
                assert self.is_text_open
                self.is_text_open = False
            case MessageReceived():
                assert self.is_text_open
                self.is_text_open = False
                self.texts.append(self._text)
                self.messages.append([str(offer.recipient) for offer in self._accepted])
                assert len(event.slots) == len(self._accepted) > 0
                for offer, slot in zip(self._accepted, event.slots, strict=True):
                    codes = (
                        ResponseCode("MAILDATA", 'x"] 250'),
                        ResponseCode("REFERRAL", "lmtp://b/"),
                    )
                    session.answer_message(
                        slot, replies.delivered("t1", str(offer.recipient), codes)
                    )
            case Asked():
                try:
                    found = event.find(Agent())
                except Exception as error:
                    reply = getattr(error, "reply", None)
                    assert isinstance(reply, Reply)
                    session.refuse_asked(event, reply)
                else:
                    if hasattr(found, "addCallback"):
                        found.addCallback(lambda found: session.answer_asked(event, found))
                    else:
                        session.answer_asked(event, found)
            case TLSBegins():
                assert not session.has_unread
                session.encrypted(Connection("192.0.2.1", tls=True, is_trusted=True))


def base64(octets: bytes) -> bytes:
    return b64encode(octets)


#: Whole commands, each of which is answered once, and what may stand in a text.
COMMANDS = [
    *[b"LHLO a", b"HELO a", b"EHLO a", b"RSET", b"NOOP x", b"HELP", b"HELP BDAT", b"HELP \xff"],
    *[b"VERB", b"ONEX", b"SEND FROM:<a@b>", b"TURN", b"STARTTLS", b"STARTTLS x", b"XYZZY", b""],
    *[b"MAIL FROM:<>", b"MAIL FROM:<a@b>", b"MAIL FROM:<a@b> BODY=BINARYMIME XRESPCODES"],
    b"MAIL FROM:<a@b> RET=FULL ENVID=QQ+0D+0A314159 SIZE=10",
    b"MAIL FROM:<a@b> RET=FULL ENVID=QQ314159 SIZE=10 XRESPCODES=MAILDATA",
    b"MAIL FROM:<j\xc3\xb6rg@b> SMTPUTF8 BY=120;R MT-PRIORITY=3 AUTH=<>",
    b"MAIL FROM:<a@b> REQUIRETLS AUTH=a+2Bb@example.org",
    b"MAIL FROM:<a@b> BY=999999999;NT MT-PRIORITY=-9 AUTH=+0A SIZE=99999999999999999999",
    b"MAIL FROM:<a@b> BY=-999999999;N",
    *[b"RCPT TO:<ann@b>", b"RCPT TO:<no@b>", b"RCPT TO:<Postmaster>", b"RCPT TO:<j\xc3\xb6rg@b>"],
    b"RCPT TO:<ann@b> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;ann+40b",
    b"RCPT TO:<ann@b> ORCPT=rfc822;ann+0D+0A250",
    b"RCPT TO:<ann@b> ORCPT=utf-8;j\\x{F6}rg@b",
    b"RCPT TO:<ann@b> ORCPT=utf-8;\\x{D}\\x{A}@b",
    b"RCPT TO:<ann@b> MAILDATA=" + b"x" * 300 + b" IGNOREQUOTA XRCPTFORWARD=a+3Db+09c",
    b"RCPT TO:<ann@b> RRVS=0001-01-01T00:00:00+23:59;C",
    b"RCPT TO:<ann@b> RRVS=9999-12-31T23:59:60-23:59;R",
    *[b"VRFY ann", b"VRFY no", b"VRFY all@foo.edu", b"EXPN all", b"EXPN all SMTPUTF8", b"EXPN no"],
    *[b"EXPN \xff", b'VRFY "\\"', b"TRACE a-1", b"TRACE \xff"],
    b"XCLIENT ADDR=192.0.2.7 NAME=mx.example.org LOGIN=ann SESSION=x HELO=h PROTO=ESMTP",
    b"XCLIENT ADDR=[UNAVAILABLE] LOGIN=[UNAVAILABLE]",
    b"XCLIENT ADDR=IPV6:2001:db8::1 PORT=1 TIMEOUT=5 TTL=3 CLIENT-TRANSPORT=TLS FORWARD=YT1i",
    *[b"XCLIENT LOGIN=a+0D+0Ab", b"XCLIENT NAME=a+0Ab HELO=(", b"XCLIENT", b"XCLIENT \xff=1"],
    *[b"XFORWARD ADDR=192.0.2.7 IDENT=a+0D+0A", b"XFORWARD NAME=\xff", b"XFORWARD SOURCE=X"],
    *[b"AUTH", b"AUTH PLAIN " + base64(b"\0ann\0secret"), b"AUTH PLAIN " + base64(b"\0bob\0x")],
    *[b"AUTH PLAIN " + base64(b"\0ann\0no"), b"AUTH PLAIN ???", b"AUTH LOGIN QQ==", b"AUTH PLAIN"],
    *[b"AUTH LOGIN", b"AUTH SCRAM-SHA-256", b"AUTH EXTERNAL =", b"AUTH EXTERNAL", b"AUTH \xff"],
    b"AUTH SCRAM-SHA-256 " + base64(b"n,,n=ann,r=fyko+d2lbbFgONRv9qkxdawL"),
    b"AUTH SCRAM-SHA-256 " + base64(b"n,,n=ann,r=" + b"x" * 300),
    b"AUTH SCRAM-SHA-256 " + base64(b"y,a=b,n=,r=,m=="),
    *[b"*", b"=", base64(b"ann"), base64(b"secret"), base64(b"\xff"), base64(b"\0ann\0secret")],
    *[base64(b"c=biws,r=" + b"x" * 40 + b",p=" + base64(b"p" * 32)), base64(b"c=,r=,p=")],
    *[base64(b"e=other-error"), base64(b"c=\xc3\xb6,r=1,p=1,p=2"), base64(b",,,=,="), b"QUIT x"],
]
_CHUNKS = [b"", b"x", b"QUIT\r\n", b"\r\n.\r\n", b"\0" * 20, MAIL := b"MAIL FROM:<a@b>\r\n"]
CHUNKS = [
    b"BDAT %d%s\r\n%s" % (len(octets), last, octets)
    for octets in (*_CHUNKS, b"x" * 600)
    for last in (b"", b" LAST", b" last", b" X")
]
#: What is answered in another way, or ends the conversation.
OTHERS = [
    *[b"QUIT\r\n", b"BDAT\r\n", b"BDAT -1\r\n", b"BDAT\t5 LAST\r\nHELP\r\n", b"bdat 5\n"],
    *[b"BDAT 999999999999999999999\r\n", b"BDAT 1" + b"x" * 600 + b"\r\n", b"y" * 600 + b"\r\n"],
    *[b"DATA\r\n", b"DATA\r\nHi\r\n.\r\n", b".\r\n", b"\n", b"\r", b"\0", b"z" * 13_000 + b"\r\n"],
]
TRANSACTION = MAIL + b"RCPT TO:<ann@b>\r\nRCPT TO:<no@b>\r\nRCPT TO:<pat@b>\r\n"
LINES = [each + b"\r\n" for each in COMMANDS]


def complete_replies(sent: bytes) -> list[bytes]:
    """
    Part what a client gets into replies, which must be well formed (RFC 5321 §4.2, RFC 2034 §4).
    """
    assert re.fullmatch(rb"(?:[2-5]\d\d[- ][ -~\x80-\xff]*\r\n)*", sent)
    found = re.findall(rb"(?:\d\d\d-[^\r]*\r\n)*\d\d\d [^\r]*\r\n", sent)
    assert sent == b"".join(found)
    for reply in found:
        lines = reply.splitlines()
        assert len({line[:3] for line in lines}) == 1
        for line in lines:
            assert len(line) <= 510
            status = re.match(rb"(\d)\d\d[- ](\d)\.\d+\.\d+ ", line)
            assert status is None or status[1] == status[2]
            assert status is not None or re.match(rb"220 foo.edu LMTP|250[- ]|354|334", line)
    return found


def cut(octets: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(place for place in places if 0 < place < len(octets)), len(octets)]
    return [octets[start:end] for start, end in pairwise(edges)]


ANYTHING = one_of(
    sampled_from([*LINES, *CHUNKS, *OTHERS, TRANSACTION, TRANSACTION]),
    binary(max_size=20).map(lambda octets: base64(octets) + b"\r\n"),
    binary(max_size=20),
)


@given(
    pieces=lists(ANYTHING, max_size=40),
    places=sets(integers(1, 3000), max_size=20),
    connection=sampled_from(CONNECTIONS),
)
def test_anything(pieces: list[bytes], places: set[int], connection: Connection) -> None:
    """
    No octets raise an exception, all replies are well formed, and each recipient of a complete
    message is answered once.
    """
    played = Played(connection)

    played.feed([b"LHLO a\r\n", *cut(b"".join(pieces), places)])

    heard = complete_replies(played.sent)
    assert [
        f"<{name}>".encode() for names in played.messages for name in names if name.isascii()
    ] == [
        found[1] for reply in heard if (found := re.match(rb"250 2\.0\.0 (<[^>]*>) .*t1 ", reply))
    ]


@given(pieces=lists(ANYTHING, max_size=30), connection=sampled_from(CONNECTIONS))
def test_octet_by_octet(pieces: list[bytes], connection: Connection) -> None:
    """
    It is no different if every octet is a packet of its own; but behind STARTTLS, where what has come
    already ends the conversation, and what comes later is TLS.
    """
    talk = b"".join(pieces)
    whole, slow = Played(connection), Played(connection)

    whole.feed([b"LHLO a\r\n", talk])
    slow.feed([b"LHLO a\r\n", *cut(talk, range(len(talk)))])

    heard, one_by_one = nonces_out(whole), nonces_out(slow)
    if replies.START_TLS.wire in one_by_one or replies.TOO_EARLY.wire in heard:
        heard, one_by_one = (
            each[: each.index(end)] if end in each else each
            for each, end in (
                (heard, replies.TOO_EARLY.wire),
                (one_by_one, replies.START_TLS.wire),
            )
        )
    else:
        assert (whole.messages, whole.texts) == (slow.messages, slow.texts)
    assert heard[: len(one_by_one)] == one_by_one[: len(heard)]


def nonces_out(played: Played) -> list[bytes]:
    """
    The replies, but for what SCRAM makes up.
    """
    return [
        reply[:7] if reply.startswith(b"334 ") else reply for reply in complete_replies(played.sent)
    ]


def bdat_ends(piece: bytes) -> bool:
    return piece[:4] == b"BDAT" and b" LAST" in piece[:20].upper()


@given(
    pieces=lists(sampled_from([*LINES, *CHUNKS, TRANSACTION]), max_size=40),
    connection=sampled_from(CONNECTIONS),
)
def test_one_reply_each(pieces: list[bytes], connection: Connection) -> None:
    """
    Each command has one reply, but the last BDAT: that has one for each recipient that was accepted
    behind the MAIL that was said in its place, and none without any (RFC 2033 §4.3).  No HELO is
    welcome.
    """
    played = Played(connection)
    played.feed([b"LHLO a\r\n"])
    accepted, mail_said = 0, False
    for piece in pieces:
        commands = piece.splitlines(keepends=True) if piece == TRANSACTION else [piece]
        for command in commands:
            state, in_exchange = played.session.state, played.session._line_reader is not None
            played.take_sent()

            played.feed([command])

            heard = complete_replies(played.take_sent())
            if state is State.CLOSED:
                assert [] == heard
                return
            if in_exchange and command[:4] == b"BDAT":
                # Its octets are commands now, which no client means.
                return
            expected = accepted if bdat_ends(command) and mail_said else 1
            # The last word may stand behind the reply, or in its place.
            answers = [reply for reply in heard if not reply.startswith(b"421")] or heard
            assert expected == len(answers), (command, heard)
            verb = command[:4].upper()
            if verb in {b"HELO", b"EHLO"} and not in_exchange:
                assert heard[0][:1] == b"5"
            good = bool(heard) and heard[0][:1] == b"2"
            if in_exchange:
                continue
            if verb == b"MAIL" and state is not State.NEW and state is State.READY:
                mail_said, accepted = True, 0
            elif verb == b"RCPT" and good:
                accepted += 1
            elif (verb in {b"LHLO", b"RSET", b"STAR", b"XCLI"} and good) or bdat_ends(command):
                mail_said, accepted = False, 0
