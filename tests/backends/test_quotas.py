"""
Room in a mailbox, asked for and used by several threads and processes at the same time.
"""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from lmtpsvc.backends import maildirsize
from lmtpsvc.backends.maildirsize import Sums, read, recount
from lmtpsvc.backends.places import Place
from lmtpsvc.backends.quotas import PATIENCE, Quotas
from lmtpsvc.errors import DeliveryError
from lmtpsvc.quota import Quota
from lmtpsvc.replies import MAILBOX_FULL

ROOM_FOR_TEN = Quota(1000, 0)


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """
    A Maildir with nothing in it.
    """
    for name in ("tmp", "new", "cur"):
        (tmp_path / "ann" / name).mkdir(parents=True)
    return tmp_path / "ann"


@pytest.fixture
def place(inbox: Path) -> Place:
    return Place(str(inbox), str(inbox), str(inbox.parent))


@pytest.fixture
def pauses() -> list[float]:
    """
    The seconds that somebody has waited for a lock.
    """
    return []


@pytest.fixture
def quotas(clock: Clock, pauses: list[float]) -> Quotas:
    return Quotas(MAILBOX_FULL, 0o600, clock.seconds, pauses.append)


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """
    The Maildirs that were counted.
    """
    seen: list[str] = []

    def counted(inbox: str, *args: Any, **kwargs: Any) -> Sums:
        seen.append(os.path.basename(inbox))
        return recount(inbox, *args, **kwargs)

    monkeypatch.setattr(maildirsize, "recount", counted)
    return seen


@pytest.fixture
def says(inbox: Path, clock: Clock) -> Callable[..., None]:
    """
    ``says("1000S\\n500 5\\n", age=60)``: what maildirsize says, and since when.
    """

    def says(text: str, age: float = 0) -> None:
        path = inbox / "maildirsize"
        path.write_text(text)
        os.utime(path, (clock.seconds() - age,) * 2)

    return says


def has_room(quotas: Quotas, place: Place, octets: int, quota: Quota = ROOM_FOR_TEN) -> bool:
    """
    Whether a message of that size would be taken.
    """
    try:
        quotas.check(place, quota, octets)
    except DeliveryError as error:
        if error.reply != MAILBOX_FULL:
            raise
        return False
    return True


class TestCheck:
    @pytest.mark.parametrize(("octets", "room"), [(0, True), (500, True), (501, False)])
    def test_room(
        self, quotas: Quotas, place: Place, says: Any, scans: list[str], octets: int, room: bool
    ) -> None:
        """
        What the file says decides, and nothing is counted; a mailbox may be filled to the brim.
        """
        says("1000S\n500 5\n")

        assert room == has_room(quotas, place, octets)
        assert [] == scans

    @pytest.mark.parametrize(("there", "room"), [(999, True), (1000, False)])
    def test_unknown_size(
        self, quotas: Quotas, place: Place, says: Any, there: int, room: bool
    ) -> None:
        """
        Where the client does not say how large the message is, only a full mailbox is refused.
        """
        says(f"1000S\n{there} 5\n")

        assert room == has_room(quotas, place, 0)

    @pytest.mark.parametrize(("there", "room"), [(9, True), (10, False)])
    def test_messages(
        self, quotas: Quotas, place: Place, says: Any, there: int, room: bool
    ) -> None:
        """
        The number of messages counts too, whatever their size.
        """
        says(f"10C\n1 {there}\n")

        assert room == has_room(quotas, place, 0, Quota(0, 10))

    @pytest.mark.parametrize(
        ("text", "age"),
        [
            ("1000S\n1000 5\n", 900),  # counted, but long ago
            ("1000S\n900 5\n100 1\n", 0),  # not counted, but added up
            ("1000S\n1000 5", 0),
            ("nonsense\n", 0),
            ("2000S\n0 0\n", 0),  # another quota
            ("1000S\n" + "100 1\n" * 1000, 0),
            (None, 0),
        ],
    )
    @pytest.mark.parametrize("full", [False, True])
    def test_counted_again(
        self,
        quotas: Quotas,
        place: Place,
        inbox: Path,
        says: Any,
        scans: list[str],
        text: str | None,
        age: float,
        full: bool,
    ) -> None:
        """
        A file that is missing or wrong, or says "no room" without being sure, is made anew; nobody
        is refused without a count.
        """
        if text is not None:
            says(text, age)
        (inbox / "new" / "1.a,S=200").touch()
        if full:
            (inbox / "cur" / "2.b,S=750:2,S").touch()

        assert (not full) == has_room(quotas, place, 100)
        assert ["ann"] == scans
        there = b"950 2" if full else b"200 1"
        assert b"1000S\n" + there + b"\n" == (inbox / "maildirsize").read_bytes()

        # Which is then believed; the file is as old as the machine's clock says.
        os.utime(inbox / "maildirsize", (1_700_000_000,) * 2)
        assert (not full) == has_room(quotas, place, 100)
        assert ["ann"] == scans

    def test_nobody(self, quotas: Quotas, place: Place, inbox: Path, tmp_path: Path) -> None:
        """
        A mailbox that is not there yet is empty, and is not made.
        """
        nobody = Place(f"{tmp_path}/bob", f"{tmp_path}/bob", f"{tmp_path}")

        assert has_room(quotas, nobody, 1000)
        assert not has_room(quotas, nobody, 1001)
        assert [inbox] == list(tmp_path.iterdir())

    def test_folder(self, quotas: Quotas, place: Place, inbox: Path, says: Any) -> None:
        """
        A folder has no quota of its own: that of the INBOX counts.
        """
        says("1000S\n950 5\n")
        folder = Place(f"{inbox}/.lists", f"{inbox}", f"{inbox.parent}")

        assert not has_room(quotas, folder, 100)
        assert ["new"] == [path.name for path in inbox.iterdir() if path.name == "new"]


