"""
``examples/pop3.tac``: LMTP in, POP3 out, with Python's clients and with curl.
"""

from __future__ import annotations

import poplib
import re
import smtplib
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import frozen

from lmtpsvc.backends.sql.reading import Store
from lmtpsvc.pop3.passwords import scrypted, stored

from ..certificates import Authority
from ..running import free_port, serving, twistd

pytestmark = pytest.mark.interop

ROOT = Path(__file__).parents[2]
TAC = ROOT / "examples" / "pop3.tac"
PASSWORD = " open se same "


@frozen
class Running:
    """
    The service, in *directory*.
    """

    directory: Path
    lmtp: int
    pop3: int

    @property
    def url(self) -> str:
        return f"sqlite:///{self.directory}/mail.db"

    def deliver(self, *texts: bytes, recipient: str = "ann@example.org") -> None:
        with smtplib.LMTP("127.0.0.1", self.lmtp) as client:
            for text in texts:
                client.sendmail("me@example.net", [recipient], text)

    @contextmanager
    def login(self, user: str = "ann@example.org") -> Iterator[poplib.POP3]:
        """
        A session that ends without QUIT, unless the test has said it.
        """
        client = poplib.POP3("127.0.0.1", self.pop3, timeout=30)
        try:
            client.user(user)
            client.pass_(PASSWORD)
            yield client
        finally:
            client.close()

    def raw(self, said: bytes) -> bytes:
        """
        All that is answered to *said*, sent at once.
        """
        with socket.create_connection(("127.0.0.1", self.pop3), 30) as connection:
            connection.sendall(said)
            with connection.makefile("rb") as answers:
                return answers.read()

    def stored(self) -> list[bytes]:
        """
        Ann's messages, as they stand in the database.
        """
        with Store.at(self.url) as store:
            found = []
            for message in store.messages("ann@example.org"):
                with store.open("ann@example.org", message.uid) as file:
                    found.append(file.read())
            return found


def tac(directory: Path, lmtp: int, pop3: int, change: Callable[[str], str]) -> Path:
    """
    The example, with other ports and another directory.
    """
    text = change(TAC.read_text()).replace("/srv/mail", str(directory))
    path = directory / "pop3.tac"
    path.write_text(text.replace("8024", str(lmtp)).replace("8110", str(pop3)))
    return path


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """
    The example, with Ann and Bob.
    """
    with started(tmp_path) as service:
        yield service


@contextmanager
def started(tmp_path: Path, change: Callable[[str], str] = str) -> Iterator[Running]:
    """
    The example, with its text changed.
    """
    service = Running(tmp_path, free_port(), free_port())
    line = stored(PASSWORD.encode()).decode()
    (tmp_path / "passwords").write_text(
        f"ann@example.org:{line}\nbob@example.org:{line}\nempty@example.org:\n"
    )
    program = twistd(tmp_path, "-oy", tac(tmp_path, service.lmtp, service.pop3, change))
    with serving(program, service.lmtp, service.pop3):
        yield service


def text_of(answer: tuple[bytes, list[bytes], int]) -> bytes:
    return b"".join(line + b"\r\n" for line in answer[1])


