"""
``lmtpsvc send``, and so our client, with other people's servers, with ours, and with hostile ones.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import NamedTuple, NoReturn

import pytest

from ..certificates import self_signed
from ..running import free_port, run, wait_until
from .lmtp_servers import Server, cyrus, dovecot, smtp_sink
from .postfix import Postfix
from .service import DOMAIN, Service

Peer = Callable[[str], Path]
Unavailable = Callable[[str], NoReturn]

ANN, BOB, UNKNOWN = (f"{name}@{DOMAIN}" for name in ("ann", "bob", "nobody.here"))
LETTER = b"Subject: x\n\n.\nQUIT\n.\n\xff\n"


class Sent(NamedTuple):
    """
    What ``lmtpsvc send`` did.
    """

    status: int
    said: str

    @property
    def codes(self) -> dict[str, int]:
        """
        The outcome of each recipient.
        """
        return {who: int(code) for who, code in re.findall(r" = (\S+): (\d+) ", self.said)}


def send(*words: str, letter: bytes = LETTER) -> Sent:
    """
    Run it, with *letter* on standard input.
    """
    command = [sys.executable, "-m", "lmtpsvc", "send", *words, "-"]
    done = run(
        ["env", f"PYTHONPATH={os.pathsep.join(filter(None, sys.path))}", *command], stdin=letter
    )
    return Sent(done.returncode, done.stdout.decode())


def to(*recipients: str) -> list[str]:
    return [word for recipient in recipients for word in ("--to", recipient)]


class TestOurs:
    @pytest.mark.parametrize("where", ["tcp", "unix"])
    def test_some(self, service: Service, where: str) -> None:
        """
        Two of three are accepted, and the message is the same that was sent.
        """
        address = str(service.unix) if where == "unix" else "{}:{}".format(*service.tcp)
        letter = LETTER + os.urandom(8).hex().encode() + b"\n"

        sent = send(*to(ANN, UNKNOWN, BOB), address, letter=letter)

        assert sent.status == 1, sent.said
        assert sent.codes == {ANN: 250, UNKNOWN: 550, BOB: 250}
        for user in (ANN, BOB):
            texts = [each.text.replace(b"\r\n", b"\n") for each in service.store.mailbox(user)]
            assert [text.endswith(b"\n" + letter) for text in texts].count(True) == 1

    def test_none(self, service: Service) -> None:
        """
        A recipient nobody knows: status 2.
        """
        assert send(*to(UNKNOWN), str(service.unix)).status == 2

    def test_large(self, service: Service) -> None:
        """
        A message of many pieces arrives whole.
        """
        letter = b"Subject: large\n\n" + b".x\n" * 2_000_000
        sent = send(*to(BOB), "--body", "7BIT", "{}:{}".format(*service.tcp), letter=letter)

        assert sent.status == 0, sent.said
        assert any(letter in each.text for each in service.store.mailbox(BOB))

    def test_many(self, service: Service) -> None:
        """
        So many messages over so many connections, each delivered once.
        """
        letter = b"Subject: repeated\n\n" + os.urandom(8).hex().encode() + b"\n"
        words = ["--repeat", "100", "--connections", "5", "{}:{}".format(*service.tcp)]
        sent = send(*to(ANN, BOB), *words, letter=letter)

        assert sent.status == 0, sent.said
        assert sent.said.startswith("200 of 200 recipients accepted in ")
        for user in (ANN, BOB):
            assert [letter in each.text for each in service.store.mailbox(user)].count(True) == 100


#: Of everybody at Dovecot.
PASSWORD = "open-sésame"


@pytest.fixture(scope="module")
def auth_port() -> int:
    """
    Where Dovecot says whether a password is right.
    """
    return free_port()


@pytest.fixture(scope="module")
def dovecot_lmtp(top: Path, peer: Peer, auth_port: int) -> Iterator[Server]:
    """
    Dovecot's LMTP, where Ann and Bob live.
    """
    more = f"""\
