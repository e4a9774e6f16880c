"""
``lmtpsvc check-relay``: all problems of a relay at once, and which servers would get mail.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from sqlalchemy import inspect
from twisted.internet.defer import Deferred, fail, succeed
from twisted.names import dns
from twisted.names.error import DNSNameError
from twisted.python.failure import Failure

from lmtpsvc.__main__ import main as lmtpsvc
from lmtpsvc.backends.sql.engine import parse
from lmtpsvc.commands.check_relay import look_at_queue, servers
from lmtpsvc.commands.where import Refused
from lmtpsvc.config import structure_as
from lmtpsvc.relay.config import RelayConfig
from lmtpsvc.wiring.relay import RelayParts, make_relay_parts

from ..databases import PostgreSQL
from ..forks import LMTPSVC, Forks

GOOD = """
domain = ["example.org"]
users = "file:users"
queue = "sqlite:///queue.db"
route = ["lists.example.org=lmtp:127.0.0.1:8026", "*.example.com=smtp:a.example:25:tls=must,b.example"]
listen = "tcp:0:interface=127.0.0.1"
"""

ALL_WRONG = """
domain = "exa mple"
networks = "0.0.0.0/0"
users = "file:users"
queue = "sqlite:////proc/nonexistent/queue.db"
local = "nix nix"
listen = ["unix:/proc/nonexistent/sock", "nonsense"]
spool = "/proc/nonexistent"
warn-after = "soon"
colour = "red"
"""

Says = Callable[..., list[str]]


@pytest.fixture
def says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Says:
    """
    ``says(status, text, *words)``: what is said of a file with *text*, which ends with that *status*.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "users").write_text(
        "ann@example.org\nall@example.org: ann@example.org, bob@example.net\nbob@example.net\n"
    )

    def says(status: int, text: str, *words: str) -> list[str]:
        (tmp_path / "relay.toml").write_text(text)
        assert status == lmtpsvc(["check-relay", "relay.toml", *words])
        return capsys.readouterr().out.replace(f"{tmp_path}/", "").splitlines()

    return says


class TestProblems:
    def test_none(self, says: Says, tmp_path: Path) -> None:
        """
        A file that is right is told in one line, and no queue is made.
        """
        assert [
            (
                "no problem found: mail for example.org goes to lmtp:127.0.0.1:8024, for others by"
                " MX; 2 routes"
            )
        ] == says(0, GOOD)
        assert ["relay.toml", "users"] == sorted(os.listdir(tmp_path))

    def test_all_at_once(self, says: Says) -> None:
        """
        Whatever is wrong is told in one run, a line each, and nothing that is right.
        """
        said = says(1, ALL_WRONG)

        found = sorted(line.removeprefix("relay.toml: ").split(":")[0] for line in said)
        assert found == [
            *("colour", "domain", "listen", "listen", "local", "networks", "queue", "spool"),
            "warn-after",
        ]

    def test_port_of_smtp(self, says: Says) -> None:
        """
        It may be on port 25, where it can be reached from elsewhere: who lives here matters then.
        """
        text = GOOD.replace("tcp:0:interface=127.0.0.1", "tcp:25")

        assert [] == [line for line in says(0, text, "--running") if "listen" in line]
        assert "nobody says who lives" in says(1, text.replace("users =", "#"), "--running")[0]

    def test_start_names_it(self, says: Says) -> None:
        """
        Who is told of the first of several problems at the start is told where the others are.
        """
        from lmtpsvc.relay_tap import Options

        says(1, ALL_WRONG)
        with pytest.raises(SystemExit) as caught:
            Options().parseOptions(["--config", "relay.toml"])

        assert str(caught.value.code).endswith("relay.toml")
        assert "more: lmtpsvc check-relay " in str(caught.value.code)


