"""
The queue: what was added is there until it has arrived, and nobody has it twice.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import select
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from lmtpsvc.backends.sql.engine import parse
from lmtpsvc.backends.sql.stopping import STOP_SECONDS
from lmtpsvc.client import address
from lmtpsvc.delivery.report import Action
from lmtpsvc.envelope import (
    Client,
    DeliverBy,
    Envelope,
    OriginalRecipient,
    Recipient,
    Sender,
    ValidSince,
)
from lmtpsvc.errors import TemporaryFailure
from lmtpsvc.relay import ledger, tables
from lmtpsvc.relay.entries import Entry, State
from lmtpsvc.relay.ledger import New
from lmtpsvc.relay.parameters import dump, load
from lmtpsvc.relay.queue import IN_MEMORY, Queue
from lmtpsvc.testing import MemoryMessage

Success = Callable[[Any], Any]


def nothing(_entry: Entry, _text: object) -> list[New]:
    raise AssertionError("nobody is to be told anything")


def table_sizes(queue: Queue) -> list[int]:
    with queue._engine.connect() as connection:
        return [
            len(connection.execute(select(table)).all())
            for table in (tables.message, tables.text, tables.recipient)
        ]


class TestAdding:
    def test_comes_back(self, any_bench: Any, words: Any, success_of: Success) -> None:
        """
        What was added is claimed as it was: envelope, parameters, size, and every octet.
        """
        queue = any_bench.queue()
        sender = words.sender("jörg@example.net", RET="HDRS", ENVID="a b", SMTPUTF8=True, SIZE=5)
        to = [
            Recipient(
                address("ann@example.org"),
                {
                    "NOTIFY": frozenset({"DELAY", "FAILURE"}),
                    "ORCPT": OriginalRecipient("rfc822", "Ann@x"),
                },
            ),
            Recipient(address('"b b"@example.org')),
        ]
        id = success_of(queue.add(sender, to, words.text))

        (entry,), following = success_of(queue.claim(10))

        assert following is None or following == any_bench.clock.seconds() + queue.lease
        assert entry.id == id
        assert entry.sender == Sender(
            sender.address, {"RET": "HDRS", "ENVID": "a b", "SMTPUTF8": True}
        )
        assert [each.recipient for each in entry.recipients] == to
        assert entry.size == len(words.text)
        assert entry.is_ascii
        assert entry.arrived == any_bench.clock.seconds()
        text = success_of(queue.open_text(entry))
        assert text.open().read() == words.text
        text.close()

    def test_null_sender(self, bench: Any, words: Any, success_of: Success) -> None:
        """
        A report has no sender, and is none the less kept.
        """
        queue = bench.queue()
        success_of(queue.add(words.sender(""), words.recipients("ann@example.org"), b""))
        (entry,), _ = success_of(queue.claim(10))

        assert entry.sender.address is None
        assert entry.size == 0

    def test_what_arrived(self, bench: Any, words: Any, success_of: Success) -> None:
        """
        A message that came over SMTP keeps its id and its Received, and loses its Return-Path; some
        of its recipients may be left out.
        """
        queue = bench.queue()
        to = tuple(words.recipients("ann@example.org", "bob@example.org"))
        trace = b"Return-Path: <me@example.net>\r\nReceived: from x\r\n\tby y\r\n"
        message = MemoryMessage(
            trace + words.text,
            id="0123456789abcdef",
            envelope=Envelope(words.sender(), to, Client("192.0.2.1")),
            trace=trace,
        )

        assert success_of(queue.add_message(message, to[1:])) == "0123456789abcdef"
        (entry,), _ = success_of(queue.claim(10))
        assert [str(each.recipient) for each in entry.recipients] == ["bob@example.org"]
        with success_of(queue.open_text(entry)) as stored:
            text = stored.open().read()
        assert text == b"Received: from x\r\n\tby y\r\n" + words.text

    @pytest.mark.parametrize("octets", [0, 1, ledger.PIECE - 1, ledger.PIECE, 3 * ledger.PIECE + 7])
    def test_sizes(self, octets: int, bench: Any, words: Any, success_of: Success) -> None:
        """
        Texts of any size, around the ends of pieces, come back; two may read at a time.
        """
        queue = bench.queue()
        written = bytes(n % 251 for n in range(octets))
        success_of(queue.add(words.sender(), words.recipients("a@b.c"), written))
        (entry,), _ = success_of(queue.claim(1))
        text = success_of(queue.open_text(entry))
        first, second = text.open(), text.open()
        text.close()

        assert first.read(7) == written[:7]
        assert second.read() == written
        assert first.read() == written[7:]
        assert first.seek(0, 2) == octets
        assert entry.is_ascii == written.isascii()
        first.close()
        second.close()
        assert (octets > IN_MEMORY) == (octets > ledger.PIECE)

    def test_nobody(self, bench: Any, words: Any) -> None:
        """
        A message is for somebody.
        """
        with pytest.raises(ValueError, match="no recipients"):
            bench.queue().add(words.sender(), [], words.text)

    def test_not_stored(
        self, bench: Any, words: Any, failure_of: Callable[..., Failure], success_of: Success
    ) -> None:
        """
        A file that breaks off refuses its message, and nothing of it is left; the next one is taken.
        """
        queue = bench.queue()

        class Broken(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                octets = super().read(10)
                if not octets:
                    raise OSError(5, "Input/output error")
                return octets

        adding = queue.add(words.sender(), words.recipients("a@b.c"), lambda: Broken(words.text))

        assert failure_of(adding).check(TemporaryFailure)
        assert table_sizes(queue) == [0, 0, 0]
        success_of(queue.add(words.sender(), words.recipients("a@b.c"), words.text))

    def test_share_a_commit(
        self,
        bench: Any,
        words: Any,
        no_result: Callable[[Any], None],
        success_of: Success,
        failure_of: Callable[..., Failure],
    ) -> None:
        """
        What comes while a transaction is on its way goes into the next, together; if one of them
        fails, the others do not.
        """
        queue, (pool,) = bench.queue(), bench.pools
        pool.is_held = True
        begun: list[object] = []
        adding = [
            queue.add(words.sender(), words.recipients("a@b.c"), words.text, id=id)
            for id in ("one", "two", "two", "three")
        ]
        adding[0].addCallback(begun.append)

        assert len(pool.jobs) == 1
        for each in adding:
            no_result(each)
        pool.jobs.pop(0)()
        assert begun == ["one"]
        assert len(pool.jobs) == 1
        pool.work()
        assert success_of(adding[1]) == "two"
        assert failure_of(adding[2]).check(TemporaryFailure)
        assert success_of(adding[3]) == "three"

    def test_tells(self, bench: Any, words: Any, success_of: Success) -> None:
        """
        Who delivers hears of what was added, once it is there.
        """
        queue = bench.queue()
        heard: list[int] = []
        queue.when_added(lambda: heard.append(table_sizes(queue)[0]))
        success_of(queue.add(words.sender(), words.recipients("a@b.c"), words.text))

        assert heard == [1]


class TestClaims:
    def test_once(self, any_bench: Any, words: Any, success_of: Success) -> None:
        """
        What one relay has claimed another does not get, until the lease is over.
        """
        one, other = any_bench.queue(), any_bench.queue()
        for _ in range(3):
            success_of(one.add(words.sender(), words.recipients("a@b.c"), words.text))

        mine, _ = success_of(one.claim(2))
        theirs, following = success_of(other.claim(5))

        assert (len(mine), len(theirs)) == (2, 1)
        assert not {each.id for each in mine} & {each.id for each in theirs}
        assert following is not None
        any_bench.clock.advance(one.lease)
        assert len(success_of(other.claim(5))[0]) == 3

    def test_renewed(self, any_bench: Any, words: Any, success_of: Success) -> None:
        """
        Who renews keeps it; who comes too late is told what is lost.
        """
        one, other = any_bench.queue(), any_bench.queue()
        id = success_of(one.add(words.sender(), words.recipients("a@b.c"), words.text))
        success_of(one.claim(1))
        any_bench.clock.advance(one.lease - 1)
        assert success_of(one.renew([id])) == set()
        any_bench.clock.advance(one.lease - 1)
        assert success_of(other.claim(1))[0] == []

        any_bench.clock.advance(1)
        assert [each.id for each in success_of(other.claim(1))[0]] == [id]
        assert success_of(one.renew([id])) == {id}
        assert success_of(one.finish(id, nothing)) is None

    def test_due_order(self, bench: Any, words: Any, success_of: Success) -> None:
        """
        Who has waited longest is first, and who is not due is not there.
        """
        queue = bench.queue()
        ids = []
        for _ in range(3):
            ids.append(success_of(queue.add(words.sender(), words.recipients("a@b.c"), b"")))
            bench.clock.advance(1)

        assert [each.id for each in success_of(queue.claim(2))[0]] == ids[:2]


class TestRecording:
    def test_some(self, any_bench: Any, words: Any, success_of: Success) -> None:
        """
        Each recipient has its own state, and the message is due when the first of them is.
        """
        queue = any_bench.queue()
        now = any_bench.clock.seconds()
        to = words.recipients("a@b.c", "b@b.c", "c@b.c")
        id = success_of(queue.add(words.sender(), to, words.text))
        success_of(queue.claim(1))

        assert success_of(queue.record(id, [words.done(1, destination="x:25", server="mx")]))
        assert success_of(queue.record(id, [words.waits(0, now + 300), words.waits(2, now + 200)]))
        how = success_of(queue.finish(id, nothing))

        assert (how.is_over, how.due) == (False, now + 200)
        assert success_of(queue.claim(1)) == ([], now + 200)
        any_bench.clock.advance(200)
        (entry,), _ = success_of(queue.claim(1))
        assert [each.state for each in entry.recipients] == ["waiting", "done", "waiting"]
        assert [each.attempts for each in entry.recipients] == [1, 1, 1]
        assert entry.recipients[1].reply == "250 2.0.0 OK"
        assert entry.recipients[1].destination == "x:25"

    def test_all(self, any_bench: Any, words: Any, success_of: Success) -> None:
        """
        What has arrived everywhere is gone, with its text.
        """
        queue = any_bench.queue()
        id = success_of(queue.add(words.sender(), words.recipients("a@b.c"), words.text))
        success_of(queue.claim(1))
        success_of(queue.record(id, [words.done(0)]))

        assert success_of(queue.finish(id, nothing)).is_over
        assert table_sizes(queue) == [0, 0, 0]

    def test_lost_claim(self, bench: Any, words: Any, success_of: Success) -> None:
        """
        Who has lost a claim may still say that somebody has got it, and nothing else.
        """
        one, other = bench.queue(), bench.queue()
        to = words.recipients("a@b.c", "b@b.c", "c@b.c")
        id = success_of(one.add(words.sender(), to, words.text))
        success_of(one.claim(1))
        bench.clock.advance(one.lease)
        success_of(other.claim(1))

        late = [words.done(0), words.failed(1), words.waits(2, 5.0)]
        assert success_of(one.record(id, late)) is False
        (entry,) = success_of(one.read(lambda connection: ledger.read(connection, [id])))
        assert [each.state for each in entry.recipients] == ["done", "waiting", "waiting"]
        assert success_of(other.record(id, [words.failed(0)])) is True
        (entry,) = success_of(one.read(lambda connection: ledger.read(connection, [id])))
        assert entry.recipients[0].state is State.DONE

    def test_reports(self, any_bench: Any, words: Any, success_of: Success) -> None:
        """
        What the sender is to be told goes into the queue as the message leaves it.
        """
        queue = any_bench.queue()
        to = words.recipients("a@b.c", "b@b.c")
        id = success_of(queue.add(words.sender(), to, words.text))
        success_of(queue.claim(1))
        success_of(queue.record(id, [words.done(0), words.failed(1, report=Action.FAILED)]))

        def make(entry: Entry, text: Callable[[int], bytes]) -> list[New]:
            assert [each.report for each in entry.recipients] == [None, "failed"]
            back = words.recipients("me@example.net")
            return [New("bounce", Sender(None), tuple(back), lambda: io.BytesIO(text(7)))]

        how = success_of(queue.finish(id, make))
        (bounce,), _ = success_of(queue.claim(5))

        assert how.is_over
        assert [(id, str(to)) for id, to in how.reports] == [("bounce", "me@example.net")]
        assert bounce.id == "bounce"
        with success_of(queue.open_text(bounce)) as text:
            assert text.open().read() == b"Subject"

    def test_no_report_without_the_rest(
        self, bench: Any, words: Any, success_of: Success, failure_of: Callable[..., Failure]
    ) -> None:
        """
        If a report cannot be stored, the message is as it was, and the report still to be made.
        """
        queue = bench.queue()
        id = success_of(queue.add(words.sender(), words.recipients("a@b.c"), words.text))
        success_of(queue.claim(1))
        success_of(queue.record(id, [words.failed(0, report=Action.FAILED)]))

        def fails(_entry: Entry, _text: object) -> list[New]:
            raise OSError("no room")

        failure_of(queue.finish(id, fails))

        assert table_sizes(queue) == [1, 1, 1]
        bench.clock.advance(queue.lease)
        (entry,), _ = success_of(bench.queue().claim(1))
        assert entry.recipients[0].report is Action.FAILED


class TestTables:
    def test_are_what_is_made(self, any_bench: Any) -> None:
        """
        The newest migration leaves behind what `lmtpsvc.relay.tables` says.
        """
        from alembic.autogenerate import compare_metadata
        from alembic.runtime.migration import MigrationContext

        with any_bench.queue()._engine.connect() as connection:
            context = MigrationContext.configure(
                connection, opts={"version_table": tables.QUEUE.version_table}
            )
            assert compare_metadata(context, tables.metadata) == []

    def test_shared(self, tmp_path: Path) -> None:
        """
        A queue and a store of mail can be in one database.
        """
        from lmtpsvc.backends.sql import versions

        engine = parse(f"sqlite:///{tmp_path}/both.db").engine()
        assert versions.upgrade(engine)
        assert versions.upgrade(engine, tables.QUEUE)
        with engine.connect() as connection:
            versions.check(connection)
            versions.check(connection, tables.QUEUE)
        engine.dispose()

    def test_private(self, bench: Any, tmp_path: Path) -> None:
        """
        A new file, and what stands beside it, is for its owner alone.
        """
        bench.queue()
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("queue.db*")}
        assert "queue.db" in modes
        assert set(modes.values()) == {0o600}

    def test_nowhere(self, tmp_path: Path, bench: Any) -> None:
        """
        A directory that is not there is told in one line.
        """
        queue = Queue(parse(f"sqlite:///{tmp_path}/not/there.db"), bench.queue()._pool)
        with pytest.raises(ValueError, match=r"there\.db: No such file or directory$"):
            queue.privilegedStartService()
        queue.stopService()

    def test_none(self, tmp_path: Path, bench: Any) -> None:
        """
        Who does not make the tables is told how they are made.
        """
        queue = Queue(parse(f"sqlite:///{tmp_path}/other.db"), bench.queue()._pool, create=False)

        with pytest.raises(ValueError, match="no tables for a queue yet: run lmtpsvc queue create"):
            queue.privilegedStartService()
        queue.stopService()


class TestStop:
    def test_hangs(self, tmp_path: Path, sqlite_with: Callable[..., str]) -> None:
        """
        A database that hangs does not keep us from stopping.
        """

        class Busy:
            def stop(self) -> Deferred[None]:
                return Deferred()

        url, clock = sqlite_with(tables.QUEUE, tmp_path / "queue.db"), Clock()
        queue = Queue(parse(url), cast("Any", Busy()), clock=clock)
        queue.startService()
        stopped: list[object] = []
        queue.stopService().addCallback(stopped.append)
        clock.advance(STOP_SECONDS - 1)
        assert stopped == []
        clock.advance(1)
        assert stopped == [None]


class TestParameters:
    @pytest.mark.parametrize(
        "parameters",
        [
            {},
            {
                "BODY": "8BITMIME",
                "SMTPUTF8": True,
                "RET": "FULL",
                "ENVID": "x+y",
                "REQUIRETLS": True,
            },
            {"NOTIFY": frozenset({"NEVER"})},
            {"ORCPT": OriginalRecipient("utf-8", "jörg@example.org")},
            {"BY": DeliverBy(3600, is_returned=True)},
            {"RRVS": ValidSince(datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC), "R")},
            {"MT-PRIORITY": -3},
        ],
    )
    def test_come_back(self, parameters: dict[str, Any]) -> None:
        """
        Each as its extension has read it.
        """
        assert load(dump(parameters)) == parameters

    def test_not_kept(self) -> None:
        """
        What only concerned that one conversation is not passed on.
        """
        assert dump({"SIZE": 5, "XRESPCODES": True}) == ""
