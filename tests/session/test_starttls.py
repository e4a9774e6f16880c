"""
STARTTLS, and what a listener may ask of clients.
"""

from __future__ import annotations

import pytest

from lmtpsvc import replies
from lmtpsvc.limits import Limits
from lmtpsvc.replies import Reply
from lmtpsvc.session.connection import Connection, Terms
from lmtpsvc.session.events import Event, RecipientOffered, TLSBegins
from lmtpsvc.session.server import ServerSession
from lmtpsvc.session.standard import standard_extensions

from ..rows import each_row

CLEAR = Connection("192.0.2.1", offers_tls=True)
SECURE = Connection("192.0.2.1", tls=True)


class Talk:
    """
    A conversation over *connection*.
    """

    def __init__(self, connection: Connection = CLEAR) -> None:
        limits = Limits()
        self.session = ServerSession("mx", limits, standard_extensions(limits), connection)
        self.session.data_to_send()
        self.events: list[Event] = []

    def __call__(self, *packets: bytes) -> list[bytes]:
        """
        Say *packets*; returns the lines that came back.
        """
        for packet in packets:
            self.session.receive(packet)
            self.events += iter(self.session.next_event, None)
        return self.heard()

    def heard(self) -> list[bytes]:
        return self.session.data_to_send().splitlines()

    def encrypt(self, connection: Connection = SECURE) -> None:
        """
        The handshake goes well.
        """
        assert isinstance(self.events.pop(), TLSBegins)
        self.session.encrypted(connection)


def line(reply: Reply) -> bytes:
    return reply.wire[:-2]


class TestAnnounced:
    @pytest.mark.parametrize(
        ("connection", "announced"), [(CLEAR, True), (SECURE, False), (Connection("::1"), False)]
    )
    def test_where_it_is_possible(self, connection: Connection, announced: bool) -> None:
        """
        And where it is not in force yet; elsewhere the verb is unknown.
        """
        talk = Talk(connection)

        assert announced == any(each[4:] == b"STARTTLS" for each in talk(b"LHLO x\r\n"))
        [said] = talk(b"STARTTLS\r\n")
        assert line(replies.START_TLS if announced else replies.UNKNOWN_COMMAND) == said


class TestRefused:
    @pytest.mark.parametrize("argument", [b" now", b" FROM:<a@b>"])
    def test_parameters(self, argument: bytes) -> None:
        """
        RFC 3207 §4: it has none.
        """
        assert [line(replies.NO_PARAMETERS)] == Talk()(b"STARTTLS" + argument + b"\r\n")

    def test_inside_a_transaction(self) -> None:
        """
        What MAIL said would be forgotten behind the client's back.
        """
        talk = Talk()
        talk(b"LHLO x\r\nMAIL FROM:<>\r\n")

        assert [line(replies.IN_TRANSACTION)] == talk(b"STARTTLS\r\n")
        assert [line(replies.OK), line(replies.START_TLS)] == talk(b"RSET\r\n", b"STARTTLS\r\n")

    def test_a_second_time(self) -> None:
        """
        There is no TLS within TLS.
        """
        talk = Talk()
        talk(b"STARTTLS\r\n")
        talk.encrypt()

        assert [line(replies.UNKNOWN_COMMAND)] == talk(b"STARTTLS\r\n")


class TestOrder:
    def test_it_waits(self) -> None:
        """
        Every command before it is answered in the clear.
        """
        talk = Talk()
        talk(b"LHLO x\r\nMAIL FROM:<>\r\n")
        assert [] == talk(b"RCPT TO:<a@b>\r\nRSET\r\n", b"STARTTLS\r\n")
        offer = talk.events.pop()
        assert isinstance(offer, RecipientOffered)

        talk.session.answer_recipient(offer, replies.RECIPIENT_OK)

        said = talk(b"")
        assert [
            line(each) for each in (replies.RECIPIENT_OK, replies.OK, replies.START_TLS)
        ] == said

    @pytest.mark.parametrize(
        "behind", [b"LHLO x\r\n", b"MAIL FROM:<evil@example.org>\r\n", b"X", b"\x16\x03\x01"]
    )
    def test_something_behind_it(self, behind: bytes) -> None:
        """
        Whoever put it there, it is neither heard nor kept (CVE-2011-0411).
        """
        talk = Talk()

        assert [line(replies.TOO_EARLY)] == talk(b"STARTTLS\r\n" + behind)
        assert talk.session.closed
        assert [] == talk.events

    def test_all_is_forgotten(self) -> None:
        """
        The name, the login and the notes of extensions were said in the clear (RFC 3207 §4.2).
        """
        talk = Talk()
        talk(b"LHLO mallory.example\r\n", b"STARTTLS\r\n")
        talk.session.notes["login"] = "mallory"

        talk.encrypt()
        talk.session.handshake_done(Connection("192.0.2.1", tls=True, cipher="TLSv1.3 X"))

        assert [line(replies.LHLO_FIRST)] == talk(b"MAIL FROM:<>\r\n")
        client = talk.session.client
        assert ("", "", True, "TLSv1.3 X") == (client.name, client.login, client.tls, client.cipher)
        assert {} == talk.session.notes


class TestRequired:
    TERMS = Terms(tls_required=True)

    @each_row(
        ("said", "heard"),
        [
            (b"NOOP", replies.OK),
            (b"STARTTLS", replies.START_TLS),
            (b"QUIT", replies.goodbye("mx")),
            (b"EHLO x", replies.SAY_LHLO),
            (b"MAIL FROM:<>", replies.TLS_REQUIRED),
            (b"RCPT TO:<a@b>", replies.TLS_REQUIRED),
            (b"DATA", replies.TLS_REQUIRED),
            (b"RSET", replies.TLS_REQUIRED),
            (b"VRFY ann", replies.TLS_REQUIRED),
            (b"HELP", replies.TLS_REQUIRED),
            (b"NONSENSE", replies.UNKNOWN_COMMAND),
        ],
    )
    @each_row("greeted", [True, False])
    def test_in_the_clear(self, said: bytes, heard: Reply, greeted: bool) -> None:
        """
        RFC 3207 §4: there is nothing to be had.
        """
        talk = Talk(Connection("192.0.2.1", offers_tls=True, terms=self.TERMS))
        if greeted:
            assert talk(b"LHLO x\r\n")[0].startswith(b"250")

        assert [line(heard)] == talk(said + b"\r\n")

    def test_behind_the_handshake(self) -> None:
        """
        Where TLS is required, mail is taken behind the handshake.
        """
        talk = Talk(Connection("192.0.2.1", offers_tls=True, terms=self.TERMS))
        talk(b"STARTTLS\r\n")

        talk.encrypt(Connection("192.0.2.1", tls=True, terms=self.TERMS))

        assert line(replies.SENDER_OK) == talk(b"LHLO x\r\nMAIL FROM:<>\r\n")[-1]

    def test_from_the_first_octet_on(self) -> None:
        """
        An encrypted connection has nothing to make up for.
        """
        talk = Talk(Connection("192.0.2.1", tls=True, terms=self.TERMS))

        assert line(replies.SENDER_OK) == talk(b"LHLO x\r\nMAIL FROM:<>\r\n")[-1]
