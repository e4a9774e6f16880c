"""
The relay between other people's programs and ours: who waits, who is told, and that nothing is lost.
"""

from __future__ import annotations

import os
import pwd
import signal
import smtplib
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from functools import partial
from pathlib import Path
from random import Random
from threading import Event, Thread
from typing import Any

import pytest

from ..certificates import Authority
from ..running import run, wait_until
from .postfix import Postfix
from .relay import IMPATIENT, SHORT_LEASE, Relay
from .service import DOMAIN, Service

Peer = Callable[[str], Path]

SENDER, ANN, BOB, NOBODY = (f"{name}@{DOMAIN}" for name in ("sender", "ann", "bob", "nobody.here"))

#: How often something is killed; try 50 by hand: LMTPSVC_KILLS=50.
KILLS = int(os.environ.get("LMTPSVC_KILLS", "10"))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def start(stack: ExitStack, relay: Relay) -> Relay:
    stack.callback(relay.stop)
    relay.start()
    return relay


def to_lmtp(service: Service) -> tuple[str, ...]:
    return ("--domain", DOMAIN, "--local", f"lmtp:unix:{service.unix}", *IMPATIENT)


def swaks(program: Path, port: int, to: str, *words: str) -> str:
    """
    Hand a message in; what swaks has printed.
    """
    command = [str(program), "--server", f"127.0.0.1:{port}", "--helo", "client.example.test"]
    done = run([*command, "--from", SENDER, "--to", to, *words])
    return done.stdout.decode(errors="replace")


def arrived(service: Service, user: str, text: str) -> int:
    """
    How many copies of *text* somebody has, bounces that quote it left out.
    """
    home = service.store.root / DOMAIN / user.partition("@")[0] / "new"
    files = [each.read_bytes() for each in home.iterdir()] if home.exists() else []
    return sum(text.encode() in each and b"multipart/report" not in each for each in files)


def bounces(service: Service) -> list[EmailMessage]:
    """
    The reports that the sender has got.
    """
    home = service.store.root / DOMAIN / "sender" / "new"
    found = [
        message_from_bytes(each.read_bytes(), policy=default)
        for each in (home.iterdir() if home.exists() else ())
    ]
    return [each for each in found if each.get_content_type() == "multipart/report"]


def reported(bounce: EmailMessage) -> dict[str, str]:
    """
    Whom it names, each with the diagnostic.
    """
    (status,) = [part for part in bounce.walk() if part.get_content_type().endswith("-status")]
    blocks: list[Any] = list(status.get_payload())
    return {
        block["Final-Recipient"].partition(";")[2].strip(): str(block["Diagnostic-Code"])
        for block in blocks
        if block["Final-Recipient"]
    }


@contextmanager
def serving(directory: Path, more: tuple[str, ...] = ()) -> Iterator[Service]:
    """
    A service of its own, that may be killed.
    """
    directory.mkdir()
    directory.chmod(0o755)
    service = Service(directory, ("ann", "bob", "sender"), more=more)
    try:
        service.start()
        yield service
    finally:
        service.stop()


