"""
Between Postfix's lmtp(8) and Dovecot: 200 real messages over a UNIX socket, and over TCP.
"""

from __future__ import annotations

import os
import re
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from email import message_from_bytes
from email.message import Message
from hashlib import sha256
from pathlib import Path
from typing import NoReturn

import pytest
from attrs import field, frozen

from ..running import wait_until
from . import samples
from .dovecot import Dovecot
from .postfix import Outcome, Postfix
from .service import DOMAIN, Service, running_service
from .store import Store, Stored, with_crlf

USERS = tuple(f"{name}@{DOMAIN}" for name in ("ann", "bob", "cat"))
UNKNOWN = f"nobody.here@{DOMAIN}"
SENDER = f"sender@{DOMAIN}"
UMLAUT = f"jörg@{DOMAIN}"

_number = re.compile(r"\bsender\+(\d+)@example\.test\b")
_header = re.compile(rb"(?:[!-9;-~]+[ \t]*:.*\n(?:[ \t].*\n)*)+")


@frozen
class Relay:
    """
    What went through Postfix: message *n* came from sender+n, for all users and an unknown one.
    """

    postfix: Postfix
    service: Service
    sent: Sequence[bytes] = field(repr=False)

    @property
    def recipients(self) -> list[str]:
        return [*USERS, UNKNOWN]

    def copies(self, user: str) -> list[tuple[int, Stored]]:
        """
        What *user* has got, each with its number.
        """
        return [(number(stored.header["Return-Path"]), stored) for stored in self.mailbox(user)]

    def mailbox(self, user: str) -> list[Stored]:
        return self.service.store.mailbox(user)


@pytest.fixture(scope="module")
def postconf(peer: Callable[[str], Path], unavailable: Callable[[str], NoReturn]) -> Path:
    """
    The program that says that Postfix is here; and root, without whom it does not start.
    """
    if os.geteuid() != 0:
        unavailable("the root account, which Postfix needs")
    return peer("postconf")


@contextmanager
def chain(top: Path, postconf: Path, kind: str) -> Iterator[tuple[Postfix, Service]]:
    """
    A new Postfix in front of a new service, connected by a UNIX socket or TCP.
    """
    with ExitStack() as stack:
        service = stack.enter_context(running_service(top))
        target = {"unix": f"unix:{service.unix}", "tcp": f"inet:127.0.0.1:{service.tcp[1]}"}
        directory = Path(tempfile.mkdtemp(prefix="p", dir=top))
        directory.chmod(0o755)
        postfix = Postfix(postconf, directory, DOMAIN, target[kind])
        stack.callback(postfix.stop)
        postfix.start()
        yield postfix, service


