"""
A front that passes mail on to the nodes that have the mailboxes.
"""

from __future__ import annotations

import os
import signal
import smtplib
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pytest
from cryptography.x509 import DNSName

from ..certificates import Authority
from ..running import accepts, free_port, twistd, wait_until
from .lmtp_servers import dovecot

LETTER = b"Subject: hello\r\n\r\nA letter.\r\n"


class Service:
    """
    ``twistd lmtp`` with *words*, on a port of its own.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        *words: str,
        port: int | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.address = (host, port or free_port())
        self.port = self.address[1]
        self.directory = directory
        self.daemon = twistd(
            directory,
            "lmtp",
            *("--listen", f"tcp:{self.port}:interface={host}"),
            *("--trusted", "127.0.0.0/8"),
            *words,
            log=f"{name}.log",
        )

    def start(self) -> Service:
        self.daemon.start(lambda: accepts(self.address))
        return self

    @property
    def log(self) -> str:
        return self.daemon.log.read_text()


class Talk:
    """
    A client of *service*, a line at a time.
    """

    def __init__(self, service: Service) -> None:
        self._socket = socket.create_connection(service.address, timeout=30)
        self._file = self._socket.makefile("rb")
        self.hear()
        self.say("LHLO client.example.net")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def hear(self) -> str:
        while True:
            line = self._file.readline().decode().rstrip("\r\n")
            if line[3:4] != "-":
                return line

    def say(self, line: str) -> str:
        self._socket.sendall(line.encode() + b"\r\n")
        return self.hear()

    def send(self, *recipients: str) -> None:
        """
        A letter to all of them; the replies behind it are still to be heard.
        """
        assert self.say("MAIL FROM:<me@example.net>").startswith("250 ")
        for recipient in recipients:
            assert self.say(f"RCPT TO:<{recipient}>").startswith("250 ")
        assert self.say("DATA").startswith("354 ")
        self._socket.sendall(LETTER + b".\r\n")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def start(directory: Path) -> Iterator[Callable[..., Service]]:
    """
    ``start("node1", "--backend", ...)``: a running service; all end well.
    """
    services: list[Service] = []

    def start(name: str, *words: str, **where: Any) -> Service:
        services.append(Service(directory, name, *words, **where))
        return services[-1].start()

    yield start
    for service in services:
        service.daemon.stop()
        assert "Traceback" not in service.log, service.log


@pytest.fixture
def front(directory: Path, start: Callable[..., Service]) -> Callable[..., Service]:
    """
    ``front(node1, node2, option=value)``: a front for them; Ann is on the first, Bob on the second.
    """

    def front(first: Service, second: Service, **options: str) -> Service:
        config = directory / "front.toml"
        more = "".join(f":{name}={value}" for name, value in options.items())
        config.write_text(
            f"""
            users = "any"
            [[routes]]
            to = "ann@example.org"
            backend = 'forward:127.0.0.1:{first.port}{more}'
            [[routes]]
            to = "bob@example.org"
            backend = 'forward:127.0.0.1:{second.port}{more}'
            """
        )
        return start("front", "--config", str(config))

    return front


@pytest.fixture
def talk() -> Iterator[Callable[[Service], Talk]]:
    """
    ``talk(service)``: a client of it.
    """
    with ExitStack() as stack:
        yield lambda service: stack.enter_context(Talk(service))


def maildir(directory: Path, name: str, more: str = "") -> tuple[str, ...]:
    return ("--users", "any", "--backend", f"maildir:{directory}/{name}/{{domain}}/{{user}}{more}")


def mails(directory: Path, name: str, user: str) -> list[Path]:
    new = directory / name / "example.org" / user / "new"
    return sorted(new.iterdir()) if new.exists() else []


def test_the_fast_node_is_not_held(
    directory: Path,
    start: Callable[..., Service],
    front: Callable[..., Service],
    talk: Callable[[Service], Talk],
) -> None:
    """
    The reply of the first is there while the second has yet to be let go on; and who is said to be
    the client is the client, on the node too.
    """
    gate = directory / "gate"
    os.mkfifo(gate)
    fast = start("fast", *maildir(directory, "fast"))
    slow = start(
        "slow", "--users", "any", "--backend", f"pipe:/bin/sh:-c:cat {gate}:as=root"
    )  # fmt: skip
    client = talk(front(fast, slow))
    client.send("ann@example.org", "bob@example.org")

    assert client.hear().startswith("250 2.0.0 <ann@example.org> ")
    (mail,) = mails(directory, "fast", "ann")
    text = mail.read_text()
    assert 1 == text.count("Return-Path: <me@example.net>")
    assert "Received: from client.example.net ([127.0.0.1])" in text
    assert 2 == text.count("Received:")

    gate.write_bytes(b"")
    assert client.hear().startswith("250 ")
    wait_until(lambda: "client=127.0.0.1" in fast.log, 30, "the node's log")


def test_a_node_that_is_killed(
    directory: Path,
    start: Callable[..., Service],
    front: Callable[..., Service],
    talk: Callable[[Service], Talk],
) -> None:
    """
    Its users hear 451, the others are served; when it is back, all is well.
    """
    first = start("first", *maildir(directory, "first"))
    second = start("second", *maildir(directory, "second"))
    client = talk(front(first, second, retry="0.1s"))
    client.send("ann@example.org", "bob@example.org")
    assert ["250", "250"] == [client.hear()[:3] for _ in range(2)]

    second.daemon.signal(signal.SIGKILL)
    wait_until(lambda: second.daemon.status is not None, 30, "the node is dead")
    client.send("ann@example.org", "bob@example.org")
    assert ["250", "451"] == [client.hear()[:3] for _ in range(2)]

    start("again", *maildir(directory, "second"), port=second.port)

    def delivered() -> bool:
        # While it counts as down, Bob is refused at RCPT.
        client.say("RSET")
        client.say("MAIL FROM:<me@example.net>")
        if not client.say("RCPT TO:<bob@example.org>").startswith("250"):
            return False
        client.say("RSET")
        client.send("bob@example.org")
        return client.hear().startswith("250")

    wait_until(delivered, 60, "Bob's mail")
    assert 2 == len(mails(directory, "first", "ann"))
    assert 2 == len(mails(directory, "second", "bob"))


def test_one_copy(
    directory: Path, start: Callable[..., Service], talk: Callable[[Service], Talk]
) -> None:
    """
    Nodes that share their storage share the file, if the front asks the first where it lies.
    """
    key = directory / "key"
    key.write_text("0123456789abcdef" * 4)
    key.chmod(0o600)
    words = maildir(directory, "shared", f":sharing={key}")
    port = start("1", *words).port
    start("2", *words, host="127.0.0.2", port=port)
    users = directory / "users"
    users.write_text("ann@example.org node=127.0.0.1\nbob@example.org node=127.0.0.2\n")
    backend = f"forward:{{node}}:{port}:maildata=yes"
    client = talk(start("front", "--users", f"file:{users}", "--backend", backend))
    client.send("ann@example.org", "bob@example.org")

    assert ["250", "250"] == [client.hear()[:3] for _ in range(2)]
    (first,), (second,) = (mails(directory, "shared", user) for user in ("ann", "bob"))
    assert first.stat().st_ino == second.stat().st_ino


def test_the_directory_knows(
    directory: Path, start: Callable[..., Service], talk: Callable[[Service], Talk]
) -> None:
    """
    One backend for all: the users file says who is on which node; who is on none hears 451.
    """
    node = start("node", *maildir(directory, "node"))
    users = directory / "users"
    users.write_text("ann@example.org node=127.0.0.1\nbob@example.org\n")
    front = start("front", "--users", f"file:{users}", "--backend", f"forward:{{node}}:{node.port}")
    client = talk(front)
    client.say("MAIL FROM:<>")
    assert client.say("RCPT TO:<bob@example.org>").startswith("451 ")
    client.say("RSET")
    client.send("ann@example.org")

    assert client.hear().startswith("250 ")
    assert 1 == len(mails(directory, "node", "ann"))


def test_dovecot_as_the_node(
    top: Path,
    start: Callable[..., Service],
    talk: Callable[[Service], Talk],
    peer: Callable[[str], Path],
) -> None:
    """
    Dovecot keeps the mail: each reply is its own, it adds what is for the final delivery to add, and
    learns who the client is, anew for each message on a connection that is kept.
    """
    with dovecot(peer("dovecot"), top / "node", ("ann", "bob")) as node:
        backend = f"forward:127.0.0.1:{node.port}:connections=1"
        client = talk(start("front", "--users", "any", "--backend", backend))
        client.send("ann@example.test", "nobody@example.test", "bob+lists@example.test")
        told = [client.hear() for _ in range(3)]
        for number in range(2):
            client.say(f"XCLIENT ADDR=192.0.2.{number} NAME=c{number}.example.net")
            client.say("LHLO client.example.net")
            client.send("ann@example.test")
            assert client.hear().startswith("250 ")

        assert ["250 2.0.0", "550 5.1.1", "250 2.0.0"] == [each[:9] for each in told]
        # Which words it has for that, is for Dovecot to say; they are handed on.
        assert "nobody@example.test" in told[1]
        first, *others = sorted(node.mail("ann"), key=lambda mail: b"192.0.2." in mail)
        assert 1 == first.count(b"Return-Path: <me@example.net>")
        assert 2 == first.count(b"\nReceived: ")
        assert first.endswith(LETTER.replace(b"\r\n", b"\n"))
        assert 1 == len(node.mail("bob"))
        theirs = [
            mail.partition(b"\nReceived: ")[2].partition(b"\nReceived: ")[0] for mail in others
        ]
        assert all(b"192.0.2.%d" % number in b"".join(theirs) for number in range(2))
        assert "Error" not in node.log


class TestRequiringTLS:
    """
    A message that must not travel in the clear (RFC 8689), to a front that sends all others so.
    """

    def told(self, front: Service, user: str) -> str:
        """
        The reply for it, behind the text.
        """
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        with smtplib.LMTP(*front.address) as client:
            client.starttls(context=trusting)
            client.ehlo()
            assert 250 == client.mail("me@example.net", ["REQUIRETLS"])[0]
            assert 250 == client.rcpt(f"{user}@example.org")[0]
            code, text = client.data(LETTER)
            return f"{code} {text.decode()}"

    def test_where_it_goes(self, directory: Path, start: Callable[..., Service]) -> None:
        """
        Over TLS to the node whose certificate is right, and to no other; the rest goes as it went.
        """
        (directory / "tls").mkdir()
        authority = Authority(directory / "tls")
        words = {}
        for name in ("localhost", "other.example"):
            pair = authority.sign(name, [DNSName(name)])
            files = ("--tls-certificate", str(pair.certificate), "--tls-key", str(pair.key))
            words[name] = files
        right = start("right", *maildir(directory, "right"), *words["localhost"])
        wrong = start("wrong", *maildir(directory, "wrong"), *words["other.example"])
        none = start("none", *maildir(directory, "none"))
        routes = "".join(
            f"""
            [[routes]]
            to = "{user}@example.org"
            backend = 'forward:localhost:{node.port}:ca={authority.path}'
            """
            for user, node in (("ann", right), ("bob", wrong), ("cat", none))
        )
        config = directory / "front.toml"
        config.write_text(f'users = "any"\n{routes}')
        front = start("front", "--config", str(config), *words["localhost"])

        assert self.told(front, "ann").startswith("250 2.0.0 ")
        assert self.told(front, "bob").startswith("451 4.7.5 TLS handshake failed: ")
        assert "550 5.7.10 " == self.told(front, "cat")[:11]
        [mail] = mails(directory, "right", "ann")
        assert "with LMTPS id " in mail.read_text()
        assert [] == mails(directory, "wrong", "bob") + mails(directory, "none", "cat")
        with Talk(front) as client:
            client.send("bob@example.org", "cat@example.org")
            assert ["250", "250"] == [client.hear()[:3] for _ in range(2)]