class TestThree:
    """
    One message for three: one has it, one has to wait, one does not exist.
    """

    @pytest.fixture
    def door(self, top: Path) -> Path:
        """
        Bob's mail is taken as long as there is this file.
        """
        return top / "door"

    @pytest.fixture
    def service(self, top: Path, door: Path) -> Iterator[Service]:
        directory = top / f"three{len(list(top.iterdir()))}"
        script, box = top / "bob.sh", top / "bob"
        box.mkdir(exist_ok=True)
        script.write_text(
            f'#!/bin/sh\n[ -e {door} ] || exit 75\nexec cat >"$(mktemp {box}/XXXXXX)"\n'
        )
        script.chmod(0o755)
        config = top / "three.toml"
        me = pwd.getpwuid(os.geteuid()).pw_name
        config.write_text(f'[[routes]]\nto = "{BOB}"\nbackend = "pipe:{script}:as={me}"\n')
        with serving(directory, ("--config", str(config))) as service:
            yield service

    @pytest.mark.parametrize("front", ["swaks", "postfix"])
    def test_each_once(
        self, front: str, top: Path, service: Service, door: Path, peer: Peer, stack: ExitStack
    ) -> None:
        """
        Nobody gets it twice, whoever has to wait; the bounce names only who does not exist.
        """
        relay = start(stack, Relay(top / f"relay-{front}", *to_lmtp(service)))
        box, text = top / "bob", f"{front}-{os.urandom(8).hex()}"

        if front == "swaks":
            said = swaks(peer("swaks"), relay.port, f"{ANN},{BOB},{NOBODY}", "--body", text)
            assert " Queued" in said, said
        else:
            directory = top / "postfix"
            directory.mkdir()
            directory.chmod(0o755)
            target = f"[127.0.0.1]:{relay.port}"
            mx = Postfix(peer("postconf"), directory, DOMAIN, target, via="smtp")
            stack.callback(mx.stop)
            mx.start()
            with mx.client() as smtp:
                letter = f"Subject: three\r\n\r\n{text}\r\n"
                assert {} == smtp.sendmail(SENDER, [ANN, BOB, NOBODY], letter)
            wait_until(lambda: not mx.queued(), 30, "Postfix has handed it on")

        wait_until(lambda: bounces(service), 30, f"the bounce:\n{relay.log}")
        attempts = relay.log.count(f"<{BOB}> waiting")
        wait_until(
            lambda: relay.log.count(f"<{BOB}> waiting") > attempts, 30, "Bob's is tried again"
        )
        assert 1 == arrived(service, ANN, text)
        assert [] == list(box.iterdir())
        door.touch()
        wait_until(lambda: not relay.waiting(), 30, f"the queue empty:\n{relay.log}")

        assert 1 == arrived(service, ANN, text)
        [his] = list(box.iterdir())
        assert text.encode() in his.read_bytes()
        [bounce] = bounces(service)
        assert [NOBODY] == list(reported(bounce))
        assert "550 5.1.1" in reported(bounce)[NOBODY]
        # Null sender: nobody answers an answer.
        assert "<>" == bounce["Return-Path"]
        door.unlink()
        his.unlink()
        assert "Traceback" not in relay.log


class TestSTARTTLS:
    """
    Out to a real Postfix.
    """

    @pytest.fixture
    def behind(
        self, top: Path, service: Service, peer: Peer, tmp_path: Path
    ) -> Iterator[tuple[Postfix, Authority]]:
        """
        A Postfix with a certificate for localhost, in front of the service.
        """
        directory = top / f"tls{len(list(top.iterdir()))}"
        directory.mkdir()
        directory.chmod(0o755)
        authority = Authority(tmp_path)
        pair = authority.sign()
        more = (
            f"smtpd_tls_cert_file = {pair.certificate}\nsmtpd_tls_key_file = {pair.key}\n"
            "smtpd_tls_security_level = encrypt\nsmtpd_tls_received_header = yes\n"
        )
        mx = Postfix(peer("postconf"), directory, DOMAIN, f"unix:{service.unix}", more=more)
        try:
            mx.start()
            yield mx, authority
        finally:
            mx.stop()

    def test_verified(
        self, behind: tuple[Postfix, Authority], top: Path, service: Service, stack: ExitStack
    ) -> None:
        """
        With the right certificate mail goes through, encrypted.
        """
        mx, authority = behind
        host = f"127.0.0.1:{mx.port}:tls=must:name=localhost:ca={authority.path}"
        words = ("--smart-host", host, "--domain", "relay.example.test", *IMPATIENT)
        relay = start(stack, Relay(top / "verified", *words))
        text = os.urandom(8).hex()

        with smtplib.SMTP("127.0.0.1", relay.port) as smtp:
            assert {} == smtp.sendmail(SENDER, [ANN], f"Subject: x\n\n{text}\n")

        wait_until(lambda: arrived(service, ANN, text) == 1, 30, f"it has come:\n{relay.log}")
        [stored] = [each for each in service.store.mailbox(ANN) if text.encode() in each.text]
        hops = stored.header.get_all("Received") or []
        assert any("ESMTPS" in hop and "(Postfix)" in hop for hop in hops), hops
        wait_until(lambda: not relay.waiting(), 30, "the queue is empty")

    @pytest.mark.parametrize("wrong", ["name", "authority"])
    def test_refused(
        self,
        wrong: str,
        behind: tuple[Postfix, Authority],
        top: Path,
        service: Service,
        stack: ExitStack,
        tmp_path: Path,
    ) -> None:
        """
        With a wrong one nothing is sent, and after a while the sender is told.
        """
        mx, authority = behind
        name, ca = "localhost", authority.path
        if wrong == "name":
            name = "elsewhere.example"
        else:
            (tmp_path / "other").mkdir()
            ca = Authority(tmp_path / "other", "Other").path
        words = (
            *("--smart-host", f"127.0.0.1:{mx.port}:tls=must:name={name}:ca={ca}"),
            *("--domain", "relay.example.test", "--give-up-after", "2s", *IMPATIENT),
            # Where the sender lives.
            *("--route", f"{DOMAIN}=lmtp:unix:{service.unix}"),
        )
        relay = start(stack, Relay(top / f"refused-{wrong}", *words))
        before, text = len(bounces(service)), os.urandom(8).hex()

        with smtplib.SMTP("127.0.0.1", relay.port) as smtp:
            assert {} == smtp.sendmail(SENDER, ["ann@far.example"], f"Subject: x\n\n{text}\n")

        wait_until(lambda: len(bounces(service)) > before, 30, f"the bounce:\n{relay.log}")
        wait_until(lambda: not relay.waiting(), 30, "the queue is empty")
        told = [reported(each).get("ann@far.example", "") for each in bounces(service)]
        reason = "not in the name of" if wrong == "name" else "certificate verify failed"
        assert any("4.7.5" in each and reason in each for each in told), told
        assert text not in mx.log