@pytest.fixture(scope="module", params=["unix", "tcp"])
def relay(
    request: pytest.FixtureRequest, top: Path, real_mail: list[samples.Sample], postconf: Path
) -> Iterator[Relay]:
    """
    200 real messages and the made-up ones, given to Postfix and gone from its queue.
    """
    texts = [sample.text for sample in real_mail]
    texts = (texts * (200 // len(texts) + 1))[:200]
    texts += [sample.text for sample in samples.made_up()]
    with chain(top, postconf, request.param) as (postfix, service):
        relay = Relay(postfix, service, texts)
        with postfix.client() as smtp:
            for n, text in enumerate(texts):
                smtp.sendmail(f"sender+{n}@{DOMAIN}", relay.recipients, text, ["BODY=8BITMIME"])
        wait_until(lambda: not postfix.queued(), 90, "Postfix's queue empty")
        # What it logs is written down by another process, which may be later than the queue.
        told = len(texts) * len(relay.recipients)
        wait_until(lambda: len(first_hand(relay)) >= told, 30, "the log says so")
        yield relay


@pytest.fixture(params=["unix", "tcp"])
def fresh(
    request: pytest.FixtureRequest, top: Path, postconf: Path
) -> Iterator[tuple[Postfix, Service]]:
    """
    A Postfix and a service that nothing has gone through yet.
    """
    with chain(top, postconf, request.param) as both:
        yield both


def number(text: str) -> int:
    """
    Which message this address is the sender of.
    """
    found = _number.search(text)
    assert found is not None, text
    return int(found[1])


class TestDelivery:
    @pytest.mark.parametrize("user", USERS)
    def test_each_message_once(self, relay: Relay, user: str) -> None:
        """
        Every user has each message, none twice.
        """
        assert sorted(n for n, _ in relay.copies(user)) == list(range(len(relay.sent)))

    @pytest.mark.parametrize("user", USERS)
    def test_octets(self, relay: Relay, user: str) -> None:
        """
        Behind the trace headers, ours and Postfix's, stands what was sent.
        """
        for n, stored in relay.copies(user):
            sent = relay.sent[n].replace(b"\r\n", b"\n")

            assert stored.text.endswith(as_postfix_sends(sent)), sent[:60]

    def test_the_log_says_sent_once(self, relay: Relay) -> None:
        """
        Postfix was told 250 exactly once for each message and user, and 550 for the unknown one.
        """
        told = Counter((outcome.recipient, outcome.dsn) for outcome in first_hand(relay))

        assert told == {
            **{(user, "2.0.0"): len(relay.sent) for user in USERS},
            (UNKNOWN, "5.1.1"): len(relay.sent),
        }

    def test_transaction_id(self, relay: Relay) -> None:
        """
        The id that Postfix logs with status=sent stands in the Received of the stored file.
        """
        for user in USERS:
            logged = [
                outcome.text.removeprefix(f"250 2.0.0 <{user}> ").removesuffix(" Delivered")
                for outcome in first_hand(relay)
                if outcome.recipient == user
            ]

            assert sorted(logged) == sorted(stored.transaction_id for stored in relay.mailbox(user))

    def test_nobody_complains(self, relay: Relay) -> None:
        """
        Postfix has no warning to give, about our side of the conversation or anything else.
        """
        assert relay.postfix.complaints() == []
        assert "status=deferred" not in relay.postfix.log


class TestBounce:
    def test_one_to_each_sender(self, relay: Relay) -> None:
        """
        Each message came back once, to its sender; the bounce was delivered like any other mail.
        """
        bounces = relay.mailbox(SENDER)

        assert sorted(number(stored.header["To"]) for stored in bounces) == list(
            range(len(relay.sent))
        )
        assert {stored.header["Return-Path"] for stored in bounces} == {"<>"}

    def test_for_the_unknown_user_only(self, relay: Relay) -> None:
        """
        It names the unknown user, 5.1.1, and nobody else.
        """
        for stored in relay.mailbox(SENDER):
            [report] = delivery_status(stored)

            assert report["Final-Recipient"] == f"rfc822; {UNKNOWN}"
            assert report["Action"] == "failed"
            assert report["Status"] == "5.1.1"


class TestDovecot:
    def test_serves_all_of_it(self, relay: Relay, dovecot: Callable[[Store], Dovecot]) -> None:
        """
        IMAP lists and fetches every message and every bounce, octet by octet, without complaint.
        """
        expected = {
            user: Counter(
                (stored.sizes[1], digest(with_crlf(stored.text))) for stored in relay.mailbox(user)
            )
            for user in (*USERS, SENDER)
        }
        server = dovecot(relay.service.store)

        for user in (*USERS, SENDER):
            served = Counter((message.size, digest(message.text)) for message in server.inbox(user))
            assert served == expected[user]
        assert server.complaints() == []


class TestLater:
    """
    What Postfix keeps in its queue, because it was told 4yz or nothing at all.
    """

    def test_only_the_troubled_mailbox_waits(self, fresh: tuple[Postfix, Service]) -> None:
        """
        Bob's mailbox is broken: he alone is tried again, and has the message once it is repaired.
        """
        postfix, service = fresh
        ann, bob, cat = USERS
        obstacle = service.store.root / DOMAIN / "bob"
        obstacle.parent.mkdir()
        obstacle.write_text("in the way")

        with postfix.client() as smtp:
            smtp.sendmail(SENDER, [*USERS], "Subject: later\n\nbody\n")
        wait_until(lambda: len(postfix.outcomes()) == 3, 30, "three outcomes")
        first = {outcome.recipient: outcome for outcome in postfix.outcomes()}

        assert first[bob].status == "deferred"
        assert first[bob].dsn.startswith("4.")
        assert {first[ann].status, first[cat].status} == {"sent"}

        obstacle.unlink()
        postfix.flush_until_empty(30)

        assert [len(service.store.mailbox(user)) for user in USERS] == [1, 1, 1]

    def test_restart_under_way(self, fresh: tuple[Postfix, Service]) -> None:
        """
        The service is stopped amid the traffic and started again: all arrives, nothing twice.
        """
        postfix, service = fresh
        with postfix.client() as smtp:
            for n in range(100):
                smtp.sendmail(f"sender+{n}@{DOMAIN}", [*USERS], "Subject: x\n\nbody\n")
                if n == 50:
                    assert service.stop() == -signal.SIGTERM
        wait_until(lambda: "status=deferred" in postfix.log, 30, "a message that waits")

        service.start()
        postfix.flush_until_empty(60)

        relay = Relay(postfix, service, [])
        for user in USERS:
            assert sorted(n for n, _ in relay.copies(user)) == list(range(100))

    def test_utf8_address(self, fresh: tuple[Postfix, Service]) -> None:
        """
        An address outside ASCII comes through, as Postfix is offered SMTPUTF8.
        """
        postfix, service = fresh
        text = "Subject: Grüße\r\n\r\nÄpfel\r\n".encode()

        with postfix.client() as smtp:
            smtp.sendmail(SENDER, [UMLAUT], text, ["SMTPUTF8", "BODY=8BITMIME"])
        wait_until(lambda: not postfix.queued(), 30, "Postfix's queue empty")

        [stored] = service.store.mailbox(UMLAUT)
        assert stored.text.endswith(text.replace(b"\r\n", b"\n"))
        assert b" with UTF8LMTP id " in stored.text


def first_hand(relay: Relay) -> list[Outcome]:
    """
    What became of the messages, bounces left out.
    """
    return [o for o in relay.postfix.outcomes() if not o.recipient.startswith("sender+")]


def delivery_status(bounce: Stored) -> list[Message]:
    """
    The per-recipient parts of a bounce's machine-readable half (RFC 3464 §2.3).
    """
    halves = message_from_bytes(bounce.text).get_payload()
    assert isinstance(halves, list)
    status = halves[1]
    assert isinstance(status, Message)
    assert status.get_content_type() == "message/delivery-status"
    parts = status.get_payload()
    assert isinstance(parts, list)
    return [part for part in parts if isinstance(part, Message) and "Final-Recipient" in part]


def as_postfix_sends(text: bytes) -> bytes:
    """
    *text* as Postfix passes it on: with the empty line that RFC 5322 §2.1 wants behind the header.
    """
    header = _header.match(text)
    if header is None or text.startswith(b"\n", header.end()) or header.end() == len(text):
        return text
    return text[: header.end()] + b"\n" + text[header.end() :]


def digest(text: bytes) -> str:
    """
    What a message is compared by, so that a failure does not print 30 MB.
    """
    return sha256(text).hexdigest()
