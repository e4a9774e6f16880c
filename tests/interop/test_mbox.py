"""
What comes in over LMTP for mboxes is what Dovecot serves, octet by octet; and two servers that
deliver to the same mailbox do not get into each other's way.
"""

from __future__ import annotations

import mailbox
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from hashlib import sha256
from pathlib import Path
from threading import Thread

import pytest

from ..running import accepts, twistd
from . import dovecot as dovecot_module
from . import samples
from .dovecot import Dovecot
from .lmtp import Client
from .store import Store, with_crlf

DOMAIN = "example.test"
ANN, BOB = f"ann@{DOMAIN}", f"bob@{DOMAIN}"


class Server:
    """
    ``twistd lmtp`` on a UNIX socket, for the mboxes below *root*.
    """

    def __init__(self, directory: Path, root: Path) -> None:
        directory.mkdir()
        self.socket = directory / "lmtp.sock"
        words = ("--backend", f"mbox:{root}/{{domain}}/{{user}}")
        self._daemon = twistd(directory, "lmtp", "--listen", f"unix:{self.socket}", *words)

    def start(self) -> None:
        """
        Start, and return when it listens.
        """
        self._daemon.start(lambda: accepts(self.socket))

    def stop(self) -> None:
        """
        Stop it, and see that nothing went wrong in it.
        """
        self._daemon.stop()
        assert "Traceback" not in self._daemon.log.read_text(errors="replace")


@pytest.fixture
def root(top: Path, request: pytest.FixtureRequest) -> Path:
    """
    Where the mailboxes are.
    """
    root = top / f"mail-{request.node.name}"
    root.mkdir()
    return root


@pytest.fixture
def servers(top: Path, root: Path) -> Iterator[Callable[[int], list[Server]]]:
    """
    ``servers(2)``: so many, for the same mailboxes.
    """
    with ExitStack() as stack:

        def servers(count: int) -> list[Server]:
            made = [Server(top / f"{root.name}-{number}", root) for number in range(count)]
            for server in made:
                stack.callback(server.stop)
                server.start()
            return made

        yield servers


def stored(root: Path, user: str) -> list[bytes]:
    """
    What Python's reader finds.
    """
    with closing(mailbox.mbox(root / DOMAIN / user, create=False)) as reader:
        return [reader.get_bytes(key) for key in reader.iterkeys()]


def digest(text: bytes) -> str:
    """
    What a message is compared by, so that a failure does not print 30 MB.
    """
    return sha256(text).hexdigest()


def quoted(text: bytes) -> bytes:
    """
    *text* as an mbox has it.
    """
    return re.sub(rb"(?m)^(>*From )", rb">\1", text.replace(b"\r\n", b"\n"))


def test_octets(
    servers: Callable[[int], list[Server]],
    root: Path,
    real_mail: list[samples.Sample],
    dovecot: Callable[[Store], Dovecot],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Python's reader finds every message, behind the trace headers what was sent; and so does
    Dovecot, whatever the sender is called, with nothing to complain about.

    Dovecot keeps some headers of an mbox for itself; they are not in its text.
    """
    (server,) = servers(1)
    sent = [*real_mail, *samples.made_up(), *samples.hostile()]
    senders = ["", "sender@example.net", '"a b"@example.net', '"From \\" Mon"@example.net']
    with Client(server.socket) as client:
        for number, sample in enumerate(sent):
            outcome = client.send(senders[number % len(senders)], [ANN, BOB], sample.text)
            assert [line[:10] for line in outcome.delivered] == ["250 2.0.0 "] * 2, sample

    for user in ("ann", "bob"):
        texts = stored(root, user)
        assert len(sent) == len(texts)
        for sample, text in zip(sent, texts, strict=True):
            own = quoted(sample.text)
            assert text.endswith(own), sample
            assert text.startswith(b"Return-Path: "), sample

    expected = Counter(
        digest(_as_served(with_crlf(text).replace(b"\0", b"\x80"))) for text in stored(root, "ann")
    )
    configuration = dovecot_module.CONFIGURATION.replace(
        "mail_location = maildir:{root}/%d/%n",
        "mail_location = mbox:{top}/home/%u:INBOX={root}/%d/%n",
    )
    monkeypatch.setattr(dovecot_module, "CONFIGURATION", configuration)
    served = dovecot(Store(root))

    assert expected == Counter(digest(message.text) for message in served.inbox(ANN))
    assert served.complaints() == []


#: What Dovecot's mbox keeps for itself: index-mail.h, "hidden headers".
_hidden = re.compile(
    rb"(?im)^(?:Content-Length|Status|X-IMAP|X-IMAPbase|X-Keywords|X-Status|X-UID)[ \t]*:.*\r\n"
    rb"(?:[ \t].*\r\n)*"
)


def _as_served(text: bytes) -> bytes:
    head, blank, body = text.partition(b"\r\n\r\n")
    return _hidden.sub(b"", head + blank[:2]) + blank[2:] + body


def test_two_servers(servers: Callable[[int], list[Server]], root: Path) -> None:
    """
    Two processes, four clients each, one mailbox: every message is there, whole and once.
    """
    rounds, threads, failures = 25, [], []
    texts = {
        (number, index): f"Subject: {number}.{index}\r\n\r\n".encode()
        + (b"From %d.%d\r\n" % (number, index)) * (1 + (number * 911 + index * 1733) % 5000)
        for number in range(8)
        for index in range(rounds)
    }

    def deliver(server: Server, number: int) -> None:
        try:
            with Client(server.socket) as client:
                for index in range(rounds):
                    outcome = client.send("s@example.net", [ANN], texts[number, index])
                    assert outcome.delivered[0].startswith("250 "), outcome
        except BaseException as error:
            failures.append(error)

    made = servers(2)
    for number in range(8):
        threads.append(Thread(target=deliver, args=(made[number % 2], number), daemon=True))
        threads[-1].start()
    for thread in threads:
        thread.join(120)

    assert [] == failures
    found = Counter(text.partition(b"Subject: ")[2] for text in stored(root, "ann"))
    expected = Counter(quoted(text).partition(b"Subject: ")[2] for text in texts.values())
    assert expected == found
    assert ["ann"] == os.listdir(root / DOMAIN)
