"""
AUTH, seen from the client.
"""

from __future__ import annotations

from base64 import b64decode, b64encode

import pytest
from attrs import evolve
from scramp import ScramMechanism

from lmtpsvc.session.client import ClientSession
from lmtpsvc.session.client_events import Ended, Ready
from lmtpsvc.session.outcomes import Stage
from lmtpsvc.session.sasl_client import MAX_ITERATIONS, AuthenticationError, Login, choose
from lmtpsvc.session.terms import Terms

ANN = Login("ann", "sesame")


def start(login: Login, offered: str, *, secure: bool = True) -> ClientSession:
    """
    A session that has just heard what the server offers.
    """
    session = ClientSession(Terms("client.example", login=login), is_private=secure)
    session.receive(b"220 foo.edu\r\n")
    session.data_to_send()
    session.receive(f"250-foo.edu\r\n250 AUTH {offered}\r\n".encode())
    return session


def challenge(text: bytes) -> bytes:
    return b"334 " + b64encode(text) + b"\r\n"


def said(session: ClientSession) -> bytes:
    return session.data_to_send()


class TestPlain:
    def test_accepted(self) -> None:
        """
        User and password go with the command, and the session is ready.
        """
        session = start(ANN, "PLAIN")

        assert said(session) == b"AUTH PLAIN " + b64encode(b"\0ann\0sesame") + b"\r\n"
        session.receive(b"235 2.7.0 welcome\r\n")
        assert isinstance(session.next_event(), Ready)

    def test_refused(self) -> None:
        """
        A wrong password is no permanent failure for the mail.
        """
        session = start(ANN, "PLAIN")
        said(session)
        session.receive(b"535 5.7.8 no\r\n")

        ended = session.next_event()
        assert isinstance(ended, Ended)
        assert (ended.stage, ended.reply.code, ended.reply.status) == (Stage.AUTH, 451, (7, 8))

    def test_is_not_shown_to_everybody(self) -> None:
        """
        Without TLS no password is said, unless that is wanted.
        """
        session = start(ANN, "PLAIN LOGIN", secure=False)
        ended = session.next_event()
        assert isinstance(ended, Ended)
        assert "it needs TLS" in ended.reply.text
        assert said(session) == b"QUIT\r\n"

        session = start(evolve(ANN, in_the_clear=True), "PLAIN LOGIN", secure=False)
        assert said(session).startswith(b"AUTH PLAIN ")

    def test_is_not_overheard(self) -> None:
        """
        Whoever shows the conversation does not show the password.
        """
        heard: list[str] = []
        session = ClientSession(
            Terms("client.example", login=ANN),
            is_private=True,
            overhear=lambda command, _reply: heard.append(command),
        )
        for octets in (
            b"220 a\r\n",
            b"250-a\r\n250 AUTH LOGIN\r\n",
            *[challenge(b"?")] * 2,
            b"235\r\n",
        ):
            session.receive(octets)
            said(session)

        assert heard == ["", "LHLO client.example", "AUTH LOGIN", "(answer)", "(answer)"]


class TestLogin:
    def test_asks_twice(self) -> None:
        """
        User and password answer two questions, whatever they are.
        """
        session = start(ANN, "LOGIN")
        assert said(session) == b"AUTH LOGIN\r\n"
        session.receive(challenge(b"Username:"))
        assert b64decode(said(session)) == b"ann"
        session.receive(challenge(b"Password:"))
        assert b64decode(said(session)) == b"sesame"
        session.receive(b"235 ok\r\n")
        assert isinstance(session.next_event(), Ready)

    @pytest.mark.parametrize("third", [challenge(b"More?"), b"334 not Base64!\r\n"])
    def test_asks_too_much(self, third: bytes) -> None:
        """
        A third question ends it.
        """
        session = start(ANN, "LOGIN")
        for octets in (challenge(b""), challenge(b""), third):
            said(session)
            session.receive(octets)

        ended = session.next_event()
        assert isinstance(ended, Ended)
        assert ended.stage is Stage.AUTH


class TestExternal:
    def test_by_certificate(self) -> None:
        """
        Without a user the certificate says who we are.
        """
        session = start(Login(None), "PLAIN EXTERNAL", secure=False)

        assert said(session) == b"AUTH EXTERNAL =\r\n"


