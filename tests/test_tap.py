"""
The words of ``twistd lmtp``, and what a newcomer gets wrong with them.
"""

from __future__ import annotations

import os
import pwd
import re
import select
import signal
import smtplib
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import pytest
from attrs import fields, frozen
from twisted.application.service import IService

from lmtpsvc.config import DEFAULT_LISTEN
from lmtpsvc.limits import Limits
from lmtpsvc.tap import Options, makeService

from .forks import TWIST, TWISTD, Forks

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parent.parent), *sys.path])),
}


def daemon(*words: str) -> list[str]:
    return [sys.executable, "-c", TWISTD, *words]


def twistd(*words: str) -> list[str]:
    return daemon("-n", "--pidfile=", "lmtp", *words)


def twist(*words: str) -> list[str]:
    return [sys.executable, "-c", TWIST, "lmtp", *words]


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Options]:
    """
    Read a command line, in an empty directory.
    """
    monkeypatch.chdir(tmp_path)

    def options(*words: str) -> Options:
        options = Options()
        options.parseOptions(list(words))
        return options

    return options


@pytest.fixture
def mistake(options: Callable[..., Options]) -> Callable[..., str]:
    """
    Read a wrong command line; the one line that it is answered with.
    """

    def mistake(*words: str) -> str:
        with pytest.raises(SystemExit) as caught:
            options(*words)
        said = caught.value.code
        assert isinstance(said, str), "a text, so that the status is 1"
        assert re.fullmatch("twistd lmtp: .+; see twistd lmtp --help", said)
        assert said.isprintable(), "one line"
        return said

    return mistake


class TestOptions:
    """
    Words that are right.
    """

    def test_defaults(self, options: Callable[..., Options]) -> None:
        """
        With no words at all: any recipient, Maildirs under ./mail, on this machine only.
        """
        made = options()

        assert "mail goes to maildir:mail/{domain}/{user}, users: any" == made.parts.summary
        assert [DEFAULT_LISTEN] == [listener.words for listener in made["listeners"]]
        assert ("+", True) == (made.parts.rules.delimiter, made.parts.rules.fold_case)
        assert IService.providedBy(makeService(made))

    def test_defaults_of_limits(self, options: Callable[..., Options]) -> None:
        """
        What --help shows as a limit's default is what holds without the option.
        """
        assert Limits() == options().config.limits

    @pytest.mark.parametrize(
        ("words", "limit", "value"),
        [
            ("--max-message-size=10M", "message_size", 10 * 1024 * 1024),
            ("--max-message-size=5000", "message_size", 5000),
            ("--max-recipients=5", "recipients", 5),
            ("--max-connections=6", "connections", 6),
            ("--max-errors=7", "errors", 7),
            ("--max-command-line=1k", "command_line", 1024),
            ("--idle-timeout=5m", "idle_seconds", 300),
            ("--lookup-timeout=1.5", "lookup_seconds", 1.5),
            ("--delivery-timeout=1h", "delivery_seconds", 3600),
            ("--stop-timeout=9s", "stop_seconds", 9),
            ("--spool-memory=1M", "spool_memory", 1024 * 1024),
        ],
    )
    def test_limits(
        self, words: str, limit: str, value: float, options: Callable[..., Options]
    ) -> None:
        """
        Each limit is an option, in the unit in which one thinks of it, and changes no other.
        """
        changed = {
            field.name
            for field in fields(Limits)
            if getattr(options(words).config.limits, field.name) != getattr(Limits(), field.name)
        }

        assert value == getattr(options(words).config.limits, limit)
        assert {limit} == changed

    @pytest.mark.parametrize(
        "listen",
        [
            "tcp:8024:interface=127.0.0.1",
            "tcp:8024:interface=127.1.2.3",
            "tcp:8024:interface=localhost",
            r"tcp6:8024:interface=\:\:1",
            r"tcp:8024:interface=\:\:1",
            "unix:lmtp.sock:mode=660",
        ],
    )
    def test_local(self, listen: str, options: Callable[..., Options]) -> None:
        """
        Where only this machine can connect, nobody need say who lives here.
        """
        assert "any" == options("--listen", listen).parts.users

    def test_words(self, options: Callable[..., Options]) -> None:
        """
        Listening may be repeated, and the other words go where they belong.
        """
        made = options(
            *("-l", "tcp:1", "--listen", "unix:x", "-u", "any", "-b", "maildir:m/{user}"),
            *("--hostname", "mx.example.org", "--recipient-delimiter", "", "--keep-case"),
            *("--delivered-to", "never", "--spool", "spool", "--json-log", "-"),
        )

        assert ["tcp:1", "unix:x"] == [listener.words for listener in made["listeners"]]
        assert ("mx.example.org", "", False) == (
            made.parts.rules.hostname,
            made.parts.rules.delimiter,
            made.parts.rules.fold_case,
        )
        assert IService.providedBy(makeService(made))


