"""
AUTH, with an authority that answers when it is told to.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

import pytest
from scramp import ScramClient

from lmtpsvc import replies
from lmtpsvc.auth.stored_keys import make_keys
from lmtpsvc.envelope import Client
from lmtpsvc.limits import Limits
from lmtpsvc.replies import Reply
from lmtpsvc.session.auth import MAX_LINE, Auth
from lmtpsvc.session.connection import Connection, Terms
from lmtpsvc.session.events import Asked
from lmtpsvc.session.extensions import Extensions
from lmtpsvc.session.sasl import StoredKeys
from lmtpsvc.session.server import ServerSession

from ..rows import each_row

KEYS = make_keys("secret", 4096, b"salt" * 4)


class Clerk:
    """
    An authority that knows Ann, whose password is ``secret``.
    """

    takes_passwords = has_keys = takes_proof = True

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str | None]] = []
        self.waits: list[float] = []

    def check_password(self, user: str, password: str) -> Any:
        return user if (user, password) in {("ann", "secret"), ("jörg", "sécret")} else None

    def stored_keys(self, user: str) -> StoredKeys:
        if user in {"ann", "a,b=c"}:
            return KEYS
        return StoredKeys(KEYS.salt, KEYS.stored_key, KEYS.server_key, 4096, is_known=False)

    def check_proven(self, name: str) -> Any:
        return name if name in {"mta.example.org", "postfix"} else None

    def name_of(self, uid: int) -> str | None:
        return {117: "postfix", 1000: "ann"}.get(uid)

    def wait(self, clock: object, seconds: float) -> Any:
        assert clock == "clock"
        self.waits.append(seconds)

    def tell(self, host: str, mechanism: str, login: str | None) -> None:
        self.told.append((host, mechanism, login))


class Agent:
    clock = "clock"
    limits = Limits()


CLEAR = Connection("192.0.2.1", offers_tls=True)
SECURE = Connection("192.0.2.1", tls=True)
LOCAL = Connection(uid=117)
CERTIFIED = Connection("192.0.2.1", tls=True, certificate="mta.example.org")


class Talk:
    """
    A conversation over *connection*; what is asked is answered at once.
    """

    def __init__(
        self, connection: Connection = SECURE, limits: Limits | None = None, cut: int = 100_000
    ) -> None:
        self.clerk, self._cut = Clerk(), cut
        self.session = ServerSession(
            "mx", limits or Limits(), Extensions([Auth(self.clerk)]), connection
        )
        self.session.receive(b"LHLO client.example\r\n")
        assert self.session.next_event() is None
        self.hello = self.session.data_to_send().splitlines()[-1:]

    def __call__(self, *lines: bytes) -> list[bytes]:
        """
        Say *lines*, the next one when the last one is answered; returns the lines that come back.
        """
        heard = b""
        for line in lines:
            octets = line + b"\r\n"
            for at in range(0, len(octets), self._cut):
                self.session.receive(octets[at : at + self._cut])
                while (event := self.session.next_event()) is not None:
                    assert isinstance(event, Asked)
                    self.session.answer_asked(event, event.find(Agent()))
            heard += self.session.data_to_send()
        return heard.splitlines()


def line(reply: Reply) -> bytes:
    return reply.wire[:-2]


def base64(text: bytes | str) -> bytes:
    return b64encode(text.encode() if isinstance(text, str) else text)


OK = line(replies.AUTHENTICATED)
NO = line(replies.LOGIN_FAILED)
PLAIN = base64(b"\0ann\0secret")


class TestAnnounced:
    @pytest.mark.parametrize(
        ("connection", "said"),
        [
            (CLEAR, b"AUTH SCRAM-SHA-256"),
            (SECURE, b"AUTH SCRAM-SHA-256 PLAIN LOGIN"),
            (LOCAL, b"AUTH EXTERNAL SCRAM-SHA-256 PLAIN LOGIN"),
            (CERTIFIED, b"AUTH EXTERNAL SCRAM-SHA-256 PLAIN LOGIN"),
        ],
    )
    def test_what_is_safe(self, connection: Connection, said: bytes) -> None:
        """
        Passwords are asked for only where nobody can read along.
        """
        assert [b"250 " + said] == Talk(connection).hello

    def test_nothing(self) -> None:
        """
        Where there is no mechanism, the keyword is not announced, and AUTH says what is wrong.
        """
        clerk = Clerk()
        clerk.has_keys = False
        session = ServerSession("mx", Limits(), Extensions([Auth(clerk)]), CLEAR)
        session.receive(b"LHLO x\r\nAUTH PLAIN " + PLAIN + b"\r\n")
        assert session.next_event() is None

        *_, hello, said = session.data_to_send().splitlines()
        assert (b"250 mx", line(replies.LOGIN_NEEDS_TLS)) == (hello, said)


class TestExchange:
    @each_row(
        ("said", "heard"),
        [
            ([b"AUTH PLAIN " + PLAIN], [OK]),
            ([b"auth plain " + PLAIN], [OK]),
            ([b"AUTH PLAIN", PLAIN], [b"334 ", OK]),
            ([b"AUTH PLAIN " + base64("ann\0ann\0secret")], [OK]),
            ([b"AUTH PLAIN " + base64("\0jörg\0sécret")], [OK]),
            ([b"AUTH PLAIN " + base64("bob\0ann\0secret")], [NO]),
            ([b"AUTH PLAIN " + base64("\0ann\0wrong")], [NO]),
            ([b"AUTH PLAIN " + base64("\0nobody\0secret")], [NO]),
            ([b"AUTH PLAIN ="], [line(replies.BAD_RESPONSE)]),
            ([b"AUTH PLAIN " + base64("ann\0secret")], [line(replies.BAD_RESPONSE)]),
            ([b"AUTH PLAIN " + base64("\0\0secret")], [line(replies.BAD_RESPONSE)]),
            ([b"AUTH PLAIN " + base64("\0ann\0")], [line(replies.BAD_RESPONSE)]),
            ([b"AUTH PLAIN " + base64("\0ann\0secret\0")], [line(replies.BAD_RESPONSE)]),
            ([b"AUTH PLAIN " + base64(b"\0ann\0\xff")], [line(replies.BAD_RESPONSE)]),
            ([b"AUTH PLAIN", b"*"], [b"334 ", line(replies.LOGIN_CANCELLED)]),
            ([b"AUTH PLAIN", PLAIN[:-1]], [b"334 ", line(replies.BAD_BASE64)]),
            ([b"AUTH PLAIN", PLAIN + b" "], [b"334 ", line(replies.BAD_BASE64)]),
            ([b"AUTH PLAIN", b"Zm9v\tYmFy"], [b"334 ", line(replies.BAD_BASE64)]),
            ([b"AUTH PLAIN", b"Zm9v=Zm9v"], [b"334 ", line(replies.BAD_BASE64)]),
            ([b"AUTH PLAIN " + b"!"], [line(replies.BAD_BASE64)]),
            ([b"AUTH PLAIN " + PLAIN + b" x"], [line(replies.BAD_AUTH)]),
            ([b"AUTH"], [line(replies.BAD_AUTH)]),
            ([b"AUTH CRAM-MD5"], [line(replies.UNKNOWN_MECHANISM)]),
            ([b"AUTH \xff\xfe"], [line(replies.UNKNOWN_MECHANISM)]),
            ([b"AUTH EXTERNAL"], [line(replies.UNKNOWN_MECHANISM)]),
            (
                [b"AUTH LOGIN", base64("ann"), base64("secret")],
                [b"334 VXNlcm5hbWU6", b"334 UGFzc3dvcmQ6", OK],
            ),
            ([b"AUTH LOGIN " + base64("ann"), base64("secret")], [b"334 UGFzc3dvcmQ6", OK]),
            ([b"AUTH LOGIN " + base64("ann"), base64("no")], [b"334 UGFzc3dvcmQ6", NO]),
            (
                [b"AUTH LOGIN", base64("ann"), b"*"],
                [b"334 VXNlcm5hbWU6", b"334 UGFzc3dvcmQ6", line(replies.LOGIN_CANCELLED)],
            ),
            (
                [b"AUTH LOGIN", b"", base64("secret")],
                [b"334 VXNlcm5hbWU6", b"334 UGFzc3dvcmQ6", line(replies.BAD_RESPONSE)],
            ),
            ([b"AUTH SCRAM-SHA-256 " + base64("n,,n=ann")], [line(replies.BAD_RESPONSE)]),
            ([b"AUTH SCRAM-SHA-256 " + base64("p=x,,n=ann,r=abc")], [line(replies.BAD_RESPONSE)]),
            ([b"AUTH SCRAM-SHA-256 " + base64("n,,n=a=2D,r=abc")], [line(replies.BAD_RESPONSE)]),
            ([b"AUTH SCRAM-SHA-256 " + base64("n,a=bob,n=ann,r=abc")], [NO]),
            (
                [b"AUTH SCRAM-SHA-256 " + base64("n,,n=ann,r=" + "x" * 2000)],
                [line(replies.BAD_RESPONSE)],
            ),
        ],
    )
    @each_row("cut", [100_000, 1])
    def test_table(self, said: list[bytes], heard: list[bytes], cut: int) -> None:
        """
        Each line has this answer, and behind it the conversation goes on.
        """
        talk = Talk(cut=cut)

        assert heard == talk(*said)
        login = talk.session.client.login
        assert (heard[-1] == OK) == bool(login)
        assert [line(replies.OK)] == talk(b"NOOP")

    @each_row(
        ("connection", "said", "login"),
        [
            (CERTIFIED, b"=", "mta.example.org"),
            (CERTIFIED, base64("mta.example.org"), "mta.example.org"),
            (CERTIFIED, base64("postfix"), ""),
            (Connection("::1", tls=True, certificate="bob"), b"=", ""),
            (LOCAL, b"=", "postfix"),
            (Connection(uid=1000), b"=", ""),
            (Connection(uid=4711), b"=", ""),
        ],
    )
    @each_row("cut", [100_000, 1])
    def test_external(self, connection: Connection, said: bytes, login: str, cut: int) -> None:
        """
        Who the certificate names, or the user on a UNIX socket; and nobody else.
        """
        talk = Talk(connection, cut=cut)

        assert [OK if login else NO] == talk(b"AUTH EXTERNAL " + said)
        assert login == talk.session.client.login

    @each_row(
        ("user", "password", "known"),
        [
            ("ann", "secret", True),
            ("a,b=c", "secret", True),
            ("ann", "wrong", False),
            ("nobody", "secret", False),
        ],
    )
    @each_row("cut", [100_000, 1])
    def test_scram(self, user: str, password: str, known: bool, cut: int) -> None:
        """
        Both sides prove that they know the password; who does not exist hears the same as who has
        typed the wrong one, and as late.
        """
        talk, client = Talk(CLEAR, cut=cut), ScramClient(["SCRAM-SHA-256"], user, password)

        [challenge] = talk(b"AUTH SCRAM-SHA-256 " + base64(client.get_client_first()))
        client.set_server_first(b64decode(challenge.removeprefix(b"334 ")).decode())
        [said] = talk(base64(client.get_client_final()))

        if not known:
            assert NO == said
            assert not talk.session.client.login
            return
        client.set_server_final(b64decode(said.removeprefix(b"334 ")).decode())
        assert [OK] == talk(b"")
        assert user == talk.session.client.login

    @each_row("cut", [100_000, 1])
    def test_scram_at_its_end(self, cut: int) -> None:
        """
        What the client says to the last challenge is nothing.
        """
        talk, client = Talk(cut=cut), ScramClient(["SCRAM-SHA-256"], "ann", "secret")
        [challenge] = talk(b"AUTH SCRAM-SHA-256 " + base64(client.get_client_first()))
        client.set_server_first(b64decode(challenge[4:]).decode())

        _, said = talk(base64(client.get_client_final()), base64("more"))

        assert (line(replies.BAD_RESPONSE), "") == (said, talk.session.client.login)

    @each_row("octets", [MAX_LINE - 1, MAX_LINE, 10 * MAX_LINE])
    @each_row("cut", [100_000, 1])
    def test_long_line(self, octets: int, cut: int) -> None:
        """
        No more of a line is kept than one may have, and none of the rest is a command.
        """
        talk = Talk(cut=1000 if cut == 1 else cut)
        said = talk(b"AUTH PLAIN", b"A" * octets)

        assert [b"334 ", line(replies.RESPONSE_TOO_LONG)] == said
        assert not talk.session.has_unread
        assert [line(replies.OK)] == talk(b"NOOP")

    @each_row("cut", [100_000, 1])
    def test_longest_line(self, cut: int) -> None:
        """
        The longest response that may be is read, however it is cut.
        """
        octets = base64(b"\0ann\0" + b"x" * 9208)
        assert MAX_LINE - 4 < len(octets) + 2 <= MAX_LINE

        assert [b"334 ", NO] == Talk(cut=1000 if cut == 1 else cut)(b"AUTH PLAIN", octets)


class TestWhen:
    def test_before_lhlo(self) -> None:
        """
        Before LHLO, nobody can log in.
        """
        session = ServerSession("mx", Limits(), Extensions([Auth(Clerk())]), SECURE)
        session.data_to_send()
        session.receive(b"AUTH PLAIN\r\n")
        assert session.next_event() is None

        assert replies.LHLO_FIRST.wire == session.data_to_send()

    def test_in_a_transaction(self) -> None:
        """
        RFC 4954 §4: not between MAIL and its end.
        """
        talk = Talk()

        said = talk(b"MAIL FROM:<>", b"AUTH PLAIN " + PLAIN, b"RSET", b"AUTH PLAIN " + PLAIN)

        assert [line(replies.IN_TRANSACTION), line(replies.OK), OK] == said[1:]

    def test_twice(self) -> None:
        """
        RFC 4954 §4: once is enough; also after another LHLO, which changes nothing.
        """
        talk = Talk()
        talk(b"AUTH PLAIN " + PLAIN)

        assert [line(replies.LOGGED_IN)] == talk(b"AUTH PLAIN " + PLAIN)
        talk(b"LHLO other.example")
        assert [line(replies.LOGGED_IN)] == talk(b"AUTH PLAIN " + PLAIN)
        assert "ann" == talk.session.client.login

    def test_forgotten(self) -> None:
        """
        A login in the clear is no login behind STARTTLS (RFC 3207 §4.2).
        """
        talk = Talk(LOCAL)
        talk(b"AUTH EXTERNAL =")
        assert "postfix" == talk.session.client.login

        talk.session.begin_anew()

        assert Client("local") == talk.session.client


class TestFailing:
    def test_slower_and_slower(self) -> None:
        """
        Nothing is read meanwhile, each failure takes longer than the one before, and after the third
        the client is sent away.
        """
        talk, wrong = Talk(), b"AUTH PLAIN " + base64("\0ann\0wrong")

        assert [NO, NO, line(replies.TOO_MANY_LOGINS)] == talk(wrong, wrong, wrong)

        assert [1, 2, 4] == talk.clerk.waits
        assert talk.session.closed
        assert [("192.0.2.1", "PLAIN", None)] * 3 == talk.clerk.told

    def test_well_in_the_end(self) -> None:
        """
        Who has failed once may try again.
        """
        talk = Talk()

        assert [NO, OK] == talk(b"AUTH PLAIN " + base64("\0ann\0x"), b"AUTH PLAIN " + PLAIN)
        assert ("192.0.2.1", "PLAIN", "ann") == talk.clerk.told[-1]

    def test_an_error(self) -> None:
        """
        It counts as one of the client's.
        """
        talk = Talk(limits=Limits(errors=1))

        said = talk(b"AUTH PLAIN " + base64("\0ann\0wrong"))

        assert [NO, line(replies.TOO_MANY_ERRORS)] == said

    def test_nobody_knows(self) -> None:
        """
        An authority that fails is no wrong password: nothing is counted.
        """
        talk = Talk()
        talk.session.receive(b"AUTH PLAIN " + PLAIN + b"\r\nNOOP\r\n")
        asked = talk.session.next_event()
        assert isinstance(asked, Asked)
        assert b"" == talk.session.data_to_send()

        talk.session.refuse_asked(asked, replies.LOGIN_UNCHECKED)

        assert [line(replies.LOGIN_UNCHECKED), line(replies.OK)] == _rest(talk)
        assert ([], []) == (talk.clerk.told, talk.clerk.waits)


def _rest(talk: Talk) -> list[bytes]:
    assert talk.session.next_event() is None
    return talk.session.data_to_send().splitlines()


class TestRequired:
    TERMS = Terms(login_required=True)

    @pytest.mark.parametrize(
        ("said", "heard"),
        [
            (b"MAIL FROM:<>", replies.LOGIN_REQUIRED),
            (b"VRFY ann", replies.LOGIN_REQUIRED),
            (b"RCPT TO:<a@b>", replies.MAIL_FIRST),
            (b"DATA", replies.MAIL_FIRST),
            (b"NOOP", replies.OK),
            (b"RSET", replies.OK),
        ],
    )
    def test_before(self, said: bytes, heard: Reply) -> None:
        """
        RFC 4954 §6: no mail for strangers, and no knowledge of who lives here.
        """
        talk = Talk(Connection("192.0.2.1", tls=True, terms=self.TERMS))

        assert [line(heard)] == talk(said)

    def test_after(self) -> None:
        """
        Where a login is required, mail is taken after it.
        """
        talk = Talk(Connection("192.0.2.1", tls=True, terms=self.TERMS))

        assert [OK, line(replies.SENDER_OK)] == talk(b"AUTH PLAIN " + PLAIN, b"MAIL FROM:<>")


class TestSubmitter:
    @pytest.mark.parametrize(
        ("said", "value"),
        [
            ("<>", ""),
            ("ann@example.org", "ann@example.org"),
            ("e+3Dmc2@example.com", "e=mc2@example.com"),
            ("+22a+20b+22@example.org", '"a b"@example.org'),
        ],
    )
    def test_read(self, said: str, value: str) -> None:
        """
        RFC 4954 §5: it is carried to whoever wants to know.
        """
        talk = Talk()

        assert [line(replies.SENDER_OK)] == talk(f"MAIL FROM:<a@b> AUTH={said}".encode())
        sender = talk.session._sender
        assert sender is not None
        assert value == sender.parameters["AUTH"]

    @pytest.mark.parametrize(
        "said",
        [
            "AUTH",
            "AUTH=ann",
            "AUTH=+zz",
            "AUTH=a+0Db@c",
            "AUTH=a@b+3E+20X",
            "AUTH=a@b+3E+20X+3D1",
            "AUTH=<a@b>",
        ],
    )
    def test_broken(self, said: str) -> None:
        """
        AUTH= at MAIL with a value that is none is refused.
        """
        assert [line(replies.BAD_PARAMETER)] == Talk()(f"MAIL FROM:<a@b> {said}".encode())
