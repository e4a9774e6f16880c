"""
From the words of the command line to tables that fit, and what an operator does by hand.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text as sql
from sqlalchemy.exc import OperationalError
from twisted.internet import reactor

from lmtpsvc.backends.sql import versions
from lmtpsvc.backends.sql.engine import parse
from lmtpsvc.backends.sql.factory import SQLFactory
from lmtpsvc.backends.sql.reading import Store
from lmtpsvc.backends.sql.schema import metadata
from lmtpsvc.backends.sql.settings import Settings, from_words
from lmtpsvc.commands.sql import main
from lmtpsvc.envelope import Mailbox
from lmtpsvc.interfaces import IBackend, ITellsWhere
from lmtpsvc.specs import backend_from_string

from ...databases import MariaDB
from ...rows import each_row
from .conftest import Bench


class TestWords:
    def test_the_colons_of_a_url(self, tmp_path: Path) -> None:
        """
        The colons of a URL need no backslash.
        """
        made = backend_from_string(reactor, f"sql:sqlite:///{tmp_path}/mail.db:compression=zlib")

        assert f"sqlite:///{tmp_path}/mail.db" == str(made)

    def test_a_port_and_a_query(self) -> None:
        """
        Nor do that of a port and those of a password; only = within the URL does.
        """
        made = backend_from_string(
            reactor, r"sql:postgresql://me:s3cret@db:5433/mail?sslmode\=require:timeout=9"
        )

        assert "postgresql://me:***@db:5433/mail?sslmode=require" == str(made)

    @each_row(
        ("words", "said"),
        [
            ("", "the URL is missing"),
            ("mail.db", "expected sql:URL"),
            ("oracle://me@host/mail", "oracle: expected one of sqlite, postgresql"),
            ("postgresql+psycopg2://me@host/mail", "the driver for postgresql is"),
            ("postgresql://me@host", "names no database"),
            ("sqlite://", "names no database"),
            ("sqlite:////nowhere/mail.db", "/nowhere is not a directory"),
            ("sqlite:////nowhere/\udcff.db", "takes paths in UTF-8 only"),
            ("sqlite:///x.db:create=maybe", "create=maybe: expected yes or no"),
            ("sqlite:///x.db:timeout=0", "expected a number from 1 to 200"),
            ("sqlite:///x.db:colour=red", "colour: no such option"),
            ("sqlite:///x.db:quota=lots", "is no quota"),
        ],
    )
    def test_mistakes(self, words: str, said: str) -> None:
        """
        Mistakes in the words are one line each.
        """
        with pytest.raises(ValueError) as caught:
            backend_from_string(reactor, f"sql:{words}")
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_password_is_not_shown(self) -> None:
        """
        What is said of a URL with a mistake in it does not tell its password.
        """
        with pytest.raises(ValueError) as caught:
            parse("postgresql://me:s3cret@host:port/mail")
        assert "s3cret" not in str(caught.value)

    @pytest.mark.parametrize("missing", ["sqlalchemy", "alembic", "psycopg"])
    def test_a_missing_package(self, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Where a package is missing, it says what to install.
        """
        # ``from . import versions`` finds it here, too.
        monkeypatch.delattr("lmtpsvc.backends.sql.versions")
        for name in [name for name in sys.modules if name.startswith("lmtpsvc.backends.sql.")]:
            if not name.endswith((".factory", ".settings")):
                monkeypatch.delitem(sys.modules, name)
        for name in [name for name in sys.modules if name.startswith(f"{missing}.")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, missing, None)

        with pytest.raises(ValueError, match=r"pip install 'lmtpsvc\[sql\]'"):
            SQLFactory().build(reactor, "postgresql", "//me@host/mail")

    def test_defaults(self) -> None:
        """
        With nothing but a URL, all settings are the defaults.
        """
        assert Settings("sqlite:///x") == from_words(["sqlite", "///x"], {})