class TestQueue:
    def test_directory_missing(self, tmp_path: Path) -> None:
        """
        A file that would be made needs its directory.
        """
        with pytest.raises(ValueError, match="none is not there"):
            look_at_queue(f"sqlite:///{tmp_path}/none/queue.db")

    def test_no_file(self, tmp_path: Path) -> None:
        """
        What is there and cannot be a database is told.
        """
        (tmp_path / "queue.db").mkdir()
        with pytest.raises(ValueError, match=r"queue\.db is a directory"):
            look_at_queue(f"sqlite:///{tmp_path}/queue.db")

    def test_nobody_answers(self) -> None:
        """
        A server that is not there is told in one line, without the password.
        """
        with pytest.raises(
            ValueError, match=r"^postgresql://me:\*\*\*@127\.0\.0\.1:1/q: "
        ) as caught:
            look_at_queue("postgresql://me:secret@127.0.0.1:1/q")

        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value)

    def test_no_tables_yet(self, postgresql: PostgreSQL) -> None:
        """
        A database without tables is good, and stays as it is.
        """
        url = postgresql.new()
        look_at_queue(url)

        engine = parse(url).engine(1)
        with engine.connect() as connection:
            assert [] == inspect(connection).get_table_names()
        engine.dispose()


class Names:
    """
    A resolver that knows two domains.
    """

    def lookupMailExchange(self, name: str) -> Deferred[Any]:
        if name == "example.net":
            records = [
                dns.RRHeader(name, dns.MX, payload=dns.Record_MX(20, "b.example.net")),
                dns.RRHeader(name, dns.MX, payload=dns.Record_MX(10, "a.example.net")),
            ]
            return succeed((records, [], []))
        return fail(DNSNameError())


class TestServers:
    @pytest.fixture
    def parts(self, says: Says) -> RelayParts:
        from twisted.internet import reactor

        config = structure_as(RelayConfig, tomllib.loads(GOOD))
        return make_relay_parts(evolve(config, listen=()), reactor, Names())

    @pytest.mark.parametrize(
        ("address", "lines"),
        [
            ("ann@example.org", ["ann@example.org by lmtp:127.0.0.1:8024"]),
            (
                "all@example.org",
                [
                    "ann@example.org by lmtp:127.0.0.1:8024",
                    "bob@example.net by smtp:a.example.net:25, smtp:b.example.net:25",
                ],
            ),
            ("x@lists.example.org", ["x@lists.example.org by lmtp:127.0.0.1:8026"]),
            ("x@y.example.com", ["x@y.example.com by smtp:a.example:25, smtp:b.example:25"]),
            ("x@[192.0.2.1]", ["x@[192.0.2.1] by smtp:192.0.2.1:25"]),
        ],
    )
    def test_where(
        self, parts: RelayParts, address: str, lines: list[str], success_of: Callable[..., Any]
    ) -> None:
        """
        A line for each recipient, with the servers in the order in which they are tried.
        """
        assert [f"{address} -> {line}" for line in lines] == success_of(servers(parts, address))

    @pytest.mark.parametrize(
        ("address", "reply"),
        [
            ("zoe@example.org", "550 5.1.1 No such user"),
            ("x@nonexistent.example", "550 5.1.2 There is no such domain"),
            ("no address", "501 5.1.3"),
        ],
    )
    def test_refused(
        self, parts: RelayParts, address: str, reply: str, failure_of: Callable[..., Failure]
    ) -> None:
        """
        Who has no server is told with the reply.
        """
        failure = failure_of(servers(parts, address), Refused)

        assert str(failure.value).startswith(reply)

    def test_status(self, tmp_path: Path, forks: Forks, says: Says) -> None:
        """
        Addresses stand behind the problems; one that is refused is a status of its own.
        """
        (tmp_path / "relay.toml").write_text(GOOD)
        words = ("check-relay", "relay.toml", "ann@example.org", "zoe@example.org")

        done = forks.run(LMTPSVC, *words, directory=tmp_path)

        assert [
            "ann@example.org -> ann@example.org by lmtp:127.0.0.1:8024",
            "zoe@example.org: 550 5.1.1 No such user",
        ] == done.said.splitlines()[1:]
        assert 1 == done.status


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """
    It is told of among the commands.
    """
    assert 0 == lmtpsvc(["--help"])
    assert "check-relay  Tell what is wrong" in capsys.readouterr().out