class TestReading:
    def test_octets(self, running: Running) -> None:
        """
        What RETR says is what is stored, and LIST knows how large it is.
        """
        running.deliver(b"Subject: a\r\n\r\n.\r\n..two\r\nend.\r\n", b".\r\n.\r\n")
        expected = running.stored()

        with running.login() as client:
            assert [text_of(client.retr(number)) for number in (1, 2)] == expected
            assert client.list()[1] == [
                b"%d %d" % (number, len(text)) for number, text in enumerate(expected, 1)
            ]
            assert client.stat() == (2, sum(map(len, expected)))

    def test_large(self, running: Running) -> None:
        """
        A message of many pieces, read by a client that takes its time, comes whole.
        """
        body = b"".join(b".%d\r\n" % number for number in range(1_000_000))
        running.deliver(b"Subject: large\r\n\r\n" + body)
        [expected] = running.stored()

        with running.login() as client:
            assert text_of(client.retr(1)) == expected
            client.quit()

    def test_lost_on_the_way(self, running: Running) -> None:
        """
        A client that goes away amid a message does no harm.
        """
        running.deliver(b"Subject: large\r\n\r\n" + (b"x" * 68 + b"\r\n") * 100_000)
        for _ in range(6):
            with running.login() as client:
                client._putcmd("RETR 1")  # type: ignore[attr-defined]
                client._getresp()  # type: ignore[attr-defined]

        with running.login() as client:
            assert len(text_of(client.retr(1))) == len(running.stored()[0])

    def test_top(self, running: Running) -> None:
        """
        TOP gives the header and as many lines as asked for.
        """
        running.deliver(b"Subject: a\r\n\r\n1\r\n2\r\n3\r\n")
        [whole] = running.stored()

        with running.login() as client:
            assert text_of(client.top(1, 2)) == whole.removesuffix(b"3\r\n")
            assert text_of(client.top(1, 99)) == whole

    def test_no_mail_yet(self, running: Running) -> None:
        """
        Whoever has got nothing yet has an empty mailbox, and no one else's.
        """
        running.deliver(b"Subject: a\r\n\r\n")

        with running.login("bob@example.org") as client:
            assert client.stat() == (0, 0)
            assert client.list()[1] == client.uidl()[1] == []

    def test_uidl(self, running: Running) -> None:
        """
        UIDs stay the same, whatever is deleted, and nobody gets one again.
        """
        running.deliver(b"Subject: 1\r\n\r\n", b"Subject: 2\r\n\r\n")
        with running.login() as client:
            [first, second] = [line.split()[1] for line in client.uidl()[1]]
            client.dele(2)
            client.quit()
        running.deliver(b"Subject: 3\r\n\r\n")

        with running.login() as client:
            [same, third] = [line.split()[1] for line in client.uidl()[1]]
        assert same == first
        assert third not in {first, second}
        assert re.fullmatch(rb"[1-9][0-9]*\.3", third)


class TestDeleting:
    def test_at_quit_only(self, running: Running) -> None:
        """
        DELE takes effect with QUIT; until then RSET, or the end of the connection, takes it back.
        """
        running.deliver(b"Subject: 1\r\n\r\n", b"Subject: 2\r\n\r\n")
        with running.login() as client:
            client.dele(1)
            assert client.stat()[0] == 1
            assert [line.split()[0] for line in client.list()[1]] == [b"2"]
            assert [line.split()[0] for line in client.uidl()[1]] == [b"2"]
            for command in (client.dele, client.retr, client.list, client.uidl):
                with pytest.raises(poplib.error_proto):
                    command(1)
            client.rset()
            assert client.stat()[0] == 2
            client.dele(2)
        with running.login() as client:
            assert client.stat()[0] == 2
            client.dele(1)
            client.quit()

        assert len(running.stored()) == 1

    def test_by_somebody_else(self, running: Running) -> None:
        """
        What another session has deleted cannot be read; the rest can.
        """
        running.deliver(b"Subject: 1\r\n\r\n", b"Subject: 2\r\n\r\n")
        with running.login() as client:
            with running.login() as other:
                other.dele(1)
                other.quit()

            with pytest.raises(poplib.error_proto, match="any more"):
                client.retr(1)
            assert b"Subject: 2" in text_of(client.retr(2))
            client.dele(1)
            assert client.quit().startswith(b"+OK")