class TestReserve:
    def test_on_its_way(self, quotas: Quotas, place: Place, says: Any) -> None:
        """
        Room that is reserved is not given to somebody else, until it is known to be free.
        """
        says("1000S\n500 5\n")
        first = quotas.reserve(place, ROOM_FOR_TEN, 500)
        assert not has_room(quotas, place, 1)

        first.end()
        assert has_room(quotas, place, 500)

    def test_success(self, quotas: Quotas, place: Place, inbox: Path, says: Any) -> None:
        """
        One line is added, once, when the message is there.
        """
        says("1000S\n500 5\n")
        reservation = quotas.reserve(place, ROOM_FOR_TEN, 200)
        assert b"1000S\n500 5\n" == (inbox / "maildirsize").read_bytes()

        for _ in range(2):
            reservation.hold()
            reservation.end(delivered=True)
        assert b"1000S\n500 5\n200 1\n" == (inbox / "maildirsize").read_bytes()

    def test_failure(self, quotas: Quotas, place: Place, inbox: Path, says: Any) -> None:
        """
        A delivery that failed leaves the sums as they were.
        """
        says("1000S\n500 5\n")
        reservation = quotas.reserve(place, ROOM_FOR_TEN, 200)
        reservation.hold()
        reservation.end()
        reservation.end(delivered=True)

        assert b"1000S\n500 5\n" == (inbox / "maildirsize").read_bytes()

    def test_nothing_is_kept(self, quotas: Quotas, place: Place, says: Any) -> None:
        """
        Of mailboxes for which nothing is under way, nothing is kept: neither memory nor descriptors.
        """
        descriptors = len(os.listdir("/proc/self/fd"))
        says("1000S\n950 5\n")
        with pytest.raises(DeliveryError):
            quotas.reserve(place, ROOM_FOR_TEN, 200)
        reservation = quotas.reserve(place, ROOM_FOR_TEN, 10)
        reservation.hold()
        reservation.hold()
        assert descriptors + 1 == len(os.listdir("/proc/self/fd"))

        reservation.end(delivered=True)
        assert {} == quotas._accounts
        assert descriptors == len(os.listdir("/proc/self/fd"))

    def test_line_cannot_be_written(
        self, quotas: Quotas, place: Place, says: Any, break_call: Callable[..., None]
    ) -> None:
        """
        The message is delivered all the same, and the log says what is missing.
        """
        says("1000S\n500 5\n")
        reservation = quotas.reserve(place, ROOM_FOR_TEN, 200)
        break_call("write", "maildirsize", errno.ENOSPC)

        with capturedLogs() as log:
            reservation.end(delivered=True)

        assert ["error"] == [event["log_level"].name for event in log]