class TestIn:
    """
    What a client may do.
    """

    def test_open_relay(self, top: Path, service: Service, peer: Peer, stack: ExitStack) -> None:
        """
        A stranger's mail goes to our domains, and to no others, however they are written.
        """
        relay = start(stack, Relay(top / "probe", *to_lmtp(service), "--networks", "192.0.2.0/24"))
        program = peer("swaks")

        for to in (
            "victim@elsewhere.example",
            '"victim@elsewhere.example"@elsewhere.example',
            "victim@[192.0.2.1]",
            f"@{DOMAIN}:victim@elsewhere.example",
            f"victim@{DOMAIN}.elsewhere.example",
        ):
            said = swaks(program, relay.port, to, "--quit-after", "RCPT")
            assert "<** 55" in said, said
            assert "<-  250 2.1.5" not in said, said
        assert " Queued" in swaks(program, relay.port, ANN)

    def test_submission(self, top: Path, service: Service, peer: Peer, stack: ExitStack) -> None:
        """
        Who logs in, over TLS, may send to anybody; nobody else may send at all there.
        """
        directory = top / "submission-files"
        directory.mkdir()
        pair = Authority(directory).sign()
        passwords = directory / "logins"
        path = f"PYTHONPATH={os.pathsep.join(filter(None, sys.path))}"
        command = [sys.executable, "-m", "lmtpsvc", "passwd", str(passwords), "ann"]
        line = run(["env", path, *command], stdin=b"open sesame\nopen sesame\n")
        assert 0 == line.returncode, line.stdout
        relay = Relay(
            top / "submission",
            *to_lmtp(service),
            *("--networks", "192.0.2.0/24", "--auth", f"scram:{passwords}"),
            *("--tls-certificate", str(pair.certificate), "--tls-key", str(pair.key)),
            *("--route", f"elsewhere.example=lmtp:unix:{service.unix}"),
        )
        start(stack, relay)
        context = ssl.create_default_context(cafile=str(Authority(directory).path))
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

        with smtplib.SMTP("127.0.0.1", relay.port) as smtp:
            smtp.starttls(context=context)
            with pytest.raises(smtplib.SMTPRecipientsRefused):
                smtp.sendmail(SENDER, ["victim@elsewhere.example"], "Subject: x\n\nx\n")
            smtp.login("ann", "open sesame")
            assert {} == smtp.sendmail(SENDER, ["victim@elsewhere.example"], "Subject: x\n\nx\n")

    def test_stop(self, top: Path, service: Service, stack: ExitStack) -> None:
        """
        SIGTERM ends it well; what has not gone waits for the next start.
        """
        words = ("--domain", DOMAIN, "--local", f"lmtp:unix:{top}/nobody.sock", *IMPATIENT)
        relay = start(stack, Relay(top / "stop", *words))
        text = os.urandom(8).hex()
        with smtplib.SMTP("127.0.0.1", relay.port) as smtp:
            assert {} == smtp.sendmail(SENDER, [ANN], f"Subject: x\n\n{text}\n")

        assert -signal.SIGTERM == relay.stop()

        assert "Traceback" not in relay.log
        assert 1 == len(relay.waiting())
        (top / "nobody.sock").symlink_to(service.unix)
        relay.start()
        wait_until(lambda: arrived(service, ANN, text) == 1, 30, f"it has come:\n{relay.log}")