class TestMistakes:
    """
    Words that are wrong: one line that says what to do, before anything is touched.
    """

    @pytest.mark.parametrize(
        "listen",
        [
            "tcp:25",
            "tcp:25:interface=127.0.0.1",
            "tcp:port=25",
            "tcp:interface=127.0.0.1:port=25",
            "tcp6:25",
            "ssl:25:privateKey=x",
            "tls:tcp:25",
        ],
    )
    def test_port_25(self, listen: str, mistake: Callable[..., str]) -> None:
        """
        LMTP must not be on the port of SMTP (RFC 2033 §5), however that is written.
        """
        said = mistake("--listen", listen, "--users", "any")

        assert "port 25 (RFC 2033); take 24, or a UNIX socket" in said

    @pytest.mark.parametrize(
        "listen",
        [
            "systemd:domain=UNIX:name=lmtp",
            "systemd:name=lmtp:domain=UNIX",
            "systemd:UNIX:name=lmtp",
            "systemd:UNIX:0",
        ],
    )
    def test_unix_socket_of_systemd(self, listen: str, mistake: Callable[..., str]) -> None:
        """
        A UNIX socket of systemd's is not taken, however that is written: Twisted opens it to everybody.
        """
        said = mistake("--listen", listen, "--users", "any")

        assert "would be opened to everybody" in said

    @pytest.mark.parametrize(
        "listen", ["tcp:8024", "tcp:8024:interface=192.0.2.1", "ssl:8024", r"tcp6:1:interface=\:\:"]
    )
    def test_users(self, listen: str, mistake: Callable[..., str]) -> None:
        """
        Where others can connect, somebody has to say who lives here.
        """
        said = mistake("--listen", listen)

        assert "--users: needed" in said or "not an endpoint" in said
        if "ssl" not in listen:
            assert "any takes mail for everybody" in said

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            ("--listen=8024", "tcp:24:interface=127.0.0.1"),
            ("--listen=", "tcp:24:interface=127.0.0.1"),
            ("--listen=tcp:smtp", "tcp:24:interface=127.0.0.1"),
            ("--listen=tcp:", "tcp:24:interface=127.0.0.1"),
            ("--backend=mailder:x", "did you mean 'maildir'?"),
            ("--backend=", "write NAME or NAME:ARGUMENTS"),
            ("--backend=nowhere:x", "installed: "),
            ("--backend=maildir:", "maildir: "),
            ("--users=nobody", "installed: any, file, passwd"),
            ("--users=file:/proc/nonexistent/users", "/proc/nonexistent/users: No such file"),
            ("--users=file", "file:PATH"),
            ("--hostname=a b", "mx.example.org"),
            ("--hostname=bücher.example", "mx.example.org"),
            ("--recipient-delimiter=+-", "one character"),
            ("--recipient-delimiter=@", "one character"),
            ("--delivered-to=sometimes", "single, always or never"),
            ("--json-log=/proc/nonexistent/log", "No such file"),
            ("--max-message-size=64X", "64M"),
            ("--max-message-size=0", "64M"),
            ("--max-recipients=many", "number"),
            ("--max-recipients=-1", "number"),
            ("--max-errors=1.5", "number"),
            ("--idle-timeout=soon", "5m"),
            ("--idle-timeout=0", "5m"),
            ("--workers=few", "auto"),
            ("--colour=red", "--colour"),
            ("--max-errors", "max-errors"),
            ("/srv/mail", "'/srv/mail' is no option"),
        ],
    )
    def test_words(self, words: str, says: str, mistake: Callable[..., str]) -> None:
        """
        The line names what is wrong, and what would be right.
        """
        said = mistake(words)

        assert says in said
        assert words.partition("=")[0] in said

    def test_nothing_is_touched(self, mistake: Callable[..., str], tmp_path: Path) -> None:
        """
        A service that does not start leaves nothing behind.
        """
        mistake("--users", "file:nowhere")
        mistake("--json-log", "/proc/nonexistent/log")

        assert [] == list(tmp_path.iterdir())


