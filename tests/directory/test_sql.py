"""
Those who live here stand in a database: one that answers, is slow, is dead, and comes back.
"""

from __future__ import annotations

import importlib
import socket
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from twisted.internet.defer import CancelledError, Deferred, execute, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from zope.interface import implementer
from zope.interface.verify import verifyObject

from lmtpsvc.directory.cache import Cache
from lmtpsvc.directory.query import Query
from lmtpsvc.directory.rows import NoAnswer
from lmtpsvc.directory.sql import MOST_WAITING, SqlDirectory, SqlUsersFactory
from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import DeliveryError
from lmtpsvc.interfaces import IDirectory, IDirectoryFactory, ITellsSince
from lmtpsvc.quota import Quota, quota_of
from lmtpsvc.replies import CANNOT_LOOK_UP, NO_SUCH_USER
from lmtpsvc.specs import directory_from_string

ANN, BOB = Mailbox("ann", "example.org"), Mailbox("bob", "example.org")

BY_NAME = "SELECT user, domain, quota_octets FROM users WHERE user = :user AND domain = :domain"

#: Who is listed; then aliases; then whoever takes what is left.
EVERYTHING = """
SELECT u.user, u.domain, u.quota_octets, u.backend FROM users u
  WHERE u.user = :user AND u.domain = :domain
UNION SELECT u.user, u.domain, u.quota_octets, u.backend FROM aliases a
  JOIN users u ON u.user || '@' || u.domain = a.target WHERE a.address = :address
UNION SELECT u.user, u.domain, u.quota_octets, u.backend FROM aliases a
  JOIN users u ON u.user || '@' || u.domain = a.target WHERE a.address = '@' || :domain
    AND NOT EXISTS (SELECT 1 FROM users WHERE user = :user AND domain = :domain)
    AND NOT EXISTS (SELECT 1 FROM aliases WHERE address = :address)
ORDER BY 1;
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """
    A database with Ann and Bob, and some aliases.
    """
    path = tmp_path / "users.db"
    with sqlite3.connect(path) as database:
        database.executescript(
            """
            CREATE TABLE users (user, domain, quota_octets, backend);
            INSERT INTO users VALUES ('ann', 'example.org', 1000, NULL);
            INSERT INTO users VALUES ('bob', 'example.org', NULL, 'archive');
            CREATE TABLE aliases (address, target);
            INSERT INTO aliases VALUES ('staff@example.org', 'ann@example.org');
            INSERT INTO aliases VALUES ('staff@example.org', 'bob@example.org');
            INSERT INTO aliases VALUES ('@example.net', 'bob@example.org');
            """
        )
    database.close()
    return path


@pytest.fixture
def query(path: Path) -> Iterator[Callable[..., Query]]:
    """
    ``query(sql)``: of the database in the file.
    """
    made: list[Query] = []

    def query(statement: str, seconds: float = 5.0) -> Query:
        made.append(Query(f"sqlite:///{path}", statement, 2, seconds))
        return made[-1]

    yield query
    for each in made:
        each.close()


class TestQuery:
    def test_rows(self, query: Callable[..., Query]) -> None:
        """
        The columns of a row by their names, in lower case.
        """
        asked = query("SELECT user AS User, quota_octets FROM users WHERE domain = :domain;")

        rows = asked.rows(ANN)
        assert [
            {"user": "ann", "quota_octets": 1000},
            {"user": "bob", "quota_octets": None},
        ] == rows
        assert [] == asked.rows(Mailbox("ann", "example.net"))

    def test_parameters(self, query: Callable[..., Query]) -> None:
        """
        The parts of the address are values, whatever stands in them.
        """
        asked = query("SELECT :user AS a, :domain AS b, :detail AS c, :address AS d")
        nasty = Mailbox("a'; DROP TABLE users; --", "example.org", "lists")

        assert [*asked.rows(nasty)[0].values()] == [
            nasty.user,
            "example.org",
            "lists",
            f"{nasty.user}@example.org",
        ]

    def test_too_many(self, query: Callable[..., Query]) -> None:
        """
        A query without WHERE would send one mail to everybody.
        """
        numbers = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT {})"
        assert 1000 == len(query(f"{numbers.format(1000)} SELECT x AS user FROM n").rows(ANN))
        with pytest.raises(NoAnswer, match="more than 1,000 rows"):
            query(f"{numbers.format(1001)} SELECT x AS user FROM n").rows(ANN)

    @pytest.mark.parametrize(
        "statement", ["SELECT nothing FROM users", "SELEKT", "SELECT 1; SELECT 2"]
    )
    def test_broken(self, query: Callable[..., Query], statement: str) -> None:
        """
        What the database does not like is told, in one line and without the values.
        """
        with pytest.raises(NoAnswer) as caught:
            query(statement).rows(ANN)

        assert "\n" not in str(caught.value)
        assert "example.org" not in str(caught.value)

    def test_replaced(self, query: Callable[..., Query], path: Path) -> None:
        """
        Another file that is put in place is asked at once, and one that is gone not at all.
        """
        asked = query(BY_NAME)
        assert asked.rows(ANN)
        other = path.with_name("other.db")
        with sqlite3.connect(other) as database:
            database.execute("CREATE TABLE users (user, domain, quota_octets, backend)")
        database.close()
        other.rename(path)
        assert [] == asked.rows(ANN)

        path.unlink()
        with pytest.raises(NoAnswer, match="not there any more"):
            asked.rows(ANN)
        assert not path.exists()

    def test_locked(self, query: Callable[..., Query], path: Path) -> None:
        """
        A database that somebody has locked is waited for as long as was said; then it is there again.
        """
        asked = query(BY_NAME, 0.05)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(NoAnswer, match="database is locked"):
            asked.rows(ANN)

        other.rollback()
        other.close()
        assert 1 == len(asked.rows(ANN))

    def test_gone(self, query: Callable[..., Query], path: Path) -> None:
        """
        A file that disappears is not made again, empty, and everybody's mail bounced.
        """
        asked = query(BY_NAME)
        path.rename(path.with_suffix(".old"))
        with pytest.raises(NoAnswer, match="unable to open"):
            asked.rows(ANN)
        assert not path.exists()

        path.with_suffix(".old").rename(path)
        assert 1 == len(asked.rows(ANN))

    @pytest.mark.parametrize("kind", ["postgresql", "mysql"])
    def test_nobody_listens(self, kind: str) -> None:
        """
        A server that is not there is told at once, without the password.
        """
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            url = f"{kind}://ann:secret@127.0.0.1:{taken.getsockname()[1]}/users"
            asked = Query(url, BY_NAME, 1, 2)
            with pytest.raises(NoAnswer) as caught:
                asked.rows(ANN)
        asked.close()

        assert "secret" not in str(caught.value) + str(asked)

    def test_silent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A server that takes the connection and says nothing is given up.
        """
        monkeypatch.setattr("lmtpsvc.directory.query.SERVER_FIRST_SECONDS", 0)
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            asked = Query(f"mysql://ann@127.0.0.1:{silent.getsockname()[1]}/users", BY_NAME, 1, 0.5)
            with pytest.raises(NoAnswer):
                asked.rows(ANN)
            asked.close()


