"""
``examples/``: the service and the client in other people's programs, run as they stand there.
"""

from __future__ import annotations

import os
import re
import smtplib
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from lmtpsvc.testing import BlockingPostbox

from .running import free_port, serving, twistd

pytestmark = pytest.mark.interop

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
PAGE = ROOT / "docs" / "compose.md"
TEXT = b"Subject: hello\r\n\r\n.A letter.\r\n"
BOTH = ["ann@example.org", "bob@example.org"]


@pytest.fixture
def postbox() -> Iterator[BlockingPostbox]:
    with BlockingPostbox() as postbox:
        yield postbox


@contextmanager
def application(directory: Path, name: str, changes: Mapping[str, str]) -> Iterator[None]:
    """
    An example, with other ports and another directory, from when its ports are open.
    """
    text = (EXAMPLES / name).read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    ports = [int(new) for new in changes.values() if new.isdigit()]
    (directory / name).write_text(text)
    with serving(twistd(directory, "-oy", name), *ports):
        yield


class TestSMTPInFront:
    @pytest.fixture
    def port(self, tmp_path: Path, postbox: BlockingPostbox) -> Iterator[int]:
        port = free_port()
        changes = {"8025": str(port), "8024": str(postbox.port)}
        with application(tmp_path, "smtp_front.tac", changes):
            yield port

    def test_all_is_well(self, port: int, postbox: BlockingPostbox) -> None:
        """
        What comes by SMTP arrives by LMTP, octet by octet.
        """
        with smtplib.SMTP("127.0.0.1", port) as client:
            assert {} == client.sendmail("me@example.net", BOTH, TEXT)

        mail = postbox.next()
        assert (TEXT, BOTH, "me@example.net") == (mail.text, mail.recipients, mail.sender)

    def test_what_is_lost(self, port: int, postbox: BlockingPostbox) -> None:
        """
        Ann has the mail and Bob has not: the client hears one thing, and Ann gets it again.
        """
        [told] = re.findall(r"<!-- test: told -->\n```\n(.*?)```", PAGE.read_text(), re.DOTALL)
        with smtplib.LMTP("127.0.0.1", postbox.port) as lmtp:
            codes = []
            postbox.fail("bob@example.org", "452 4.2.2 Mailbox full", times=1)
            lmtp.ehlo()
            lmtp.mail("me@example.net")
            for each in BOTH:
                lmtp.rcpt(each)
            codes.append(lmtp.data(TEXT)[0])
            codes.append(lmtp.getreply()[0])
        said = "".join(f"{to} {code}\n" for to, code in zip(BOTH, codes, strict=True))
        assert told == said
        postbox.clear()

        postbox.fail("bob@example.org", "452 4.2.2 Mailbox full", times=1)
        with smtplib.SMTP("127.0.0.1", port) as client:
            with pytest.raises(smtplib.SMTPDataError) as caught:
                client.sendmail("me@example.net", BOTH, TEXT)
            assert (452, b"4.2.2 Mailbox full") == caught.value.args
            # As an MTA does, which can only send it again to both.
            assert {} == client.sendmail("me@example.net", BOTH, TEXT)

        assert 2 == sum("ann@example.org" in mail.recipients for mail in postbox.messages)

    @pytest.mark.parametrize("reply", ["550 5.7.1 No", "451 4.3.0 Later"])
    def test_nobody(self, port: int, postbox: BlockingPostbox, reply: str) -> None:
        """
        What is said of all of them is said.
        """
        postbox.refuse(None, reply)
        with (
            smtplib.SMTP("127.0.0.1", port) as client,
            pytest.raises(smtplib.SMTPDataError) as caught,
        ):
            client.sendmail("me@example.net", BOTH, TEXT)

        code, _, text = reply.partition(" ")
        assert (int(code), text.encode()) == caught.value.args

    def test_twice_on_a_connection(self, port: int, postbox: BlockingPostbox) -> None:
        """
        Several messages may come over one connection.
        """
        with smtplib.SMTP("127.0.0.1", port) as client:
            client.sendmail("me@example.net", BOTH, TEXT)
            client.sendmail("", BOTH[:1], b"Subject: two\r\n\r\n")

        assert [BOTH, BOTH[:1]] == [postbox.next().recipients for _ in range(2)]


def test_beside_http(tmp_path: Path) -> None:
    """
    One process: mail comes in by LMTP, and HTTP tells how much of it.
    """
    lmtp, http = free_port(), free_port()
    changes = {"8024": str(lmtp), "8080": str(http), "/srv/mail": str(tmp_path / "mail")}
    with application(tmp_path, "with_http.tac", changes):
        with smtplib.LMTP("127.0.0.1", lmtp) as client:
            client.sendmail("me@example.net", BOTH[:1], TEXT)
        with urllib.request.urlopen(f"http://127.0.0.1:{http}/", timeout=20) as answer:
            assert b"1 unread\n" == answer.read()


def test_relay(tmp_path: Path) -> None:
    """
    One process: mail comes in by SMTP, waits in the queue until it has arrived, and lies in Maildirs.
    """
    port, mail = free_port(), tmp_path / "mail"
    (tmp_path / "users").write_text("ann@example.org\nbob@example.org\n")
    changes = {
        "8025": str(port),
        "/run/lmtpsvc/lmtp.sock": str(tmp_path / "lmtp.sock"),
        "/srv/mail": str(mail),
        "/etc/lmtpsvc/users": str(tmp_path / "users"),
        "/var/spool/lmtpsvc/queue.db": str(tmp_path / "queue.db"),
    }
    with application(tmp_path, "relay.tac", changes):
        with smtplib.SMTP("127.0.0.1", port) as client:
            refused = client.sendmail("me@example.net", [*BOTH, "nobody@example.org"], TEXT)
            assert [550] == [code for code, _ in refused.values()]
        deadline = time.monotonic() + 30
        while len(list(mail.glob("example.org/*/new/*"))) < len(BOTH):
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.02)

    for each in mail.glob("example.org/*/new/*"):
        assert each.read_bytes().endswith(b"Subject: hello\n\n.A letter.\n")


@pytest.mark.parametrize(
    ("name", "status"), [("send_from_script.py", 1), ("send_from_asyncio.py", 0)]
)
def test_sending(postbox: BlockingPostbox, name: str, status: int) -> None:
    """
    Each recipient's outcome is printed.
    """
    postbox.fail("bob@example.org", "452 4.2.2 Full")
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name, postbox.destination, *BOTH],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (status, "") == (done.returncode, done.stderr)
    ann, bob = sorted(done.stdout.splitlines())
    assert ann.startswith("ann@example.org 250 2.0.0 ")
    assert "bob@example.org 452 4.2.2 Full" == bob