class TestTables:
    def test_the_migrations_make_the_schema(self, bench: Bench) -> None:
        """
        What is declared is what is made, in each kind of database.
        """
        with bench.engine.connect() as connection:
            context = MigrationContext.configure(
                connection, opts={"version_table": versions.VERSION_TABLE}
            )
            assert [] == compare_metadata(context, metadata)

    def test_the_newest_migration_is_the_only_end(self) -> None:
        """
        Two people who each add one are told.
        """
        script = ScriptDirectory.from_config(versions._config())

        assert 1 == len(script.get_heads())

    def test_none(self, url: str, kind: str) -> None:
        """
        SQLite gets its tables at start; a server must be asked for it.
        """
        backend = SQLFactory().build(reactor, *url.split(":"))
        if kind == "sqlite":
            backend.startService()  # type: ignore[attr-defined]  # a service
        else:
            with pytest.raises(OSError, match=r"no tables for mail yet: run .* upgrade URL"):
                backend.startService()  # type: ignore[attr-defined]  # a service
        backend._engine.dispose()  # type: ignore[attr-defined]  # ours

    def test_too_new(self, bench: Bench) -> None:
        """
        Tables of a later version are left alone.
        """
        with bench.engine.connect() as connection, connection.begin():
            connection.execute(sql("UPDATE lmtpsvc_version SET version_num = '9999'"))

        with pytest.raises(versions.SchemaError, match="install a newer one"):
            versions.upgrade(bench.engine)
        with pytest.raises(ValueError, match="9999"):
            Store.at(bench.url)
        with pytest.raises(OSError, match="9999"):
            bench.backend.startService()

    def test_a_small_packet(self, mariadb: MariaDB) -> None:
        """
        A MariaDB that could not take a part of a message is refused at start.
        """
        url = mariadb.new()
        engine = parse(url).engine(1)
        with engine.connect() as connection:
            before = connection.execute(sql("SELECT @@max_allowed_packet")).scalar_one()
            connection.execute(sql("SET GLOBAL max_allowed_packet = 1048576"))
        try:
            with pytest.raises(ValueError, match="max_allowed_packet is 1048576"):
                Store.at(url)
        finally:
            with engine.connect() as connection:
                connection.execute(sql(f"SET GLOBAL max_allowed_packet = {before}"))
            engine.dispose()

    def test_made_by_several_at_once(self, url: str) -> None:
        """
        Workers that start at the same moment make them once.
        """
        from concurrent.futures import ThreadPoolExecutor

        engines = [parse(url).engine(1) for _ in range(6)]
        with ThreadPoolExecutor(6) as pool:
            made = list(pool.map(versions.upgrade, engines))
        for engine in engines:
            engine.dispose()

        assert 1 == made.count(True)

    def test_another_changes_the_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        Who comes to a new SQLite file in the moment when another makes it ready comes again, but
        not for ever.
        """
        path = tmp_path / "mail.db"
        with closing(sqlite3.connect(path)) as other:
            monkeypatch.setattr(time, "sleep", lambda _: other.commit())
            other.execute("CREATE TABLE something (n INTEGER)")
            other.execute("BEGIN IMMEDIATE")
            engine = parse(f"sqlite:///{path}").engine(1, timeout=20)
            with engine.connect() as connection:
                assert "wal" == connection.execute(sql("PRAGMA journal_mode")).scalar_one()
            engine.dispose()
            assert not other.in_transaction

        monkeypatch.setattr(time, "sleep", lambda _: None)
        (tmp_path / "other.db").touch()
        with closing(sqlite3.connect(tmp_path / "other.db")) as other:
            other.execute("BEGIN IMMEDIATE")
            engine = parse(f"sqlite:///{tmp_path}/other.db").engine(1, timeout=0)
            with pytest.raises(OperationalError, match="database is locked"):
                engine.connect()


class TestWhere:
    def test_before_there_is_a_store(self, tmp_path: Path) -> None:
        """
        ``lmtpsvc check`` is told where mail would lie, without a password, and makes nothing.
        """
        backend = SQLFactory().build(reactor, "sqlite", f"///{tmp_path}/mail.db", quota="1G")
        mailbox = Mailbox("ann", "example.org", "detail")
        asked = IBackend(backend).verify(mailbox)
        said = ITellsWhere(backend).where(mailbox)
        other = SQLFactory().build(reactor, "postgresql", "//me:s3cret@db/mail")

        assert asked is not None
        assert f"mailbox ann@example.org of sqlite:///{tmp_path}/mail.db" == said
        assert "s3cret" not in ITellsWhere(other).where(mailbox)
        backend._pool.stop()  # type: ignore[attr-defined]  # ours
        assert [] == list(tmp_path.iterdir())


class TestCommand:
    def test_a_life(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        """
        Not ready, made, ready, nothing to do, nothing to clean.
        """
        words = [("check", 1), ("upgrade", 0), ("check", 0), ("upgrade", 0), ("clean", 0)]

        assert [status for _, status in words] == [main([word, url]) for word, _ in words]
        captured = capsys.readouterr()
        assert "no tables for mail yet" in captured.err
        assert ["the tables are made", "ready", "nothing to do", "removed 0 texts of 0 octets"] == [
            line.rpartition(": ")[2] for line in captured.out.splitlines()
        ]

    def test_cleans(
        self, url: str, make_bench: Callable[..., Bench], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """
        Only what nobody has, and what is old enough.
        """
        bench = make_bench(url)
        for n in range(120):
            bench.deliver(b"%04d" % n, "ann@x")
        bench.deliver(b"0000", "bob@x")
        bench.store.delete("ann@x", range(1, 121))

        assert 0 == bench.store.remove_unreferenced(timedelta(hours=1)).texts
        assert 0 == main(["clean", url, "--older-than", "0m"])
        assert "removed 119 texts of 476 octets" in capsys.readouterr().out
        assert [b"0000"] == bench.texts("bob@x")
        assert 1 == bench.count("content") == bench.count("content_part")

    def test_no_age(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """
        An age from before the calendar is a mistake like any other.
        """
        with pytest.raises(SystemExit):
            main(["clean", f"sqlite:///{tmp_path}/mail.db", "--older-than", "999999d"])
        assert "'999999d' is older than anything here can be" in capsys.readouterr().err

    def test_not_there(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """
        One line, and status 1.
        """
        assert 1 == main(["check", f"postgresql://me@/mail?host={tmp_path}"])
        assert 1 == main(["check", "nonsense"])
        assert "Traceback" not in capsys.readouterr().err