class TestOperators:
    """
    A whole query: users, aliases, a catch-all.
    """

    @pytest.mark.parametrize(
        ("address", "found"),
        [
            ("ann@example.org", ["ann@example.org"]),
            ("staff@example.org", ["ann@example.org", "bob@example.org"]),
            ("anybody@example.net", ["bob@example.org"]),
            ("anybody@example.org", []),
        ],
    )
    def test_everything(
        self,
        query: Callable[..., Query],
        clock: Clock,
        success_of: Any,
        address: str,
        found: list[str],
    ) -> None:
        """
        Each finds whom he should, with quota and backend.
        """
        directory = SqlDirectory(query(EVERYTHING), Spot(), clock, Cache(0, 0, clock.seconds), 5)
        user, _, domain = address.partition("@")
        asked = Deferred.fromCoroutine(reply(directory, Mailbox(user, domain)))
        answer = success_of(asked)

        if not found:
            assert answer == NO_SUCH_USER
            return
        assert found == [str(mailbox) for mailbox in answer]
        for mailbox in answer:
            if mailbox.user == "ann":
                assert quota_of(mailbox) == Quota(1000)
            else:
                assert {"backend": "archive"} == mailbox.attributes


# ── without a database ───────────────────────────────────────────────────────────────────────────


class Spot:
    """
    A pool that does each job at once, or keeps it until it is told to go on.
    """

    def __init__(self) -> None:
        self.is_stuck, self.stopped = False, False
        self.left: list[tuple[Deferred[Any], Callable[[], Any]]] = []

    def submit(self, job: Callable[[], Any]) -> Deferred[Any]:
        if not self.is_stuck:
            return execute(job)
        self.left.append((Deferred(), job))
        return self.left[-1][0]

    def go_on(self) -> None:
        self.is_stuck = False
        left, self.left = self.left, []
        for ended, job in left:
            execute(job).chainDeferred(ended)

    def stop(self) -> Deferred[None]:
        self.stopped = True
        return Deferred() if self.is_stuck else succeed(None)

    def run(self, job: Callable[[], object], priority: int = 0) -> None:
        raise NotImplementedError

    def post(self, call: Callable[..., object], *arguments: Any) -> None:
        raise NotImplementedError


