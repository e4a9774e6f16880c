"""
Delivery reports, with a Postfix that hands on who asked for them, and carries ours.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import NoReturn

import pytest
from attrs import frozen

from ..running import free_port, run, wait_until
from .postfix import Postfix
from .service import DOMAIN, Service, running_service
from .store import Stored

SENDER, ANN, BOB, STAFF = (f"{name}@{DOMAIN}" for name in ("sender", "ann", "bob", "staff"))
LETTER = b"Subject: Hello\r\n\r\nHello, Ann.\r\n"


@frozen
class Chain:
    """
    Postfix in front of the service, which hands its reports in to that same Postfix.
    """

    postfix: Postfix
    service: Service

    def send(self, to: Sequence[str], mail: Sequence[str] = (), rcpt: Sequence[str] = ()) -> None:
        """
        Hand a letter in to Postfix, with parameters of MAIL and RCPT.
        """
        with self.postfix.client() as smtp:
            refused = smtp.sendmail(SENDER, list(to), LETTER, list(mail), list(rcpt))
            assert refused == {}

    def settle(self) -> None:
        """
        Wait until nothing is on its way.
        """
        wait_until(lambda: not self.postfix.queued(), 60, "Postfix's queue empty")

    def mailbox(self, user: str) -> list[Stored]:
        """
        What *user* has got, if anything.
        """
        store = self.service.store
        name, _, domain = user.partition("@")
        return store.mailbox(user) if (store.root / domain / name / "new").exists() else []

    def reports(self, count: int) -> list[EmailMessage]:
        """
        What the sender has been told, once it is *count* messages at the least.
        """
        wait_until(
            lambda: len(self.mailbox(SENDER)) >= count, 60, f"{count} messages to the sender"
        )
        self.settle()
        found = []
        for stored in self.mailbox(SENDER):
            message = message_from_bytes(stored.path.read_bytes(), policy=default)
            assert isinstance(message, EmailMessage)
            found.append(message)
        return found


def fields(report: EmailMessage) -> list[EmailMessage]:
    """
    What a report says about the message, then about each recipient.
    """
    [status] = [
        part for part in report.walk() if part.get_content_type() == "message/delivery-status"
    ]
    parts = status.get_payload()
    assert isinstance(parts, list)
    return parts  # type: ignore[return-value]  # what the policy makes


@contextmanager
def chain(top: Path, postconf: Path, dsn: str) -> Iterator[Chain]:
    port = free_port()
    words = ["--dsn", dsn.format(port=port), "--original-recipient", "X-Original-To"]
    with ExitStack() as stack:
        service = stack.enter_context(running_service(top, more=words))
        directory = Path(tempfile.mkdtemp(prefix="p", dir=top))
        directory.chmod(0o755)
        postfix = Postfix(
            postconf,
            directory,
            DOMAIN,
            f"unix:{service.unix}",
            port,
            f"virtual_alias_maps = inline:{{{STAFF}={ANN}}}\n",
        )
        stack.callback(postfix.stop)
        postfix.start()
        yield Chain(postfix, service)


@pytest.fixture(scope="module")
def postconf(peer: Callable[[str], Path], unavailable: Callable[[str], NoReturn]) -> Path:
    """
    The program that says that Postfix is here; and root, without whom it does not start.
    """
    if os.geteuid() != 0:
        unavailable("the root account, which Postfix needs")
    return peer("postconf")


@pytest.fixture
def reporting(top: Path, postconf: Path) -> Iterator[Chain]:
    with chain(top, postconf, "smtp:127.0.0.1:{port}") as made:
        yield made


def is_ours(report: EmailMessage) -> bool:
    return "Mail delivery" in str(report["From"])


def test_report(reporting: Chain) -> None:
    """
    Who asks for it gets one report, which is ours: from nobody, with what the sender calls the
    message, and without Postfix's word that it was relayed.
    """
    reporting.send([ANN], ["ENVID=QQ+2B314", "RET=FULL"], ["NOTIFY=SUCCESS,FAILURE"])

    [report] = reporting.reports(1)

    assert is_ours(report)
    about, recipient = fields(report)
    assert "QQ+314" == about["Original-Envelope-Id"]
    assert f"rfc822; {ANN}" == recipient["Original-Recipient"]
    assert f"rfc822; {ANN}" == recipient["Final-Recipient"]
    assert ("delivered", "2.0.0") == (recipient["Action"], recipient["Status"])
    assert "<>" == report["Return-Path"]


def test_alias(reporting: Chain) -> None:
    """
    Who writes to an alias is told by Postfix that it was expanded (RFC 3461 §5.2.7.3); we are told
    whom the sender wrote to.
    """
    reporting.send([STAFF], rcpt=["NOTIFY=SUCCESS,FAILURE"])

    [report] = reporting.reports(1)

    assert not is_ours(report)
    assert "expanded" == fields(report)[1]["Action"]
    [ann] = reporting.mailbox(ANN)
    assert STAFF == ann.header["X-Original-To"]
    assert f" original=<{STAFF}> " in reporting.service.log


def test_sendmail(reporting: Chain, postconf: Path) -> None:
    """
    ``sendmail -N success`` leads to one report from us, for both recipients, and none of Postfix's
    that the message was relayed.
    """
    sendmail = postconf.with_name("sendmail")
    config = str(reporting.postfix.top / "etc")
    done = run(
        [str(sendmail), "-C", config, "-N", "success", "-f", SENDER, ANN, BOB],
        stdin=LETTER.replace(b"\r\n", b"\n"),
    )
    assert done.returncode == 0, done.stdout

    [report] = reporting.reports(1)

    assert is_ours(report)
    assert [f"rfc822; {ANN}", f"rfc822; {BOB}"] == sorted(
        recipient["Final-Recipient"] for recipient in fields(report)[1:]
    )


def test_nobody_asked(reporting: Chain) -> None:
    """
    Without NOTIFY, and with NEVER, nobody is told anything.
    """
    reporting.send([ANN])
    reporting.send([ANN], rcpt=["NOTIFY=NEVER"])
    reporting.send([BOB], rcpt=["NOTIFY=SUCCESS"])

    [report] = reporting.reports(1)

    assert [f"rfc822; {BOB}"] == [each["Final-Recipient"] for each in fields(report)[1:]]
    assert 2 == len(reporting.mailbox(ANN))


def test_refused(reporting: Chain) -> None:
    """
    A refusal is reported by Postfix, and by nobody else.
    """
    reporting.send([f"nobody@{DOMAIN}", ANN], rcpt=["NOTIFY=SUCCESS,FAILURE"])

    said = {each["Action"] for report in reporting.reports(2) for each in fields(report)[1:]}

    assert {"failed", "delivered"} == said
    assert 2 == len(reporting.reports(2))


def test_relayed(top: Path, postconf: Path) -> None:
    """
    Where the relay is said to report, we do not; nor does Postfix, which leaves it to us.
    """
    with chain(top, postconf, "relayed") as relayed:
        relayed.send([ANN], rcpt=["NOTIFY=SUCCESS"])
        relayed.send([STAFF])
        wait_until(lambda: len(relayed.mailbox(ANN)) == 2, 60, "two messages")
        relayed.settle()

        assert {ANN, STAFF} == {each.header["X-Original-To"] for each in relayed.mailbox(ANN)}
        assert [] == relayed.mailbox(SENDER)
