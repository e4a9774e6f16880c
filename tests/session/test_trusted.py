"""
What clients that are trusted may say: XCLIENT, XFORWARD, XRCPTFORWARD, TRACE and IGNOREQUOTA.
"""

from __future__ import annotations

import os
from base64 import b64encode

import pytest
from attrs import evolve
from twisted.internet.defer import succeed

from lmtpsvc import replies
from lmtpsvc.auth.authority import CheckerAuthority
from lmtpsvc.auth.checkers import ProofChecker
from lmtpsvc.envelope import Client, Origin, Recipient
from lmtpsvc.limits import Limits
from lmtpsvc.relay.policy import RelayPolicy, relay_networks
from lmtpsvc.replies import Reply
from lmtpsvc.session.auth import Auth
from lmtpsvc.session.connection import Connection, Terms
from lmtpsvc.session.events import RecipientOffered, TextBegun, TextReceived
from lmtpsvc.session.server import ServerSession
from lmtpsvc.session.standard import standard_extensions

from ..rows import each_row

TRUSTED = Connection("192.0.2.1", 1024, is_trusted=True)
GREETING = "220 mx.example.org LMTP lmtpsvc ready"


class Talk:
    """
    A conversation in which every recipient is accepted; *recipients* and *clients* are those of
    each text that began.
    """

    def __init__(self, connection: Connection = TRUSTED, packet: int = 10_000) -> None:
        self.session = ServerSession(
            "mx.example.org", Limits(), standard_extensions(Limits()), connection
        )
        self.session.data_to_send()
        self._packet = packet
        self.recipients: list[Recipient] = []
        self.clients: list[Client] = []

    def __call__(self, *lines: str) -> list[str]:
        """
        Say *lines*; returns what is answered.
        """
        octets = "".join(f"{line}\r\n" for line in lines).encode("latin-1")
        sent = b""
        for start in range(0, len(octets), self._packet):
            self.session.receive(octets[start : start + self._packet])
            while (event := self.session.next_event()) is not None:
                match event:
                    case RecipientOffered():
                        self.recipients.append(event.recipient)
                        self.session.answer_recipient(event, replies.RECIPIENT_OK)
                    case TextBegun():
                        self.clients.append(self.session.client)
                    case TextReceived():
                        pass
                    case _:
                        for slot in event.slots:  # type: ignore[union-attr]  # MessageReceived
                            self.session.answer_message(slot, replies.DELIVERED)
            sent += self.session.data_to_send()
        return sent.decode().splitlines()


TRANSACTION = ("MAIL FROM:<>", "RCPT TO:<ann@example.org>", "DATA", "Hello", ".")


def replied(talk: Talk, line: str) -> str:
    """
    The one reply to *line*, by what it says.
    """
    (said,) = talk(line)
    return said


class TestAnnouncement:
    def test_trusted(self) -> None:
        """
        Who is trusted is told what there is, with all attributes.
        """
        said = Talk()("LHLO x")

        assert (
            "250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN SESSION CLIENT-TRANSPORT TTL TIMEOUT"
            " DESTNAME DESTADDR DESTPORT FORWARD"
        ) in said
        assert "250-XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE" in said
        assert {"250-XRCPTFORWARD", "250-TRACE"} <= set(said)
        assert any(line[4:] == "IGNOREQUOTA" for line in said)

    def test_others(self) -> None:
        """
        To everybody else, it is as if there were none of it.
        """
        talk = Talk(evolve(TRUSTED, is_trusted=False))

        said = " ".join(talk("LHLO x"))
        assert not any(word in said for word in ("XCLIENT", "XFORWARD", "XRCPT", "TRACE", "QUOTA"))
        for line in ("XCLIENT ADDR=192.0.2.7", "XFORWARD IDENT=x", "TRACE x"):
            assert str(replies.UNKNOWN_COMMAND) == replied(talk, line)
        talk("MAIL FROM:<>")
        for parameter in ("IGNOREQUOTA", "XRCPTFORWARD=a"):
            said = replied(talk, f"RCPT TO:<ann@example.org> {parameter}")
            assert str(replies.UNKNOWN_PARAMETER) == said
        assert Client("192.0.2.1", "x", port=1024) == talk.session.client


