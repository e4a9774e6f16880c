"""
Behind others who know more than we: Postfix, Dovecot as a proxy, HAProxy, and swaks.
"""

from __future__ import annotations

import json
import os
import pwd
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest

from ..certificates import self_signed
from ..running import Daemon, accepts, free_port, run, wait_until
from .lmtp_servers import dovecot
from .postfix import Postfix
from .service import DOMAIN, Service, running_service

Peer = Callable[[str], Path]

ANN, BOB, UNKNOWN = (f"{name}@{DOMAIN}" for name in ("ann", "bob", "nobody.here"))
#: Everybody but the proxies, which connect from 127.0.0.1.
CLIENT = "127.0.0.5"

HAPROXY = """\
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  unique-id-format %{{+X}}o\\ %ci-%cp
frontend in
  bind 127.0.0.1:{port}
  default_backend out
backend out
  server a {target}
"""


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    """
    Of endpoints that are proxied: without TLS, and with it in both ways.
    """
    return {kind: free_port() for kind in ("tcp", "ssl", "tls")}


@pytest.fixture(scope="module")
def proxied_port(ports: dict[str, int]) -> int:
    return ports["tcp"]


@pytest.fixture(scope="module")
def trusting(top: Path, ports: dict[str, int]) -> Iterator[Service]:
    """
    The service, which trusts proxies on 127.0.0.1 and UNIX sockets.
    """
    self_signed(top / "proxied.pem", "mx.example.test")
    files = f"privateKey={top}/proxied.pem:certKey={top}/proxied.pem"
    more = [
        *("--trusted", "127.0.0.1,local", "--json-log", "json"),
        *("--tls-certificate", f"{top}/proxied.pem"),
        *("--listen", f"proxied:tcp:{ports['tcp']}:interface=127.0.0.1"),
        *("--listen", f"proxied:ssl:{ports['ssl']}:interface=127.0.0.1:{files}"),
        *("--listen", f"proxied:tls:tcp:{ports['tls']}:interface=127.0.0.1"),
    ]
    with running_service(top, more=more) as service:
        for port in ports.values():
            wait_until(partial(accepts, ("127.0.0.1", port)), 30, f"somebody listens on {port}")
        yield service


def logged(service: Service) -> list[dict[str, Any]]:
    """
    What the service has said of recipients.
    """
    lines = (service.directory / "json").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def body() -> str:
    return f"a unique body {os.urandom(8).hex()}"


def received(service: Service, user: str, text: str) -> str:
    """
    The topmost Received of the one message of *user* that has this text, on one line.
    """
    [stored] = [each for each in service.store.mailbox(user) if text.encode() in each.text]
    return " ".join(str(stored.header["Received"]).split())


# ── swaks ────────────────────────────────────────────────────────────────────────────────────────


class TestSwaks:
    def test_xclient(self, trusting: Service, peer: Peer) -> None:
        """
        The client is whom swaks says, in log and header.
        """
        text = body()

        done = run(
            [
                *(str(peer("swaks")), "--protocol", "LMTP", "--socket", str(trusting.unix)),
                *("--to", ANN, "--body", text, "--xclient-addr", "198.51.100.7"),
                *("--xclient-name", "host.example.com", "--xclient-helo", "mail.example.com"),
                *("--xclient-login", "ann b", "--xclient-proto", "ESMTP", "--xclient-port", "99"),
            ]
        )

        assert done.returncode == 0, done.stdout
        assert "from mail.example.com (host.example.com [198.51.100.7]) by" in received(
            trusting, ANN, text
        )
        last = logged(trusting)[-1]
        assert ("198.51.100.7", "ann b") == (last["client"], last["login"])

    def test_not_trusted(self, service: Service, peer: Peer) -> None:
        """
        A service that trusts nobody does not know the command.
        """
        done = run(
            [
                *(str(peer("swaks")), "--protocol", "LMTP", "--socket", str(service.unix)),
                *("--to", ANN, "--xclient-addr", "198.51.100.7"),
            ]
        )

        assert done.returncode != 0
        assert b"XCLIENT" in done.stdout


# ── Postfix ──────────────────────────────────────────────────────────────────────────────────────


