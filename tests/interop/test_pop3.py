"""
From Postfix over LMTP into PostgreSQL, and out of it over POP3.
"""

from __future__ import annotations

import os
import poplib
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import pytest
from attrs import frozen

from ..running import Daemon, accepts, free_port, twistd, wait_until
from .postfix import Postfix
from .service import DOMAIN

SENDER = f"sender@{DOMAIN}"
USERS = [f"{name}@{DOMAIN}" for name in ("ann", "bob")]
PASSWORD = "secret"

POP3 = """\
from twisted.application.service import Application
from twisted.cred.checkers import FilePasswordDB
from twisted.internet import reactor

from lmtpsvc.pop3.service import POP3Service

application = Application("pop3")
passwords = FilePasswordDB({passwords!r})
service = POP3Service(reactor, "tcp:{port}:interface=127.0.0.1", {url!r}, passwords)
service.setServiceParent(application)
"""


@frozen
class Chain:
    """
    Postfix, the service, and a POP3 service in a process of its own.
    """

    postfix: Postfix
    lmtp: Daemon
    pop3: Daemon
    port: int

    def login(self, user: str) -> poplib.POP3:
        client = poplib.POP3("127.0.0.1", self.port, timeout=30)
        client.user(user)
        client.pass_(PASSWORD)
        return client


@pytest.fixture
def chain(
    top: Path,
    postgresql: Any,
    peer: Callable[[str], Path],
    unavailable: Callable[[str], NoReturn],
) -> Iterator[Chain]:
    """
    All of them, with an empty database.
    """
    if os.geteuid() != 0:
        unavailable("the root account, which Postfix needs")
    postconf = peer("postconf")
    url = postgresql.new()
    directory = Path(tempfile.mkdtemp(prefix="q", dir=top))
    directory.chmod(0o755)
    socket = directory / "lmtp.sock"
    users, passwords, tac = (directory / name for name in ("users", "passwords", "pop3.tac"))
    users.write_text("".join(f"{user}\n" for user in USERS))
    passwords.write_text("".join(f"{user}:{PASSWORD}\n" for user in USERS))
    port = free_port()
    tac.write_text(POP3.format(passwords=str(passwords), port=port, url=url))
    escaped = url.replace("=", r"\=")

    lmtp = twistd(
        directory,
        *("lmtp", "--listen", f"unix:{socket}:mode=666", "--users", f"file:{users}"),
        *("--backend", f"sql:{escaped}:create=yes"),
        log="lmtp.log",
    )
    pop3 = twistd(directory, "-oy", tac, log="pop3.log")
    place = directory / "postfix"
    place.mkdir(mode=0o755)
    postfix = Postfix(postconf, place, DOMAIN, f"unix:{socket}")
    with ExitStack() as stack:
        stack.callback(lmtp.stop)
        lmtp.start(lambda: accepts(socket))
        stack.callback(pop3.stop)
        pop3.start(lambda: accepts(("127.0.0.1", port)))
        stack.callback(postfix.stop)
        postfix.start()
        yield Chain(postfix, lmtp, pop3, port)
    for daemon in (lmtp, pop3):
        said = daemon.log.read_text(errors="replace")
        assert "Traceback" not in said, said


def read(client: poplib.POP3, number: int) -> bytes:
    return b"".join(line + b"\r\n" for line in client.retr(number)[1])


def test_from_postfix_to_a_mail_program(chain: Chain) -> None:
    """
    What was given to Postfix is what a mail program gets, behind the trace headers, once.
    """
    texts = [
        b"Subject: %d\r\n\r\n.\r\n..dots\r\n\xc3\xa4 %s\r\n" % (number, b"." * number)
        for number in range(20)
    ]
    texts.append(b"Subject: large\r\n\r\n" + b".some text\r\n" * 300_000)
    with chain.postfix.client() as smtp:
        for text in texts:
            smtp.sendmail(SENDER, USERS, text, ["BODY=8BITMIME"])
    wait_until(lambda: not chain.postfix.queued(), 60, "Postfix's queue empty")

    for user in USERS:
        client = chain.login(user)
        number, octets = client.stat()
        got = [read(client, each + 1) for each in range(number)]
        uids = client.uidl()[1]
        for each in range(number):
            client.dele(each + 1)
        client.quit()

        assert octets == sum(map(len, got))
        assert sorted(text[text.index(b"Subject: ") :] for text in got) == sorted(texts)
        assert all(text.startswith(b"Return-Path: <sender@") for text in got)
        assert len(set(uids)) == len(texts)
    client = chain.login(USERS[0])
    assert client.stat() == (0, 0)
    client.quit()
    assert chain.postfix.complaints() == []


def test_nothing_is_lost_between_sessions(chain: Chain) -> None:
    """
    Mail that comes while somebody reads is there at the next login; the service may be stopped in
    between.
    """
    with chain.postfix.client() as smtp:
        smtp.sendmail(SENDER, USERS, b"Subject: first\r\n\r\n")
        wait_until(lambda: not chain.postfix.queued(), 30, "Postfix's queue empty")
        client = chain.login(USERS[0])
        smtp.sendmail(SENDER, USERS, b"Subject: second\r\n\r\n")
    wait_until(lambda: not chain.postfix.queued(), 30, "Postfix's queue empty")
    client.dele(1)
    assert client.stat()[0] == 0
    client.quit()

    assert chain.pop3.stop() == -signal.SIGTERM
    chain.pop3.start(lambda: accepts(("127.0.0.1", chain.port)))

    client = chain.login(USERS[0])
    assert b"Subject: second" in read(client, 1)
    assert client.stat()[0] == 1
    assert client.uidl()[1][0].endswith(b".2")
    client.quit()
