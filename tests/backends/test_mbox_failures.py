"""
A disk that fails at any step: the right reply, the file as it was, and the others get their mail.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from twisted.logger import capturedLogs, formatEvent

from lmtpsvc.backends.mbox import MboxBackend
from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import DeliveryError
from lmtpsvc.testing import MemoryMessage

ANN, BOB, CY = (Mailbox(user, "example.org") for user in ("ann", "bob", "cy"))

Make = Callable[..., MboxBackend]

#: What the system says, and what the client reads.
REPLIES = [
    (errno.EDQUOT, "452 4.2.2 "),
    (errno.EFBIG, "452 4.2.2 "),
    (errno.ENOSPC, "452 4.3.1 "),
    (errno.EROFS, "452 4.3.1 "),
    (errno.EIO, "451 4.3.0 "),
]

#: What fails, and at which time of asking: the second delivery to a mailbox.
STEPS = [
    ("open", 1),
    ("link", 1),  # the dot-lock
    ("setxattr", 1),
    ("fsync", 1),
    ("write", 1),
    ("write", 2),  # in the middle
    ("setxattr", 2),
    ("fsync", 2),
    ("removexattr", 1),
]


@pytest.fixture
def break_nth(root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """
    ``break_nth("write", 1, EIO)``: the second such call about a file of Ann's fails, once; before a
    write fails, half of it is done.
    """

    def break_nth(name: str, nth: int, number: int) -> None:
        original = getattr(os, name)
        count = 0

        def call(subject: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal count
            path = os.readlink(f"/proc/self/fd/{subject}") if isinstance(subject, int) else subject
            if name == "link":
                path = args[0]
            if str(path).startswith(f"{root}/ann"):
                count += 1
                if count == nth:
                    raise OSError(number, os.strerror(number), path)
                if name == "write" and len(args[0]) > 100:
                    return original(subject, args[0][: len(args[0]) // 2])
            return original(subject, *args, **kwargs)

        monkeypatch.setattr(os, name, call)

    return break_nth


def reply_of(result: Any, failure_of: Any) -> str:
    """
    What the client reads.
    """
    return str(failure_of(result, DeliveryError).value.reply)


@pytest.mark.parametrize(("number", "reply"), REPLIES)
@pytest.mark.parametrize(("call", "nth"), STEPS)
def test_each_step(
    mbox: Make,
    root: Path,
    break_nth: Callable[..., None],
    failure_of: Any,
    success_of: Any,
    call: str,
    nth: int,
    number: int,
    reply: str,
) -> None:
    """
    Each step, each error: one reply, the file as it was, no lock and no mark left; and the next
    message is taken.
    """
    message = MemoryMessage(b"a: b\r\n\r\n" + 100 * b"some text\r\n")
    backend = mbox()
    success_of(backend.deliver(message, [ANN])[0])
    before = (root / "ann").read_bytes()
    break_nth(call, nth, number)

    [result] = backend.deliver(message, [ANN])

    said = reply_of(result, failure_of)
    assert said.startswith(reply)
    assert str(root) not in said
    assert before == (root / "ann").read_bytes()
    assert [] == os.listxattr(root / "ann")
    assert ["ann"] == os.listdir(root)
    success_of(backend.deliver(message, [ANN])[0])
    assert 2 * before == (root / "ann").read_bytes()


def test_directory_cannot_be_synced(
    mbox: Make, message: MemoryMessage, root: Path, break_call: Any, failure_of: Any
) -> None:
    """
    A file whose name may not be on the disk is not answered 250; it stays, without the message.
    """
    backend = mbox()
    break_call("fsync", str(root), errno.EIO)

    [result] = backend.deliver(message, [ANN])

    assert reply_of(result, failure_of).startswith("451 4.3.0 ")
    assert b"" == (root / "ann").read_bytes()


def test_full_for_good(
    mbox: Make, message: MemoryMessage, break_nth: Callable[..., None], failure_of: Any
) -> None:
    """
    Mail over quota can be refused for good, if the operator wants that.
    """
    backend = mbox(full="552")
    break_nth("write", 1, errno.EDQUOT)

    assert reply_of(backend.deliver(message, [ANN])[0], failure_of).startswith("552 5.2.2 ")


@pytest.mark.parametrize("order", [(ANN, BOB, CY), (BOB, ANN, CY), (BOB, CY, ANN)])
@pytest.mark.parametrize(("call", "nth"), STEPS)
def test_among_others(
    mbox: Make,
    message: MemoryMessage,
    root: Path,
    break_nth: Callable[..., None],
    failure_of: Any,
    success_of: Any,
    call: str,
    nth: int,
    order: tuple[Mailbox, ...],
) -> None:
    """
    What is wrong with Ann's mailbox is no matter to Bob and Cy, whoever comes first.
    """
    if (call, nth) == ("write", 2):
        pytest.skip("this message is written at once")
    backend = mbox()
    backend.deliver(message, order)
    break_nth(call, nth, errno.EIO)

    results = dict(zip(order, backend.deliver(message, order), strict=True))

    assert reply_of(results.pop(ANN), failure_of).startswith("451 4.3.0 ")
    for user, result in results.items():
        success_of(result)
        assert 2 == (root / user.user).read_bytes().count(b"From sender@")


class Broken(MemoryMessage):
    """
    A message whose spool cannot be read to its end.
    """

    def open(self, line_ending: Any = "\r\n") -> BinaryIO:
        class Source(BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                if self.tell():
                    raise OSError(errno.EIO, "bad sector")
                return super().read(5)

        return Source(self.text)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_one_of_a_batch(
    mbox: Make,
    held_pool: Any,
    root: Path,
    failure_of: Any,
    success_of: Any,
    position: int,
) -> None:
    """
    A message that cannot be read is cut off again; those that go with it come whole, and in order.
    """
    backend = mbox(held_pool)
    held_pool.work()
    backend.deliver(MemoryMessage(b"first\r\n"), [ANN])
    messages = [MemoryMessage(b"%d and more\r\n" % n) for n in range(3)]
    messages[position] = Broken(messages[position].text)
    results = [backend.deliver(message, [ANN])[0] for message in messages]

    held_pool.work()

    assert reply_of(results.pop(position), failure_of).startswith("451 4.3.0 ")
    for result in results:
        success_of(result)
    lines = (root / "ann").read_bytes().split(b"\n")
    expected = [b"%d and more" % n for n in range(3) if n != position]
    assert [b"first", *expected] == [line for line in lines if line and line[:5] != b"From "]


def test_sync_of_a_batch_fails(
    mbox: Make, held_pool: Any, root: Path, break_nth: Callable[..., None], failure_of: Any
) -> None:
    """
    If the disk does not take what several have written, all are refused, and nothing is there.
    """
    backend = mbox(held_pool)
    held_pool.work()
    backend.deliver(MemoryMessage(b"first\r\n"), [ANN])
    results = [backend.deliver(MemoryMessage(b"%d\r\n" % n), [ANN])[0] for n in range(3)]
    held_pool.jobs.pop(0)()
    before = (root / "ann").read_bytes()
    break_nth("fsync", 2, errno.EIO)

    held_pool.work()

    for result in results:
        assert reply_of(result, failure_of).startswith("451 4.3.0 ")
    assert before == (root / "ann").read_bytes()


def test_undone_later(
    mbox: Make,
    message: MemoryMessage,
    root: Path,
    break_nth: Callable[..., None],
    failure_of: Any,
    success_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    What cannot be undone at once, because the disk takes nothing any more, the next delivery mends.
    """
    backend = mbox()
    backend.deliver(message, [ANN])
    before = (root / "ann").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(os, "ftruncate", _fails)
        break_nth("fsync", 2, errno.EIO)
        [result] = backend.deliver(message, [ANN])
    assert reply_of(result, failure_of).startswith("451 4.3.0 ")

    success_of(backend.deliver(message, [ANN])[0])

    # What was whole stays: nobody can know that it was refused.
    assert 3 * before == (root / "ann").read_bytes()


