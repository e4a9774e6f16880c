"""
Only what is sure to be quick is left to the process that stores one message after the other.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from twisted.internet.task import Clock

from lmtpsvc.backends import file_systems
from lmtpsvc.backends.haste import BUSY, WARM
from lmtpsvc.backends.maildir import MaildirBackend
from lmtpsvc.backends.shortcut import MANY, MODEST, MOST_TARGETS
from lmtpsvc.backends.syncing import Syncing
from lmtpsvc.backends.write_process import PAUSE
from lmtpsvc.delivery.content import FileContent, MemoryContent, PrefixedContent
from lmtpsvc.delivery.message import Message
from lmtpsvc.delivery.routes import _WithoutFile
from lmtpsvc.delivery.spool_file import SpoolFile, SpoolText
from lmtpsvc.envelope import Mailbox
from lmtpsvc.interfaces import LineEnding, Sizes
from lmtpsvc.testing import MemoryMessage, envelope

ANN = Mailbox("ann", "example.org")
ONE = MemoryMessage(b"1\r\n")

Make = Callable[..., MaildirBackend]


@pytest.fixture
def is_short(
    held_pool: Any,
    process: Any,
    at_once: None,
    success_of: Any,
    failure_of: Any,
) -> Callable[..., bool]:
    """
    ``is_short(backend, message, mailboxes)``: whether the process has the message before any
    thread works.  It is stored in the end, unless it *fails*.
    """

    def is_short(
        backend: MaildirBackend,
        message: MemoryMessage = ONE,
        mailboxes: list[Mailbox] | None = None,
        *,
        fails: bool = False,
    ) -> bool:
        results = backend.deliver(message, [ANN] if mailboxes is None else mailboxes)
        found = not process.is_idle
        while held_pool.jobs or not process.is_idle:
            held_pool.work()
            process.work()
        for result in results:
            (failure_of if fails else success_of)(result)
        return found

    return is_short


@pytest.fixture
def backend(maildir: Make, held_pool: Any, process: Any, is_short: Any) -> MaildirBackend:
    """
    A backend where Ann has mail.
    """
    backend = maildir(held_pool, process=process)
    assert [False, True] == [is_short(backend) for _ in range(2)]
    return backend


def test_size(backend: MaildirBackend, is_short: Any) -> None:
    """
    What is large is left to a thread; counted as it will be in the file.
    """
    assert is_short(backend, MemoryMessage(b"x" * (MODEST - 2) + b"\r\n"))
    assert not is_short(backend, MemoryMessage(b"x" * MODEST + b"\r\n"))


def test_in_a_file(
    backend: MaildirBackend,
    held_pool: Any,
    success_of: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    What is in a file is not even asked for its size, which may take reading all of it: neither if
    the file cannot be linked, nor if there is a header on top.
    """
    spool, text = SpoolFile(str(tmp_path), "\r\n", 6), SpoolText("\r\n", 0)
    text.feed(b"X: y\r\n1\r\n")
    spool.append(text.take())
    content = spool.end(text.sizes)
    message = Message("1", envelope("ann@example.org"), 240.0, content)

    def read(*_: object) -> None:
        raise AssertionError("it is read")

    for each in (message, message.headed(b"Z: z\r\n"), _WithoutFile(message)):
        with monkeypatch.context() as patch:
            patch.setattr(FileContent, "sizes", read)
            patch.setattr(FileContent, "open", read)
            [result] = backend.deliver(each, [ANN])
        held_pool.work()
        success_of(result)
    # In memory, a header on top makes no difference.
    in_memory = MemoryContent(b"", [b"1\r\n"])
    assert (b"1\n", Sizes(2, 3)) == in_memory.in_memory("\n")
    headed = PrefixedContent(b"Z: z\r\n", in_memory)
    assert (b"Z: z\n1\n", Sizes(7, 9)) == headed.in_memory("\n")
    assert (b"Z: z\r\n1\r\n", Sizes(9, 9)) == headed.in_memory("\r\n")


class _Marked:
    """
    A message of somebody else's: another one, with a line of its own on top.
    """

    def __init__(self, message: MemoryMessage) -> None:
        self._message = message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._message, name)

    def open(self, line_ending: LineEnding = "\r\n") -> BinaryIO:
        return self._marked().open(line_ending)

    def sizes(self, line_ending: LineEnding = "\r\n") -> Sizes:
        return self._marked().sizes(line_ending)

    def _marked(self) -> MemoryMessage:
        return MemoryMessage(b"X-Mark: 1\r\n" + self._message.text)


def test_of_others(backend: MaildirBackend, is_short: Any, tmp_path: Path) -> None:
    """
    What a message yields is stored, whatever that knows which it passes on what is asked of it to.
    """
    before = set(tmp_path.rglob("new/*"))
    is_short(backend, _Marked(ONE))
    [new] = set(tmp_path.rglob("new/*")) - before
    assert b"X-Mark: 1\n1\n" == new.read_bytes()


def test_new_mailbox(backend: MaildirBackend, is_short: Any) -> None:
    """
    A message for a mailbox that may have to be made, even if it is one of several.
    """
    assert not is_short(backend, ONE, [ANN, Mailbox("bob", "example.org")])
    assert is_short(backend)


def test_many(backend: MaildirBackend, is_short: Any) -> None:
    """
    A message for very many mailboxes at once.
    """
    users = [Mailbox(f"user{number}", "example.org") for number in range(MOST_TARGETS + 1)]
    assert not is_short(backend, ONE, users)

    assert is_short(backend, ONE, users[:MOST_TARGETS])
    assert not is_short(backend, ONE, users)


