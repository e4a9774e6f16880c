"""
Mail for mboxes: what is in the file, whose it is, and when the answer comes.
"""

from __future__ import annotations

import mailbox
import os
import re
import stat
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from attrs import evolve
from twisted.application.service import IService
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from lmtpsvc.backends.mbox import MboxBackend
from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import PermanentFailure, TemporaryFailure
from lmtpsvc.interfaces import IBackend
from lmtpsvc.testing import MemoryMessage, envelope

ANN, BOB, CY = (Mailbox(user, "example.org") for user in ("ann", "bob", "cy"))

Make = Callable[..., MboxBackend]


def stored(root: Path, user: str = "ann") -> list[bytes]:
    """
    The messages that Python's reader finds; it takes none of the quoting away.
    """
    reader = mailbox.mbox(root / user, create=False)
    try:
        return [reader.get_bytes(key) for key in reader.keys()]  # noqa: SIM118 - not a dict
    finally:
        reader.close()


def test_provides_interfaces(mbox: Make) -> None:
    """
    It is a backend, and a service that is started and stopped.
    """
    assert verifyObject(IBackend, mbox())
    assert verifyObject(IService, mbox())


def test_first_mail(mbox: Make, message: MemoryMessage, root: Path, success_of: Any) -> None:
    """
    The first mail makes the file: a From line, the text with LF, and a blank line.
    """
    [result] = mbox().deliver(message, [ANN])

    success_of(result)
    octets = (root / "ann").read_bytes()
    assert re.fullmatch(
        rb"From sender@example\.net Tue Nov 1[45] ..:13:20 2023\nSubject: hello\n\nbody\n\n", octets
    )
    assert ["ann"] == os.listdir(root)


def test_more_mail(mbox: Make, root: Path, success_of: Any) -> None:
    """
    What comes later stands behind, and Python's reader gets each as it was sent.
    """
    backend = mbox()
    texts = [
        b"a: b\r\n\r\nFrom here\r\n>From there\r\n",
        b"",
        b"a: b\r\n\r\nno newline",
        b"\r\n\r\n\r\n",
        b"a: b\r\n\r\nbare\nLF\rCR\r\n",
    ]

    for text in texts:
        success_of(backend.deliver(MemoryMessage(text), [ANN])[0])

    assert [
        b"a: b\n\n>From here\n>>From there\n",
        b"",
        b"a: b\n\nno newline\n",
        b"\n\n\n",
        b"a: b\n\nbare\nLF\rCR\n",
    ] == stored(root)


def test_bounce(mbox: Make, root: Path) -> None:
    """
    Mail without a sender is from MAILER-DAEMON.
    """
    message = MemoryMessage(b"a: b\r\n", envelope=envelope("ann@example.org", sender=""))

    mbox().deliver(message, [ANN])

    assert (root / "ann").read_bytes().startswith(b"From MAILER-DAEMON ")


def test_one_copy_two_replies(
    mbox: Make, message: MemoryMessage, root: Path, success_of: Any
) -> None:
    """
    A mailbox named twice gets one copy, and each mention an answer.
    """
    results = mbox().deliver(message, [ANN, BOB, ANN, evolve(ANN, detail="lists")])

    assert 4 == len(results)
    for result in results:
        success_of(result)
    assert 1 == len(stored(root)) == len(stored(root, "bob"))