class TestLock:
    """
    A message is never both counted and added.
    """

    def test_shown_but_not_added(
        self, quotas: Quotas, place: Place, inbox: Path, clock: Clock
    ) -> None:
        """
        While a message is between the two, another process counts, but keeps the result to itself.
        """
        reservation = quotas.reserve(place, ROOM_FOR_TEN, 200)
        reservation.hold()
        (inbox / "new" / "1.a,S=200").touch()
        (inbox / "maildirsize").unlink()

        other = Quotas(MAILBOX_FULL, 0o600, clock.seconds)
        assert not has_room(other, place, 801)
        assert has_room(other, place, 800)
        assert not (inbox / "maildirsize").exists()
        # Nor is it counted twice by ourselves.
        assert has_room(quotas, place, 800)

        reservation.end(delivered=True)
        assert has_room(other, place, 800)
        assert b"1000S\n200 1\n" == (inbox / "maildirsize").read_bytes()

    def test_let_go(self, quotas: Quotas, place: Place, inbox: Path) -> None:
        """
        A message that is not shown after all is in nobody's way.
        """
        reservation = quotas.reserve(place, ROOM_FOR_TEN, 200)
        reservation.hold()
        reservation.let_go()
        (inbox / "maildirsize").unlink()

        assert not has_room(quotas, place, 801)
        assert b"1000S\n0 0\n" == (inbox / "maildirsize").read_bytes()

    def test_waits_for_the_count(
        self, quotas: Quotas, place: Place, inbox: Path, pauses: list[float]
    ) -> None:
        """
        A message is not shown while somebody counts; who never ends is not waited for.
        """
        reservation = quotas.reserve(place, ROOM_FOR_TEN, 200)
        descriptor = os.open(inbox, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with capturedLogs() as log:
            reservation.hold()
        os.close(descriptor)
        reservation.end(delivered=True)

        assert PATIENCE == pytest.approx(sum(pauses), abs=0.1)
        assert ["warn"] == [event["log_level"].name for event in log]

    def test_no_locks_here(
        self, quotas: Quotas, place: Place, inbox: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        On a file system without such locks, everything goes on without.
        """

        def flock(descriptor: int, kind: int) -> None:
            raise OSError(errno.EBADF, "Bad file descriptor")

        monkeypatch.setattr(fcntl, "flock", flock)
        reservation = quotas.reserve(place, ROOM_FOR_TEN, 200)
        reservation.hold()
        reservation.end(delivered=True)

        assert b"1000S\n0 0\n200 1\n" == (inbox / "maildirsize").read_bytes()

    def test_no_mailbox_any_more(self, quotas: Quotas, place: Place, inbox: Path) -> None:
        """
        A mailbox that was removed meanwhile has no sums.
        """
        reservation = quotas.reserve(place, ROOM_FOR_TEN, 200)
        inbox.rename(inbox.parent / "gone")
        with capturedLogs() as log:
            reservation.hold()
        reservation.end(delivered=True)

        assert ["warn"] == [event["log_level"].name for event in log]


#: Delivers, in its own process or thread: each message is shown, and charged later; every so many,
#: the file disappears, as when somebody else has found it wrong.
DELIVER = """
import os, sys, time
from lmtpsvc.backends.places import Place
from lmtpsvc.backends.quotas import Quotas
from lmtpsvc.errors import DeliveryError
from lmtpsvc.quota import Quota
from lmtpsvc.replies import MAILBOX_FULL

def deliver(quotas, inbox, name, times, quota, every):
    place, done = Place(inbox, inbox, os.path.dirname(inbox)), 0
    for number in range(times):
        try:
            room = quotas.reserve(place, quota, number)
        except DeliveryError:
            continue
        room.hold()
        open(f"{inbox}/new/{number}.{name},S={number}", "x").close()
        time.sleep(number % 3 * 0.002)
        room.end(delivered=True)
        done += 1
        if number % every == 2:
            try:
                os.unlink(f"{inbox}/maildirsize")
            except FileNotFoundError:
                pass
    return done
"""


class TestTogether:
    @pytest.mark.parametrize("every", [1000, 7])
    def test_threads(self, place: Place, inbox: Path, says: Any, every: int) -> None:
        """
        However many threads deliver, no more gets in than there is room for, and the sums are what
        is there.  Where the sums have to be counted while a message is being shown, it may be one
        too many for each thread: better than one sent back.
        """
        says("50C\n0 0\n")
        scope: dict[str, Any] = {}
        exec(DELIVER, scope)
        quotas, quota, done = Quotas(MAILBOX_FULL, 0o600, lambda: 0.0), Quota(0, 50), list[int]()
        threads = [
            threading.Thread(
                target=lambda name=name: done.append(
                    scope["deliver"](quotas, place.inbox, name, 20, quota, every)
                )
            )
            for name in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sum(done) == len(list((inbox / "new").iterdir()))
        assert 50 <= sum(done) <= 55
        assert not has_room(quotas, place, 0, quota)
        self.is_right(inbox, quota)

    def test_processes(self, inbox: Path) -> None:
        """
        Three processes deliver to one mailbox: at the end, the file says what is there.
        """
        words = f"""{DELIVER}
quotas = Quotas(MAILBOX_FULL, 0o600, time.time)
sys.stdin.read(1)
print(deliver(quotas, {str(inbox)!r}, sys.argv[1], 120, Quota(10**9), 7))
"""
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", words, str(number)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            for number in range(3)
        ]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("x")
            process.stdin.flush()
        said = [process.communicate(timeout=100)[0] for process in processes]

        assert ["120\n"] * 3 == said
        self.is_right(inbox, Quota(10**9))

    @staticmethod
    def is_right(inbox: Path, quota: Quota) -> None:
        """
        If there is a file, it says what is there.
        """
        there = recount(str(inbox), quota, 0o600, store=False)
        record = read(str(inbox))
        if record is None:
            # It was removed, and nobody has needed it since.
            assert not (inbox / "maildirsize").exists()
        else:
            assert there == record.sums
