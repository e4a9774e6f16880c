"""
TLS and logins with real clients: swaks, Postfix, our own; and certificates that are renewed while the
service runs.
"""

from __future__ import annotations

import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509

from ..certificates import Authority, Pair
from ..running import accepts, free_port, run, twistd, wait_until
from .postfix import Postfix

Peer = Callable[[str], Path]

DOMAIN: Final = "example.test"
ANN: Final = f"ann@{DOMAIN}"
LETTER: Final = b"Subject: hello\r\n\r\nA letter.\r\n"

CONFIG: Final = """
users = "any"
backend = "maildir:mail/{{domain}}/{{user}}"
tls-certificate = "chain.pem"
tls-key = "key.pem"
tls-client-ca = "clients.pem"
auth = ["scram:logins", "external"]
workers = {workers}

[[listeners]]
listen = "tcp:{port}:interface=127.0.0.1"
tls-required = true
login-required = true

[[listeners]]
listen = "tcp:{tls}:interface=127.0.0.1"
tls = true
login-required = true

[[listeners]]
listen = "unix:sock:mode=666"
login-required = true
"""


class Service:
    """
    ``twistd lmtp`` that takes mail from nobody but those who log in: ``mta``, with the password
    ``secret``, and those whose certificates *authority* has signed.
    """

    def __init__(self, directory: Path, workers: int = 1) -> None:
        self.directory = directory
        (directory / "authority").mkdir()
        self.authority = Authority(directory / "authority")
        self.port, self.tls = free_port(), free_port()
        self.install(self.authority.sign())
        (directory / "clients.pem").write_bytes(self.authority.path.read_bytes())
        words = [sys.executable, "-m", "lmtpsvc", "passwd", str(directory / "logins"), "mta"]
        assert run(words, stdin=b"secret\n").returncode == 0
        (directory / "lmtp.toml").write_text(
            CONFIG.format(port=self.port, tls=self.tls, workers=workers)
        )
        self._daemon = twistd(directory, "lmtp", "--config", "lmtp.toml")

    def install(self, pair: Pair) -> None:
        """
        Put a certificate and its key where the service looks for them.
        """
        (self.directory / "chain.pem").write_bytes(pair.certificate.read_bytes())
        (self.directory / "key.pem").touch(mode=0o600)
        (self.directory / "key.pem").write_bytes(pair.key.read_bytes())

    def client_certificate(self, name: str = "mta.example.test") -> Pair:
        return self.authority.sign("mta", [x509.DNSName(name)])

    def start(self) -> None:
        ports = (self.port, self.tls)
        self._daemon.start(lambda: all(accepts(("127.0.0.1", port)) for port in ports))

    def stop(self) -> None:
        assert self._daemon.stop() == -signal.SIGTERM, self.log
        assert "Traceback" not in self.log, self.log

    @property
    def log(self) -> str:
        path = self.directory / "log"
        return path.read_text() if path.exists() else ""

    def reload(self, says: str, times: int = 1) -> None:
        """
        Send SIGHUP, and wait until it has said something so often.
        """
        before = len(self.log)
        self._daemon.signal(signal.SIGHUP)
        wait_until(lambda: self.log[before:].count(says) >= times, 30, f"{says} in {self.log}")

    def mails(self) -> list[bytes]:
        path = self.directory / "mail" / DOMAIN / "ann" / "new"
        return [each.read_bytes() for each in path.iterdir()] if path.exists() else []

    def serial_number(self) -> int:
        """
        That of the certificate that a new handshake shows.
        """
        context = ssl.create_default_context(cafile=str(self.authority.path))
        with (
            socket.create_connection(("127.0.0.1", self.tls), 20) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            shown = secure.getpeercert(binary_form=True)
            assert shown is not None
            return x509.load_der_x509_certificate(shown).serial_number


@pytest.fixture
def serving(top: Path) -> Iterator[Callable[..., Service]]:
    """
    Start a service that ends well.
    """
    services: list[Service] = []

    def serving(workers: int = 1) -> Service:
        directory = top / f"s{len(list(top.iterdir()))}"
        directory.mkdir(mode=0o755)
        services.append(Service(directory, workers))
        services[-1].start()
        return services[-1]

    yield serving
    for service in services:
        service.stop()


class TestSwaks:
    @pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
    @pytest.mark.parametrize("how", ["STARTTLS", "TLS"])
    def test_logs_in(
        self, mechanism: str, how: str, serving: Callable[..., Service], peer: Peer
    ) -> None:
        """
        With TLS, and the right password, mail is taken, and says how it came.
        """
        service = serving()

        status, said = self.swaks(peer, service, how, mechanism, "secret")

        assert status == 0, said
        [mail] = service.mails()
        assert b" with LMTPSA id " in mail
        assert b"(TLSv1.3 TLS_" in mail
        assert f"login=mta client=127.0.0.1 mechanism={mechanism}" in service.log

    def test_wrong_password(self, serving: Callable[..., Service], peer: Peer) -> None:
        """
        Nobody gets in with a wrong password, and the log says who has tried.
        """
        service = serving()

        status, said = self.swaks(peer, service, "STARTTLS", "PLAIN", "wrong")

        # swaks: none of the ways to log in has worked.
        assert status == 28, said
        assert "535 5.7.8 " in said
        assert "login failed client=127.0.0.1 mechanism=PLAIN" in service.log
        assert [] == service.mails()

    def test_without_tls(self, serving: Callable[..., Service], peer: Peer) -> None:
        """
        There is no mail, and no way to say the password.
        """
        service = serving()
        words = [str(peer("swaks")), "--protocol", "LMTP", "--server", "127.0.0.1"]

        done = run([*words, "--port", str(service.port), "--to", ANN])

        assert b"530 5.7.0 Encryption required" in done.stdout
        assert done.returncode != 0

    def swaks(
        self, peer: Peer, service: Service, how: str, mechanism: str, password: str
    ) -> tuple[int, str]:
        words = [str(peer("swaks")), "--protocol", "LMTP", "--server", "127.0.0.1", "--to", ANN]
        if how == "TLS":
            words += ["--port", str(service.tls), "--tls-on-connect"]
        else:
            words += ["--port", str(service.port), "--tls"]
        words += ["--auth", mechanism, "--auth-user", "mta", "--auth-password", password]
        done = run(words)
        return done.returncode, done.stdout.decode()


class TestOurOwn:
    @pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "PLAIN", "LOGIN"])
    def test_password(self, mechanism: str, serving: Callable[..., Service]) -> None:
        """
        ``lmtpsvc send`` logs in with each mechanism, which stands in the log and in Received.
        """
        service = serving()
        (service.directory / "password").write_text("secret\n")

        words = ["--auth", "mta", "--password-file", str(service.directory / "password")]
        done = self.send(service, *words, "--mechanism", mechanism)

        assert done == 0
        assert b" with LMTPSA id " in service.mails()[0]
        assert f"login=mta client=127.0.0.1 mechanism={mechanism}" in service.log

    def test_certificate(self, serving: Callable[..., Service]) -> None:
        """
        The name in it is the login.
        """
        service = serving()
        pair = service.client_certificate()

        done = self.send(service, "--external", "--tls-certificate", str(pair.both))

        assert done == 0
        assert "login=mta.example.test client=127.0.0.1 mechanism=EXTERNAL" in service.log

    def test_certificate_of_a_stranger(
        self, serving: Callable[..., Service], tmp_path: Path
    ) -> None:
        """
        A certificate that another authority has signed gets nobody in.
        """
        service = serving()
        pair = Authority(tmp_path, "Stranger").sign("mta.example.test")

        done = self.send(service, "--external", "--tls-certificate", str(pair.both))

        assert done != 0
        assert [] == service.mails()

    def send(self, service: Service, *words: str) -> int:
        program = [sys.executable, "-m", "lmtpsvc", "send", "--to", ANN, "--tls", "must"]
        tls = ["--tls-authorities", str(service.authority.path), "--tls-name", "localhost"]
        done = run([*program, *tls, *words, f"127.0.0.1:{service.port}"], stdin=LETTER)
        return done.returncode


