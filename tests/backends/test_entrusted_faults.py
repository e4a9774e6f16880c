"""
What the process that stores messages has not done, or nobody knows of: each is stored once, or called
off, and all are answered.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.python.failure import Failure

import lmtpsvc
from lmtpsvc.backends.disk_writer import DiskWriter
from lmtpsvc.backends.disk_writer_start import PROGRAM
from lmtpsvc.backends.letters import (
    NOTHING,
    SAFE,
    SHOWN,
    UNKNOWN,
    Letter,
    Outcome,
    Receipt,
    pack_letter,
    unpack_receipt,
)
from lmtpsvc.backends.maildir import MaildirBackend
from lmtpsvc.backends.names import Names
from lmtpsvc.backends.places import Place
from lmtpsvc.backends.posting import Posting
from lmtpsvc.backends.settings import from_words
from lmtpsvc.commitment import Commitment
from lmtpsvc.envelope import Mailbox
from lmtpsvc.testing import MemoryMessage

PACKAGE: Final = Path(lmtpsvc.__file__).parent

ANN, BOB = USERS = [Mailbox(user, "example.org") for user in ("ann", "bob")]

#: What stat(2) says of another disk; and of nothing else.
ELSEWHERE: Final = 4711

ONE, TWO = (MemoryMessage(f"{word}\r\n".encode(), id=word) for word in ("1", "2"))


class HeldProcess:
    """
    Keeps what it is sent, until it is told what has become of it; there is *room* for so many.
    """

    told: Any = None

    def __init__(self) -> None:
        self.sent: list[Posting] = []
        self.is_there = True
        self.room = 100
        self.error: Exception | None = None

    @property
    def is_idle(self) -> bool:
        return not self.sent

    def send(self, posting: Posting, *_: Any, **__: Any) -> bool:
        if self.error is not None:
            raise self.error
        if len(self.sent) >= self.room:
            return False
        self.sent.append(posting)
        return True

    def tell(self, what: int) -> None:
        """
        The same has become of all.
        """
        sent, self.sent = self.sent, []
        self.told([(posting, what, []) for posting in sent], Receipt([], None, None, 0))

    def allow(self) -> None:
        pass

    def stop(self) -> None:
        pass


@pytest.fixture
def process() -> HeldProcess:
    return HeldProcess()


@pytest.fixture
def backend(
    root: Path, held_pool: Any, clock: Clock, process: HeldProcess, at_once: None
) -> MaildirBackend:
    """
    A backend whose mailboxes are in use.
    """
    settings = from_words(f"{root}/{{domain}}/{{user}}", {})
    names = Names("mx.example.org", clock.seconds)
    process.is_there = False
    backend = MaildirBackend(settings, held_pool, names, clock, process)  # type: ignore[arg-type]
    backend.startService()
    for _ in range(2):
        backend.deliver(MemoryMessage(b"0\r\n"), USERS)
        held_pool.work()
    process.is_there = True
    return backend


@pytest.fixture
def texts(root: Path) -> Callable[[Mailbox], str]:
    """
    ``texts(ANN)``: what her mail says, but for the first two.
    """

    def texts(mailbox: Mailbox) -> str:
        maildir = root / mailbox.domain / mailbox.user
        found = "".join(sorted(path.read_text().strip() for path in maildir.glob("[cn]*/*")))
        assert found.startswith("00")
        return found[2:]

    return texts


Texts = Callable[[Mailbox], str]


def test_what_was_taken_back_can_be_called_off(
    backend: MaildirBackend, process: HeldProcess, held_pool: Any, texts: Texts
) -> None:
    """
    The process has not begun, and whoever else is to store it hangs as well: nothing is stored behind
    the deadline.
    """
    (result,) = backend.deliver(ONE, [ANN])
    process.tell(NOTHING)

    result.cancel()
    held_pool.work()

    assert isinstance(_failure(result), CancelledError)
    assert "" == texts(ANN)


def test_called_off_while_the_process_has_it(
    backend: MaildirBackend, process: HeldProcess, held_pool: Any, texts: Texts
) -> None:
    """
    That is of no use as long as it may be stored, but as soon as that is known.
    """
    one, two = (backend.deliver(message, [ANN])[0] for message in (ONE, TWO))
    one.cancel()
    assert not one.called
    process.tell(NOTHING)
    assert isinstance(_failure(one), CancelledError)

    held_pool.work()
    assert two.called
    assert "2" == texts(ANN)


@pytest.mark.parametrize("is_called_off", [False, True])
@pytest.mark.parametrize("folder", ["", "new", "cur"])
def test_nobody_knows(
    folder: str,
    is_called_off: bool,
    backend: MaildirBackend,
    process: HeldProcess,
    held_pool: Any,
    texts: Texts,
    root: Path,
) -> None:
    """
    The process has ended.  What is there is told of; the rest is stored again, unless it was called
    off meanwhile.
    """
    (result,) = backend.deliver(ONE, [ANN])
    (posting,) = process.sent
    source = Path(posting.tmp)
    source.write_bytes(b"1\r\n")
    if folder == "new":
        source.rename(posting.new(posting.targets[0]))
    elif folder == "cur":
        source.rename(root / ANN.domain / ANN.user / "cur" / f"{posting.name}:2,S")
    if is_called_off:
        result.cancel()
    process.tell(UNKNOWN)
    held_pool.work()

    assert result.called
    is_stored = bool(folder) or not is_called_off
    assert is_stored == (_failure(result) is None)
    assert ("1" if is_stored else "") == texts(ANN)
    assert not source.exists()


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("folder", ["new", "cur"])
@pytest.mark.parametrize("what", [UNKNOWN, SHOWN])
def test_file_that_had_no_name(
    what: int,
    folder: str,
    fails: bool,
    backend: MaildirBackend,
    process: HeldProcess,
    held_pool: Any,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Nobody has waited for it since it has one: without a journal, the disk has a deleted file, whatever
    its directory says.  So it is synced, once for all who have it, and before anybody is told.
    """
    real = os.fsync
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        if fails and os.path.basename(synced[-1]).startswith(posting.name):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    results = backend.deliver(ONE, [ANN, BOB])
    (posting,) = process.sent
    first, second = posting.targets
    os.close(os.open(posting.new(first), os.O_CREAT, 0o600))
    os.link(posting.new(first), posting.new(second))
    files = {posting.new(first), posting.new(second)}
    if folder == "cur":
        cur = f"{root}/{ANN.domain}/{ANN.user}/cur/{posting.name}:2,S"
        os.rename(posting.new(first), cur)
        files.add(cur)
    process.tell(what)
    held_pool.work()

    if fails:
        assert all(_failure(result) is not None for result in results)
        assert 2 == len(files & set(synced))
    else:
        assert all(_failure(result) is None for result in results)
        directories = {f"{target.place.directory}/new" for target in (first, second)}
        assert synced[0] in files
        assert directories == set(synced[1:])