class TestXClient:
    @pytest.mark.parametrize("packet", [1, 7, 10_000])
    def test_all(self, packet: int) -> None:
        """
        The client is who the proxy says, in one command or several, and greeted anew.
        """
        talk = Talk(packet=packet)
        assert GREETING not in talk("LHLO proxy.example.net")

        said = talk(
            "XCLIENT HELO=mail.example.com PROTO=ESMTP LOGIN=j+C3+B6rg SESSION=abc:1",
            "xclient client-transport=TLS TTL=4 TIMEOUT=125 PORT=99 ADDR=IPV6:2001:DB8::7",
            "XCLIENT NAME=host.example.com DESTADDR=192.0.2.2 DESTPORT=24 DESTNAME=mx FORWARD="
            + b64encode(b"a=b\tc").decode().replace("=", "+3D"),
        )

        assert [GREETING] * 3 == said
        assert str(replies.LHLO_FIRST) == replied(talk, "MAIL FROM:<>")
        talk("LHLO proxy.example.net", *TRANSACTION)
        assert [
            Client(
                "2001:db8::7",
                "mail.example.com",
                tls=True,
                protocol="ESMTP",
                port=99,
                login="jörg",
                session="abc:1",
                dns_name="host.example.com",
                ttl=4,
                patience_seconds=125,
                fields={"a": "b", "c": ""},
            )
        ] == talk.clients

    def test_at_once(self) -> None:
        """
        It may be the first command; without HELO, the name is that of LHLO.  Without PORT, there is
        none: ours would be the proxy's.
        """
        talk = Talk()

        assert [GREETING] == talk("XCLIENT ADDR=198.51.100.7")
        talk("LHLO proxy", *TRANSACTION)

        assert [Client("198.51.100.7", "proxy")] == talk.clients

    def test_trust_stays(self) -> None:
        """
        It is the connection that is trusted, whoever the client is said to be.
        """
        talk = Talk()
        talk("XCLIENT ADDR=198.51.100.7 LOGIN=ann")

        assert any("XCLIENT" in line for line in talk("LHLO x"))
        assert [GREETING] == talk("XCLIENT ADDR=198.51.100.8")

        assert ("198.51.100.8", "ann") == (talk.session.client.host, talk.session.client.login)

    def test_unavailable(self) -> None:
        """
        What is not available any more is what we know ourselves, but for the address: that is not the
        proxy's, whose rights a stranger would have then.
        """
        talk = Talk()
        talk("XCLIENT ADDR=198.51.100.7 LOGIN=ann HELO=a.example NAME=b.example")
        talk(
            "XCLIENT ADDR=[UNAVAILABLE] LOGIN=[unavailable] HELO=[UNAVAILABLE] NAME=[TEMPUNAVAIL]",
            "LHLO x",
        )

        assert Client("unknown", "x") == talk.session.client

    @pytest.mark.parametrize("name", ["a b", "<x>", "(x)", "j\xf6rg", "-", "x.." + "y" * 300])
    def test_no_name(self, name: str) -> None:
        """
        What a stranger has said to the proxy is no reason to refuse the proxy, and goes nowhere.
        """
        xtext = "".join(f"+{ord(each):02X}" for each in name)
        talk = Talk()

        assert [GREETING] == talk(f"XCLIENT HELO={xtext} NAME={xtext}")

        talk("LHLO x")
        assert Client("192.0.2.1", "x", port=1024) == talk.session.client

    @each_row(
        ("line", "reply"),
        [
            ("XCLIENT", replies.BAD_ATTRIBUTE),
            ("XCLIENT ADDR=mx", replies.BAD_ATTRIBUTE),
            ("XCLIENT ADDR=192.0.2.7 PORT=0", replies.BAD_ATTRIBUTE),
            ("XCLIENT PROTO=HTTP", replies.BAD_ATTRIBUTE),
            ("XCLIENT LOGIN=a+0Ab", replies.BAD_ATTRIBUTE),
            ("XCLIENT SESSION=a+20b", replies.BAD_ATTRIBUTE),
            ("XCLIENT TIMEOUT=0", replies.BAD_ATTRIBUTE),
            ("XCLIENT TIMEOUT=999999999", replies.BAD_ATTRIBUTE),
            ("XCLIENT TTL=-1", replies.BAD_ATTRIBUTE),
            ("XCLIENT FORWARD=x", replies.BAD_ATTRIBUTE),
            ("XCLIENT DESTADDR=x", replies.BAD_ATTRIBUTE),
            ("XCLIENT COLOUR=red", replies.UNKNOWN_ATTRIBUTE),
            ("XCLIENT TTL=1 TTL=1", replies.REPEATED_PARAMETER),
        ],
    )
    def test_refused(self, line: str, reply: Reply) -> None:
        """
        A command that is refused changes nothing.
        """
        talk = Talk()
        talk("LHLO x")

        assert str(reply) == replied(talk, line)

        assert Client("192.0.2.1", "x", port=1024) == talk.session.client
        assert str(replies.SENDER_OK) == replied(talk, "MAIL FROM:<>")

    def test_in_transaction(self) -> None:
        """
        A transaction that has begun ends with the client that it began with.
        """
        talk = Talk()
        talk("LHLO x", "MAIL FROM:<>")
        assert str(replies.IN_TRANSACTION) == replied(talk, "XCLIENT ADDR=198.51.100.7")
        talk("RCPT TO:<ann@example.org>")
        assert str(replies.IN_TRANSACTION) == replied(talk, "XCLIENT ADDR=198.51.100.7")
        talk("RSET")

        assert [GREETING] == talk("XCLIENT ADDR=198.51.100.7")

    def test_login_is_enough(self) -> None:
        """
        Where somebody has to have logged in, it is enough that a trusted proxy says who has.
        """
        talk = Talk(evolve(TRUSTED, terms=Terms(login_required=True)))
        talk("LHLO x")
        assert str(replies.LOGIN_REQUIRED) == replied(talk, "MAIL FROM:<>")

        talk("XCLIENT LOGIN=ann", "LHLO x")

        assert str(replies.SENDER_OK) == replied(talk, "MAIL FROM:<>")

    def test_forgotten_at_tls(self) -> None:
        """
        Whatever was said in clear may have come from somebody in between.
        """
        talk = Talk()
        talk("XCLIENT ADDR=198.51.100.7 HELO=a.example")

        talk.session.encrypted(evolve(TRUSTED, tls=True))
        talk("LHLO x")

        assert Client("192.0.2.1", "x", tls=True, port=1024) == talk.session.client


