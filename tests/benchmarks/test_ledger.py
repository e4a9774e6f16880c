from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.ledger import BEFORE, DOMAIN, Findings, Ledger, mailbox
from benchmarks.text import text_of


def store(root: Path, number: int, user: int, name: str = "", cut: int = 0) -> Path:
    """
    Put a message into a mailbox, without its last octets.
    """
    new = root / DOMAIN / mailbox(user) / "new"
    new.mkdir(parents=True, exist_ok=True)
    text = text_of(1024)
    octets = text.header(number) + bytes(text.body[:-3]).replace(b"..A line", b".A line", 1)
    octets = octets.replace(b"\r\n", b"\n")
    path = new / (name or str(number))
    path.write_bytes(octets[: len(octets) - cut])
    return path


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """
    Message 1 is acknowledged for users 1 and 2, who have it.
    """
    path = store(tmp_path, 1, 1)
    second = tmp_path / DOMAIN / mailbox(2) / "new"
    second.mkdir(parents=True)
    os.link(path, second / "1")
    return Ledger(entries={(1, 1), (1, 2)})


class TestCompare:
    def test_good(self, tmp_path: Path, ledger: Ledger) -> None:
        """
        All is there; a file may have a name in each mailbox.
        """
        found = ledger.compare(tmp_path)

        assert found.good
        assert found == Findings(acknowledged=2, missing=0, twice=0, damaged=0, extra=0)

    def test_missing(self, tmp_path: Path, ledger: Ledger) -> None:
        """
        What was acknowledged and is not there is missing, also where there is no mailbox.
        """
        (tmp_path / DOMAIN / mailbox(2) / "new" / "1").unlink()
        ledger.entries.add((1, 9))

        found = ledger.compare(tmp_path)

        assert not found.good
        assert found.missing == 2

    def test_twice(self, tmp_path: Path, ledger: Ledger) -> None:
        """
        What is there twice is seen.
        """
        store(tmp_path, 1, 1, name="again")

        found = ledger.compare(tmp_path)

        assert not found.good
        assert found.twice == 1

    def test_extra(self, tmp_path: Path, ledger: Ledger) -> None:
        """
        So is what nobody was told of.
        """
        store(tmp_path, 2, 1)

        found = ledger.compare(tmp_path)

        assert not found.good
        assert found.extra == 1

    def test_damaged(self, tmp_path: Path, ledger: Ledger) -> None:
        """
        Half a message is none.
        """
        store(tmp_path, 1, 1, cut=20)

        found = ledger.compare(tmp_path)

        assert not found.good
        assert found.damaged == 2  # one file, with two names

    def test_before(self, tmp_path: Path, ledger: Ledger) -> None:
        """
        What was there before is not counted.
        """
        store(tmp_path, 8, 1, name="8" + BEFORE)

        assert ledger.compare(tmp_path).good
