"""
A disk that fails at any step: the right reply, nothing left behind, and the others get their mail.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from attrs import evolve
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from lmtpsvc.backends.maildir import MaildirBackend
from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import DeliveryError
from lmtpsvc.testing import MemoryMessage

ANN, BOB, CY = (Mailbox(user, "example.org") for user in ("ann", "bob", "cy"))

Make = Callable[..., MaildirBackend]
Break = Callable[[str, str, int], None]

#: What fails for Ann, and where.
STEPS = [
    ("open", "ann/tmp/"),
    ("write", "ann/tmp/"),
    ("fsync", "ann/tmp/"),
    ("rename", "ann/new/"),
    ("fsync", "ann/new"),
]

#: What the system says, and what the client reads.
REPLIES = [
    (errno.EDQUOT, "452 4.2.2 "),
    (errno.ENOSPC, "452 4.3.1 "),
    (errno.EROFS, "452 4.3.1 "),
    (errno.EACCES, "451 4.2.0 "),
    (errno.EIO, "451 4.3.0 "),
]


def reply_of(result: Any, failure_of: Any) -> str:
    """
    What the client reads.
    """
    error = failure_of(result, DeliveryError).value
    return str(error.reply)


@pytest.mark.parametrize(("number", "reply"), REPLIES)
@pytest.mark.parametrize(("call", "where"), STEPS)
def test_alone(
    maildir: Make,
    message: MemoryMessage,
    root: Path,
    break_call: Break,
    failure_of: Any,
    leftovers: Callable[[], list[str]],
    clock: Clock,
    way: str,
    call: str,
    where: str,
    number: int,
    reply: str,
) -> None:
    """
    Each step, each error: one reply, and the mailbox is as it was.
    """
    backend = maildir()
    backend.deliver(message, [ANN])
    break_call(call, where, number)

    [result] = backend.deliver(message, [ANN])
    [again] = backend.deliver(message, [ANN])
    # The reactor comes round.
    clock.pump([0, 0])

    assert reply_of(result, failure_of).startswith(reply)
    assert str(root) not in reply_of(again, failure_of)
    assert 1 == len(os.listdir(root / "example.org/ann/new"))
    assert [] == leftovers()


@pytest.mark.parametrize(
    ("call", "where"),
    [*STEPS, ("link", "ann/new/"), ("mkdir", "ann/new")],
)
@pytest.mark.parametrize("order", [(ANN, BOB, CY), (BOB, ANN, CY), (BOB, CY, ANN)])
def test_among_others(
    maildir: Make,
    message: MemoryMessage,
    root: Path,
    break_call: Break,
    failure_of: Any,
    success_of: Any,
    leftovers: Callable[[], list[str]],
    way: str,
    call: str,
    where: str,
    order: tuple[Mailbox, ...],
) -> None:
    """
    What is wrong with Ann's mailbox is no matter to Bob and Cy, whoever comes first.
    """
    backend = maildir()
    break_call(call, where, errno.EIO)

    results = dict(zip(order, backend.deliver(message, order), strict=True))

    # Ann's tmp/ is needed only if she is the first; the first has a rename and no link.
    if ("tmp" in where and order[0] != ANN) or (call == "rename") != (
        call in {"rename", "link"} and order[0] == ANN
    ):
        success_of(results.pop(ANN))
    else:
        assert reply_of(results.pop(ANN), failure_of).startswith("451 4.3.0 ")
        assert [] == list((root / "example.org/ann").glob("new/*"))
    for user, result in results.items():
        success_of(result)
        assert 1 == len(os.listdir(root / "example.org" / user.user / "new"))
    assert [] == leftovers()


def test_full_for_good(
    maildir: Make, message: MemoryMessage, break_call: Break, failure_of: Any
) -> None:
    """
    Where the operator wants it, a full mailbox is a reason to return mail at once.
    """
    break_call("write", "ann/tmp", errno.EDQUOT)

    [result] = maildir(full="552").deliver(message, [ANN])

    assert "552 5.2.2 Mailbox full" == reply_of(result, failure_of)


def test_close_tells_of_a_full_quota(
    maildir: Make,
    message: MemoryMessage,
    break_call: Break,
    failure_of: Any,
    leftovers: Callable[[], list[str]],
) -> None:
    """
    NFS may say so only when the file is closed, which still counts.
    """
    break_call("close", "ann/tmp", errno.EDQUOT)

    [result] = maildir().deliver(message, [ANN])

    assert "452 4.2.2 Mailbox full" == reply_of(result, failure_of)
    assert [] == leftovers()


def test_short_writes(
    maildir: Make, root: Path, success_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A system that takes a few octets at a time gets them all.
    """
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, octets: write(descriptor, octets[:7]))

    [result] = maildir().deliver(MemoryMessage(b"0123456789" * 10), [ANN])

    success_of(result)
    [path] = (root / "example.org/ann/new").iterdir()
    assert b"0123456789" * 10 == path.read_bytes()


class Broken(MemoryMessage):
    """
    A message whose spool has a defect.
    """

    def open(self, line_ending: str = "\r\n") -> BinaryIO:
        source = BytesIO(b"")
        source.close()
        return source


@pytest.mark.parametrize("mailboxes", [[ANN], [ANN, BOB]])
def test_defect(
    maildir: Make,
    failure_of: Any,
    leftovers: Callable[[], list[str]],
    mailboxes: list[Mailbox],
) -> None:
    """
    A defect is no refusal: it goes up as it is, once for each recipient.
    """
    message = Broken(b"text")

    results = maildir().deliver(message, mailboxes)

    for result in results:
        failure_of(result, ValueError)
    assert [] == leftovers()


def test_log(
    maildir: Make, message: MemoryMessage, break_call: Break, failure_of: Any, root: Path
) -> None:
    """
    The operator reads in one line what happened to whom, and where.
    """
    break_call("write", "ann/tmp", errno.EIO)
    with capturedLogs() as events:
        [result] = maildir().deliver(evolve(message, id="cafe"), [ANN])

    failure_of(result, DeliveryError)
    [text] = [formatEvent(event) for event in events]
    assert text.startswith(f"cafe: no delivery to ann@example.org in {root}/example.org/ann: ")
    assert "Input/output error" in text
    assert "log_failure" not in events[0]
