"""
The store, as a reader of mail sees it.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from lmtpsvc.backends.sql.reading import NoSuchMailboxError, NoSuchMessageError
from lmtpsvc.testing import MemoryMessage, envelope

from .conftest import Bench

ANN = "ann@example.org"


class TestLooking:
    def test_mailboxes(self, bench: Bench) -> None:
        """
        By name, with their sums.
        """
        assert [] == bench.store.mailboxes()
        bench.deliver(b"12345", "bob@example.org", ANN)

        assert [ANN, "bob@example.org"] == [box.name for box in bench.store.mailboxes()]
        box = bench.store.mailbox(ANN)
        assert (box.uidnext, box.messages, box.octets) == (2, 1, 5)
        with pytest.raises(NoSuchMailboxError):
            bench.store.mailbox("nobody")

    def test_messages_in_pages(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        All of them, however many pages that are; or those behind the last that was seen.
        """
        monkeypatch.setattr("lmtpsvc.backends.sql.reading._PAGE", 2)
        for n in range(5):
            bench.deliver(b"%d" % n, ANN)

        assert [1, 2, 3, 4, 5] == bench.uids(ANN)
        assert [4, 5] == [message.uid for message in bench.store.messages(ANN, 3)]
        assert [] == list(bench.store.messages("nobody"))

    def test_one_message(self, bench: Bench) -> None:
        """
        One message is asked for by mailbox and UID; where there is none, that is said.
        """
        bench.deliver(b"Subject: hello\r\n\r\n", ANN)

        assert "hello" == bench.store.message(ANN, 1).subject
        for name, uid in ((ANN, 2), ("nobody", 1)):
            with pytest.raises(NoSuchMessageError):
                bench.store.message(name, uid)
            with pytest.raises(NoSuchMessageError):
                bench.store.open(name, uid)

    def test_reading_a_little(self, bench: Bench) -> None:
        """
        A file like any other: lines, a few octets, the end.
        """
        bench.deliver(b"one\r\ntwo\r\n" + b"x" * 600_000, ANN)
        with bench.store.open(ANN, 1) as file:
            assert (b"one\r\n", b"two\r\n") == (file.readline(), file.readline())
            assert b"x" * 600_000 == file.read()
            assert b"" == file.read()

    def test_removed_meanwhile(self, bench: Bench) -> None:
        """
        What is gone before it was read is an error, not an empty message.
        """
        from datetime import timedelta

        bench.deliver(b"x" * 600_000, ANN)
        with bench.store.open(ANN, 1) as file:
            bench.store.delete(ANN, [1])
            bench.store.remove_unreferenced(timedelta(0))
            with pytest.raises(OSError, match="removed"):
                file.read()
        with bench.store.open(ANN, _again(bench)) as file:
            file.read(300_000)
            bench.store.delete(ANN, [2])
            bench.store.remove_unreferenced(timedelta(0))
            with pytest.raises(OSError, match="removed"):
                file.read()


def _again(bench: Bench) -> int:
    bench.deliver(b"x" * 600_000, ANN)
    return bench.uids(ANN)[-1]


class TestChanging:
    def test_flags(self, bench: Bench) -> None:
        """
        Are those that were set last, exactly.
        """
        bench.deliver(b"x", ANN, "bob@example.org")
        for flags in ({"\\Seen", "\\Flagged"}, {"\\Seen"}, {"\\Seen"}, set(), {"keyword"}):
            bench.store.set_flags(ANN, 1, flags)
            assert flags == bench.store.message(ANN, 1).flags
        assert frozenset() == bench.store.message("bob@example.org", 1).flags

    @pytest.mark.parametrize("flags", [["a b"], [""], ["x" * 256]])
    def test_no_flags(self, bench: Bench, flags: list[str]) -> None:
        """
        A word that cannot be a flag is refused, and so is a message that is not there.
        """
        bench.deliver(b"x", ANN)
        with pytest.raises(ValueError):
            bench.store.set_flags(ANN, 1, flags)
        with pytest.raises(NoSuchMessageError):
            bench.store.set_flags(ANN, 2, [])

    def test_delete(self, bench: Bench) -> None:
        """
        UIDs are not given again, and the sums are right.
        """
        for n in range(4):
            bench.deliver(b"x" * n, ANN)

        assert 2 == bench.store.delete(ANN, [2, 4, 4, 99])
        assert 0 == bench.store.delete("nobody", [1])
        bench.deliver(b"again", ANN)

        assert [1, 3, 5] == bench.uids(ANN)
        assert (3, 7) == bench.sums(ANN)

    def test_append(self, bench: Bench) -> None:
        """
        Mail from elsewhere keeps its date and flags, and shares its text.
        """
        bench.deliver(b"text", ANN)
        then = datetime(2001, 2, 3, 4, 5, 6, 7, UTC)
        message = MemoryMessage(b"text", envelope=envelope("bob@x", sender="eve@x"))

        assert 1 == bench.store.append("bob@x", message, then, ["\\Seen"])
        row = bench.store.message("bob@x", 1)
        assert (row.received, row.flags, row.sender, row.recipient) == (
            then,
            frozenset({"\\Seen"}),
            "eve@x",
            "bob@x",
        )
        assert 1 == bench.count("content")
        assert [b"text"] == bench.texts("bob@x")
