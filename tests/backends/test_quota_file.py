"""
The file ``maildirsize``: what it may say, and what is counted when it does not say it.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from twisted.logger import capturedLogs

from lmtpsvc.backends import maildirsize
from lmtpsvc.backends.maildirsize import MOST_OCTETS, Record, Sums, append, parse, read, recount
from lmtpsvc.quota import Quota

from ..rows import each_row

QUOTA = Quota(1000, 10)

#: What a file says: quota, octets, messages, lines.
VALID = {
    b"1000S,10C\n0 0\n": (QUOTA, 0, 0, 1),
    b"10C,1000S\n0 0\n": (QUOTA, 0, 0, 1),
    b"1000S\n0 0\n": (Quota(1000), 0, 0, 1),
    b"10C\n0 0\n": (Quota(0, 10), 0, 0, 1),
    b"0S,0C\n0 0\n": (Quota(), 0, 0, 1),
    b"1000S,10C\n100 2\n50 1\n-20 -1\n": (QUOTA, 130, 2, 3),
    # Courier fills up with blanks.
    b"1000S,10C\n       100    2\n        50\t 1   \n": (QUOTA, 150, 3, 2),
    b"1000S,10C\r\n100 2\r\n": (QUOTA, 100, 2, 1),
    b"1000S,10C\n2000 20\n": (QUOTA, 2000, 20, 1),
    b"1000S,10C\n-100 -1\n100 1\n": (QUOTA, 0, 0, 2),
    b"9223372036854775807S\n9223372036854775807 1\n": (Quota(2**63 - 1), 2**63 - 1, 1, 1),
}

#: What has to be made anew.
INVALID = [
    b"",
    b"\n",
    b"1000S,10C\n",
    b"1000S,10C\n100 2",
    b"1000S,10C\n100 2\n\n",
    b"1000S,10C\n100\n",
    b"1000S,10C\n100 2 3\n",
    b"1000S,10C\n100,2\n",
    b"1000S,10C\nmany few\n",
    b"1000S,10C\n100 2\n-200 -1\n",
    b"1000S,10C\n100 2\n-50 -3\n",
    b"1000S,10C\n+100 2\n",
    b"1000S,10C\n1e3 2\n",
    b"1000\n100 2\n",
    b"1000S,,10C\n100 2\n",
    b"1000X\n100 2\n",
    b"-1000S\n100 2\n",
    b"1000S 10C\n100 2\n",
    b"100 2\n1000S,10C\n",
    b"\0" * 100,
    b"\xff\xfe\n100 2\n",
    "１０００S\n100 2\n".encode(),
    b"1000S,10C\n" + b"1 1\n" * 2000,
]


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """
    A Maildir with nothing in it.
    """
    for name in ("tmp", "new", "cur"):
        (tmp_path / "ann" / name).mkdir(parents=True)
    return tmp_path / "ann"


@each_row(("octets", "record"), VALID.items())
def test_valid(octets: bytes, record: tuple[Quota, int, int, int]) -> None:
    """
    The sum of all lines is what there is.
    """
    quota, total, messages, changes = record

    assert Record(quota, Sums(total, messages), changes, 7.0) == parse(octets, 7.0)


@each_row("octets", INVALID)
def test_invalid(octets: bytes) -> None:
    """
    A file that is cut off, wrong, too long, or negative in sum is not believed.
    """
    assert parse(octets) is None


@pytest.mark.parametrize(("length", "known"), [(MOST_OCTETS - 1, True), (MOST_OCTETS, False)])
def test_length(inbox: Path, length: int, known: bool) -> None:
    """
    A file of 5120 octets is made anew, whatever it says.
    """
    text = b"1000S,10C\n1 1".ljust(length - 1) + b"\n"
    (inbox / "maildirsize").write_bytes(text)

    assert known == (read(str(inbox)) is not None)


@pytest.mark.parametrize(
    ("changes", "age", "certain"), [(1, 0, True), (1, 899, True), (1, 900, False), (2, 0, False)]
)
def test_certain(changes: int, age: float, certain: bool) -> None:
    """
    "No room" is believed if it was counted within 15 minutes, and nothing has happened since.
    """
    assert certain == Record(QUOTA, Sums(), changes, 1000.0).is_certain(1000.0 + age)


def test_append(inbox: Path) -> None:
    """
    A change is one line at the end; no file is made for it.
    """
    append(str(inbox), Sums(50, 1))
    assert read(str(inbox)) is None

    (inbox / "maildirsize").write_bytes(b"1000S,10C\n100 2\n")
    append(str(inbox), Sums(50, 1))
    append(str(inbox), Sums(-100, -1))

    assert b"1000S,10C\n100 2\n50 1\n-100 -1\n" == (inbox / "maildirsize").read_bytes()


def test_one_call(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A line is written with one call, to the end wherever that is by then.
    """
    (inbox / "maildirsize").write_bytes(b"1000S,10C\n100 2\n")
    written, write = [], os.write

    def beside(descriptor: int, octets: bytes) -> int:
        written.append(octets)
        with (inbox / "maildirsize").open("ab") as other:
            other.write(b"7 1\n")
        return write(descriptor, octets)

    monkeypatch.setattr(os, "write", beside)
    append(str(inbox), Sums(50, 1))

    assert [b"50 1\n"] == written
    assert b"1000S,10C\n100 2\n7 1\n50 1\n" == (inbox / "maildirsize").read_bytes()