class TestXForward:
    ORIGIN = Origin(
        "host.example.com", "198.51.100.7", 99, "ESMTP", "mail.example.com", "4F1D2C3B", "REMOTE"
    )
    LINES = (
        "XFORWARD NAME=host.example.com ADDR=198.51.100.7 PORT=99",
        "xforward PROTO=ESMTP HELO=mail.example.com IDENT=4F1D2C3B SOURCE=remote",
    )

    @pytest.mark.parametrize("packet", [1, 10_000])
    def test_all(self, packet: int) -> None:
        """
        What is told is there for one message, and the client stays who it is.
        """
        talk = Talk(packet=packet)
        talk("LHLO x")
        assert [str(replies.OK)] * 2 == talk(*self.LINES)
        talk(*TRANSACTION, *TRANSACTION)

        ours = Client("192.0.2.1", "x", port=1024)
        assert [evolve(ours, origin=self.ORIGIN), ours] == talk.clients

    @pytest.mark.parametrize("line", ["RSET", "LHLO x"])
    def test_forgotten(self, line: str) -> None:
        """
        It belongs to the transaction that RSET ends.
        """
        talk = Talk()
        talk("LHLO x", *self.LINES)

        talk(line, *TRANSACTION)

        assert [None] == [client.origin for client in talk.clients]

    def test_strange(self) -> None:
        """
        Nothing of it can look like something else in a log; what is unavailable is nothing.
        """
        talk = Talk()
        talk("LHLO x", "XFORWARD HELO=a+20reply+3D250 IDENT=+0A ADDR=[UNAVAILABLE]")

        assert Origin(name="a?reply=250", ident="?") == talk.session.client.origin

    @each_row(
        ("before", "line", "reply"),
        [
            ("NOOP", "XFORWARD IDENT=x", replies.LHLO_FIRST),
            ("LHLO x", "XFORWARD", replies.BAD_ATTRIBUTE),
            ("LHLO x", "XFORWARD ADDR=x", replies.BAD_ATTRIBUTE),
            ("LHLO x", "XFORWARD PORT=x", replies.BAD_ATTRIBUTE),
            ("LHLO x", "XFORWARD SOURCE=here", replies.BAD_ATTRIBUTE),
            ("LHLO x", "XFORWARD LOGIN=ann", replies.UNKNOWN_ATTRIBUTE),
            ("LHLO x", "XFORWARD IDENT=" + "x" * 256, replies.BAD_ATTRIBUTE),
            ("LHLO x\r\nMAIL FROM:<>", "XFORWARD IDENT=x", replies.IN_TRANSACTION),
        ],
    )
    def test_refused(self, before: str, line: str, reply: Reply) -> None:
        """
        What makes no sense, or comes at the wrong time, is refused and forgotten.
        """
        talk = Talk()
        talk(before)

        assert str(reply) == replied(talk, line)
        assert talk.session.client.origin is None


