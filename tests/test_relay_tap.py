"""
The words of ``twistd lmtp-relay``, and what is wrong with them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import fields
from twisted.application.service import IService

from lmtpsvc.config import structure_as
from lmtpsvc.relay.config import DEFAULT_LISTEN, RelayConfig
from lmtpsvc.relay_tap import Options, Running, makeService
from lmtpsvc.server.plan import CannotReload

from .certificates import Authority


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Options]:
    """
    Read a command line, in an empty directory.
    """
    monkeypatch.chdir(tmp_path)

    def options(*words: str) -> Options:
        made = Options()
        made.parseOptions(list(words))
        return made

    return options


#: Those of the schedule.
TIMES = ("retry-after", "retry-server", "warn-after", "give-up-after", "connections-per-server")


class TestOptions:
    """
    Words that are right.
    """

    def test_defaults(self, options: Callable[..., Options]) -> None:
        """
        With no words at all: this machine only, the domain of this host, the queue beside us; and
        nothing is made before the service starts.
        """
        made = options("--hostname", "relay.example.org")

        assert [DEFAULT_LISTEN] == [each.words for each in made["listeners"]]
        assert (
            "mail for relay.example.org goes to lmtp:127.0.0.1:8024, for others by MX"
            == made.parts.summary
        )
        assert "sqlite:///queue.db" == made.config.queue
        # What --help shows is what holds without the option.
        shown = {name: made.defaults[name] for name in TIMES}
        assert made.config == structure_as(RelayConfig, {"hostname": "relay.example.org", **shown})
        assert () == tuple(made.parts.worries)
        assert IService.providedBy(makeService(made))
        assert [] == list(Path().iterdir())

    def test_words(self, options: Callable[..., Options]) -> None:
        """
        All that may be said, said.
        """
        made = options(
            *("--listen", "tcp:25", "-l", "login-required:tcp:587", "--trusted", "127.0.0.1"),
            *("-d", "example.org, example.net", "--domain", "Example.COM"),
            *("--networks", "10.0.0.0/8,local", "--users", "any"),
            *("--route", "example.org=lmtp:unix:/a", "--route", "*.x.example=mx.x.example"),
            *("--smart-host", "smtp.example.net:587", "--local", "lmtp:node:24"),
            *("--queue", "sqlite:////tmp/q.db", "--warn-after", "1h", "--give-up-after", "2d"),
            *("--connections-per-server", "3", "--max-message-size", "1M"),
        )

        config = made.config
        assert ["tcp:25", "login-required:tcp:587"] == [each.words for each in made["listeners"]]
        assert made["listeners"][1].terms.login_required
        assert ("example.org", "example.net", "example.com") == config.domain
        assert ("10.0.0.0/8", "local") == config.networks
        assert (("example.org", "lmtp:unix:/a"), ("*.x.example", "mx.x.example")) == config.route
        assert (3600, 2 * 86400, 3) == (
            config.warn_after,
            config.give_up_after,
            config.connections_per_server,
        )
        assert made.parts.summary.endswith("for others to smtp.example.net:587; 2 routes")
        assert IService.providedBy(makeService(made))

    def test_file(self, options: Callable[..., Options]) -> None:
        """
        The same words are keys of a file; what is said on the command line counts more.
        """
        Path("relay.toml").write_text(
            'domain = ["example.org"]\nnetworks = "10.0.0.0/8"\nroute = ["example.org=lmtp:n:24"]\n'
            'give-up-after = "1d"\nconnections-per-server = 2\n[limits]\nmax-errors = 3\n'
            '[[listeners]]\nlisten = "tcp:25"\n'
        )

        config = options("--config", "relay.toml", "--domain", "example.net").config

        assert (("example.net",), ("10.0.0.0/8",), 2) == (
            config.domain,
            config.networks,
            config.connections_per_server,
        )
        assert (("tcp:25",), 3) == (config.listen, config.limits.errors)

    def test_worry(self, options: Callable[..., Options]) -> None:
        """
        Who can be reached by strangers should know whom mail is for.
        """
        [(key, text)] = options("--listen", "tcp:25").parts.worries

        assert "users" == key
        assert "tcp:25 can be reached from elsewhere" in text
        assert () == tuple(options("--listen", "tcp:25", "--users", "any").parts.worries)

    def test_tls(self, options: Callable[..., Options], tmp_path: Path) -> None:
        """
        With a certificate there is STARTTLS.
        """
        pair = Authority(tmp_path).sign("relay.example.org")

        assert options("--tls-certificate", str(pair.both)).parts.tls is not None


class TestMistakes:
    """
    Words that are wrong: one line that says what to do, before anything is touched.
    """

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["x"], "'x' is no option"),
            (["--bogus"], "option --bogus not recognized"),
            (["--backend", "maildir:x"], "option --backend not recognized"),
            (["--listen", "udp:25"], "--listen: udp:25: not an endpoint"),
            (["--domain", "no_such domain"], "--domain: 'no_such domain' is not a domain; write"),
            (["--networks", "0.0.0.0/0"], "--networks: 0.0.0.0/0 is half the world: anybody could"),
            (["--networks", "home"], "--networks: 'home' is no network; write 10.0.0.0/8"),
            (["--route", "example.org"], "--route: 'example.org' is no route; write one like"),
            (["--route", "a@b.example=lmtp:n:24"], "routes are for domains; write example.org=..."),
            (["--route", "example.org=lmtp:n"], "lmtp:n: not a destination|n: not a destination"),
            (["--route", "*=lmtp:n:24"], "--route: '\\*' is no pattern; write"),
            (["--smart-host", "a:b:c:d"], "--smart-host: a:b:c:d: not a destination"),
            (["--local", "lmtp:n:24:tls=x"], "--local: tls=x: expected none or may"),
            (["--queue", "queue.db"], "--queue: that is no URL such as"),
            (["--users", "bogus"], "--users: .*bogus"),
            (["--retry-after", "5m,,6m"], "--retry-after: '' is not a time; write 300, 90s"),
            (["--give-up-after", "soon"], "--give-up-after: 'soon' is not a time; write 300, 90s"),
            (["--connections-per-server", "0"], "--connections-per-server: '0' is not a whole"),
            (["--hostname", "a b"], "--hostname: 'a b' is not a host name"),
            (["--listen", "tls:tcp:465"], "--listen: tls:tcp:465: needs tls-certificate"),
            (["--listen", "login-required:tcp:587"], "--listen: login-required:tcp:587: needs auth"),
            (["--listen", "haproxy:tcp:25"], "anybody could claim an address of our networks there"),
            (["--listen", "proxied:tcp:25"], "--listen: proxied:tcp:25: believes trusted hosts only"),
            (["--json-log", "/proc/nonexistent/log"], "--json-log: /proc/nonexistent/log: No such file"),
            (["--config", "none.toml"], "none.toml: No such file"),
        ],
    )  # fmt: skip
    def test_line(self, words: list[str], said: str, options: Callable[..., Options]) -> None:
        """
        Each mistake is one line, and nothing is left behind.
        """
        with pytest.raises(SystemExit) as caught:
            options(*words)

        line = caught.value.code
        assert isinstance(line, str)
        assert re.fullmatch(r"twistd lmtp-relay: .+", line), line
        assert re.search(said, line), line
        assert line.isprintable()
        assert [] == list(Path().iterdir())

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("networks = 1", "relay.toml: networks: expected a text, or a list of texts, found 1"),
            ("backend = 'x'", "relay.toml: backend: unknown key; expected one of listen"),
            ("smart_host = 'x'", "relay.toml: smart_host: unknown key; did you mean 'smart-host'?"),
            ("[limits]\nqueue = 'x'", "[limits] queue: unknown key here; it belongs at the top"),
            ("domain = 1\nqueue = 2", "relay.toml: domain: expected a text, or a list of texts,"),
        ],
    )
    def test_file(self, text: str, said: str, options: Callable[..., Options]) -> None:
        """
        Those of a file tell the file and the key.
        """
        Path("relay.toml").write_text(text)

        with pytest.raises(SystemExit) as caught:
            options("--config", "relay.toml")

        assert said in str(caught.value.code)
        assert "lmtpsvc check " not in str(caught.value.code), "it knows twistd lmtp only"


class TestReload:
    """
    What SIGHUP changes.
    """

    def test_routes(self, options: Callable[..., Options]) -> None:
        """
        The file is read again; routes are new, what needs a restart is told.
        """
        Path("relay.toml").write_text('domain = "example.org"\nlocal = "lmtp:a:24"\n')
        made = options("--config", "relay.toml")
        Path("relay.toml").write_text(
            'domain = "example.org"\nlocal = "lmtp:b:24"\nqueue = "sqlite:///other.db"\n'
        )

        again = made.parts_again()

        assert "lmtp:b:24" in again.summary
        assert ["queue"] == made.fixed(again.config)

    def test_mistake(self, options: Callable[..., Options]) -> None:
        """
        A mistake leaves all as it was, and is one line in the log.
        """
        Path("relay.toml").write_text("")
        made = options("--config", "relay.toml")
        running = Running(made)
        before = running.plan(made.parts)
        router = running.deliverer.router

        Path("relay.toml").write_text("local = 'lmtp:other:24'")
        running.again(before)
        # Not before the rest of it is in force.
        assert router is running.deliverer.router
        Path("relay.toml").write_text("local = 'lmtp:bogus'")
        with pytest.raises(CannotReload, match=r"relay.toml: local: bogus: not a destination"):
            running.again(before)

        assert router is running.deliverer.router


def test_names_are_the_keys() -> None:
    """
    Whatever may be in the file may be said on the command line, but for tables.
    """
    keys = {each.name.replace("_", "-") for each in fields(RelayConfig)}
    known: Any = {option.rstrip("=") for option in Options().longOpt}
    assert {"listeners", "limits"} == keys - known