class Users:
    """
    What is in the database, and who was asked for.
    """

    def __init__(self) -> None:
        self.rows_of: dict[str, list[dict[str, Any]]] = {"ann": [{"quota": "1K"}]}
        self.asked: list[str] = []
        self.error: Exception | None = None
        self.closed = False

    def __str__(self) -> str:
        return "db"

    def rows(self, mailbox: Mailbox) -> Sequence[dict[str, Any]]:
        self.asked.append(mailbox.user)
        if self.error is not None:
            raise self.error
        return self.rows_of.get(mailbox.user, [])

    def close(self) -> None:
        self.closed = True


async def reply(directory: SqlDirectory, mailbox: Mailbox) -> Any:
    """
    The mailboxes, or the reply that refuses.
    """
    try:
        answer = directory.resolve(mailbox)
        return answer if isinstance(answer, Sequence) else await answer
    except DeliveryError as error:
        return error.reply


class World(NamedTuple):
    """
    A directory, with all that it depends on.
    """

    directory: SqlDirectory
    users: Users
    pool: Spot
    clock: Clock

    def ask(self, mailbox: Mailbox = ANN) -> Deferred[Any]:
        """
        The mailboxes, or the reply.
        """
        return Deferred.fromCoroutine(reply(self.directory, mailbox))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def world(clock: Clock) -> Callable[..., World]:
    """
    ``world(cache=60, stale=3600)``: a new one.
    """

    def world(cache: float = 60, stale: float = 0) -> World:
        users, pool = Users(), Spot()
        kept = Cache(cache, stale, clock.seconds)
        return World(SqlDirectory(users, pool, clock, kept, 10), users, pool, clock)

    return world


@pytest.fixture
def log() -> Iterator[Callable[[], list[str]]]:
    """
    ``log()``: the lines of the log so far, as ``level: text``.
    """
    with capturedLogs() as events:
        yield lambda: [f"{event['log_level'].name}: {formatEvent(event)}" for event in events]


def test_interface(world: Callable[..., World]) -> None:
    """
    It is a directory.
    """
    verifyObject(IDirectory, world().directory)
    verifyObject(IDirectoryFactory, SqlUsersFactory())


class TestAnswers:
    def test_found(self, world: Callable[..., World], success_of: Any) -> None:
        """
        What the row says is told with the mailbox, and the detail is kept.
        """
        [ann] = success_of(world().ask(Mailbox("ann", "example.org", "lists")))

        assert "ann+lists@example.org" == str(ann)
        assert quota_of(ann) == Quota(1024)

    def test_nobody(self, world: Callable[..., World], success_of: Any) -> None:
        """
        No row is "no such user".
        """
        assert success_of(world().ask(BOB)) == NO_SUCH_USER

    def test_cached(self, world: Callable[..., World], success_of: Any) -> None:
        """
        An answer counts for as long as was said, also "no such user", which is shorter.
        """
        here = world()
        for seconds, asked in [(0, 2), (9, 2), (2, 3), (48, 3), (2, 5)]:
            here.clock.advance(seconds)
            assert 1 == len(success_of(here.ask(ANN)))
            if seconds != 48:
                assert success_of(here.ask(BOB)) == NO_SUCH_USER
            assert asked == len(here.users.asked)

    def test_broken_row(
        self, world: Callable[..., World], success_of: Any, log: Callable[[], list[str]]
    ) -> None:
        """
        A row with a value that makes no sense is "later", and is not kept.
        """
        here = world()
        here.users.rows_of["ann"] = [{"uid": 0, "gid": 0}]
        assert success_of(here.ask()) == CANNOT_LOOK_UP
        assert ["error: ann@example.org: uid=0: expected a number from 1 to 4294967294"] == log()

        here.users.rows_of["ann"] = [{}]
        assert [ANN] == list(success_of(here.ask()))

    def test_unknown_column(
        self, world: Callable[..., World], success_of: Any, log: Callable[[], list[str]]
    ) -> None:
        """
        A column that means nothing is told once.
        """
        here = world(cache=0)
        here.users.rows_of["ann"] = [{"user": "ann", "qouta": "1G"}]
        for _ in range(3):
            assert [ANN] == list(success_of(here.ask()))

        assert ["warn: db: the column qouta means nothing here, and is left out"] == log()