class TestPostfix:
    @pytest.mark.parametrize("kind", ["unix", "tcp"])
    def test_xforward(
        self,
        kind: str,
        trusting: Service,
        top: Path,
        peer: Peer,
        unavailable: Callable[[str], NoReturn],
    ) -> None:
        """
        Postfix' queue id stands in our log, and with it who gave the message to Postfix.
        """
        if os.geteuid() != 0:
            unavailable("the root account, which Postfix needs")
        directory = Path(tempfile.mkdtemp(prefix="p", dir=top))
        directory.chmod(0o755)
        target = {"unix": f"unix:{trusting.unix}", "tcp": f"inet:127.0.0.1:{trusting.tcp[1]}"}
        postfix = Postfix(
            peer("postconf"),
            directory,
            DOMAIN,
            target[kind],
            more="lmtp_send_xforward_command = yes\n",
        )
        try:
            postfix.start()
            with postfix.client() as smtp:
                smtp.ehlo("host.example.com")
                smtp.sendmail(f"sender@{DOMAIN}", [ANN, BOB], "Subject: x\r\n\r\nx\r\n")
            # What it logs is written down by another process, which may be later than the queue.
            wait_until(lambda: len(postfix.outcomes()) >= 2, 60, "two outcomes")
            outcomes = postfix.outcomes()
        finally:
            postfix.stop()

        assert ["sent", "sent"] == [outcome.status for outcome in outcomes]
        ids = {outcome.queue_id for outcome in outcomes}
        last = logged(trusting)[-2:]
        assert ids == {each["origin_ident"] for each in last}
        assert {("127.0.0.1", "ESMTP")} == {
            (each["origin_client"], each["origin_protocol"]) for each in last
        }
        assert f" origin_ident={ids.pop()} " in trusting.log


# ── Dovecot ──────────────────────────────────────────────────────────────────────────────────────


class TestDovecot:
    def test_proxy(self, trusting: Service, top: Path, peer: Peer) -> None:
        """
        Dovecot's proxy tells us its client, its session, and its patience; and fields of users.
        """
        text = body()
        proxies = dovecot(
            peer("dovecot"),
            top / "dovecot-proxy",
            ("ann",),
            f"proxy=y host=127.0.0.1 port={trusting.tcp[1]} nopassword=y proxy_timeout=100"
            " forward_class=gold",
            "lmtp_proxy = yes",
        )
        with proxies as proxy, from_client(proxy.port) as connection:
            replies = talk(
                connection,
                "LHLO host.example.com",
                "MAIL FROM:<sender@example.net>",
                f"RCPT TO:<{ANN}>",
                f"RCPT TO:<{UNKNOWN}>",
                "DATA",
                f"Subject: x\r\n\r\n{text}\r\n.",
                "QUIT",
            )
            said = proxy.log

        assert ["250", "250", "250", "550", "354", "250", "221"] == [
            reply[:3] for reply in replies
        ], (replies, said)
        line = received(trusting, ANN, text)
        assert f"[{CLIENT}]" in line
        found = [each for each in logged(trusting) if each["recipient"] == ANN][-1]
        assert CLIENT == found["client"]
        assert found["session"]
        assert "Error" not in said


# ── Cyrus ────────────────────────────────────────────────────────────────────────────────────────


class TestCyrus:
    def test_ignorequota(
        self, top: Path, peer: Peer, unavailable: Callable[[str], NoReturn]
    ) -> None:
        """
        Cyrus' ``deliver`` is refused for a full mailbox, and with ``-q`` it is not.
        """
        deliver = peer("/usr/lib/cyrus/bin/deliver")
        if os.geteuid() != 0:
            unavailable("the root account, which becomes Cyrus'")
        directory = top / "cyrus"
        for name in ("db", "lock", "proc"):
            (directory / "conf" / name).mkdir(parents=True)
        backend = "maildir:mail/{domain}/{user}:quota=600"
        with running_service(top, more=["--trusted", "local", "--backend", backend]) as service:
            (directory / "imapd.conf").write_text(
                f"configdirectory: {directory}/conf\n"
                "defaultpartition: default\n"
                f"partition-default: {directory}/mail\n"
                f"lmtpsocket: {service.unix}\n"
                "virtdomains: userid\n"
            )
            for path in (directory, *directory.rglob("*")):
                os.chown(path, pwd.getpwnam("cyrus").pw_uid, -1)

            def status(*options: str) -> int:
                words = ["setpriv", "--reuid", "cyrus", "--clear-groups", str(deliver)]
                words += ["-C", str(directory / "imapd.conf"), "-r", "me@example.net", *options]
                return run([*words, ANN], stdin=b"Subject: x\n\n" + b"x" * 200 + b"\n").returncode

            assert [0, os.EX_TEMPFAIL, 0, os.EX_TEMPFAIL] == [
                status(),
                status(),
                status("-q"),
                status(),
            ]
            assert 2 == len(service.store.mailbox(ANN))