class TestReload:
    def test_route(self, top: Path, service: Service, stack: ExitStack) -> None:
        """
        After SIGHUP, what waits goes where the file says by now.
        """
        file = top / "reload.toml"
        words = f'domain = "{DOMAIN}"\nretry-after = "0.3s"\nretry-server = "0.3s"\n'
        file.write_text(f'{words}local = "lmtp:unix:{top}/nowhere.sock"\n')
        relay = start(stack, Relay(top / "reload", "--config", str(file)))
        text = os.urandom(8).hex()
        with smtplib.SMTP("127.0.0.1", relay.port) as smtp:
            assert {} == smtp.sendmail(SENDER, [ANN], f"Subject: x\n\n{text}\n")
        wait_until(lambda: "nowhere.sock" in "".join(relay.log.split("Queued")[1:]), 30, "a try")

        file.write_text("bogus = 1")
        relay.hang_up()
        wait_until(lambda: "the old configuration stays in force" in relay.log, 30, "told")
        file.write_text(f'{words}local = "lmtp:unix:{service.unix}"\n')
        relay.hang_up()

        wait_until(lambda: arrived(service, ANN, text) == 1, 30, f"it has come:\n{relay.log}")

    def test_queue(self, top: Path) -> None:
        """
        A queue that cannot be opened is one line at the start.
        """
        relay = Relay(top / "none", "--queue", f"sqlite:///{top}/no/where.db")

        # It listens, while it has the rights to, and then looks.
        with suppress(RuntimeError):
            relay.start()
        assert 1 == wait_until(lambda: relay.status, 30, "it has ended")

        [line] = [each for each in relay.log.splitlines() if "twistd lmtp-relay:" in each]
        assert f"{top}/no/where.db" in line
        assert "Traceback" not in relay.log


def flow(port: int, owed: list[str], ended: Event, random: Random) -> None:
    """
    Hand in message after message; those that were taken are *owed*.
    """
    while not ended.is_set():
        text = os.urandom(8).hex()
        letter = f"Subject: {text}\n\n" + "x" * random.randrange(2000) + "\n"
        try:
            with smtplib.SMTP("127.0.0.1", port, timeout=20) as smtp:
                if smtp.sendmail(SENDER, [ANN, BOB], letter) == {}:
                    owed.append(text)
        except (OSError, smtplib.SMTPException):
            time.sleep(0.05)


def test_killed(top: Path, stack: ExitStack) -> None:
    """
    Relay and LMTP service are killed at random moments, again and again: whatever was taken has
    arrived for both in the end.
    """
    random = Random("relay")
    service = stack.enter_context(serving(top / "killed"))
    relay = Relay(top / "killed-relay", *to_lmtp(service), before=SHORT_LEASE)
    start(stack, relay)
    owed: list[str] = []
    ended = Event()
    clients = [Thread(target=flow, args=(relay.port, owed, ended, random)) for _ in range(3)]
    for each in clients:
        each.start()
    try:
        for _ in range(KILLS):
            enough = len(owed) + random.randrange(1, 8)
            wait_until(partial(lambda enough: len(owed) >= enough, enough), 60, "mail flows")
            time.sleep(random.random() / 10)
            if random.random() < 0.5:
                relay.kill()
                relay.start()
            else:
                service.kill()
                service.start()
    finally:
        ended.set()
        for each in clients:
            each.join()
    wait_until(lambda: not relay.waiting(), 120, f"the queue empty:\n{relay.log[-2000:]}")

    for who in (ANN, BOB):
        subjects = {each.header["Subject"] for each in service.store.mailbox(who)}
        assert set(owed) <= subjects
    assert len(owed) >= KILLS
    assert [] == bounces(service)