class TestTrouble:
    def test_dead(
        self, world: Callable[..., World], success_of: Any, log: Callable[[], list[str]]
    ) -> None:
        """
        A database that fails is "later", told once, and asked again with the next mail.
        """
        here = world()
        here.users.error = NoAnswer("refused")
        for _ in range(3):
            assert success_of(here.ask()) == CANNOT_LOOK_UP
        here.users.error = None

        assert 1 == len(success_of(here.ask()))
        assert ["error: db: refused; mail has to wait", "info: db: answers again"] == log()

    def test_slow(
        self,
        world: Callable[..., World],
        success_of: Any,
        no_result: Any,
        log: Callable[[], list[str]],
    ) -> None:
        """
        A database that does not answer in time is "later".  It is not asked late what nobody waits
        for any more, and serves who comes then.
        """
        here = world()
        here.pool.is_stuck = True
        asked = [here.ask(), here.ask(BOB)]
        here.clock.advance(9.9)
        no_result(asked[0])
        here.clock.advance(0.1)

        for each in asked:
            assert success_of(each) == CANNOT_LOOK_UP
        assert ["error: db: no answer within 10 seconds; mail has to wait"] == log()
        here.pool.go_on()
        assert [] == here.users.asked
        assert 1 == len(success_of(here.ask()))

    def test_called_off(self, world: Callable[..., World], failure_of: Any) -> None:
        """
        If the look-up is given up before that, the database is not asked either.
        """
        here = world()
        here.pool.is_stuck = True
        asked = here.ask()
        asked.cancel()
        failure_of(asked, CancelledError)
        here.pool.go_on()

        assert [] == here.users.asked
        assert [] == here.clock.getDelayedCalls()

    def test_crowd(self, world: Callable[..., World], success_of: Any) -> None:
        """
        Very many do not wait for a database that is stuck.
        """
        here = world()
        here.pool.is_stuck = True
        waiting = [here.ask(Mailbox(f"{number}", "example.org")) for number in range(MOST_WAITING)]
        assert success_of(here.ask()) == CANNOT_LOOK_UP
        assert MOST_WAITING == len(here.pool.left)

        here.clock.advance(10)
        assert all(success_of(each) == CANNOT_LOOK_UP for each in waiting)
        here.pool.go_on()
        assert 1 == len(success_of(here.ask()))

    def test_not_stale(self, world: Callable[..., World], success_of: Any) -> None:
        """
        What was known once does not count, if it is not asked for.
        """
        here = world()
        success_of(here.ask())
        here.users.error = NoAnswer("refused")
        here.clock.advance(61)

        assert success_of(here.ask()) == CANNOT_LOOK_UP

    def test_stale(self, world: Callable[..., World], success_of: Any) -> None:
        """
        If it is, those who were found are served from memory, for so long; nobody bounces.
        """
        here = world(stale=3600)
        for mailbox in (ANN, BOB):
            success_of(here.ask(mailbox))
        here.users.error = NoAnswer("refused")
        here.clock.advance(61)

        assert 1 == len(success_of(here.ask()))
        assert success_of(here.ask(BOB)) == CANNOT_LOOK_UP
        here.clock.advance(3600)
        assert success_of(here.ask()) == CANNOT_LOOK_UP

    def test_defect(self, world: Callable[..., World], failure_of: Any) -> None:
        """
        A defect of ours is not taken for the database's.
        """
        here = world()
        here.users.error = RuntimeError("oops")

        failure_of(here.ask(), RuntimeError)


class TestService:
    def test_start(
        self, world: Callable[..., World], log: Callable[[], list[str]], success_of: Any
    ) -> None:
        """
        The query is tried at start, so that a mistake is in the log before the first mail.
        """
        here = world()
        here.users.error = NoAnswer("no such table: users")
        here.directory.startService()

        assert ["error: db: no such table: users; mail has to wait"] == log()
        success_of(here.directory.stopService())
        assert here.users.closed

    def test_stop(self, world: Callable[..., World], no_result: Any, success_of: Any) -> None:
        """
        A thread that is stuck does not keep the service from stopping.
        """
        here = world()
        here.directory.startService()
        here.pool.is_stuck = True
        stopping = here.directory.stopService()
        no_result(stopping)
        here.clock.advance(10)

        success_of(stopping)
        assert here.users.closed