auth_mechanisms = plain login scram-sha-256
service auth {{
  inet_listener {{
    address = 127.0.0.1
    port = {auth_port}
  }}
}}
"""
    with dovecot(
        peer("dovecot"),
        top / "dovecot-lmtp",
        ("ann", "bob"),
        passdb=f"password={PASSWORD}",
        more=more,
    ) as server:
        yield server


class TestDovecot:
    def test_each_has_a_reply(self, dovecot_lmtp: Server) -> None:
        """
        With CHUNKING and PIPELINING, as it announces them.
        """
        before = len(dovecot_lmtp.mail("ann"))
        sent = send(*to(ANN, UNKNOWN, BOB), dovecot_lmtp.address)

        assert (sent.status, sent.codes) == (1, {ANN: 250, UNKNOWN: 550, BOB: 250}), sent.said
        assert "> BDAT " in sent.said
        *_, mail = dovecot_lmtp.mail("ann")
        assert len(dovecot_lmtp.mail("ann")) == before + 1
        assert mail.replace(b"\r\n", b"\n").endswith(LETTER)

    def test_plainly(self, dovecot_lmtp: Server) -> None:
        """
        Without CHUNKING and PIPELINING, each recipient has a reply as well.
        """
        sent = send(
            *to(ANN, UNKNOWN, BOB), "--no-chunking", "--no-pipelining", dovecot_lmtp.address
        )

        assert (sent.status, sent.codes) == (1, {ANN: 250, UNKNOWN: 550, BOB: 250}), sent.said
        assert "> DATA" in sent.said

    def test_large(self, dovecot_lmtp: Server) -> None:
        """
        A large message goes in several chunks, and comes through.
        """
        letter = b"Subject: large\n\n" + b".x\n" * 400_000
        sent = send(*to(BOB), dovecot_lmtp.address, letter=letter)

        assert sent.status == 0, sent.said
        assert sent.said.count("> BDAT 524288\n") == 3
        assert any(
            mail.replace(b"\r\n", b"\n").endswith(letter) for mail in dovecot_lmtp.mail("bob")
        )

    def test_xclient(self, dovecot_lmtp: Server) -> None:
        """
        It believes whom we speak for.
        """
        words = ["--xclient", "ADDR=192.0.2.7", "--xclient", "TTL=3", "--xclient", "NOSUCH=x"]
        sent = send(*to(ANN), *words, dovecot_lmtp.address)

        assert sent.status == 0, sent.said
        assert "> XCLIENT ADDR=192.0.2.7 TTL=3\n" in sent.said
        wait_until(lambda: "Disconnect from 192.0.2.7" in dovecot_lmtp.log, 30, "XCLIENT logged")

    def test_verified(self, dovecot_lmtp: Server) -> None:
        """
        The certificate of whom we asked for.
        """
        authorities = ["--tls-authorities", str(dovecot_lmtp.top / "tls.pem")]
        words = ["--tls", "must", "--tls-name", "mx.example.test", *authorities]
        sent = send(*to(ANN), *words, dovecot_lmtp.address)

        assert sent.status == 0, sent.said

    @pytest.mark.parametrize(
        ("name", "trusted", "why"),
        [
            ("mx.example.org", True, "the certificate is not in the name of mx.example.org"),
            ("mx.example.test", False, "certificate verify failed"),
        ],
    )
    def test_wrong_certificate(
        self, dovecot_lmtp: Server, tmp_path: Path, name: str, trusted: bool, why: str
    ) -> None:
        """
        Somebody else's, or one that nobody vouches for: not a word of the message is said.
        """
        other = tmp_path / "other.pem"
        self_signed(other, "mx.example.test")
        file = dovecot_lmtp.top / "tls.pem" if trusted else other
        words = ["--tls", "must", "--tls-name", name, "--tls-authorities", str(file)]
        sent = send(*to(ANN), *words, dovecot_lmtp.address)

        assert sent.status == 2
        assert why in sent.said
        assert "MAIL" not in sent.said

    @pytest.mark.parametrize("policy", ["may", "encrypt"])
    def test_unverified(self, dovecot_lmtp: Server, policy: str) -> None:
        """
        Who only wants encryption gets it, whoever the server is.
        """
        sent = send(*to(ANN), "--tls", policy, dovecot_lmtp.address)

        assert sent.status == 0, sent.said
        assert "> STARTTLS" in sent.said


class TestCyrus:
    def test_each_has_a_reply(self, top: Path, peer: Peer, unavailable: Unavailable) -> None:
        """
        Its multi-line refusal belongs to one recipient, and the one behind it has its own reply.
        """
        if os.geteuid() != 0:
            unavailable("root")
        with cyrus(peer("cyrmaster"), top / "cyrus", ("ann", "bob")) as server:
            sent = send(*to(ANN, UNKNOWN, BOB), server.address)

        assert (sent.status, sent.codes) == (1, {ANN: 250, UNKNOWN: 550, BOB: 250}), sent.said
        assert f"{UNKNOWN}: 550 5.1.1 Mailbox unknown." in sent.said


class TestSmtpSink:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["-L"], []),
            (["-L", "-p"], []),  # it announces no PIPELINING
            ([], ["--smtp"]),
            (["-e"], ["--smtp"]),  # it knows no EHLO
        ],
    )
    def test_takes_everything(
        self,
        top: Path,
        peer: Peer,
        tmp_path_factory: pytest.TempPathFactory,
        options: list[str],
        words: list[str],
    ) -> None:
        """
        LMTP and SMTP, with and without what it announces.
        """
        name = "sink" + "".join(options).replace("-", "")
        with smtp_sink(peer("smtp-sink"), top / name, *options) as server:
            letter = b"Subject: x\n\nx\n"
            sent = send(*to(ANN, BOB), *words, server.address, letter=letter)

        assert (sent.status, sent.codes) == (0, {ANN: 250, BOB: 250}), sent.said

    @pytest.mark.parametrize(
        ("option", "stage"),
        [
            ("-q", "connect"),
            ("-q", "MAIL"),
            ("-q", "RCPT"),
            ("-q", "DATA"),
            ("-q", "."),
            ("-r", "RCPT"),
        ],
    )
    def test_goes_away(self, top: Path, peer: Peer, option: str, stage: str) -> None:
        """
        It closes the connection at each stage, or refuses: temporary failures, and no hanging.
        """
        words = ["-L", option, stage]
        directory = top / f"sink-{option}-{stage}".replace(".", "dot")
        with smtp_sink(peer("smtp-sink"), directory, *words) as server:
            sent = send(*to(ANN, BOB), server.address, letter=b"Subject: x\n\nx\n")

        assert sent.status == 2, sent.said
        assert sent.codes.keys() == {ANN, BOB}
        assert {code // 100 for code in sent.codes.values()} == {4}


@pytest.fixture(scope="module")
def postfix(
    top: Path,
    peer: Peer,
    unavailable: Unavailable,
    service: Service,
    dovecot_lmtp: Server,
    auth_port: int,
) -> Iterator[Postfix]:
    """
    An smtpd with TLS, in front of our service; Dovecot authenticates its clients.
    """
    assert dovecot_lmtp.port
    if os.geteuid() != 0:
        unavailable("root")
    directory = top / "postfix"
    directory.mkdir()
    directory.chmod(0o755)
    self_signed(directory / "tls.pem", "mx.example.test")
    postfix = Postfix(
        peer("postconf"),
        directory,
        DOMAIN,
        "inet:{}:{}".format(*service.tcp),
        more=f"""\
