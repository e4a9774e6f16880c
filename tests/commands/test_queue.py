"""
``lmtpsvc queue``.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lmtpsvc.__main__ import main as lmtpsvc
from lmtpsvc.backends.sql.engine import parse, writes
from lmtpsvc.client import address
from lmtpsvc.envelope import Recipient, Sender
from lmtpsvc.relay import ledger
from lmtpsvc.relay.entries import Entry, Result, State
from lmtpsvc.relay.ledger import New

TEXT = b"Subject: Hello\r\n\r\nHello\r\n"


class Queue:
    """
    The queue ``queue.db`` in the working directory, and the command for it.
    """

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        assert self("create") == 0
        self.engine = parse("sqlite:///queue.db").engine()

    def __call__(self, *words: str) -> int:
        return lmtpsvc(["queue", *words])

    def lines(self, *words: str) -> list[str]:
        """
        What the command prints.
        """
        self._capfd.readouterr()
        assert self(*words) == 0
        return self._capfd.readouterr().out.splitlines()

    def refusal(self, *words: str) -> str:
        """
        What it complains of.
        """
        self._capfd.readouterr()
        assert self(*words) == 1
        return self._capfd.readouterr().err

    def add(self, id: str, *to: str, sender: str = "me@example.net") -> None:
        recipients = tuple(Recipient(address(each)) for each in to)
        said = Sender(address(sender) if sender else None)
        with writes(self.engine.connect()) as connection, connection.begin():
            new = New(id, said, recipients, lambda: io.BytesIO(TEXT))
            ledger.create(connection, new, time.time())

    def claim(self) -> None:
        with writes(self.engine.connect()) as connection, connection.begin():
            now = time.time()
            ledger.claim(connection, "relay", now, now + 3600, 100)

    def record(self, id: str, *results: Result) -> None:
        with writes(self.engine.connect()) as connection, connection.begin():
            ledger.record(connection, "relay", id, results)

    def entries(self) -> dict[str, Entry]:
        with self.engine.connect() as connection:
            found = ledger.entries(connection, ledger.everything())
        return {each.id: each for each in found}

    def states(self) -> dict[str, str]:
        return {
            str(each.recipient): each.state.value
            for entry in self.entries().values()
            for each in entry.recipients
        }


@pytest.fixture
def queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Queue:
    monkeypatch.chdir(tmp_path)
    return Queue(capfd)


class TestLooking:
    def test_empty(self, queue: Queue) -> None:
        """
        An empty queue says so.
        """
        assert queue.lines("list") == ["The queue is empty."]
        assert queue.lines("list", "--json") == []

    def test_list(self, queue: Queue) -> None:
        """
        A line for each who has not got it, in columns.
        """
        queue.add("one", "ann@example.org", "bob@example.org")
        queue.add("two", "eve@example.com", sender="")
        queue.claim()
        queue.record(
            "one",
            Result(0, State.DONE, 0.0, "250 OK"),
            Result(1, State.WAITING, 0.0, "451 4.2.0 Later", due=time.time() + 300),
        )
        head, bob, eve, total = queue.lines("list")

        assert head.split()[:4] == ["ID", "ARRIVED", "SIZE", "SENDER"]
        assert bob.startswith("one")
        assert bob.endswith("451 4.2.0 Later")
        assert "<bob@example.org>" in bob
        assert "waiting" in bob
        assert "<>" in eve
        assert "active" in eve
        assert bob.index("<bob") == eve.index("<eve") == head.index("RECIPIENT")
        assert total == "2 messages of 50 octets, 2 recipients"

    @pytest.mark.parametrize(
        ("words", "found"),
        [
            (["--to", "example.com"], ["two"]),
            (["--to", "ANN@example.org"], ["one"]),
            (["--from", ""], ["two"]),
            (["--from", "me@example.net", "--to", "example.com"], []),
            (["two"], ["two"]),
            (["three"], []),
        ],
    )
    def test_some(self, queue: Queue, words: list[str], found: list[str]) -> None:
        """
        By sender, recipient, domain or id.
        """
        queue.add("one", "ann@example.org", "bob@example.org")
        queue.add("two", "eve@example.com", sender="")

        listed = [json.loads(line) for line in queue.lines("list", "--json", *words)]
        assert [each["id"] for each in listed] == found

    def test_json(self, queue: Queue) -> None:
        """
        For programs: a line for each message, with everything.
        """
        queue.add("one", "ann@example.org")
        (line,) = queue.lines("list", "--json")
        said = json.loads(line)

        assert (said["sender"], said["size"], said["active"]) == ("me@example.net", 25, False)
        assert said["recipients"][0]["state"] == "waiting"

    def test_show(self, queue: Queue) -> None:
        """
        All about one message, and its text.
        """
        queue.add("one", "ann@example.org")
        said = "\n".join(queue.lines("show", "one"))

        assert "<me@example.net>" in said
        assert "<ann@example.org>" in said
        assert "waiting" in said
        assert queue.lines("show", "--text", "one") == ["Subject: Hello", "", "Hello"]
        assert json.loads("".join(queue.lines("show", "--json", "one")))["id"] == "one"
        assert "two: there is no such message" in queue.refusal("show", "two")

    def test_terminal(self, queue: Queue) -> None:
        """
        What strangers write does nothing to a terminal.
        """
        queue.add("one", "ann@example.org")
        queue.claim()
        queue.record("one", Result(0, State.WAITING, 0.0, "451 \x1b[2J"))
        assert "\x1b" not in "".join(queue.lines("list"))


class TestChanging:
    def test_hold(self, queue: Queue) -> None:
        """
        Held ones are not due, and wait for nothing but their release.
        """
        queue.add("one", "ann@example.org", "eve@example.com")
        assert queue.lines("hold", "--to", "example.org") == ["1 recipient of 1 message held"]
        assert queue.states() == {"ann@example.org": "held", "eve@example.com": "waiting"}
        assert queue.lines("hold", "one") == ["1 recipient of 1 message held"]
        assert queue.entries()["one"].due is None

        assert queue.lines("release", "--all") == ["2 recipients of 1 message released"]
        assert set(queue.states().values()) == {"waiting"}
        due = queue.entries()["one"].due
        assert due is not None
        assert due <= time.time()

    def test_retry(self, queue: Queue) -> None:
        """
        Those who wait are due at once.
        """
        queue.add("one", "ann@example.org")
        queue.claim()
        later = time.time() + 3600
        queue.record("one", Result(0, State.WAITING, 0.0, "451 Later", due=later))
        with writes(queue.engine.connect()) as connection, connection.begin():
            ledger.finish(connection, "relay", "one", time.time(), lambda *_: [])
        assert queue.entries()["one"].due == later

        assert queue.lines("retry", "--all") == ["1 recipient of 1 message due now"]
        entry = queue.entries()["one"]
        assert entry.due is not None
        assert entry.due <= time.time()

    def test_delete(self, queue: Queue) -> None:
        """
        One recipient, or all; the rest of the queue stays.
        """
        queue.add("one", "ann@example.org", "eve@example.com")
        queue.add("two", "ann@example.org")
        assert queue.lines("delete", "one", "--to", "example.com") == [
            "1 recipient of 1 message deleted"
        ]
        assert [str(each.recipient) for each in queue.entries()["one"].recipients] == [
            "ann@example.org"
        ]
        queue.lines("delete", "one")
        assert list(queue.entries()) == ["two"]

    def test_while_it_is_delivered(self, queue: Queue) -> None:
        """
        A relay keeps what it has; who is held has got it if the server said so, and only then.
        """
        queue.add("one", "ann@example.org", "bob@example.org")
        queue.claim()
        before = queue.entries()["one"].due
        queue.lines("hold", "one")
        assert queue.entries()["one"].due == before
        queue.record("one", Result(0, State.DONE, 0.0, "250 OK"))
        queue.record("one", Result(1, State.WAITING, 0.0, "451 Later", due=5.0))
        assert queue.states() == {"ann@example.org": "done", "bob@example.org": "held"}

    def test_everything(self, queue: Queue) -> None:
        """
        Nobody deletes everything by saying nothing.
        """
        queue.add("one", "ann@example.org")
        assert "say --all" in queue.refusal("delete")
        assert list(queue.entries()) == ["one"]

    def test_missing(self, queue: Queue) -> None:
        """
        What is there is done, what is not is told.
        """
        queue.add("one", "ann@example.org")
        assert "two: there is no such message" in queue.refusal("hold", "one", "two")
        assert queue.states() == {"ann@example.org": "held"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["list", "--queue", "x"], "that is no URL"),
        (["list", "--queue", "sqlite:///other.db"], "there is no queue"),
        (["list", "--queue", "sqlite:////proc/nonexistent/queue.db"], "there is no queue"),
        (
            ["create", "--queue", "sqlite:////proc/nonexistent/queue.db"],
            "No such file or directory",
        ),
    ],
)
def test_mistakes(
    words: list[str], said: str, queue: Queue, capfd: pytest.CaptureFixture[str]
) -> None:
    """
    One line says what is wrong.
    """
    refusal: Callable[..., str] = queue.refusal
    assert said in refusal(*words)


def test_no_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """
    Where there is none, none is made, and nobody is told that it is empty.
    """
    monkeypatch.chdir(tmp_path)

    assert lmtpsvc(["queue", "list"]) == 1

    assert "queue.db: there is no queue" in capfd.readouterr().err
    assert [] == list(tmp_path.iterdir())