def test_large(mbox: Make, root: Path, success_of: Any) -> None:
    """
    50 MB, never in memory as a whole.
    """
    line, count = b"From a line of some length, to be quoted each time\n", 1 << 20
    largest = 0

    class Endless(BytesIO):
        left = count * len(line)

        def read(self, size: int | None = -1, /) -> bytes:
            nonlocal largest
            assert size is not None
            largest = max(largest, size)
            start = (count * len(line) - self.left) % len(line)
            octets = (line * (size // len(line) + 2))[start : start + min(size, self.left)]
            self.left -= len(octets)
            return octets

    class Large(MemoryMessage):
        def open(self, line_ending: Any = "\r\n") -> BinaryIO:
            return Endless()

    success_of(mbox().deliver(Large(b""), [ANN])[0])

    assert 0 < largest <= 1 << 18
    octets = (root / "ann").read_bytes()
    _, _, text = octets.partition(b"\n")
    assert (b">" + line) * count + b"\n" == text


@pytest.mark.parametrize(
    ("before", "lf"), [(b"From x\n\nold\n\n", 0), (b"From x\n\nold\n", 1), (b"From x\n\nold", 2)]
)
def test_behind_other_programs(
    mbox: Make, message: MemoryMessage, root: Path, before: bytes, lf: int
) -> None:
    """
    However another program has left the file, exactly one blank line follows, and nothing of it is
    touched.
    """
    backend = mbox()
    (root / "ann").write_bytes(before)

    backend.deliver(message, [ANN])

    octets = (root / "ann").read_bytes()
    assert octets.startswith(before + b"\n" * lf + b"From sender@")
    assert 2 == len(stored(root))


@pytest.mark.parametrize("mode", ["0600", "0640", "0660"])
def test_mode(mbox: Make, message: MemoryMessage, root: Path, mode: str) -> None:
    """
    A new file has the mode that was asked for whatever the umask; one that is there keeps its own.
    """
    backend = mbox(mode=mode)
    (root / "bob").touch(0o644)
    umask = os.umask(0o077)
    try:
        backend.deliver(message, [ANN, BOB])
    finally:
        os.umask(umask)

    assert int(mode, 8) == stat.S_IMODE((root / "ann").stat().st_mode)
    assert 0o644 == stat.S_IMODE((root / "bob").stat().st_mode)


def test_directories(mbox: Make, message: MemoryMessage, root: Path, success_of: Any) -> None:
    """
    Directories that the template asks for are made.
    """
    backend = mbox(template=f"{root}/{{domain}}/{{user}}/mbox")

    for _ in range(2):
        success_of(backend.deliver(message, [ANN])[0])

    assert 2 == len(stored(root, "example.org/ann/mbox"))


def test_order(
    mbox: Make, message: MemoryMessage, root: Path, calls: list[tuple[str, str]]
) -> None:
    """
    Locked, marked, synced, written, synced, unlocked, then answered: nothing may change places.
    """
    backend = mbox()
    backend.deliver(message, [ANN])
    calls.clear()

    [result] = backend.deliver(message, [ANN])
    result.addCallback(lambda _: calls.append(("answer", "")))

    assert [
        # A file without a name yet, which says whose lock it is.
        ("write", calls[0][1]),
        ("link", "ann.lock"),
        ("fsync", "ann"),
        ("write", "ann"),
        ("fsync", "ann"),
        ("unlink", "ann.lock"),
        ("answer", ""),
    ] == calls


def test_first_mail_syncs_the_name(
    mbox: Make, message: MemoryMessage, calls: list[tuple[str, str]]
) -> None:
    """
    A file that this process sees for the first time has its name synced, too: who has made it may
    have died before that.
    """
    mbox().deliver(message, [ANN])

    assert [("fsync", "ann"), ("fsync", "."), ("unlink", "ann.lock")] == calls[-3:]
    calls.clear()
    mbox().deliver(message, [ANN])

    assert ("fsync", ".") in calls


def test_share_one_sync(
    mbox: Make, held_pool: Any, root: Path, calls: list[tuple[str, str]], success_of: Any
) -> None:
    """
    What comes for a mailbox while it is written to goes together, in the order in which it came.
    """
    backend = mbox(held_pool)
    held_pool.work()
    results = backend.deliver(MemoryMessage(b"0\r\n"), [ANN])
    for number in range(1, 5):
        results += backend.deliver(MemoryMessage(b"%d\r\n" % number), [ANN])
    assert 1 == len(held_pool.jobs)
    held_pool.jobs.pop(0)()
    calls.clear()

    held_pool.work()

    assert 2 == calls.count(("fsync", "ann"))
    for result in results:
        success_of(result)
    assert [b"0\n", b"1\n", b"2\n", b"3\n", b"4\n"] == stored(root)


def test_mailboxes_do_not_wait_for_each_other(
    mbox: Make, held_pool: Any, message: MemoryMessage, success_of: Any, no_result: Any
) -> None:
    """
    Each mailbox is a job of its own, and answered when it is done.
    """
    backend = mbox(held_pool)
    held_pool.work()
    ann, bob = backend.deliver(message, [ANN, BOB])
    assert 2 == len(held_pool.jobs)

    held_pool.jobs.pop(1)()

    success_of(bob)
    no_result(ann)
    held_pool.work()
    success_of(ann)


def test_cancelled_before(
    mbox: Make, held_pool: Any, message: MemoryMessage, root: Path, failure_of: Any
) -> None:
    """
    A delivery that is cancelled in time leaves nothing behind, not even a file.
    """
    backend = mbox(held_pool)
    [result] = backend.deliver(message, [ANN])

    result.cancel()
    held_pool.work()

    failure_of(result, CancelledError)
    assert [] == os.listdir(root)


def test_one_of_two_cancelled(
    mbox: Make,
    held_pool: Any,
    root: Path,
    failure_of: Any,
    success_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Cancelled while the mailbox is being marked: it is left out, and the other goes in.
    """
    backend = mbox(held_pool)
    [first] = backend.deliver(MemoryMessage(b"0\r\n"), [ANN])
    results = [backend.deliver(MemoryMessage(b"%d\r\n" % n), [ANN])[0] for n in (1, 2)]
    while not first.called:
        held_pool.jobs.pop(0)()
    fsync = os.fsync

    def cancel(descriptor: int) -> None:
        results[0].cancel()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", cancel)
    held_pool.work()

    failure_of(results[0], CancelledError)
    success_of(results[1])
    assert [b"0\n", b"2\n"] == stored(root)


def test_all_cancelled_meanwhile(
    mbox: Make,
    held_pool: Any,
    message: MemoryMessage,
    root: Path,
    failure_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    If nobody wants it any more once the mailbox is marked, the file is as it was, without a mark.
    """
    backend = mbox(held_pool)
    held_pool.work()
    (root / "ann").write_bytes(b"From x\n\nold\n")
    [result] = backend.deliver(message, [ANN])
    fsync = os.fsync

    def cancel(descriptor: int) -> None:
        result.cancel()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", cancel)
    held_pool.work()

    failure_of(result, CancelledError)
    assert b"From x\n\nold\n" == (root / "ann").read_bytes()
    assert [] == os.listxattr(root / "ann")


def test_cancelled_too_late(
    mbox: Make,
    held_pool: Any,
    message: MemoryMessage,
    root: Path,
    success_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Cancelled once it is being written: it is finished, and answered as if nothing had been said.
    """
    backend = mbox(held_pool)
    [result] = backend.deliver(message, [ANN])
    write = os.write

    def slow(descriptor: int, octets: bytes) -> int:
        if bytes(octets[:5]) == b"From ":
            result.cancel()
        return write(descriptor, octets)

    monkeypatch.setattr(os, "write", slow)
    held_pool.work()

    success_of(result)
    assert 1 == len(stored(root))


@pytest.mark.parametrize(
    "user", ["..", "../ann", "/etc", "a/b", "", ".ann", "a\0", "a\n", "ann.lock", "x" * 251]
)
def test_impossible(
    mbox: Make, message: MemoryMessage, root: Path, failure_of: Any, user: str
) -> None:
    """
    A local part is never a path, nor the lock of another mailbox: refused at RCPT, and at delivery
    too.
    """
    backend, mailbox = mbox(), Mailbox(user, "example.org")

    with pytest.raises(PermanentFailure) as refused:
        backend.verify(mailbox)
    [result] = backend.deliver(message, [mailbox])

    assert 553 == refused.value.reply.code
    failure_of(result, PermanentFailure)
    assert [] == os.listdir(root)


def test_verify_takes_anybody(mbox: Make, root: Path) -> None:
    """
    Who lives here is not its business; a mailbox need not exist, and is not looked for.
    """
    mbox().verify(ANN)
    assert [] == os.listdir(root)


def _symbolic(path: Path, other: Path) -> None:
    path.symlink_to(other)


def _hard(path: Path, other: Path) -> None:
    path.hardlink_to(other)


def _pipe(path: Path, other: Path) -> None:
    os.mkfifo(path)


def _directory(path: Path, other: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("plant", [_symbolic, _hard, _pipe, _directory])
def test_no_mailbox(
    mbox: Make,
    message: MemoryMessage,
    root: Path,
    tmp_path: Path,
    failure_of: Any,
    success_of: Any,
    plant: Callable[[Path, Path], None],
) -> None:
    """
    A symbolic link, a second name of a file, a pipe or a directory is no mailbox; nothing is
    written, and the others get their mail.
    """
    other = tmp_path / "other"
    other.write_bytes(b"secret\n")
    backend = mbox()
    plant(root / "ann", other)

    ann, bob = backend.deliver(message, [ANN, BOB])

    assert 451 == failure_of(ann, TemporaryFailure).value.reply.code
    success_of(bob)
    assert b"secret\n" == other.read_bytes()


class TestAsRoot:
    """
    The service is root, and the directory knows the users.
    """

    pytestmark = pytest.mark.usefixtures("as_root")

    #: Nobody's numbers.
    OWNER = evolve(ANN, uid=61234, gid=61235)

    def test_owner(self, mbox: Make, message: MemoryMessage, root: Path, success_of: Any) -> None:
        """
        A new file belongs to the user.
        """
        success_of(mbox().deliver(message, [self.OWNER])[0])

        seen = (root / "ann").stat()
        assert (61234, 61235) == (seen.st_uid, seen.st_gid)

    def test_group_of_the_directory(
        self, mbox: Make, message: MemoryMessage, root: Path, success_of: Any
    ) -> None:
        """
        In a directory that passes its group on, as Debian's /var/mail, the file has that group.
        """
        backend = mbox()
        os.chown(root, 0, 8)
        root.chmod(0o2775)

        success_of(backend.deliver(message, [self.OWNER])[0])

        seen = (root / "ann").stat()
        assert (61234, 8) == (seen.st_uid, seen.st_gid)

    def test_half_made(
        self, mbox: Make, message: MemoryMessage, root: Path, success_of: Any
    ) -> None:
        """
        An empty file of root is what a service left that died: it becomes the user's.
        """
        backend = mbox()
        (root / "ann").touch()

        success_of(backend.deliver(message, [self.OWNER])[0])

        assert 61234 == (root / "ann").stat().st_uid

    def test_of_somebody_else(
        self, mbox: Make, message: MemoryMessage, root: Path, failure_of: Any
    ) -> None:
        """
        The file of another user is no mailbox of this one.
        """
        backend = mbox()
        (root / "ann").touch()
        os.chown(root / "ann", 61299, 61299)

        [result] = backend.deliver(message, [self.OWNER])

        assert "451 4.2.0" == str(failure_of(result, TemporaryFailure).value.reply)[:9]
        assert b"" == (root / "ann").read_bytes()

    @pytest.mark.usefixtures("passable")
    def test_home(
        self, mbox: Make, message: MemoryMessage, tmp_path: Path, success_of: Any, failure_of: Any
    ) -> None:
        """
        In a home all is done as the user: what is made is his, and where he may not write, neither
        do we for him.
        """
        home, foreign = tmp_path / "home", tmp_path / "foreign"
        for path in (home, foreign):
            path.mkdir(0o700)
        os.chown(home, 61234, 61235)
        (home / "evil").symlink_to(foreign)
        owner = evolve(self.OWNER, home=str(home))

        success_of(mbox(template="{home}/mail/inbox").deliver(message, [owner])[0])
        [refused] = mbox(template="{home}/evil/inbox").deliver(message, [owner])

        assert {61234} == {path.stat().st_uid for path in home.glob("mail/**")}
        assert 1 == len(stored(home, "mail/inbox"))
        failure_of(refused, TemporaryFailure)
        assert [] == os.listdir(foreign)


def test_home_must_be_there(
    mbox: Make, message: MemoryMessage, tmp_path: Path, failure_of: Any
) -> None:
    """
    A home that is not there is more likely a mount that failed than a new user: it is not made.
    """
    mailbox = evolve(ANN, home=str(tmp_path / "home"))

    [result] = mbox(template="{home}/mail/inbox").deliver(message, [mailbox])

    failure_of(result, TemporaryFailure)
    assert not (tmp_path / "home").exists()


def test_stop_waits(mbox: Make, held_pool: Any, message: MemoryMessage, clock: Clock) -> None:
    """
    A stop waits for all deliveries that have been asked for.
    """
    backend = mbox(held_pool)
    results = [backend.deliver(message, [ANN])[0] for _ in range(2)]

    stopped = backend.stopService()

    assert not stopped.called
    held_pool.work()
    assert stopped.called
    assert all(result.called for result in results)