# ── HAProxy ──────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def haproxy(program: Path, top: Path, target: str) -> Iterator[int]:
    """
    HAProxy on loopback, in front of *target*; the port.
    """
    directory = Path(tempfile.mkdtemp(prefix="h", dir=top))
    port = free_port()
    (directory / "haproxy.cfg").write_text(HAPROXY.format(port=port, target=target))
    daemon = Daemon(
        [str(program), "-db", "-f", str(directory / "haproxy.cfg")],
        log=directory / "output",
        cwd=directory,
    )
    try:
        daemon.start(lambda: accepts(("127.0.0.1", port)))
        yield port
    finally:
        daemon.stop()


@contextmanager
def from_client(port: int) -> Iterator[socket.socket]:
    """
    A connection from an address that is no proxy's.
    """
    with socket.create_connection(("127.0.0.1", port), 60, (CLIENT, 0)) as connection:
        yield connection


def talk(connection: socket.socket, *lines: str) -> list[str]:
    """
    The last line of the reply to each of *lines*, said after the greeting.
    """
    replies = []
    with connection.makefile("rb") as heard:
        assert last_line(heard).startswith("220 ")
        for line in lines:
            connection.sendall(f"{line}\r\n".encode())
            replies.append(last_line(heard))
    return replies


def last_line(heard: Any) -> str:
    while True:
        line: bytes = heard.readline()
        assert line.endswith(b"\r\n"), line
        if line[3:4] == b" ":
            return line[:-2].decode()


class TestHAProxy:
    @pytest.mark.parametrize(
        "options",
        ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options unique-id,ssl,authority"],
        ids=["1", "2", "options"],
    )
    @pytest.mark.parametrize("kind", ["tcp", "ssl", "tls"])
    def test_header(
        self,
        options: str,
        kind: str,
        trusting: Service,
        ports: dict[str, int],
        top: Path,
        peer: Peer,
    ) -> None:
        """
        The client is HAProxy's, and is not trusted for coming through it; with TLS to us, too.
        """
        text = body()
        tls = kind != "tcp"
        target = f"127.0.0.1:{ports[kind]} {options}{' ssl verify none' if tls else ''}"
        with haproxy(peer("haproxy"), top, target) as entrance, from_client(entrance) as client:
            replies = talk(
                client,
                "LHLO host.example.com",
                "XCLIENT ADDR=127.0.0.1",
                "MAIL FROM:<sender@example.net>",
                f"RCPT TO:<{ANN}>",
                "DATA",
                f"Subject: x\r\n\r\n{text}\r\n.",
                "QUIT",
            )

        assert ["250", "500", "250", "250", "354", "250", "221"] == [each[:3] for each in replies]
        assert f"from host.example.com ([{CLIENT}]) by " in received(trusting, ANN, text)
        assert f" with LMTP{'S' if tls else ''} id " in received(trusting, ANN, text)
        assert CLIENT == logged(trusting)[-1]["client"]
        assert ("session" in logged(trusting)[-1]) is ("unique-id" in options)

    def test_checks(self, trusting: Service, proxied_port: int, top: Path, peer: Peer) -> None:
        """
        HAProxy's health checks find the service well.
        """
        before = len(trusting.log)
        target = f"127.0.0.1:{proxied_port} send-proxy-v2 check inter 50ms fall 1"
        with haproxy(peer("haproxy"), top, target) as entrance, from_client(entrance) as client:
            assert ["221"] == [each[:3] for each in talk(client, "QUIT")]

        assert "PROXY" not in trusting.log[before:]

    def test_others(self, trusting: Service, proxied_port: int) -> None:
        """
        Who is no proxy, or says nothing that one says, hears nothing.
        """
        assert b"" == heard(proxied_port, CLIENT, b"PROXY UNKNOWN\r\nLHLO x\r\n")
        assert b"" == heard(proxied_port, "127.0.0.1", b"LHLO x\r\n")

        assert f"{CLIENT} is not trusted, but connects where proxies do" in trusting.log
        assert "127.0.0.1 has sent no PROXY header" in trusting.log


def heard(port: int, source: str, said: bytes) -> bytes:
    """
    What there is to hear before the other side goes.
    """
    with socket.socket() as connection:
        connection.settimeout(60)
        connection.bind((source, 0))
        try:
            connection.connect(("127.0.0.1", port))
            connection.sendall(said)
            return connection.recv(1000)
        except (ConnectionResetError, BrokenPipeError):
            return b""
