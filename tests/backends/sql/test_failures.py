"""
Databases that refuse, lock, deadlock or are not there.
"""

from __future__ import annotations

import gc
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy import text as sql
from sqlalchemy.exc import OperationalError
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from lmtpsvc.backends.sql import engine as engines
from lmtpsvc.backends.sql.backend import SQLBackend
from lmtpsvc.backends.sql.engine import parse, what_is_not_safe, writes
from lmtpsvc.backends.sql.reading import Store, StoreError
from lmtpsvc.backends.sql.settings import from_words
from lmtpsvc.backends.sql.stopping import STOP_SECONDS
from lmtpsvc.backends.sql.versions import MAIL
from lmtpsvc.backends.sql.writing import Writing
from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import DeliveryError
from lmtpsvc.testing import MemoryMessage

from ...pools import HeldPool
from .conftest import Bench, outcome

TEXT = b"Subject: one\r\n\r\nOne.\r\n"


def code(result: object) -> str:
    """
    The reply's code and enhanced code, or what else it is.
    """
    return str(result.reply)[:9] if isinstance(result, DeliveryError) else str(result)


class TestOneFailsAlone:
    @pytest.fixture(autouse=True)
    def _short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engines, "LOCK_SECONDS", 1)

    @pytest.mark.parametrize("kind", ["postgresql", "mariadb"], indirect=True)
    def test_a_locked_mailbox(self, url: str, make_bench: Callable[..., Bench]) -> None:
        """
        Somebody's open transaction on one mailbox is 451 for that one only, and not for long.
        """
        bench = make_bench(url)
        bench.deliver(TEXT, "bob@example.org")
        with bench.engine.connect() as connection, connection.begin():
            connection.execute(
                sql("SELECT * FROM mailbox WHERE name = 'bob@example.org' FOR UPDATE")
            )
            begun = time.monotonic()
            found = bench.deliver(TEXT, "ann@example.org", "bob@example.org", "cid@example.org")
            took = time.monotonic() - begun

        assert ["None", "451 4.2.0", "None"] == list(map(code, found))
        assert took < 40
        assert [None] == bench.deliver(TEXT, "bob@example.org")
        assert [1, 2] == bench.uids("bob@example.org")

    @pytest.mark.parametrize("kind", ["postgresql", "mariadb"], indirect=True)
    def test_a_locked_mailbox_and_little_time(
        self, url: str, make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        So it is where a statement has less time than a lock usually has.
        """
        monkeypatch.setattr(engines, "LOCK_SECONDS", 5)
        bench = make_bench(url, timeout="2")
        bench.deliver(TEXT, "bob@example.org")
        with bench.engine.connect() as connection, connection.begin():
            connection.execute(
                sql("SELECT * FROM mailbox WHERE name = 'bob@example.org' FOR UPDATE")
            )
            found = bench.deliver(TEXT, "ann@example.org", "bob@example.org")

        assert ["None", "451 4.2.0"] == list(map(code, found))

    def test_a_locked_file(self, tmp_path: Path, make_bench: Callable[..., Bench]) -> None:
        """
        Who keeps SQLite's file locked keeps everybody waiting, and not for ever.
        """
        bench = make_bench(f"sqlite:///{tmp_path}/mail.db", timeout="1")
        other = parse(bench.url).engine()
        with writes(other.connect()) as connection, connection.begin():
            found = bench.deliver(TEXT, "ann@example.org", "bob@example.org")
        other.dispose()

        assert ["451 4.2.0"] * 2 == list(map(code, found))
        assert [None] == bench.deliver(TEXT, "ann@example.org")

    def test_among_other_messages(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Of several that share a commit, the one that fails is the one that is told so.
        """
        take = Writing._take

        def refuse(self: Writing, target: Any, *rest: Any) -> Any:
            if target.name.startswith("bad"):
                self._connection.execute(sql("SELECT nonsense FROM mailbox"))
            return take(self, target, *rest)

        monkeypatch.setattr(Writing, "_take", refuse)
        from lmtpsvc.backends.sql import failures

        monkeypatch.setitem(failures._POSTGRESQL, "42", failures._ODD)
        monkeypatch.setitem(failures._MARIADB, 1054, failures._ODD)
        names = ["ann@x", "bad@x", "bob@x", "ann@x"]
        results = [bench.begin(b"%d" % n, name)[0] for n, name in enumerate(names)]
        bench.pool.work()

        assert ["None", "451 4.3.0", "None", "None"] == [code(outcome(r)) for r in results]
        assert [1, 2] == bench.uids("ann@x")
        assert 3 == bench.count("content")

    def test_a_defect(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Whatever goes wrong inside of us, everybody is answered.
        """
        nothing: dict[str, object] = {}
        monkeypatch.setattr(Writing, "_boxes", lambda *_: nothing["there"])

        assert ["451 4.3.0"] * 2 == list(map(code, bench.deliver(TEXT, "ann@x", "bob@x")))


class TestCommit:
    def test_its_outcome_is_not_known(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        When COMMIT is not answered nothing is tried again: each is told "later", once.
        """
        commits = []

        def commit(connection: object) -> None:
            commits.append(connection)
            raise OperationalError("COMMIT", {}, Exception("gone"), connection_invalidated=True)

        monkeypatch.setattr(bench.engine.dialect, "do_commit", commit)
        results = [bench.begin(b"%d" % n, f"user{n}@x")[0] for n in range(3)]
        bench.pool.work()

        assert ["451 4.4.1"] * 3 == [code(outcome(r)) for r in results]
        assert 2 == len(commits), "one for the first, one for those that came meanwhile"
        monkeypatch.undo()
        assert [None] == bench.deliver(b"0", "user0@x")

    def test_a_cancelled_one_is_not_tried_again(self, bench: Bench) -> None:
        """
        All are called off: no transaction at all.
        """
        for result in bench.begin(TEXT, "ann@x", "bob@x"):
            result.cancel()
            outcome(result)
        bench.pool.work()

        assert 0 == bench.count("mailbox")


class TestAtTheSameTime:
    """
    Threads of this process stand for other processes: each has connections of its own.
    """

    def run(self, *jobs: Callable[[], object]) -> None:
        errors: list[BaseException] = []

        def work(job: Callable[[], object]) -> None:
            try:
                job()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []

    def test_the_same_text(self, bench: Bench, make_bench: Callable[..., Bench]) -> None:
        """
        One body, however many processes bring it at the same moment, in whatever order.
        """
        texts = [b"text %d" % n for n in range(20)]
        benches = [bench, *(make_bench(bench.url) for _ in range(3))]
        results: list[Deferred[Any]] = []

        def job(n: int) -> Callable[[], None]:
            def deliver() -> None:
                for text in texts[:: 1 if n % 2 else -1]:
                    results.extend(benches[n].begin(text, f"user{n}@x", "all@x"))
                    if n > 1:
                        benches[n].pool.work()
                benches[n].pool.work()

            return deliver

        self.run(*map(job, range(4)))

        assert {None} == {outcome(result) for result in results}
        assert 20 == bench.count("content") == bench.count("content_part")
        assert list(range(1, 81)) == bench.uids("all@x")
        assert sorted(texts * 4) == sorted(bench.texts("all@x"))

    def test_cleaning(self, bench: Bench, make_bench: Callable[..., Bench]) -> None:
        """
        Texts that come back while they are cleaned away are there when they are answered.
        """
        from datetime import timedelta

        other = make_bench(bench.url)
        done = threading.Event()
        removed = []

        def deliver() -> None:
            try:
                for n in range(150):
                    assert [None] == bench.deliver(b"text %d" % (n % 3), "ann@x")
                    (uid,) = bench.uids("ann@x")
                    assert b"text %d" % (n % 3) == bench.read("ann@x", uid)
                    assert 1 == bench.store.delete("ann@x", [uid])
            finally:
                done.set()

        def clean() -> None:
            while not done.wait(0.002):
                removed.append(other.store.remove_unreferenced(timedelta(0)).texts)

        self.run(deliver, clean)

        assert sum(removed) > 0


class TestAnotherFile:
    """
    SQLite goes on with the file that it has open, whatever becomes of its name.
    """

    def test_it_is_removed(self, tmp_path: Path, make_bench: Callable[..., Bench]) -> None:
        """
        Nothing is acknowledged that would be in a file without a name; and no empty one is made, as
        a copy may be on its way there.
        """
        bench = make_bench(f"sqlite:///{tmp_path}/mail.db")
        bench.deliver(TEXT, "ann@example.org")
        (tmp_path / "mail.db").rename(tmp_path / "away.db")

        assert ["451 4.4.1"] == list(map(code, bench.deliver(TEXT, "ann@example.org")))
        assert not (tmp_path / "mail.db").exists()
        with pytest.raises(StoreError, match="is not there any more"):
            bench.uids("ann@example.org")

        (tmp_path / "away.db").rename(tmp_path / "mail.db")
        assert [None] == bench.deliver(TEXT, "ann@example.org")
        assert [1, 2] == bench.uids("ann@example.org")

    def test_it_is_replaced(self, tmp_path: Path, make_bench: Callable[..., Bench]) -> None:
        """
        The log beside it is still that of the old one: nothing is written to the two of them.
        """
        other = make_bench(f"sqlite:///{tmp_path}/other.db")
        other.deliver(TEXT, "bob@example.org")
        other.close()
        bench = make_bench(f"sqlite:///{tmp_path}/mail.db")
        whole = (tmp_path / "other.db").read_bytes()
        (tmp_path / "other.db").rename(tmp_path / "mail.db")

        assert ["451 4.4.1"] == list(map(code, bench.deliver(TEXT, "bob@example.org")))
        with pytest.raises(StoreError, match="another file now: restart"):
            bench.uids("bob@example.org")
        bench.close()
        assert whole == (tmp_path / "mail.db").read_bytes()

    @pytest.mark.parametrize("beside", [("-wal",), ("-shm",), ("-wal", "-shm")])
    def test_what_is_beside_it_is_removed(
        self, beside: tuple[str, ...], tmp_path: Path, make_bench: Callable[..., Bench]
    ) -> None:
        """
        Nothing is acknowledged that would be in a log without a name, or with an index of its own.
        """
        bench = make_bench(f"sqlite:///{tmp_path}/mail.db")
        assert [None] == bench.deliver(TEXT, "ann@example.org")
        for name in beside:
            (tmp_path / f"mail.db{name}").unlink()

        for _ in range(2):
            assert ["451 4.4.1"] == list(map(code, bench.deliver(TEXT, "ann@example.org")))
        with pytest.raises(
            StoreError, match=rf"mail.db{beside[0]} was removed: restart the service"
        ):
            bench.uids("ann@example.org")
        bench.close()

        again = make_bench(f"sqlite:///{tmp_path}/mail.db")
        assert [None] == again.deliver(TEXT, "ann@example.org")
        assert [1, 2] == again.uids("ann@example.org")

    def test_the_log_is_saved(self, tmp_path: Path, make_bench: Callable[..., Bench]) -> None:
        """
        What was acknowledged before is in the file itself as soon as it is noticed that the log is
        gone, whatever becomes of the process.
        """
        bench = make_bench(f"sqlite:///{tmp_path}/mail.db")
        assert [None] == bench.deliver(TEXT, "ann@example.org")
        (tmp_path / "mail.db-wal").unlink()
        bench.deliver(TEXT, "ann@example.org")
        # Not by the last who closes it: the bench's store has it open, too.
        (tmp_path / "copy.db").write_bytes((tmp_path / "mail.db").read_bytes())

        assert [1] == make_bench(f"sqlite:///{tmp_path}/copy.db").uids("ann@example.org")


def test_a_lock_that_is_left(tmp_path: Path, make_bench: Callable[..., Bench]) -> None:
    """
    A lock of SQLite's own that the system has not taken back goes with the connection: the next
    delivery has a new one.
    """
    bench = make_bench(f"sqlite:///{tmp_path}/mail.db")
    left = [True]
    cursors: list[sqlite3.Cursor] = []

    @event.listens_for(bench.engine, "do_execute")
    def execute(cursor: sqlite3.Cursor, statement: str, *_: object) -> None:
        if left and statement.startswith("BEGIN"):
            cursors.append(cursor)
            error = sqlite3.OperationalError("locking protocol")
            error.sqlite_errorcode = sqlite3.SQLITE_PROTOCOL
            raise error

    @event.listens_for(bench.engine, "close")
    def close(*_: object) -> None:
        left.clear()

    assert ["451 4.4.1"] == list(map(code, bench.deliver(TEXT, "ann@example.org")))
    with pytest.raises(sqlite3.ProgrammingError, match="closed cursor"):
        cursors[0].execute("SELECT 'which would keep it open'")
    assert [None] == bench.deliver(TEXT, "ann@example.org")
    assert [1] == bench.uids("ann@example.org")


class TestNotThere:
    def backend(self, url: str) -> SQLBackend:
        return SQLBackend(from_words([url], {"timeout": "1"}), parse(url), HeldPool(), Clock())

    # PyMySQL leaves a socket that could not connect to the garbage collector.
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    @pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
    @pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
    def test_at_start(self, scheme: str, tmp_path: Path) -> None:
        """
        The service starts, and mail has to wait; a mailbox with a quota cannot be looked up.
        """
        where = {"postgresql": "?host=", "mysql": "?unix_socket="}[scheme]
        backend = self.backend(f"{scheme}://nobody@/mail{where}{tmp_path}/none")
        backend.startService()
        (result,) = backend.deliver(MemoryMessage(TEXT), [Mailbox("ann", "x")])
        backend._pool.work()  # type: ignore[attr-defined]  # held

        assert "451 4.4.1" == code(outcome(result))
        backend.stopService()
        gc.collect()

    def test_for_readers(self, tmp_path: Path) -> None:
        """
        They get an exception of ours.
        """
        with pytest.raises(StoreError):
            Store.at(f"postgresql://nobody@/mail?host={tmp_path}")


class TestStop:
    """
    A stop while the database is at work.
    """

    @pytest.fixture
    def url(self, tmp_path: Path, sqlite_with: Callable[..., str]) -> str:
        """
        One kind stands for all.
        """
        return sqlite_with(MAIL, tmp_path / "mail.db")

    def test_in_time(self, url: str, make_bench: Callable[..., Bench]) -> None:
        """
        What has been asked for comes to its end first.
        """
        bench = make_bench(url)
        (result,) = bench.begin(TEXT, "ann@x")
        stopped: list[object] = []
        bench.backend.stopService().addCallback(stopped.append)
        bench.clock.advance(STOP_SECONDS - 1)
        assert [] == stopped
        bench.pool.work()

        assert [None] == stopped
        assert None is outcome(result)
        assert [] == bench.clock.getDelayedCalls()

    def test_hangs(self, url: str, make_bench: Callable[..., Bench]) -> None:
        """
        One that hangs is left to itself.
        """
        bench = make_bench(url)
        bench.begin(TEXT, "ann@x")
        stopped: list[object] = []
        bench.backend.stopService().addCallback(stopped.append)
        with capturedLogs() as logs:
            bench.clock.advance(STOP_SECONDS)

        assert [None] == stopped
        assert ["mail.db does not answer" in str(formatEvent(each)) for each in logs] == [True]
        # It goes on after all, and nobody minds.
        bench.pool.work()


def test_is_safe(bench: Bench) -> None:
    """
    Nothing is wrong with a server's defaults.
    """
    with bench.engine.connect() as connection:
        assert [] == what_is_not_safe(connection)


def test_commits_are_synchronous(url: str, kind: str, make_bench: Callable[..., Bench]) -> None:
    """
    Whatever the default of a PostgreSQL database is; and SQLite syncs at each commit.
    """
    bench = make_bench(url)
    queries = {
        "sqlite": ("PRAGMA synchronous", 2),
        "postgresql": ("SHOW synchronous_commit", "on"),
        "mariadb": ("SELECT @@innodb_flush_log_at_trx_commit", 1),
    }
    query, expected = queries[kind]
    if kind == "postgresql":
        name = url.partition("?")[0].rpartition("/")[2]
        with bench.engine.connect() as connection, connection.begin():
            connection.execute(sql(f"ALTER DATABASE {name} SET synchronous_commit = off"))
        bench.engine.dispose()

    with bench.engine.connect() as connection:
        assert expected == connection.execute(sql(query)).scalar_one()
        if kind == "sqlite":
            assert "wal" == connection.execute(sql("PRAGMA journal_mode")).scalar_one()


def test_mariadb_that_forgets(mariadb: Any, make_bench: Callable[..., Bench]) -> None:
    """
    A server that does not sync at commit is told of at start.
    """
    bench = make_bench(mariadb.new())
    with bench.engine.connect() as connection:
        connection.execute(sql("SET GLOBAL innodb_flush_log_at_trx_commit = 2"))
        try:
            (line,) = what_is_not_safe(connection)
        finally:
            connection.execute(sql("SET GLOBAL innodb_flush_log_at_trx_commit = 1"))

    assert "innodb_flush_log_at_trx_commit is 2" in line