class TestScram:
    """
    RFC 7677.
    """

    @staticmethod
    def server(password: str = "sesame") -> object:
        mechanism = ScramMechanism("SCRAM-SHA-256")
        salt, stored, key, iterations = mechanism.make_auth_info(password)
        return mechanism.make_server(lambda _user: (salt, stored, key, iterations))

    def test_both_prove_it(self) -> None:
        """
        No password is said, and the server is believed when it has proved that it knows it.
        """
        server = self.server()
        session = start(ANN, "PLAIN SCRAM-SHA-256", secure=False)
        line = said(session)
        assert line.startswith(b"AUTH SCRAM-SHA-256 ")
        server.set_client_first(b64decode(line.split()[2]).decode())  # type: ignore[attr-defined]
        session.receive(challenge(server.get_server_first().encode()))  # type: ignore[attr-defined]
        server.set_client_final(b64decode(said(session)).decode())  # type: ignore[attr-defined]
        session.receive(challenge(server.get_server_final().encode()))  # type: ignore[attr-defined]
        assert said(session) == b"\r\n"
        session.receive(b"235 2.7.0 welcome\r\n")

        assert isinstance(session.next_event(), Ready)

    def test_server_that_proves_nothing(self) -> None:
        """
        A server that says yes at once has proved nothing.
        """
        session = start(ANN, "SCRAM-SHA-256")
        said(session)
        session.receive(b"235 2.7.0 welcome\r\n")

        ended = session.next_event()
        assert isinstance(ended, Ended)
        assert "not proved" in ended.reply.text

    @pytest.mark.parametrize(
        "first",
        [
            "r=somebody-else,s=QSXCR+Q6sek8bf92,i=4096",
            "nonsense",
            "",
            "e=other-error",
            f"r={{nonce}}x,s=QSXCR+Q6sek8bf92,i={MAX_ITERATIONS + 1}",
            "r={nonce}x,s=QSXCR+Q6sek8bf92,i=1",
            "\udcff",
        ],
    )
    def test_bad_challenge(self, first: str) -> None:
        """
        A challenge that does not fit, or asks for too much or too little work, is not answered.
        """
        session = start(ANN, "SCRAM-SHA-256")
        nonce = b64decode(said(session).split()[2]).decode().partition("r=")[2]
        text = first.replace("{nonce}", nonce).encode(errors="surrogateescape")
        session.receive(challenge(text))

        ended = session.next_event()
        assert isinstance(ended, Ended)
        assert ended.stage is Stage.AUTH
        assert said(session) == b""

    def test_wrong_proof(self) -> None:
        """
        A server that knows another password is found out.
        """
        session = start(ANN, "SCRAM-SHA-256")
        nonce = b64decode(said(session).split()[2]).decode().partition("r=")[2]
        session.receive(challenge(f"r={nonce}x,s=QSXCR+Q6sek8bf92,i=4096".encode()))
        said(session)
        session.receive(challenge(b"v=" + b64encode(b"x" * 32)))

        ended = session.next_event()
        assert isinstance(ended, Ended)


class TestChoice:
    def test_best_first(self) -> None:
        """
        The one that shows no password comes first, and the order may be given.
        """
        assert choose(ANN, ["LOGIN", "PLAIN", "SCRAM-SHA-256"], secure=True)[0] == "SCRAM-SHA-256"
        plain = evolve(ANN, mechanisms=("PLAIN",))
        assert choose(plain, ["LOGIN", "PLAIN", "SCRAM-SHA-256"], secure=True)[0] == "PLAIN"

    def test_nothing_in_common(self) -> None:
        """
        What the server offers is told.
        """
        with pytest.raises(AuthenticationError, match="GSSAPI"):
            choose(ANN, ["GSSAPI"], secure=True)

    @pytest.mark.parametrize(
        ("user", "password", "mechanisms"),
        [("ann", "x", ("CRAM-MD5",)), (None, "", ("PLAIN",)), ("a\0b", "", ()), ("a", "\0", ())],
    )
    def test_invalid(self, user: str | None, password: str, mechanisms: tuple[str, ...]) -> None:
        """
        What cannot be done is said when it is asked for.
        """
        with pytest.raises(ValueError):
            Login(user, password, mechanisms)