def test_not_in_use(
    backend: MaildirBackend, is_short: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A mailbox whose directories may not be in memory any more.
    """
    haste = backend._haste
    now = haste._seconds()
    haste._seconds = lambda: now + 1.1 * WARM
    assert not is_short(backend)
    assert is_short(backend)


@pytest.mark.parametrize("is_new", [True, False])
def test_right_behind(
    maildir: Make,
    held_pool: Any,
    process: Any,
    is_short: Any,
    success_of: Any,
    is_new: bool,
) -> None:
    """
    Until the first message is stored, be the mailbox new or long out of use, those behind it take the
    same way; from then on it is in use for as long as after any other.
    """
    backend = maildir(held_pool, process=process)
    haste, now = backend._haste, [0.0]
    haste._seconds = lambda: now[0]
    if not is_new:
        is_short(backend)
        now[0] += 1.1 * WARM

    results = [*backend.deliver(ONE, [ANN]), *backend.deliver(ONE, [ANN])]
    assert process.is_idle
    now[0] += 0.9 * WARM
    held_pool.work()
    if not process.is_idle:
        process.work()
    for result in results:
        success_of(result)

    now[0] += 0.9 * WARM
    assert is_short(backend)


def test_used_by_threads(maildir: Make, held_pool: Any, process: Any, is_short: Any) -> None:
    """
    Whatever a thread has stored counts as a use.
    """
    backend = maildir(held_pool, process=process)
    haste, now = backend._haste, [0.0]
    haste._seconds = lambda: now[0]
    for _ in range(3):
        assert not is_short(backend, MemoryMessage(b"x" * MODEST + b"\r\n"))
        now[0] += 0.9 * WARM
    assert is_short(backend)


def test_failed(backend: MaildirBackend, is_short: Any, break_call: Any) -> None:
    """
    What could not be stored is no use.
    """
    haste = backend._haste
    now = haste._seconds()
    haste._seconds = lambda: now + 1.1 * WARM
    break_call("rename", "ann/new", errno.EIO)
    assert not is_short(backend, fails=True)
    assert not is_short(backend, fails=True)


def test_busy_disk(backend: MaildirBackend, is_short: Any) -> None:
    """
    A disk that takes long holds up nobody but the process, which is not given more than it can do.
    """
    backend._syncing._latest = 1.1 * BUSY
    assert is_short(backend)


def test_sharing(maildir: Make, held_pool: Any, process: Any, is_short: Any, root: Path) -> None:
    """
    What another node may have a copy of is linked, if it is for all.
    """
    root.mkdir()
    key = root / "key"
    key.write_bytes(b"k" * 32)
    key.chmod(0o600)
    backend = maildir(held_pool, process=process, sharing=str(key))
    own = MemoryMessage(b"1\r\n", is_for_all=False)
    assert [False, True] == [is_short(backend, own) for _ in range(2)]
    assert not is_short(backend, ONE)


@pytest.mark.parametrize("why", ["it has not started", "it is late", "it has ended"])
def test_no_process(
    backend: MaildirBackend,
    process: Any,
    held_pool: Any,
    is_short: Any,
    clock: Clock,
    success_of: Any,
    why: str,
) -> None:
    """
    Where the process is not there, or does not get on, threads do it; many messages at a time have it
    started, if it can be.
    """

    def deliver(count: int) -> None:
        results = [result for _ in range(count) for result in backend.deliver(ONE, [ANN])]
        held_pool.work()
        process.work()
        for result in results:
            success_of(result)

    if why == "it is late":
        backend.deliver(ONE, [ANN])
        process.work_unheard()
        process.let_time_pass()
    else:
        process.end()
    if why == "it has not started":
        process.starts_at_once = False
        clock.advance(PAUSE)
    results = [result for _ in range(MANY) for result in backend.deliver(ONE, [ANN])]
    held_pool.work()
    for result in results:
        success_of(result)

    process.hear()
    if why == "it has ended":
        assert not is_short(backend)
        clock.advance(PAUSE)
        deliver(MANY - 1)
        assert process.fileno() < 0, "it is not worth its memory"
        deliver(MANY)
    assert is_short(backend)


def test_elsewhere(
    maildir: Make,
    held_pool: Any,
    process: Any,
    is_short: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    On NFS and its like, any call may take for ever.
    """
    monkeypatch.setattr(file_systems, "_file_system", lambda _: 0x6969)
    backend = maildir(held_pool, process=process)
    assert not any(is_short(backend) for _ in range(4))


def test_several_devices(backend: MaildirBackend, is_short: Any) -> None:
    """
    Mailboxes on several disks are waited for by threads.
    """
    bob = Mailbox("bob", "example.org")
    assert not is_short(backend, ONE, [bob])
    assert is_short(backend, ONE, [ANN, bob])
    known = backend._places.known(backend._place(bob))
    assert known is not None
    known.device += 1
    assert not is_short(backend, ONE, [ANN, bob])


def test_quota(maildir: Make, held_pool: Any, process: Any, is_short: Any) -> None:
    """
    Where there is a quota, files have to be read.
    """
    backend = maildir(held_pool, process=process, quota="1G")
    assert not any(is_short(backend) for _ in range(4))


def test_spooled(backend: MaildirBackend, is_short: Any, root: Path) -> None:
    """
    What is in a file already is linked, not written.
    """
    spooled = root / "spooled"
    spooled.write_bytes(b"1\n")
    assert not is_short(backend, MemoryMessage(b"1\r\n", path=str(spooled)))


def test_way_that_does_not_pay(
    backend: MaildirBackend, is_short: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    While a wait for all costs more than many for one, each message has a thread.
    """
    monkeypatch.setattr(Syncing, "whole_pays", lambda *_: False)
    assert not is_short(backend)