# ── words ────────────────────────────────────────────────────────────────────────────────────────


@implementer(IReactorFromThreads)
class Reactor(MemoryReactorClock):
    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        raise NotImplementedError


class TestFactory:
    def build(self, words: str) -> Any:
        return directory_from_string(Reactor(), words)

    def test_words(self, path: Path) -> None:
        """
        The query stands in the words, its colons with a backslash.
        """
        query = r"SELECT user FROM users WHERE user = \:user AND domain = \:domain"
        made = self.build(f"sql:sqlite:///{path}:query={query}:cache=5m:stale=1h:timeout=2")

        assert isinstance(made, SqlDirectory)
        assert [{"user": "ann"}] == made._query.rows(ANN)
        made._query.close()

    @pytest.mark.parametrize(
        ("columns", "tells"),
        [("user", False), ("user AS since", True), ("user AS Domain_Since", True)],
    )
    def test_tells_since(self, path: Path, columns: str, tells: bool) -> None:
        """
        RRVS is announced where the query asks for what it needs.
        """
        made = self.build(f"sql:sqlite:///{path}:query=SELECT {columns} FROM users")

        assert tells == ITellsSince(made).tells_since
        made._query.close()

    def test_files(self, path: Path, tmp_path: Path) -> None:
        """
        Query and URL may stand in files: no backslashes, and no password for all to see.
        """
        (tmp_path / "users.sql").write_text(f"-- who lives here\n{BY_NAME};\n")
        (tmp_path / "url").write_text(f"sqlite:///{path}\n")
        made = self.build(f"sql:@{tmp_path}/url:query=@{tmp_path}/users.sql:cache=0:connections=1")

        assert 1 == len(made._query.rows(ANN))
        made._query.close()

    @pytest.mark.parametrize(
        ("words", "problem"),
        [
            ("sql", "expected sql:URL"),
            ("sql:sqlite:///PATH", "expected sql:URL"),
            ("sql:sqlite:///PATH:query=", "query: it is empty"),
            ("sql:sqlite:///PATH:query=;", "query: it is empty"),
            (r"sql:sqlite:///PATH:query=SELECT \:name", ":name is not known; there are :user,"),
            ("sql:sqlite:///PATH:query=@/nowhere/users.sql", "/nowhere/users.sql: No such file"),
            ("sql:sqlite:////nowhere/users.db:query=x", "/nowhere/users.db: no such file"),
            ("sql:sqlite://:query=x", "the URL names no file"),
            ("sql:nonsense:query=x", "that is no URL such as postgresql://user@host/database"),
            ("sql:oracle9://ann:secret@db/x:query=x", "oracle9: no such driver here"),
            ("sql:sqlite:///PATH:query=x:cache=long", "cache: 'long' is not a time"),
            ("sql:sqlite:///PATH:query=x:timeout=0", "timeout: '0' is not a time"),
            ("sql:sqlite:///PATH:query=x:connections=0", "connections: '0' is not a whole number"),
            ("sql:sqlite:///PATH:query=x:cache=0:stale=1h", "stale= needs cache="),
            ("sql:sqlite:///PATH:query=x:size=1", "size: no such option"),
        ],
    )
    def test_mistakes(self, path: Path, words: str, problem: str) -> None:
        """
        A mistake is one line that says what to do, and no password.
        """
        with pytest.raises(ValueError) as caught:
            self.build(words.replace("PATH", str(path)))

        assert problem in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value)

    def test_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Without SQLAlchemy, it says what to install; the module itself can be imported.
        """
        monkeypatch.delitem(sys.modules, "lmtpsvc.directory.query")
        for name in [name for name in sys.modules if name.partition(".")[0] == "sqlalchemy"]:
            monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.setitem(sys.modules, "sqlalchemy", None)
        importlib.import_module("lmtpsvc.directory.sql")

        with pytest.raises(ValueError, match=r"^sql: .*missing: pip install 'lmtpsvc\[sql\]'"):
            self.build("sql:sqlite:////srv/users.db:query=x")