@frozen
class Run:
    """
    How a command ended, and what stood on the terminal.
    """

    status: int
    lines: list[str]

    def saying(self, words: str) -> list[str]:
        return [line for line in self.lines if words in line]


def run(words: list[str], directory: Path) -> Run:
    done = subprocess.run(
        words,
        cwd=directory,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )
    return Run(done.returncode, done.stdout.decode().splitlines())


NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Iterator[Callable[[str], Run]]:
    """
    ``runs(name)``: what became of a command.
    """
    directory = tmp_path_factory.mktemp("newcomer")
    (directory / "file").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        in_use = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        not_a_daemon = ("-n", "--pidfile=", "lmtp")
        logs = (f"--pidfile={directory}/pid", f"--logfile={directory}/log")
        words = {
            "port in use": (TWISTD, *not_a_daemon, "--listen", in_use),
            "port in use, twist": (TWIST, "lmtp", "--listen", in_use),
            "port in use, daemon": (TWISTD, *logs, "lmtp", "--listen", in_use),
            "directory": (TWISTD, *not_a_daemon, "--backend", "maildir:file/{user}"),
            "option": (TWISTD, *not_a_daemon, "--colour", "red"),
            "users": (TWISTD, *not_a_daemon, "--users", "file:nowhere"),
            "port 25": (TWISTD, *not_a_daemon, "--listen", "tcp:025:interface=127.0.0.1"),
            "no socket": (TWISTD, *not_a_daemon, "--listen", "unix:nowhere/sock"),
            "help": (TWISTD, *not_a_daemon, "--help"),
            "help-backends": (TWISTD, *not_a_daemon, "--help-backends"),
            "help-users": (TWIST, "lmtp", "--help-users"),
        }

        @cache
        def runs(name: str) -> Run:
            ended = forks.run(*words[name], directory=directory)
            return Run(ended.status, ended.said.splitlines())

        yield runs


class TestTerminal:
    """
    A newcomer's mistakes, with the real command: each is a process, none of which starts anew but
    the one of another user.
    """

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("directory", "file is not a directory"),
            ("option", "option --colour not recognized"),
            ("users", "nowhere: No such file or directory"),
        ],
    )
    def test_words(self, name: str, says: str, runs: Callable[[str], Run]) -> None:
        """
        A mistake in the words is one line, and nothing else.
        """
        (line,) = runs(name).lines

        assert says in line
        assert 1 == runs(name).status

    def test_not_writable(self, tmp_path: Path, unavailable: Callable[..., NoReturn]) -> None:
        """
        So is a directory in which this user may not write.
        """
        if os.geteuid() != 0:
            unavailable("root")
        ended = run([*NOBODY, *twistd("--backend", "maildir:/root/x/{user}")], tmp_path)
        (line,) = ended.lines

        assert "/root is not writable" in line
        assert 1 == ended.status

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("port in use", "Address already in use"),
            ("port in use, twist", "Address already in use"),
            ("no socket", "No such file or directory"),
            ("port 25", "tcp:025:interface=127.0.0.1"),
        ],
    )
    def test_listening(self, name: str, says: str, runs: Callable[[str], Run]) -> None:
        """
        What turns out on listening is one line too, the last one in the log, with no traceback.
        """
        (line,) = runs(name).saying(says)

        assert runs(name).lines[-1] == line
        assert "twistd lmtp: " in line
        assert [] == runs(name).saying("Traceback")
        assert 1 == runs(name).status

    def test_daemon(self, runs: Callable[[str], Run]) -> None:
        """
        A daemon that cannot listen says so to the terminal that it was started from.
        """
        first, _ = runs("port in use, daemon").lines

        assert "Address already in use: cannot listen on tcp:" in first
        assert 1 == runs("port in use, daemon").status

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("help", "--max-message-size="),
            ("help", "[default: 10000]"),
            ("help-backends", "maildir:"),
            ("help-users", "passwd["),
        ],
    )
    def test_help(self, name: str, says: str, runs: Callable[[str], Run]) -> None:
        """
        Who asks for help gets it.
        """
        assert runs(name).saying(says)
        assert 0 == runs(name).status