@pytest.mark.parametrize("kind", ["link", "pipe", "directory", "loop", "socket"])
def test_not_a_file(inbox: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Nobody is led elsewhere, or kept waiting, by what the owner of a mailbox puts there: what is in it
    is counted, and a file put in its place where that is possible.
    """
    path, elsewhere = inbox / "maildirsize", inbox.parent / "elsewhere"
    elsewhere.write_bytes(b"1000S,10C\n100 2\n")
    match kind:
        case "link":
            path.symlink_to(elsewhere)
        case "loop":
            path.symlink_to(path)
        case "pipe":
            os.mkfifo(path)
        case "socket":
            monkeypatch.chdir(inbox)
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind("maildirsize")
        case _:
            path.mkdir()

    with capturedLogs() as log:
        assert read(str(inbox)) is None
    assert (["warn"] if kind != "pipe" else []) == [event["log_level"].name for event in log]
    append(str(inbox), Sums(1, 1))
    assert b"1000S,10C\n100 2\n" == elsewhere.read_bytes()

    with capturedLogs() as log:
        assert Sums(0, 0) == recount(str(inbox), QUOTA, 0o600, store=True)
    assert (kind == "directory") == bool(log)
    assert (kind == "directory") == (read(str(inbox)) is None)


class TestRecount:
    def test_names(self, inbox: Path) -> None:
        """
        The size is that in the name, in cur and new of the INBOX and all folders; the file is
        looked at only where there is none.
        """
        for path in (
            "new/1.a.mx,S=100,W=110",
            "cur/2.b.mx,S=20:2,S",
            "cur/3.c.mx,W=9,S=3:2,FS",
            ".lists/new/4.d.mx,S=1000",
            ".lists.python/cur/5.e.mx,S=2000:2,T",
            ".Trash/cur/6.f.mx,S=5000:2,T",
        ):
            (inbox / path).parent.mkdir(parents=True, exist_ok=True)
            (inbox / path).write_bytes(b"other")
        (inbox / "new" / "7.g.mx").write_bytes(b"x" * 40_000)
        (inbox / "new" / "8.h,S=x").write_bytes(b"x" * 300_000)

        assert Sums(348_123, 8) == recount(str(inbox), QUOTA, 0o600, store=False)

    def test_not_counted(self, inbox: Path, tmp_path: Path) -> None:
        """
        What is in tmp, hidden, a directory or elsewhere is no mail of this mailbox.
        """
        (inbox / "tmp" / "1.a,S=1").touch()
        (inbox / "new" / ".hidden,S=1").touch()
        (inbox / "cur" / "directory").mkdir()
        (inbox / "lists" / "new").mkdir(parents=True)
        (inbox / "lists" / "new" / "1.a,S=1").touch()
        (inbox / ".sieve").touch()
        (inbox / ".linked").symlink_to(inbox / "lists")
        (inbox / ".odd").mkdir()
        (inbox / ".odd" / "new").touch()

        assert Sums(0, 0) == recount(str(inbox), QUOTA, 0o600, store=False)

    def test_nothing_yet(self, tmp_path: Path) -> None:
        """
        A Maildir that is not there holds nothing, and is not made.
        """
        assert Sums() == recount(str(tmp_path / "nobody"), QUOTA, 0o600, store=True)
        assert [] == list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("quota", "first"),
        [(QUOTA, b"1000S,10C"), (Quota(1000), b"1000S"), (Quota(0, 10), b"10C")],
    )
    def test_stored(self, inbox: Path, quota: Quota, first: bytes) -> None:
        """
        What was counted is the only line of a new file, with the mode of a message.
        """
        (inbox / "new" / "1.a,S=100").touch()
        (inbox / "maildirsize").write_bytes(b"broken")

        recount(str(inbox), quota, 0o640, store=True)

        assert first + b"\n100 1\n" == (inbox / "maildirsize").read_bytes()
        assert 0o640 == (inbox / "maildirsize").stat().st_mode & 0o777
        record = read(str(inbox))
        assert record is not None
        assert quota == record.quota
        assert [] == list((inbox / "tmp").iterdir())

    @pytest.mark.parametrize("change", ["add", "remove", "move", "folder"])
    def test_changed_meanwhile(
        self, inbox: Path, change: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        A count during which something changed is not written down.
        """
        there = inbox / "new" / "1.a,S=100"
        there.touch()
        os.utime(inbox / "new", (1, 1))
        count = maildirsize._count

        def meanwhile(directories: dict[str, int]) -> Sums:
            match change:
                case "add":
                    (inbox / "cur" / "2.b,S=1").touch()
                case "remove":
                    there.unlink()
                case "move":
                    there.rename(inbox / "cur" / "1.a,S=100:2,S")
                case "folder":
                    (inbox / ".lists" / "new").mkdir(parents=True)
            return count(directories)

        monkeypatch.setattr(maildirsize, "_count", meanwhile)
        recount(str(inbox), QUOTA, 0o600, store=True)

        assert not (inbox / "maildirsize").exists()
        assert [] == list((inbox / "tmp").iterdir())

    def test_goes_meanwhile(self, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A file or a folder that goes while it is looked at does not count.
        """
        (inbox / ".lists" / "new").mkdir(parents=True)
        (inbox / "new" / "1.a").touch()
        before = maildirsize._changed(str(inbox))
        (inbox / ".lists" / "new").rmdir()
        scandir = os.scandir

        def scan(path: str) -> object:
            found = scandir(path)
            (inbox / "new" / "1.a").unlink(missing_ok=True)
            return found

        monkeypatch.setattr(os, "scandir", scan)

        assert Sums(0, 0) == maildirsize._count(before)

    def test_cannot_be_stored(self, inbox: Path) -> None:
        """
        Without a place for the new file, the count is known all the same, and the log says why.
        """
        (inbox / "new" / "1.a,S=100").touch()
        (inbox / "tmp").rmdir()

        with capturedLogs() as log:
            assert Sums(100, 1) == recount(str(inbox), QUOTA, 0o600, store=True)

        assert ["warn"] == [event["log_level"].name for event in log]