@pytest.mark.parametrize("is_left", [False, True])
def test_removed_before_it_is_synced(
    is_left: bool,
    backend: MaildirBackend,
    process: HeldProcess,
    held_pool: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    A mail reader has moved, or removed, what has been found: it has been delivered.
    """
    real = os.path.lexists
    looks: list[str] = []

    def lexists(path: str) -> bool:
        found = real(path)
        if path == shown:
            looks.append(path)
            if found and len(looks) == 2:
                os.rename(path, read) if is_left else os.unlink(path)
        return found

    (result,) = backend.deliver(ONE, [ANN])
    (posting,) = process.sent
    (target,) = posting.targets
    shown, read = posting.new(target), f"{target.place.directory}/cur/{posting.name}:2,S"
    Path(shown).write_bytes(b"1\r\n")
    monkeypatch.setattr(os.path, "lexists", lexists)
    process.tell(UNKNOWN)
    held_pool.work()

    assert 3 == len(looks)
    assert _failure(result) is None
    assert is_left is os.path.exists(read)
    assert not os.path.exists(shown)


def test_nobody_knows_what_the_disk_has_lost(
    backend: MaildirBackend, process: HeldProcess, root: Path
) -> None:
    """
    It may have been told of, once, to the process that has ended: a wait that is over later does not
    make directories safe that were made before.
    """
    inbox = f"{root}/example.org/cy"
    place = Place(inbox, inbox, f"{root}/example.org")
    known = backend._places.look(place)
    backend.deliver(ONE, [ANN])
    process.tell(UNKNOWN)

    assert not backend._places.take_for_safe(place, known)


def test_what_waits_for_room_can_be_called_off(
    backend: MaildirBackend, process: HeldProcess
) -> None:
    """
    Nothing of it has been sent.
    """
    process.room = 1
    first, second, third = (
        backend.deliver(message, [ANN])[0] for message in (ONE, TWO, MemoryMessage(b"3\r\n"))
    )
    second.cancel()
    assert isinstance(_failure(second), CancelledError)
    process.tell(SAFE)
    assert first.called
    process.tell(SAFE)
    assert third.called


def test_one_disk_at_a_time(
    backend: MaildirBackend, process: HeldProcess, held_pool: Any, texts: Texts
) -> None:
    """
    What is for another disk than that which the process may be hanging on goes another way.
    """
    known = backend._places._known[backend.where(BOB)]
    here, known.device = known.device, ELSEWHERE
    backend._haste._seen[ELSEWHERE] = backend._haste._seen[here]
    backend.deliver(ONE, [ANN])
    (two,) = backend.deliver(TWO, [BOB])
    assert 1 == len(process.sent)
    held_pool.work()
    assert two.called
    assert "2" == texts(BOB)

    process.tell(SAFE)
    backend._places._known[backend.where(BOB)].device = ELSEWHERE
    backend.deliver(TWO, [BOB])
    backend.deliver(ONE, [ANN])
    assert [BOB] == [posting.written_to.mailbox for posting in process.sent]


@pytest.mark.parametrize("error", [OSError("too long"), ValueError("unmarshallable object")])
def test_a_letter_that_cannot_be_sent(
    error: Exception, backend: MaildirBackend, process: HeldProcess, held_pool: Any, texts: Texts
) -> None:
    """
    It goes another way, and what has been told at the same time is not forgotten for it.
    """
    process.room = 1
    one, two = (backend.deliver(message, [ANN])[0] for message in (ONE, TWO))
    process.error = error
    process.tell(SAFE)
    assert one.called
    held_pool.work()

    assert _failure(two) is None
    assert "2" == texts(ANN)


def _failure(result: Commitment) -> BaseException | None:
    """
    What *result*, which is there, has failed with, if it has.
    """
    assert result.called
    failures: list[BaseException] = []

    def fail(failure: Failure) -> None:
        assert failure.value is not None
        failures.append(failure.value)

    result.addErrback(fail)
    return failures[0] if failures else None


# ── the process itself ───────────────────────────────────────────────────────────────────────────


@pytest.fixture
def letter(tmp_path: Path) -> Letter:
    """
    One message for one mailbox, which is there.
    """
    for name in ("tmp", "new", "cur"):
        (tmp_path / "ann" / name).mkdir(parents=True)
    new = os.stat(tmp_path / "ann/new")
    names = [f"{tmp_path}/ann/{folder}/1.mx" for folder in ("tmp", "new")]
    return Letter(
        1, new.st_dev, False, 0, 3, 0o600, None, None, names[0], names[1:], inode=new.st_ino
    )


def run(letters: list[Letter], check: Callable[[], object] = lambda: None) -> dict[int, Outcome]:
    """
    Run the program with *letters*, which are there together; returns what has become of each.
    """
    rounds = [letters]
    receipts: list[Receipt] = []

    def receive(seconds: float | None) -> list[Letter] | None:
        return rounds.pop() if rounds else None if seconds is None else []

    DiskWriter(receive, receipts.append, memoryview(b"1\r\n"), check).run()
    return {each.number: each for receipt in receipts for each in receipt.outcomes}


def test_another_maildir_of_that_name(letter: Letter, tmp_path: Path) -> None:
    """
    It may have been restored from a backup: nobody has waited for its directories, so the disk may not
    have them.
    """
    assert SAFE == run([letter])[1].what
    (tmp_path / "ann").rename(tmp_path / "gone")
    for name in ("tmp", "new", "cur"):
        (tmp_path / "ann" / name).mkdir(parents=True)

    assert SHOWN == run([letter])[1].what
    assert os.path.exists(letter.new[0])


@pytest.mark.parametrize("together", [False, True])
def test_the_service_has_gone(letter: Letter, together: bool, tmp_path: Path) -> None:
    """
    Nobody was told, and whoever has sent the message sends it again: it is not shown.
    """

    def check() -> None:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        run([letter._replace(together=together)], check)

    assert [] == os.listdir(tmp_path / "ann/new")


@pytest.mark.parametrize("together", [False, True])
def test_letters_of_a_service_that_has_gone(letter: Letter, together: bool, tmp_path: Path) -> None:
    """
    They are still there, and nothing comes of them.
    """
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    answers, its_answers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # As with a default timeout for sockets.
    its.setblocking(False)
    its_answers.setblocking(False)
    with its, answers, its_answers, TemporaryFile() as memory:
        memory.write(b"1\r\n")
        memory.flush()
        ours.send(pack_letter(letter._replace(together=together)))
        ours.close()
        subprocess.run(
            [sys.executable, *PROGRAM, str(memory.fileno()), "3"],
            stdin=its.fileno(),
            stdout=its_answers.fileno(),
            pass_fds=[memory.fileno()],
            check=True,
        )
        assert Receipt([], None, None, 0) == unpack_receipt(answers.recv(1000))

    assert [] == os.listdir(tmp_path / "ann/new")


@pytest.mark.parametrize("together", [False, True])
def test_a_path_that_cannot_be(letter: Letter, together: bool) -> None:
    """
    A letter with such a path comes back undone, and the others are stored.
    """
    impossible = letter._replace(
        number=2, tmp=letter.tmp.replace("/tmp/", "/tmp\0/"), together=together
    )
    assert NOTHING == run([impossible])[2].what

    outcomes = run([impossible, letter])
    assert {1: SAFE, 2: NOTHING} == {number: each.what for number, each in outcomes.items()}


@pytest.mark.parametrize("environment", [{}, {"LC_ALL": "C"}, {"PYTHONUTF8": "1"}])
def test_paths_mean_the_same(environment: dict[str, str]) -> None:
    """
    The program hears nothing of what is in the environment for Python, but it encodes paths as the
    service does.
    """
    say = "import sys; print(sys.getfilesystemencoding(), sys.getfilesystemencodeerrors())"
    service = (
        "import subprocess, sys; from lmtpsvc.backends.disk_writer_start import PROGRAM;"
        f"words = list(PROGRAM[:-2]) + [{say!r}];"
        f"print(subprocess.check_output([sys.executable, *words], text=True), end='');{say}"
    )
    said = subprocess.check_output(
        [sys.executable, "-c", service],
        text=True,
        env=environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    program, us = said.splitlines()
    assert us == program


def test_nothing_of_the_standard_library_is_shadowed(tmp_path: Path) -> None:
    """
    Where the package is, there are others: one may be called like a module that the program needs.
    """
    (tmp_path / "typing.py").write_text("raise ImportError('the wrong one')")
    (tmp_path / "lmtpsvc").symlink_to(PACKAGE)
    words = [*PROGRAM[:-1], os.fspath(tmp_path), "-1", "0"]
    ended = subprocess.run(
        [sys.executable, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    # It is as far as that there is no such socket.
    assert "in main" in ended.stderr
    assert "the wrong one" not in ended.stderr