class TestTrace:
    def test_session(self) -> None:
        """
        The name of the session stays from one transaction to the next.
        """
        talk = Talk()
        assert str(replies.OK) == replied(talk, "TRACE a.b-c_1")
        talk("LHLO x", *TRANSACTION, *TRANSACTION)

        assert ["a.b-c_1"] * 2 == [client.session for client in talk.clients]

    @pytest.mark.parametrize("argument", ["", "a b", "a=b", "\xff", "x" * 256])
    def test_refused(self, argument: str) -> None:
        """
        It is one word, of no great length.
        """
        talk = Talk()

        assert str(replies.BAD_TRACE) == replied(talk, f"TRACE {argument}")
        assert "" == talk.session.client.session


class TestParameters:
    @pytest.mark.parametrize(
        ("said", "read"),
        [
            ("IGNOREQUOTA", {"IGNOREQUOTA": True}),
            ("XRCPTFORWARD=a+3Db+09c+3D1+01t2", {"XRCPTFORWARD": {"a": "b", "c": "1\t2"}}),
            ("xrcptforward=flag ignorequota", {"XRCPTFORWARD": {"flag": ""}, "IGNOREQUOTA": True}),
        ],
    )
    def test_read(self, said: str, read: dict[str, object]) -> None:
        """
        They reach the backend with the recipient, also after XCLIENT.
        """
        talk = Talk()
        talk("XCLIENT ADDR=198.51.100.7", "LHLO x", "MAIL FROM:<>")

        assert str(replies.RECIPIENT_OK) == replied(talk, f"RCPT TO:<ann@example.org> {said}")
        assert [read] == [recipient.parameters for recipient in talk.recipients]

    @pytest.mark.parametrize(
        ("said", "reply"),
        [
            ("IGNOREQUOTA=yes", replies.BAD_PARAMETER),
            ("XRCPTFORWARD=+3Db", replies.BAD_ATTRIBUTE),
            ("XRCPTFORWARD=a+b", replies.BAD_PARAMETER),
            ("XRCPTFORWARD=a+FF", replies.BAD_ATTRIBUTE),
        ],
    )
    def test_refused(self, said: str, reply: Reply) -> None:
        """
        What nobody can read is refused.
        """
        talk = Talk()
        talk("LHLO x", "MAIL FROM:<>")

        assert str(reply) == replied(talk, f"RCPT TO:<ann@example.org> {said}")
        assert [] == talk.recipients


class TestNobodyElsesRights:
    """
    What a proxy may do by who it is, its clients may not.
    """

    @pytest.mark.parametrize("said", ["ADDR=198.51.100.7", "ADDR=[UNAVAILABLE]", "HELO=a.example"])
    @pytest.mark.parametrize(
        "connection",
        [
            Connection(uid=os.getuid(), is_trusted=True),
            Connection("192.0.2.1", tls=True, certificate="proxy.example", is_trusted=True),
        ],
        ids=["uid", "certificate"],
    )
    def test_external(self, said: str, connection: Connection) -> None:
        """
        What the kernel and TLS have proven is who the proxy is.
        """
        authority = CheckerAuthority([ProofChecker(frozenset())], lambda find: succeed(find()))
        extensions = standard_extensions(Limits(), [Auth(authority)])
        session = ServerSession("foo.edu", Limits(), extensions, connection)
        session.receive(f"LHLO x\r\nXCLIENT {said}\r\nLHLO x\r\nAUTH EXTERNAL =\r\n".encode())

        assert session.next_event() is None

        before, after = session.data_to_send().decode().split("220 foo.edu LMTP")[1:]
        assert "250-AUTH EXTERNAL" in before or "250 AUTH EXTERNAL" in before
        assert "AUTH" not in after
        assert after.endswith(f"{replies.UNKNOWN_MECHANISM}\r\n")

    def test_relaying(self) -> None:
        """
        Somebody whose address the proxy does not know is not in the proxy's network.
        """
        policy = RelayPolicy(relay_networks(["192.0.2.0/24"]), lambda domain: domain == "foo.edu")
        connection = Connection("192.0.2.1", is_trusted=True)
        session = ServerSession(
            "foo.edu", Limits(), standard_extensions(Limits(), [policy]), connection
        )
        session.receive(
            b"XCLIENT ADDR=[UNAVAILABLE]\r\nLHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\n"
        )

        assert session.next_event() is None

        assert session.data_to_send().endswith(replies.NO_RELAYING.wire)