def _fails(*_: object) -> None:
    raise OSError(errno.EIO, "no more")


def test_no_marks(
    mbox: Make,
    message: MemoryMessage,
    root: Path,
    success_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Where there are no extended attributes, mail is taken all the same, and that is logged once.
    """

    def unsupported(*_: object, **__: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not here")

    for name in ("setxattr", "getxattr", "removexattr"):
        monkeypatch.setattr(os, name, unsupported)
    backend = mbox()

    with capturedLogs() as events:
        for _ in range(2):
            success_of(backend.deliver(message, [ANN])[0])

    assert 2 == (root / "ann").read_bytes().count(b"From sender@")
    assert 1 == sum("extended attributes" in (formatEvent(event) or "") for event in events)


def test_defect(
    mbox: Make, message: MemoryMessage, root: Path, failure_of: Any, success_of: Any
) -> None:
    """
    A defect is not taken for an answer, and leaves the file as it was.
    """

    class Defective(MemoryMessage):
        def open(self, line_ending: Any = "\r\n") -> BinaryIO:
            raise ZeroDivisionError

    backend = mbox()

    failure_of(backend.deliver(Defective(b""), [ANN])[0], ZeroDivisionError)
    assert b"" == (root / "ann").read_bytes()
    success_of(backend.deliver(message, [ANN])[0])


def test_log_names_the_mailbox(
    mbox: Make, message: MemoryMessage, root: Path, break_nth: Callable[..., None]
) -> None:
    """
    The log has what the reply must not have: whose mail it was, where, and what the system said.
    """
    backend = mbox()
    break_nth("write", 1, errno.EIO)

    with capturedLogs() as events:
        backend.deliver(message, [ANN])[0].addErrback(lambda _: None)

    [line] = [formatEvent(event) for event in events]
    assert line is not None
    for word in (message.id, "ann@example.org", f"{root}/ann", "Input/output error"):
        assert word in line