def talk(where: str, *said: bytes) -> list[bytes]:
    """
    Say something to a UNIX socket and hear all that comes until the end.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(where)
        connection.sendall(b"".join(said))
        with connection.makefile("rb") as heard:
            return heard.read().splitlines()


def read_until(words: str, process: subprocess.Popen[bytes]) -> str:
    """
    All that a process says up to a line with *words*.
    """
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line.decode()
        if words in said:
            return said
    pytest.fail(f"it has ended: {said}")


class TestService:
    """
    The whole command, from start to end.
    """

    def test_twist(self, tmp_path: Path) -> None:
        """
        ``twist lmtp`` listens, delivers, says what a newcomer does wrong, and stops.
        """
        (tmp_path / "users").write_text("ann@example.org\n")
        words = twist(
            *("--listen", "unix:sock", "--users", "file:users"),
            *("--hostname", "mx.example.org", "--json-log", "log.json"),
        )
        with subprocess.Popen(
            words, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            try:
                said = read_until("mail goes to", process)
                heard = talk(
                    str(tmp_path / "sock"),
                    b"HELO me\r\nLHLO me\r\nMAIL FROM:<>\r\n",
                    b"RCPT TO:<anne@example.org>\r\nRCPT TO:<ann@example.org>\r\n",
                    b"DATA\r\nSubject: x\r\n\r\nHi\r\n.\r\nQUIT\r\n",
                )
            finally:
                process.terminate()
            assert process.stdout is not None
            said += process.stdout.read().decode()

        assert b"500 5.5.1 This is LMTP (RFC 2033): say LHLO, not HELO or EHLO" == heard[1]
        assert b"550 5.1.1 No such user" in heard
        assert heard[-2].startswith(b"250 2.0.0 <ann@example.org> ")
        assert heard[-1].startswith(b"221 ")
        (mail,) = (tmp_path / "mail" / "example.org" / "ann" / "new").iterdir()
        assert mail.read_bytes().endswith(b"\nSubject: x\n\nHi\n")
        assert 2 == len((tmp_path / "log.json").read_text().splitlines())
        assert "Traceback" not in said
        assert "mail goes to maildir:mail/{domain}/{user}, users: file:users" in said
        assert "stopped" in said

    @pytest.mark.usefixtures("passable")
    def test_daemon(self, tmp_path: Path, unavailable: Callable[..., NoReturn]) -> None:
        """
        ``twistd lmtp`` as a daemon that changes to another user delivers as that user.
        """
        if os.geteuid() != 0:
            unavailable("root")
        nobody = pwd.getpwnam("nobody")
        home = tmp_path / "home"
        home.mkdir()
        os.chown(home, nobody.pw_uid, nobody.pw_gid)

        started = run(
            daemon(
                *(f"--pidfile={home}/pid", f"--logfile={home}/log"),
                *(f"--uid={nobody.pw_uid}", f"--gid={nobody.pw_gid}", f"--rundir={home}"),
                *("lmtp", "--listen", f"unix:{home}/sock:mode=600"),
                *("--backend", f"maildir:{home}/mail/{{domain}}/{{user}}"),
            ),
            tmp_path,
        )
        assert Run(0, []) == started
        pid = int((home / "pid").read_text())
        process = os.pidfd_open(pid)
        ended = select.poll()
        ended.register(process, select.POLLIN)
        try:
            with smtplib.LMTP(str(home / "sock")) as client:
                refused = client.sendmail("", ["ann@example.org"], "Subject: x\r\n\r\nHi\r\n")
            assert {} == refused
        finally:
            os.kill(pid, signal.SIGTERM)
        assert ended.poll(30_000)
        os.close(process)

        assert not (home / "pid").exists()
        (mail,) = (home / "mail" / "example.org" / "ann" / "new").iterdir()
        assert (nobody.pw_uid, nobody.pw_gid) == (mail.stat().st_uid, mail.stat().st_gid)
        log = (home / "log").read_text()
        assert "Traceback" not in log
        assert "stopped" in log


def test_makes_nothing_that_can_fail(options: Callable[..., Any]) -> None:
    """
    Whatever Options let through, a service can be made of.
    """
    for words in ([], ["--workers=2"], ["--keep-case", "--delivered-to=always"]):
        assert IService.providedBy(makeService(options(*words)))