smtpd_tls_security_level = may
smtpd_tls_chain_files = {directory}/tls.pem
smtpd_authorized_xclient_hosts = 127.0.0.0/8
smtpd_authorized_xforward_hosts = 127.0.0.0/8
smtputf8_enable = yes
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = inet:127.0.0.1:{auth_port}
smtpd_sasl_security_options = noanonymous
""",
    )
    try:
        postfix.start()
        yield postfix
    finally:
        postfix.stop()


class TestPostfix:
    def test_smtp_over_verified_tls(self, postfix: Postfix, service: Service) -> None:
        """
        Encrypted, with XFORWARD, DSN and BDAT; one reply for both, and both have the mail.
        """
        letter = b"Subject: smtp\n\n" + os.urandom(8).hex().encode() + b"\n.\n"
        tls = ["--tls", "must", "--tls-name", "mx.example.test"]
        tls += ["--tls-authorities", str(postfix.top / "tls.pem")]
        more = [
            "--xforward",
            "ADDR=192.0.2.7",
            "--envid",
            "a b",
            "--ret",
            "hdrs",
            "--notify",
            "never",
        ]
        sent = send(
            "--smtp", *tls, *more, *to(ANN, BOB), f"127.0.0.1:{postfix.port}", letter=letter
        )

        assert (sent.status, sent.codes) == (0, {ANN: 250, BOB: 250}), sent.said
        assert "> XFORWARD ADDR=192.0.2.7\n" in sent.said
        assert " RET=HDRS ENVID=a+20b\n" in sent.said
        assert "> BDAT " in sent.said
        postfix.flush_until_empty(30)
        for user in (ANN, BOB):
            assert any(letter in each.text for each in service.store.mailbox(user))

    def test_wrong_certificate(self, postfix: Postfix) -> None:
        """
        A certificate of somebody else's, and nothing is sent.
        """
        sent = send("--smtp", "--tls", "must", *to(ANN), f"localhost:{postfix.port}")

        assert sent.status == 2
        assert "TLS handshake failed" in sent.said

    def test_xclient_and_relaying_denied(self, postfix: Postfix) -> None:
        """
        Speaking for a stranger we may not relay: refused for good, each for itself.
        """
        words = ["--smtp", "--xclient", "ADDR=192.0.2.7", *to("x@example.net", ANN)]
        sent = send(*words, f"127.0.0.1:{postfix.port}")

        assert sent.status == 2, sent.said
        assert set(sent.codes.values()) == {554}

    @pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "PLAIN", "LOGIN"])
    def test_authenticated(self, postfix: Postfix, tmp_path: Path, mechanism: str) -> None:
        """
        With the right password mail is taken, with a wrong one it waits for the right one.
        """
        for password, status, code in ((PASSWORD, 0, 250), ("wrong", 2, 451)):
            (tmp_path / "password").write_text(f"{password}\n")
            words = ["--auth", ANN, "--password-file", str(tmp_path / "password")]
            words += ["--mechanism", mechanism, "--in-the-clear", *to(BOB)]
            sent = send("--smtp", *words, f"127.0.0.1:{postfix.port}")

            assert f"> AUTH {mechanism}\n" in sent.said
            assert (sent.status, sent.codes) == (status, {BOB: code}), sent.said
            assert password not in sent.said

    def test_utf8(self, postfix: Postfix, service: Service) -> None:
        """
        An address in UTF-8, to an smtpd that takes it.
        """
        sent = send("--smtp", *to(f"jörg@{DOMAIN}"), f"127.0.0.1:{postfix.port}")

        assert sent.status == 0, sent.said


# ── hostile servers ──────────────────────────────────────────────────────────────────────────────

LINES = [
    b"220 foo.edu\r\n",
    b"250-foo.edu\r\n250 PIPELINING\r\n",
    b"250 2.1.0 OK\r\n",
    b"250 2.1.5 OK\r\n",
    b"250 2.1.5 OK\r\n",
    b"354 go\r\n",
    b"250 2.0.0 OK\r\n",
    b"250 2.0.0 OK\r\n",
]
#: How many of them answer each thing that the client says.
ANSWERS = [1, 1, 4, 2]


class Hostile:
    """
    A server that says so many *lines* as if all were well, octet by octet, then *last*, and closes.
    """

    def __init__(self, lines: int, last: bytes = b"") -> None:
        self._lines, self._last = lines, last
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(30)
        self.address = "127.0.0.1:{}".format(*self._listening.getsockname()[1:])
        self._thread = Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listening.accept()
        connection.settimeout(30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        left = LINES[: self._lines]
        with connection:
            for number, count in enumerate(ANSWERS):
                if number:
                    connection.recv(65536)
                for octet in b"".join(left[:count]):
                    connection.send(bytes([octet]))
                del left[:count]
                if not left:
                    connection.sendall(self._last)
                    break

    def close(self) -> None:
        """
        Wait until it has ended.
        """
        self._thread.join(30)
        self._listening.close()
        assert not self._thread.is_alive()


class TestHostile:
    @pytest.mark.parametrize("last", [b"", b"25", b"nonsense\r\n"])
    def test_closes_behind_each_line(self, last: bytes) -> None:
        """
        Wherever it stops, nobody hangs, and only replies that were heard count.
        """
        for lines in range(len(LINES) + 1):
            server = Hostile(lines, last)
            sent = send(*to(ANN, BOB), server.address, letter=b"Subject: x\n\nx\n")
            server.close()

            delivered = max(0, lines - 6)
            assert list(sent.codes.values()).count(250) == delivered, sent.said
            assert list(sent.codes.values()).count(451) == 2 - delivered, sent.said
            assert sent.status == [2, 1, 0][delivered]