class TestConversation:
    def test_mistakes(self, running: Running) -> None:
        """
        Each gets its answer, and the conversation goes on.
        """
        running.deliver(b"Subject: 1\r\n\r\n")
        login = f"USER ann@example.org\r\nPASS {PASSWORD}\r\n".encode()
        wrong = (
            *(b"FOO", b"", b"\xff\xfe", b"APOP a b", b"USER bob", b"PASS x", b"DELE", b"DELE 0"),
            *(b"DELE -1", b"DELE x", b"DELE 2", b"RETR 0", b"RETR 99999999999999", b"TOP 1"),
            *(b"TOP 1 -1", b"UIDL 0", b"LIST 1 1", b"LIST 2", b"STAT 1", b"RETR \xd9\xa1"),
        )

        answers = running.raw(
            b"STAT\r\n" + login + b"\r\n".join(wrong) + b"\r\nSTAT\r\nNOOP\r\nQUIT\r\nSTAT\r\n"
        ).split(b"\r\n")

        assert answers[0].startswith(b"+OK")
        assert b"<" not in answers[0]
        kinds = [answer.split(b" ")[0] for answer in answers]
        assert kinds == [
            *(b"+OK", b"-ERR", b"+OK", b"+OK"),
            *[b"-ERR"] * len(wrong),
            *(b"+OK", b"+OK", b"+OK", b""),
        ]
        assert answers[-4].startswith(b"+OK 1 ")

    def test_capabilities(self, running: Running) -> None:
        """
        What CAPA names is there, and registered.
        """
        with running.login() as client:
            assert {"TOP", "UIDL", "USER", "PIPELINING"} <= set(client.capa())
            assert not {"CELERITY", "SASL"} & set(client.capa())

    @pytest.mark.parametrize(
        ("user", "password"),
        [
            ("ann@example.org", "wrong"),
            ("cat@example.org", PASSWORD),
            ("empty@example.org", "x"),
            ("ann@example.org", PASSWORD.strip()),
        ],
    )
    def test_wrong_password(self, running: Running, user: str, password: str) -> None:
        """
        A wrong name and a wrong password look the same; after three of them it is over.
        """
        attempt = f"USER {user}\r\nPASS {password}\r\n".encode()

        answers = running.raw(attempt * 5).splitlines()

        assert (
            answers[1:]
            == [
                b"+OK USER accepted, send PASS",
                b"-ERR [AUTH] wrong name or password",
            ]
            * 3
        )

    def test_many_at_once(self, running: Running) -> None:
        """
        More sessions than threads are served side by side.
        """
        running.deliver(b"Subject: 1\r\n\r\n")
        with running.login() as first, running.login() as second, running.login() as third:
            for client in (first, second, third) * 5:
                assert client.stat()[0] == 1


class TestCurl:
    def test_reads(self, running: Running, peer: Callable[[str], Path]) -> None:
        """
        The octets come, as curl reads them, a bare LF and a bare CR included.
        """
        text = b"Subject: a\r\n\r\n.\r\n..two\r\nbare\nLF, bare\rCR\r\n"
        with socket.create_connection(("127.0.0.1", running.lmtp), 30) as connection:
            connection.sendall(
                b"LHLO x\r\nMAIL FROM:<me@example.net>\r\nRCPT TO:<ann@example.org>\r\nDATA\r\n"
            )
            connection.sendall(re.sub(rb"(?m)^\.", b"..", text) + b".\r\nQUIT\r\n")
            while connection.recv(1000):
                pass
        [expected] = running.stored()
        assert expected.endswith(text)

        def curl(*words: str) -> bytes:
            login = f"ann@example.org:{PASSWORD}"
            done = subprocess.run(
                [peer("curl"), "-sS", "--max-time", "20", "--user", login, *words],
                capture_output=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        url = f"pop3://127.0.0.1:{running.pop3}/"

        assert curl(url + "1") == expected
        assert curl(url).strip() == b"1 %d" % len(expected)
        assert curl("--request", "UIDL", url).strip().endswith(b".1")


class TestTLS:
    def test_pop3s(self, tmp_path: Path) -> None:
        """
        With an ``ssl`` endpoint all is said within TLS, and nothing without.
        """
        authority = Authority(tmp_path)
        pair = authority.sign()

        def change(text: str) -> str:
            endpoint = (
                f"ssl:8110:interface=127.0.0.1:privateKey={pair.key}:certKey={pair.certificate}"
            )
            return text.replace("tcp:8110:interface=127.0.0.1", endpoint)

        with started(tmp_path, change) as service:
            service.deliver(b"Subject: a\r\n\r\n" + b"secret\r\n" * 50_000)
            [expected] = service.stored()
            context = ssl.create_default_context(cafile=str(authority.path))
            client = poplib.POP3_SSL("localhost", service.pop3, timeout=30, context=context)
            try:
                client.user("ann@example.org")
                client.pass_(PASSWORD)
                assert text_of(client.retr(1)) == expected
                client.dele(1)
                client.quit()
            finally:
                client.close()

            assert service.stored() == []
            assert b"OK" not in service.raw(b"STAT\r\nQUIT\r\n")


class TestPasswords:
    def test_right_and_wrong(self) -> None:
        """
        Only the password that was stored is right; a line that is damaged has none.
        """
        line = stored(b"secret")

        assert scrypted(b"ann", b"secret", line) == line
        for known in (line[:-1], b"", b"{scrypt}", b"{scrypt}?$", b"secret"):
            assert scrypted(b"ann", b"secret", known) != known
        assert scrypted(b"ann", b"Secret", line) != line
