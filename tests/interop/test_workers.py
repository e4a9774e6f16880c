"""
Several processes share the work, and no client can tell.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from twisted.internet import endpoints

from ..certificates import self_signed
from ..running import accepts, free_port, wait_until
from .lmtp import Client
from .workers import CLEAN, PROGRAM, SECONDS, Workers, is_alive, running

LETTER = b"Subject: hello\r\n\r\nA letter.\r\n"


@pytest.fixture
def directory(top: Path) -> Path:
    """
    An empty directory with a short name.
    """
    path = top / f"w{len(list(top.iterdir()))}"
    path.mkdir()
    path.chmod(0o755)
    return path


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def certificate(directory: Path) -> Path:
    """
    A file with the key and certificate of localhost, in a directory of its own.
    """
    path = directory / "pem" / "localhost.pem"
    path.parent.mkdir()
    return self_signed(path)


def tcp(port: int) -> str:
    return f"tcp:{port}:interface=127.0.0.1"


def deliver(address: tuple[str, int] | Path, recipient: str) -> str:
    """
    Send a letter; the reply of its recipient.
    """
    with Client(address) as client:
        [reply] = client.send("a@example.net", [recipient], LETTER).delivered
        return reply


def connected(stack: ExitStack, address: tuple[str, int] | Path) -> Client:
    """
    A client that has been greeted, until the *stack* ends.
    """
    return stack.enter_context(Client(address))


class TestDelivery:
    def test_tcp_and_unix(self, directory: Path, port: int) -> None:
        """
        Mail is taken on every socket, by every worker, and each is stored once.
        """
        path = directory / "s"
        with running(directory, "-l", tcp(port), "-l", f"unix:{path}:mode=660") as workers:
            assert path.stat().st_mode & 0o777 == 0o660
            sent = 0
            for address in (("127.0.0.1", port), path):
                with ExitStack() as stack:
                    clients = workers.share(partial(connected, stack, address))
                    for client in clients:
                        outcome = client.send("a@example.net", ["ann@example.test"], LETTER)
                        assert outcome.delivered[0].startswith("250 ")
                    sent += len(clients)
                wait_until(lambda: workers.connections() == [0, 0], SECONDS, "connections end")
            assert workers.end() == CLEAN
            assert len(list(workers.store.root.rglob("new/*"))) == sent
            assert not path.exists()
            assert "Traceback" not in workers.log

    @pytest.mark.parametrize("kind", ["ssl", "tls"])
    def test_tls(self, directory: Path, port: int, certificate: Path, kind: str) -> None:
        """
        Each worker reads the certificate and speaks TLS.
        """
        words = {
            "ssl": f"ssl:{port}:privateKey={certificate}:interface=127.0.0.1",
            "tls": f"tls:{certificate.parent}:port={port}:interface=127.0.0.1",
        }[kind]
        if kind == "tls" and not hasattr(endpoints, "_TLSServerEndpointParser"):
            pytest.skip("this Twisted has no tls: endpoint")
        context = ssl.create_default_context(cafile=certificate)
        with running(directory, "-l", words) as workers, ExitStack() as stack:

            def connect() -> socket.socket:
                plain = socket.create_connection(("127.0.0.1", port), SECONDS)
                secure = context.wrap_socket(plain, server_hostname="localhost")
                stack.enter_context(secure)
                assert secure.recv(1000).startswith(b"220 ")
                return secure

            workers.share(connect)

    def test_haproxy(self, directory: Path, port: int) -> None:
        """
        An endpoint that is wrapped in another one is shared too.
        """
        with (
            running(directory, "-l", f"haproxy:{tcp(port)}"),
            socket.create_connection(("127.0.0.1", port), SECONDS) as client,
        ):
            client.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 4000 24\r\n")
            assert client.recv(1000).startswith(b"220 ")

    @pytest.mark.parametrize("where", ["tcp", "unix"])
    def test_proxied(self, directory: Path, port: int, where: str) -> None:
        """
        Each worker knows the terms of its endpoints, and reads the header first.
        """
        path = directory / "s"
        words = {"tcp": f"proxied:{tcp(port)}", "unix": f"proxied:unix:{path}"}[where]
        with (
            running(directory, "-l", words, "--trusted", "127.0.0.1,local") as workers,
            ExitStack() as stack,
        ):

            def connect() -> socket.socket:
                client = socket.socket(socket.AF_INET if where == "tcp" else socket.AF_UNIX)
                stack.enter_context(client)
                client.settimeout(SECONDS)
                client.connect(("127.0.0.1", port) if where == "tcp" else str(path))
                client.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 4000 24\r\n")
                assert client.recv(1000).startswith(b"220 ")
                return client

            workers.share(connect)

    def test_systemd(self, directory: Path) -> None:
        """
        Sockets that systemd has opened are handed on, and stay systemd's.
        """
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            with running(
                directory,
                "-l",
                "systemd:domain=INET:name=lmtp",
                program=[sys.executable, "-c", AS_SYSTEMD, str(listening.fileno()), *PROGRAM],
                environment={"LISTEN_FDS": "1", "LISTEN_FDNAMES": "lmtp"},
                descriptors=[listening.fileno()],
            ) as workers:
                address = listening.getsockname()
                for _ in range(4):
                    assert deliver(address, "ann@example.test").startswith("250 ")
                assert workers.end() == CLEAN
            assert accepts(address)


class TestBalance:
    @pytest.mark.parametrize("kind", ["tcp", "unix"])
    def test_equal(self, directory: Path, port: int, kind: str) -> None:
        """
        Connections that come in a burst are shared evenly, few and many.

        Not every time: a worker that gets no processor for some milliseconds loses its turn.
        """
        path = directory / "s"
        address = path if kind == "unix" else ("127.0.0.1", port)
        with running(directory, "-l", f"unix:{path}" if kind == "unix" else tcp(port)) as workers:
            for number in (2, 10, 50):
                shares: list[list[int]] = []
                while shares.count([number // 2] * 2) < 3:
                    assert len(shares) < 12, shares
                    with ExitStack() as stack:
                        clients = [Client(address) for _ in range(number)]
                        for client in clients:
                            stack.enter_context(client)
                        shares.append(workers.connections())
                    wait_until(lambda: workers.connections() == [0, 0], SECONDS, "connections end")

    def test_a_worker_that_hangs(self, directory: Path, port: int) -> None:
        """
        Who has fewer connections because he hangs does not keep others from being served.
        """
        with running(directory, "-l", tcp(port)) as workers, ExitStack() as stack:
            hanging, _ = workers.pids
            os.kill(hanging, signal.SIGSTOP)
            try:
                for _ in range(5):
                    stack.enter_context(Client(("127.0.0.1", port)))
            finally:
                os.kill(hanging, signal.SIGCONT)

    def test_limit(self, directory: Path, port: int) -> None:
        """
        --max-connections is for all workers together.
        """
        with (
            running(directory, "-l", tcp(port), "--max-connections", "3"),
            ExitStack() as stack,
        ):
            for _ in range(3):
                stack.enter_context(Client(("127.0.0.1", port)))
            for _ in range(2):
                with socket.create_connection(("127.0.0.1", port), SECONDS) as refused:
                    assert refused.recv(1000).startswith(b"421 4.3.2 ")


class TestDeath:
    def test_killed_worker(self, directory: Path, port: int) -> None:
        """
        A worker that is killed takes its connections with it and nothing else: what was
        acknowledged is stored, the other worker serves, and a new one comes.
        """
        address = ("127.0.0.1", port)
        with running(directory, "-l", tcp(port)) as workers:
            promised = [deliver(address, "ann@example.test").split()[-2] for _ in range(4)]
            killed, other = workers.pids
            os.kill(killed, signal.SIGKILL)
            promised += [deliver(address, "ann@example.test").split()[-2] for _ in range(4)]
            assert other in workers.wait_for()
            with ExitStack() as stack:
                workers.share(partial(connected, stack, address))
            assert workers.end() == CLEAN
            stored = [path.read_text() for path in workers.store.root.rglob("new/*")]
            assert all(any(name in text for text in stored) for name in promised)
            assert "has ended (SIGKILL); it is started again" in workers.log

    def test_killed_supervisor(self, directory: Path, port: int) -> None:
        """
        Without a supervisor the workers end, and what is under way is finished.
        """
        path = directory / "s"
        with running(directory, "-l", tcp(port), "-l", f"unix:{path}") as workers:
            pids = workers.pids
            with Client(path) as client:
                assert client.command("MAIL FROM:<>").startswith("250 ")
                assert client.command("RCPT TO:<ann@example.test>").startswith("250 ")
                assert client.command("DATA").startswith("354 ")
                workers.process.kill()
                wait_until(lambda: not accepts(("127.0.0.1", port)), SECONDS, "not listening")
                assert client.command("\r\n.").startswith("250 ")
            wait_until(lambda: not any(map(is_alive, pids)), SECONDS, "workers end")
        # What it left behind is in nobody's way.
        with running(directory, "-l", tcp(port), "-l", f"unix:{path}"):
            assert deliver(path, "ann@example.test").startswith("250 ")


class TestStop:
    @pytest.mark.parametrize("whom", ["supervisor", "all"])
    def test_in_flight(self, directory: Path, port: int, whom: str) -> None:
        """
        Who is sending a message gets the reply, whether only the supervisor is told to stop or all
        processes of the group are; nobody new is let in.
        """
        address = ("127.0.0.1", port)
        with running(directory, "-l", tcp(port)) as workers, ExitStack() as stack:
            clients = [stack.enter_context(Client(address)) for _ in range(4)]
            for client in clients:
                assert client.command("MAIL FROM:<>").startswith("250 ")
                assert client.command("RCPT TO:<ann@example.test>").startswith("250 ")
                assert client.command("DATA").startswith("354 ")
            if whom == "all":
                os.killpg(workers.process.pid, signal.SIGTERM)
            else:
                workers.process.terminate()
            wait_until(lambda: not accepts(address), SECONDS, "not listening")
            for client in clients[:2]:
                assert client.command("\r\n.").startswith("250 ")
            assert workers.process.poll() is None
            for client in clients[2:]:
                assert client.command("\r\n.").startswith("250 ")
            assert workers.process.wait(SECONDS) == CLEAN
            assert "Traceback" not in workers.log

    def test_socket_file_is_gone(self, directory: Path) -> None:
        """
        Somebody has cleaned up, or only root may: the end is as orderly as ever.
        """
        path = directory / "s"
        with running(directory, "-l", f"unix:{path}") as workers, Client(path) as client:
            assert client.command("MAIL FROM:<>").startswith("250 ")
            assert client.command("RCPT TO:<ann@example.test>").startswith("250 ")
            assert client.command("DATA").startswith("354 ")
            path.unlink()
            workers.process.terminate()
            wait_until(lambda: "waiting for transactions" in workers.log, SECONDS, "told to stop")
            assert client.command("\r\n.").startswith("250 ")
            assert workers.process.wait(SECONDS) == CLEAN
            assert "Traceback" not in workers.log

    def test_control_c(self, directory: Path, port: int) -> None:
        """
        A terminal interrupts all processes at once, perhaps twice.
        """
        with running(directory, "-l", tcp(port)) as workers:
            os.killpg(workers.process.pid, signal.SIGINT)
            assert workers.process.wait(SECONDS) == -signal.SIGINT
            assert "Traceback" not in workers.log

    def test_stop_timeout(self, directory: Path, port: int) -> None:
        """
        A client that never ends its text holds up the stop no longer than the operator allows.
        """
        with (
            running(directory, "-l", tcp(port), "--stop-timeout", "0.2") as workers,
            Client(("127.0.0.1", port)) as client,
        ):
            assert client.command("MAIL FROM:<>").startswith("250 ")
            assert client.command("RCPT TO:<ann@example.test>").startswith("250 ")
            assert client.command("DATA").startswith("354 ")
            assert workers.end(10) == CLEAN
            assert "1 connections are cut off" in workers.log


class TestStart:
    def test_port_in_use(self, directory: Path) -> None:
        """
        As with one process: one line, and exit status 1.
        """
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            workers = Workers(directory, ["-l", tcp(port)])
            assert workers.process.wait(SECONDS) == 1
        reason = f"Address already in use: cannot listen on {tcp(port)};"
        assert f"twistd lmtp: {reason}" in workers.log.splitlines()[-1]
        assert "Traceback" not in workers.log

    def test_no_worker_can_start(self, directory: Path, port: int) -> None:
        """
        What is only found out in workers ends the service too, with one line.
        """
        (directory / "lmtpsvc_broken.py").write_text(BROKEN)
        plugins = directory / "twisted" / "plugins"
        plugins.mkdir(parents=True)
        (plugins / "lmtpsvc_broken.py").write_text(
            "from lmtpsvc_broken import BrokenFactory\nbroken = BrokenFactory()\n"
        )
        workers = Workers(
            directory,
            ["-l", tcp(port), "--backend", "broken"],
            environment={"PYTHONPATH": os.pathsep.join([str(directory), *filter(None, sys.path)])},
        )
        assert workers.process.wait(SECONDS) == 1
        assert workers.log.splitlines()[-1] == "twistd lmtp: /nowhere: No such file or directory"
        assert "Traceback" not in workers.log

    def test_words(self, directory: Path, port: int) -> None:
        """
        Workers understand what the supervisor did: odd characters, relative paths and log files.
        """
        words = ["-l", tcp(port), "--hostname", "mx.example.org", "--recipient-delimiter", "="]
        words += ["--backend", "maildir:my mail'\"$HOME é/{user}", "--json-log", "log of mail.json"]
        with running(directory, *words, twistd=["--logfile", "my.log"]) as workers:
            with Client(("127.0.0.1", port)) as client:
                assert client.command("LHLO x").startswith("250 ")
            reply = deliver(("127.0.0.1", port), "ann=lists@example.test")
            assert reply.startswith("250 ")
            assert workers.end() == CLEAN
        assert len(list((directory / "my mail'\"$HOME é" / "ann" / "new").iterdir())) == 1
        assert '"recipient": "ann=lists@example.test"' in (
            directory / "log of mail.json"
        ).read_text(encoding="utf-8")
        assert {"my.log", "my-worker1.log", "my-worker2.log"} <= {
            path.name for path in directory.iterdir()
        }


#: Starts a program with a socket where systemd's begin.
AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""

#: A backend that says only when it starts that it cannot.
BROKEN = """
import errno, os
from twisted.application.service import Service
from twisted.plugin import IPlugin
from zope.interface import implementer
from lmtpsvc.interfaces import Capabilities, IBackend, IBackendFactory

@implementer(IBackend)
class BrokenBackend(Service):
    capabilities = Capabilities()
    def verify(self, mailbox): pass
    def deliver(self, message, mailboxes): return []
    def startService(self):
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), "/nowhere")

@implementer(IPlugin, IBackendFactory)
class BrokenFactory:
    name = synopsis = help = "broken"
    def build(self, reactor): return BrokenBackend()
"""
