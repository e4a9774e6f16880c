"""
SIGHUP, while clients are connected.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..running import twistd, wait_until
from .lmtp import Client

LETTER = b"Subject: hello\r\n\r\nA letter.\r\n"


class Service:
    """
    ``twistd lmtp`` in *directory*, with what ``lmtp.toml`` says there, or with *words* alone.
    """

    def __init__(self, directory: Path, *words: str) -> None:
        self.directory = directory
        self.socket = directory / "sock"
        self._daemon = twistd(directory, "lmtp", *(words or ("--config", "lmtp.toml")))

    def start(self, says: str = "mail goes to") -> None:
        self._daemon.start(lambda: says in self.log)

    def stop(self) -> None:
        assert self._daemon.stop() == -signal.SIGTERM, self.log
        assert "Traceback" not in self.log

    @property
    def log(self) -> str:
        path = self.directory / "log"
        return path.read_text() if path.exists() else ""

    def reload(self, says: str, times: int = 1) -> str:
        """
        Send SIGHUP, and return what is logged until it has said something so often.
        """
        before = len(self.log)
        self._daemon.signal(signal.SIGHUP)
        wait_until(lambda: self.log[before:].count(says) >= times, 30, f"{says} in {self.log}")
        return self.log[before:]

    def mails(self, maildir: str) -> int:
        path = self.directory / maildir / "new"
        return len(list(path.iterdir())) if path.exists() else 0


@pytest.fixture
def serving(top: Path) -> Iterator[Callable[..., Service]]:
    """
    Make a service in an empty directory with a short name, which ends well.
    """
    services: list[Service] = []

    def serving(*words: str) -> Service:
        directory = top / f"r{len(list(top.iterdir()))}"
        directory.mkdir()
        services.append(Service(directory, *words))
        return services[-1]

    yield serving
    for service in services:
        service.stop()


CONFIG = """
listen = "unix:sock"
users = "file:users"
backend = "maildir:mail/{domain}/{user}"
"""

ROUTE = """
[[routes]]
to = "example.org"
backend = "maildir:other/{domain}/{user}"
"""


class TestReload:
    def test_a_connection_stays(self, serving: Callable[..., Service]) -> None:
        """
        Who is connected stays so, hears of new users and routes, and of nothing that is broken.
        """
        service = serving()
        toml, users = service.directory / "lmtp.toml", service.directory / "users"
        toml.write_text(CONFIG)
        users.write_text("ann@example.org\n")
        service.start()

        with Client(service.socket) as client:
            client.command("MAIL FROM:<>")
            assert client.command("RCPT TO:<ann@example.org>").startswith("250 ")
            users.write_text("ann@example.org\nbob@example.org\n")
            toml.write_text(CONFIG.replace("unix:sock", "unix:elsewhere") + ROUTE)
            said = service.reload("listen")

            assert "reloaded: mail goes to maildir:mail/{domain}/{user}, users: file:users" in said
            assert "; 1 route" in said
            assert "changed, but not before a restart: listen" in said
            # The transaction that has begun knows nothing of that.
            assert client.command("RCPT TO:<bob@example.org>").startswith("550 ")
            assert client.command("DATA").startswith("354 ")
            assert client.command(f"{LETTER.decode()}.").startswith("250 ")
            assert (1, 0) == (service.mails("mail/example.org/ann"), service.mails("other"))
            outcome = client.send("", ["bob@example.org"], LETTER)
            assert outcome.delivered[0].startswith("250 ")
            assert 1 == service.mails("other/example.org/bob")

            toml.write_text(CONFIG + "[limits]\nmax-erors = 1\n")
            said = service.reload("in force")

            line = f"{toml}: [limits] max-erors: unknown key; did you mean 'max-errors'?"
            assert f"{line} (the old configuration stays in force)" in said
            toml.write_text(CONFIG)
            users.write_text("ann@\n")
            assert "users: file:" in service.reload("in force")
            client.send("", ["bob@example.org"], LETTER)
            assert 2 == service.mails("other/example.org/bob")

    def test_without_a_file(self, serving: Callable[..., Service]) -> None:
        """
        Where everything stands on the command line, users are read again, and nobody dies.
        """
        service = serving("--listen", "unix:sock", "--users", "file:users")
        users = service.directory / "users"
        users.write_text("ann@example.org\n")
        service.start()

        with Client(service.socket) as client:
            client.command("MAIL FROM:<>")
            assert client.command("RCPT TO:<bob@example.org>").startswith("550 ")
            users.write_text("bob@example.org\n")
            service.reload("reloaded: mail goes to maildir:mail/{domain}/{user}")
            client.command("RSET")
            client.command("MAIL FROM:<>")

            assert client.command("RCPT TO:<bob@example.org>").startswith("250 ")

    def test_workers(self, serving: Callable[..., Service]) -> None:
        """
        Each worker reloads, and one that is started later keeps to the sockets that there are.
        """
        service = serving()
        toml = service.directory / "lmtp.toml"
        toml.write_text(f'workers = 2\nusers = "any"\n{CONFIG}'.replace('users = "file:users"', ""))
        service.start("worker 2 takes")
        wait_until(lambda: "worker 1 takes" in service.log, 30, "worker 1")

        toml.write_text(toml.read_text().replace("unix:sock", "unix:b") + ROUTE)
        said = service.reload("; 1 route", 2)
        assert "changed, but not before a restart: listen" in said
        with Client(service.socket) as client:
            client.send("", ["ann@example.org"], LETTER)
        assert 1 == service.mails("other/example.org/ann")

        toml.write_text("broken")
        said = service.reload("in force")
        assert 1 == said.count("in force")

        toml.write_text('listen = "unix:b"\nusers = "any"\nworkers = 2\n')
        pid = int(service.log.split("worker 1 takes connections (process ")[1].split(")")[0])
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: service.log.count("worker 1 takes") == 2, 30, "another worker")
        for _ in range(4):
            with Client(service.socket) as client:
                client.command("NOOP")