class TestPostfix:
    @pytest.mark.parametrize(
        ("filter_", "mechanism"),
        [("scram-sha-256", "SCRAM-SHA-256"), ("plain", "PLAIN"), ("login", "LOGIN")],
    )
    def test_logs_in(
        self, filter_: str, mechanism: str, serving: Callable[..., Service], peer: Peer, top: Path
    ) -> None:
        """
        Over STARTTLS, with our certificate verified.
        """
        service = serving()
        more = (
            "lmtp_sasl_auth_enable = yes\n"
            f"lmtp_sasl_password_maps = inline:{{ [127.0.0.1]:{service.port}=mta:secret }}\n"
            "lmtp_sasl_security_options = noanonymous\n"
            f"lmtp_sasl_mechanism_filter = {filter_}\n"
        )

        said = self.deliver(service, peer, top, more)

        assert ["sent"] == said
        assert b" with LMTPSA id " in service.mails()[0]
        assert f"login=mta client=127.0.0.1 mechanism={mechanism}" in service.log

    def test_without_a_login(self, serving: Callable[..., Service], peer: Peer, top: Path) -> None:
        """
        It is told that it must: for Postfix, that means later.
        """
        service = serving()

        assert ["bounced"] == self.deliver(service, peer, top, "")
        assert [] == service.mails()

    def deliver(self, service: Service, peer: Peer, top: Path, more: str) -> list[str]:
        """
        A letter to Ann; returns what Postfix says became of it.
        """
        directory = top / f"p{len(list(top.iterdir()))}"
        directory.mkdir(mode=0o755)
        pair = service.client_certificate()
        for path in (pair.certificate, pair.key, service.authority.path):
            (directory / path.name).write_bytes(path.read_bytes())
        tls = (
            "lmtp_tls_security_level = secure\n"
            "lmtp_tls_secure_cert_match = localhost\n"
            f"lmtp_tls_CAfile = {directory}/{service.authority.path.name}\n"
            f"lmtp_tls_cert_file = {directory}/{pair.certificate.name}\n"
            f"lmtp_tls_key_file = {directory}/{pair.key.name}\n"
            "lmtp_tls_loglevel = 1\n"
        )
        target = f"inet:[127.0.0.1]:{service.port}"
        (directory / "postfix").mkdir(mode=0o755)
        postfix = Postfix(peer("postconf"), directory / "postfix", DOMAIN, target, more=tls + more)
        try:
            postfix.start()
            with postfix.client() as client:
                client.sendmail(f"sender@{DOMAIN}", ANN, LETTER)
            wait_until(postfix.outcomes, 60, postfix.log)
            assert "Verified TLS connection established" in postfix.log, postfix.log
            return [each.status for each in postfix.outcomes() if each.recipient == ANN]
        finally:
            postfix.stop()


class TestRenewal:
    @pytest.mark.parametrize("workers", [1, 2])
    def test_reload(self, workers: int, serving: Callable[..., Service]) -> None:
        """
        SIGHUP is enough, and what does not fit together is not taken.
        """
        service = serving(workers)
        first = service.serial_number()

        renewed = service.authority.sign()
        service.install(renewed)
        service.reload("reloaded:", workers)
        second = service.serial_number()
        assert first != second

        (service.directory / "key.pem").write_bytes(service.authority.sign().key.read_bytes())
        service.reload("key.pem: not the key of the certificate in")
        assert "(the old configuration stays in force)" in service.log
        assert second == service.serial_number()
