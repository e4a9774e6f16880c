"""
Small programs that people try first: swaks, Python's smtplib, and mutt to read what came.
"""

from __future__ import annotations

import os
import smtplib
from collections.abc import Callable
from pathlib import Path
from shlex import join

import pytest

from ..running import run
from .service import DOMAIN, Service

Peer = Callable[[str], Path]

ANN, BOB, UNKNOWN = (f"{name}@{DOMAIN}" for name in ("ann", "bob", "nobody.here"))


@pytest.fixture(params=["tcp", "unix"])
def swaks(
    request: pytest.FixtureRequest, service: Service, peer: Peer
) -> Callable[..., tuple[int, str]]:
    """
    Run swaks against one of the two sockets: its status and its transcript.
    """
    where = {
        "tcp": ["--server", service.tcp[0], "--port", str(service.tcp[1])],
        "unix": ["--socket", str(service.unix)],
    }

    def swaks(*arguments: str) -> tuple[int, str]:
        words = [str(peer("swaks")), "--protocol", "LMTP", *where[request.param], *arguments]
        done = run(words)
        return done.returncode, done.stdout.decode()

    return swaks


class TestSwaks:
    def test_several_recipients(
        self, service: Service, swaks: Callable[..., tuple[int, str]]
    ) -> None:
        """
        Two mailboxes get the message; the transcript shows a reply for each, and status 0.
        """
        body = f"a unique body {os.urandom(8).hex()}"

        status, transcript = swaks("--to", f"{ANN},{BOB}", "--body", body)

        assert status == 0, transcript
        assert f"<-  250 2.0.0 <{ANN}> " in transcript
        assert f"<-  250 2.0.0 <{BOB}> " in transcript
        for user in (ANN, BOB):
            assert [body.encode() in m.text for m in service.store.mailbox(user)].count(True) == 1

    def test_unknown_among_them(
        self, service: Service, swaks: Callable[..., tuple[int, str]]
    ) -> None:
        """
        The unknown user is refused at RCPT; the known one still gets the message.
        """
        body = f"a unique body {os.urandom(8).hex()}"

        status, transcript = swaks("--to", f"{UNKNOWN},{ANN}", "--body", body)

        assert status == 0, transcript
        assert "<** 550 5.1.1 " in transcript
        assert f"<-  250 2.0.0 <{ANN}> " in transcript
        assert [body.encode() in m.text for m in service.store.mailbox(ANN)].count(True) == 1

    def test_only_unknown(self, swaks: Callable[..., tuple[int, str]]) -> None:
        """
        With nobody to deliver to, swaks ends with its status for a refused RCPT.
        """
        status, transcript = swaks("--to", UNKNOWN)

        assert status == 24, transcript
        assert "<** 550 5.1.1 " in transcript


class TestSmtplib:
    """
    smtplib.LMTP reads one reply only, whatever the number of recipients: so one it is.
    """

    @pytest.mark.parametrize("where", ["tcp", "unix"])
    def test_one_recipient(self, service: Service, where: str) -> None:
        """
        The message arrives, and there is nobody in the dictionary of the refused.
        """
        host, port = service.tcp if where == "tcp" else (str(service.unix), 0)
        body = f"a unique body {os.urandom(8).hex()}"

        with smtplib.LMTP(host, port) as lmtp:
            refused = lmtp.sendmail("sender@example.net", [ANN], f"Subject: x\n\n{body}\n")

        assert refused == {}
        assert [body.encode() in m.text for m in service.store.mailbox(ANN)].count(True) == 1

    def test_unknown(self, service: Service) -> None:
        """
        An unknown user is an exception that has our reply.
        """
        with (
            smtplib.LMTP(*service.tcp) as lmtp,
            pytest.raises(smtplib.SMTPRecipientsRefused) as refused,
        ):
            lmtp.sendmail("sender@example.net", [UNKNOWN], "Subject: x\n\nx\n")

        assert refused.value.recipients[UNKNOWN][0] == 550


class TestMutt:
    def test_reads_the_maildir(self, service: Service, peer: Peer, tmp_path: Path) -> None:
        """
        Mutt opens the Maildir and pipes its one message elsewhere, as it is.
        """
        mutt = peer("mutt")
        body = f"a unique body {os.urandom(8).hex()}"
        with smtplib.LMTP(*service.tcp) as lmtp:
            lmtp.sendmail("sender@example.net", [f"cat@{DOMAIN}"], f"Subject: x\n\n{body}\n")
        [stored] = service.store.mailbox(f"cat@{DOMAIN}")
        text = stored.text
        keys = f"<pipe-message>cat >{tmp_path}/piped<enter><exit>"

        words = [
            *(str(mutt), "-n", "-F", "/dev/null", "-R", "-f", str(stored.path.parent.parent)),
            *("-e", f"set folder={tmp_path}", "-e", "unset wait_key pipe_decode"),
            *("-e", f"push '{keys}'"),
        ]
        # It wants a terminal, which script(1) gives it.
        done = run(
            [str(peer("script")), "--quiet", "--return", "--command", join(words), "/dev/null"]
        )

        assert done.returncode == 0, done.stdout
        assert (tmp_path / "piped").read_bytes() == text
