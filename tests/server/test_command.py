"""
The command of a worker says what that of the service said.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from lmtpsvc.server.command import Account, Command

from ..rows import each_row

#: What twistd understands if nothing is said; a daemon logs to twistd.log.
DAEMON: dict[str, Any] = {
    "nodaemon": False,
    "logfile": None,
    "logger": None,
    "syslog": False,
    "prefix": "twisted",
    "rundir": ".",
    "uid": None,
    "gid": None,
}


def twistd_words(parent: dict[str, Any] | None) -> list[str]:
    """
    What worker 2 of ``lmtp -x`` gets between the program and ``lmtp``.
    """
    words = Command.of(parent, ["-x"]).arguments(2)
    assert words[-2:] == ["lmtp", "-x"]
    return words[words.index("--pidfile=") + 1 : -2]


class TestWords:
    @each_row(
        ("said", "expected"),
        [
            ({"nodaemon": True}, []),
            ({"nodaemon": True, "logfile": "-"}, []),
            ({"nodaemon": True, "reactor": "asyncio"}, ["--reactor", "asyncio"]),
            ({"nodaemon": True, "rundir": "/srv"}, ["--rundir", "/srv"]),
            ({"logfile": "/var/log/a b.log"}, ["--logfile", "/var/log/a b-worker2.log"]),
            ({"logfile": "/var/log/mail"}, ["--logfile", "/var/log/mail-worker2"]),
            ({"syslog": True, "prefix": "lmtp"}, ["--syslog", "--prefix", "lmtp/worker2"]),
            ({"logger": "a.b", "syslog": True}, ["--logger", "a.b"]),
        ],
    )
    def test_of_twistd(self, said: dict[str, Any], expected: list[str]) -> None:
        """
        The reactor, the directory and the log are handed on; a log file is one for each worker.
        """
        assert expected == twistd_words({**DAEMON, **said})

    def test_daemon(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        What twistd does by default, its workers do beside it.
        """
        monkeypatch.chdir(tmp_path)
        assert ["--logfile", str(tmp_path / "twistd-worker2.log")] == twistd_words(DAEMON)

    def test_twist(self) -> None:
        """
        Under twist, all processes write to standard output.
        """
        words = twistd_words({"reactor": object(), "reactorName": "asyncio", "logFile": None})
        assert ["--reactor", "asyncio"] == words
        assert [] == twistd_words(None)

    def test_as_they_were(self) -> None:
        """
        The words themselves are not touched.
        """
        words = ["--listen", "unix:a b\\:c", "--users=any", "'\"$é", ""]
        assert words == Command.of(None, words).arguments(1)[-5:]

    def test_where_modules_are_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A worker does not look for modules in the working directory, unless its supervisor does.
        """
        elsewhere = [each for each in sys.path if each not in {"", os.getcwd()}]
        monkeypatch.setattr(sys, "path", elsewhere)
        assert Command.of(None, []).arguments(1)[:4] == [
            *(sys.executable, "-P"),
            *("-m", "lmtpsvc.server"),
        ]
        monkeypatch.setattr(sys, "path", ["", *elsewhere])
        assert "-P" not in Command.of(None, []).arguments(1)


class TestEnvironment:
    def test_systemd(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        As many descriptors as systemd has named, even after Twisted has taken note of them.
        """
        monkeypatch.delenv("LISTEN_FDS", raising=False)
        monkeypatch.setenv("LISTEN_FDNAMES", "one:two")
        command = Command.of(None, [])
        assert command.systemd == 2
        assert command.environment()["LISTEN_FDS"] == "2"

    def test_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        The environment stays as it is otherwise.
        """
        monkeypatch.delenv("LISTEN_FDNAMES", raising=False)
        assert Command.of(None, []).environment() == dict(os.environ)


class TestAccount:
    def test_none(self) -> None:
        """
        Without --uid and --gid, files belong to who makes them.
        """
        assert Account.of(DAEMON) is None
        assert Account.of(None) is None

    def test_primary_group(self) -> None:
        """
        As with twistd, a user comes with his group.
        """
        assert Account(0, 0) == Account.of({**DAEMON, "uid": 0})
        assert Account(0, 5) == Account.of({**DAEMON, "uid": 0, "gid": 5})
        assert Account(os.getuid(), 5) == Account.of({**DAEMON, "gid": 5})
