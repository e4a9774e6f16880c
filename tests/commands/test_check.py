"""
``lmtpsvc check``: all problems at once, and where mail would go.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from twisted.internet.defer import Deferred
from zope.interface import implementer

from lmtpsvc.__main__ import COMMANDS
from lmtpsvc.__main__ import main as lmtpsvc
from lmtpsvc.commands.check import CheckOptions, main
from lmtpsvc.commands.where import Refused, routes
from lmtpsvc.config import structure
from lmtpsvc.envelope import Mailbox
from lmtpsvc.interfaces import IDirectory
from lmtpsvc.wiring.parts import Parts, make_parts

from ..certificates import DAY, NOW, Authority
from ..forks import LMTPSVC, Forks


class Terminal:
    """
    What ``lmtpsvc check`` says in *directory*, its path taken off.
    """

    def __init__(self, directory: Path, captured: pytest.CaptureFixture[str]) -> None:
        self.directory, self._captured = directory, captured
        self.status = -1

    def check(self, text: str, *words: str) -> list[str]:
        (self.directory / "lmtp.toml").write_text(text)
        self.status = main(["lmtp.toml", *words])
        return self._captured.readouterr().out.replace(f"{self.directory}/", "").splitlines()


@pytest.fixture
def terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Terminal:
    monkeypatch.chdir(tmp_path)
    return Terminal(tmp_path, capsys)


ALL_WRONG = """
listen = ["tcp:25", "unix:/proc/nonexistent/sock", "nonsense"]
users = "file:users"
keep-case = 1
spool = "/proc/nonexistent"
json-log = "/proc/nonexistent/log"
colour = "red"
backend = "lokal"

[limits]
max-errors = "x"

[backends]
local = "maildir:~/mail"

[[routes]]
to = "a b"
backend = "local"

[[routes]]
to = "example.org"
backend = "archive"

[[routes]]
to = "example.net"
users = "nobody"
"""


class TestProblems:
    def test_none(self, terminal: Terminal) -> None:
        """
        A file that is right is told in one line.
        """
        said = terminal.check('listen = "unix:sock"')

        assert ["no problem found: mail goes to maildir:mail/{domain}/{user}, users: any"] == said
        assert 0 == terminal.status

    def test_all_at_once(self, terminal: Terminal) -> None:
        """
        Whatever is wrong is told in one run: a line each, in the order of the layers.
        """
        (terminal.directory / "users").write_text("ann@example.org\nann@\nbob\n")

        said = terminal.check(ALL_WRONG)

        assert 1 == terminal.status
        assert [
            "lmtp.toml: keep-case: expected true or false, found 1",
            "lmtp.toml: [limits] max-errors: 'x' is not a whole number of at least 1",
            (
                "lmtp.toml: [[routes]] 1: to: 'a b' is no pattern; write ann@example.org, example.org"
                " or *.example.org"
            ),
        ] == said[:3]
        assert said[3].startswith("lmtp.toml: colour: unknown key; expected one of listen, ")
        assert "lmtp.toml: listen: tcp:25: LMTP must not be on port 25 (RFC 2033)" in said[4]
        assert "listen: unix:/proc/nonexistent/sock: /proc/nonexistent is not there" in said[5]
        assert "listen: nonsense: not an endpoint" in said[6]
        assert [
            "lmtp.toml: spool: /proc/nonexistent is not there",
            "lmtp.toml: json-log: /proc/nonexistent is not there",
        ] == said[7:9]
        assert "users: file:users: line 2: " in said[9]
        assert "; line 3: " in said[9]
        assert "backend: no backend is called 'lokal'" in said[10]
        assert "[backends] local: maildir: ~/mail" in said[11]
        assert "[[routes]] 2: backend: no backend is called 'archive'" in said[12]
        assert "[[routes]] 3: users: no directory is called 'nobody'" in said[13]
        assert 14 == len(said)

    def test_certificate(self, terminal: Terminal) -> None:
        """
        A certificate that has expired, and a key that everybody may read, are problems; the service
        would start.
        """
        (terminal.directory / "authority").mkdir()
        pair = Authority(terminal.directory / "authority").sign(end=NOW - DAY)
        pair.certificate.rename(terminal.directory / "own.pem")
        pair.key.rename(terminal.directory / "own.key")
        (terminal.directory / "own.key").chmod(0o604)

        said = terminal.check(
            'listen = "unix:sock"\ntls-certificate = "own.pem"\ntls-key = "own.key"'
        )

        assert 1 == terminal.status
        ended = f"{NOW - DAY:%Y-%m-%d}"
        assert [
            f"lmtp.toml: tls-certificate: own.pem: the certificate has expired on {ended}",
            (
                "lmtp.toml: tls-key: own.key: everybody may read or change the private key"
                " (mode 604)"
            ),
        ] == said

    def test_no_toml(self, terminal: Terminal) -> None:
        """
        What is no TOML is told with its place, and that is all that can be.
        """
        assert ["lmtp.toml: line 1, column 7: Expected '=' after a key in a key/value pair"] == (
            terminal.check("users any")
        )
        assert 1 == terminal.status

    def test_whole_tables(self, terminal: Terminal) -> None:
        """
        Tables that are none do not hide what else is wrong.
        """
        # Whether somebody else has the usual port is none of this.
        words = "limits = 1\nbackends = 2\nroutes = 3\nspool = '/proc/nonexistent'"
        said = terminal.check(words, "--running")

        assert 4 == len(said)
        assert "spool" in said[3]

    def test_listeners(self, terminal: Terminal) -> None:
        """
        A table that is wrong does not hide the others, nor is the default looked at in its place.
        """
        said = terminal.check(
            "[[listeners]]\nlisten = 'unix:/proc/nonexistent/x'\nproxied = 1\n"
            "[[listeners]]\nlisten = 'unix:/proc/nonexistent/y'\ntls-required = true"
        )

        assert [
            "lmtp.toml: [[listeners]] 1: proxied: expected true or false, found 1",
            "lmtp.toml: [[listeners]] 1: listen: unix:/proc/nonexistent/x: /proc/nonexistent is not there",
            (
                "lmtp.toml: [[listeners]] 2: listen: tls-required:unix:/proc/nonexistent/y: /proc/nonexistent"
                " is not there"
            ),
            (
                "lmtp.toml: [[listeners]] 2: listen: tls-required:unix:/proc/nonexistent/y: needs"
                " tls-certificate"
            ),
        ] == said

    def test_trusted(self, terminal: Terminal) -> None:
        """
        That nobody is trusted is told once, and not where the list is broken.
        """
        said = terminal.check("listen = 'proxied:unix:x'")
        assert ["lmtp.toml: listen: proxied:unix:x: believes"] == [each[:43] for each in said]

        said = terminal.check("listen = 'proxied:unix:x'\ntrusted = 'x'")
        assert ["lmtp.toml: trusted: 'x' is no network"] == [each[:37] for each in said]

    def test_two_broken_routes(self, terminal: Terminal) -> None:
        """
        Two routes that are both wrong are two problems.
        """
        said = terminal.check("[[routes]]\nto = '*'\nusers = 'any'\n" * 2, "--running")

        assert ["[[routes]] 1: to", "[[routes]] 2: to"] == [line[11:27] for line in said]


class TestPermissions:
    def test_port_in_use(self, terminal: Terminal) -> None:
        """
        A port where somebody listens is a problem, unless that is the running service.
        """
        with socket.create_server(("127.0.0.1", 0)) as taken:
            words = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            (said,) = terminal.check(f"listen = '{words}'")

            assert f"lmtp.toml: listen: {words}: Address already in use" == said
            assert terminal.check(f"listen = '{words}'", "--running")[0].startswith("no problem")

    def test_socket_in_use(self, terminal: Terminal) -> None:
        """
        So is a UNIX socket; one that was left behind is not.
        """
        with socket.socket(socket.AF_UNIX) as taken:
            taken.bind("sock")
            taken.listen()
            assert ["lmtp.toml: listen: unix:sock: Address already in use"] == terminal.check(
                "listen = 'unix:sock'"
            )
        terminal.check("listen = 'unix:sock'")

        assert 0 == terminal.status
        assert (terminal.directory / "sock").is_socket(), "nothing was touched"

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("listen = 'unix:lmtp.toml'", "something is there that is no socket"),
            (f"listen = 'unix:{'x' * 108}'", "a path of more than 107 octets"),
            ("listen = 'unix:no/sock'", "no is not there"),
            ("listen = 'unix:lmtp.toml/sock'", "lmtp.toml is not a directory"),
            ("json-log = '.'", "json-log: . is a directory"),
            ("json-log = ''", "json-log: '' is no file"),
            (f"json-log = '{'x' * 300}'", "File name too long"),
            ("spool = 'lmtp.toml'", "lmtp.toml is not a directory"),
            ("listen = 'tcp:smtp'\nusers = 'any'", "not an endpoint"),
        ],
    )
    def test_in_the_way(self, text: str, says: str, terminal: Terminal) -> None:
        """
        What cannot be made is told before somebody tries.
        """
        text = text if "listen" in text else f"listen = 'unix:sock'\n{text}"
        (said,) = terminal.check(text)

        assert says in said

    @pytest.mark.parametrize(
        "text",
        [
            "listen = 'unix:sock'\njson-log = 'lmtp.toml'",
            "listen = 'unix:sock'\njson-log = 'new'",
            "listen = 'unix:sock'\njson-log = '-'",
            r"listen = 'tcp6:0:interface=\:\:1'",
            "listen = 'systemd:domain=INET:name=lmtp'\nusers = 'any'",
        ],
    )
    def test_right(self, text: str, terminal: Terminal) -> None:
        """
        What can be is no problem, and is not made.
        """
        terminal.check(text)

        assert 0 == terminal.status
        assert ["lmtp.toml"] == os.listdir(terminal.directory)

    @pytest.mark.usefixtures("passable")
    def test_another_user(
        self, terminal: Terminal, forks: Forks, unavailable: Callable[..., NoReturn]
    ) -> None:
        """
        With --as, all but listening is judged with that user's rights.
        """
        if os.geteuid() != 0:
            unavailable("root")
        (terminal.directory / "spool").mkdir(0o700)
        toml = terminal.directory / "lmtp.toml"
        toml.write_text("listen = 'unix:sock'\nspool = 'spool'\njson-log = 'log'\n")
        toml.chmod(0o600)

        words = ("check", "--as", "nobody", "lmtp.toml")
        done = forks.run(LMTPSVC, *words, directory=terminal.directory)

        assert [
            "user 65534 cannot read it, so that SIGHUP could not reload it",
            f"spool: {terminal.directory}/spool is not writable for user 65534",
            "json-log: . is not writable for user 65534",
        ] == [line.partition(": ")[2] for line in done.said.splitlines()[:3]]
        assert "backend: maildir: " in done.said
        assert "listen" not in done.said
        assert 1 == done.status


class TestWords:
    def parsed(self, *words: str) -> CheckOptions:
        options = CheckOptions()
        options.parseOptions(list(words))
        return options

    def test_addresses(self, terminal: Terminal) -> None:
        """
        The file and the addresses may come in any order; a file may have @ in its name.
        """
        (terminal.directory / "a@b").touch()
        options = self.parsed("ann@example.org", "a@b", "bob@example.org")

        assert str(terminal.directory / "a@b") == options["config"]
        assert ["ann@example.org", "bob@example.org"] == options["addresses"]

    def test_options(self, terminal: Terminal) -> None:
        """
        The options of twistd lmtp count more than the file here, too.
        """
        said = terminal.check("backend = 'nowhere:x'", "--backend=mbox:x/{user}", "--listen=unix:x")

        assert ["no problem found: mail goes to mbox:x/{user}, users: any"] == said
        assert ["--spool: /proc/nonexistent is not there"] == terminal.check(
            "", "--spool=/proc/nonexistent", "--listen=unix:x"
        )

    def test_anywhere(self) -> None:
        """
        Options may stand behind the file, with empty values, or none, or short.
        """
        words = ["x", "--recipient-delimiter", "", "--running", "a@b", "-b", "maildir:y"]
        options = self.parsed(*words)

        assert {"recipient-delimiter": "", "backend": "maildir:y"} == options.sources.given
        assert (True, ["a@b"]) == (bool(options["running"]), options["addresses"])

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["a", "b"], "one file is enough: b"),
            (["--as", "no such user"], "--as no such user: there is no such user"),
            (["--colour"], "option --colour not recognized"),
        ],
    )
    def test_mistakes(self, words: list[str], says: str, unavailable: Any) -> None:
        """
        A mistake in the words themselves is one line.
        """
        if "--as" in words and os.geteuid() != 0:
            unavailable("root")
        with pytest.raises(SystemExit) as caught:
            self.parsed(*words)

        assert f"lmtpsvc check: {says}; see lmtpsvc check --help" == caught.value.code

    def test_not_root(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Only root can become somebody else.
        """
        monkeypatch.setattr("os.geteuid", lambda: 1000)
        with pytest.raises(SystemExit, match="--as needs root"):
            self.parsed("--as", "nobody")


@implementer(IDirectory)
class Town:
    """
    Knows Ann, who has two mailboxes, and is broken for others.
    """

    def resolve(self, mailbox: Mailbox) -> list[Mailbox]:
        if mailbox.user == "nobody":
            return []
        if mailbox.user != "ann":
            raise RuntimeError("a defect")
        return [mailbox, Mailbox("ann", "example.net", attributes={"backend": "archive"})]


class TestRoutes:
    @pytest.fixture
    def parts(self, tmp_path: Path) -> Parts:
        from twisted.internet import reactor

        return make_parts(
            structure(
                {
                    "backend": f"maildir:{tmp_path}/mail/{{domain}}/{{user}}:detail=folder",
                    "users": "any",
                    "backends": {"archive": f"mbox:{tmp_path}/{{user}}"},
                    "routes": [{"to": ["*.example.org"], "backend": "archive"}],
                }
            ),
            reactor,
        )

    @pytest.mark.parametrize(
        ("address", "line"),
        [
            (
                "Ann+x@Example.ORG",
                (
                    "Ann+x@Example.ORG -> ann+x@example.org in maildir:TOP/mail/{domain}/{user}"
                    ":detail=folder: TOP/mail/example.org/ann/.x"
                ),
            ),
            ("bob@a.example.org", "bob@a.example.org -> bob@a.example.org in archive: TOP/bob"),
        ],
    )
    def test_where(
        self,
        address: str,
        line: str,
        parts: Parts,
        tmp_path: Path,
        success_of: Callable[..., Any],
    ) -> None:
        """
        A line has the mailbox, the backend as it is called, and the path.
        """
        assert [line.replace("TOP", str(tmp_path))] == success_of(routes(parts, address))

    def test_two_mailboxes(
        self, parts: Parts, success_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        An alias has a line for each of its mailboxes; the directory may say which backend.
        """
        first, second = success_of(routes(evolved(parts, Town()), "ann@example.org"))

        assert "ann@example.org -> ann@example.org in maildir:" in first
        assert "ann@example.org -> ann@example.net in archive: " in second

    @pytest.mark.parametrize(
        ("address", "reply"),
        [
            ("nonsense", "501 5.1.3"),
            ("a b@example.org", "501 5.1.3"),
            ("..@example.org", "501 5.1.3"),
            ("nobody@example.org", "550 5.1.1"),
            ("bob@example.org", "451 4.3.0"),
        ],
    )
    def test_refused(
        self, address: str, reply: str, parts: Parts, failure_of: Callable[..., Any]
    ) -> None:
        """
        A reply that would be a refusal is shown as the client would read it.
        """
        refused: Deferred[Any] = Deferred.fromCoroutine(routes(evolved(parts, Town()), address))

        assert str(failure_of(refused, Refused).value).startswith(reply)

    def test_refused_by_the_backend(self, parts: Parts, failure_of: Callable[..., Any]) -> None:
        """
        The backend is asked, too.
        """
        refused = Deferred.fromCoroutine(routes(parts, '"a/b"@example.org'))

        assert str(failure_of(refused, Refused).value).startswith("553 5.1.3")

    def test_a_no_that_was_not_raised(
        self, parts: Parts, monkeypatch: pytest.MonkeyPatch, failure_of: Callable[..., Any]
    ) -> None:
        """
        What the service takes for a no of a backend is one here, too.
        """
        to = parts.backend.destination(Mailbox("ann", "example.com")).backend
        monkeypatch.setattr(to, "verify", lambda _: False)
        refused = Deferred.fromCoroutine(routes(parts, "ann@example.com"))

        assert str(failure_of(refused, Refused).value).startswith("451 4.3.0")


def evolved(parts: Parts, directory: IDirectory) -> Parts:
    from attrs import evolve

    return evolve(parts, directory=directory)


class TestCommand:
    def test_addresses(self, tmp_path: Path, forks: Forks) -> None:
        """
        The whole command: a user of the system is looked up in a thread, one that is none is refused.
        """
        (tmp_path / "lmtp.toml").write_text(
            "listen = 'unix:sock'\nusers = 'passwd:min_uid=0'\nbackend = 'maildir:mail'\n"
        )

        words = ("check", "lmtp.toml", "root@example.org")

        done = forks.run(LMTPSVC, *words, "no-such@example.org", directory=tmp_path)

        assert [
            "no problem found: mail goes to maildir:mail, users: passwd:min_uid=0",
            f"root@example.org -> root@example.org in maildir:mail: {tmp_path}/mail/example.org/root",
            "no-such@example.org: 550 5.1.1 No such user",
        ] == done.said.splitlines()
        assert 1 == done.status
        assert 0 == forks.run(LMTPSVC, *words, directory=tmp_path).status
        assert not (tmp_path / "mail").exists(), "nothing was made"

    def test_output_that_cannot_leave(self, tmp_path: Path, forks: Forks) -> None:
        """
        Where mail goes is told in one line or not at all: it is no defect of the look-up.
        """
        program = (
            "import io, sys\n"
            "from lmtpsvc.__main__ import main\n"
            "class Full(io.StringIO):\n"
            "    is_full = False\n"
            "    def write(self, text):\n"
            "        self.is_full = self.is_full or '->' in text\n"
            "        if self.is_full: raise OSError(28, 'No space left')\n"
            "sys.stdout = Full()\n"
            "status = main(['check', '--listen', 'unix:sock', 'ann@example.org'])\n"
            "sys.stdout = sys.__stdout__\n"
            "sys.exit(status)\n"
        )
        done = forks.run(program, directory=tmp_path)

        assert "lmtpsvc: standard output: No space left\n" == done.said
        assert 1 == done.status

    def test_defect(self, tmp_path: Path, forks: Forks) -> None:
        """
        What was found out before it is told all the same.
        """
        program = (
            "import sys\n"
            "from lmtpsvc.__main__ import main\n"
            "from lmtpsvc.backends.maildir import MaildirBackend\n"
            "where = MaildirBackend.where\n"
            "def fail(backend, mailbox):\n"
            "    if mailbox.user == 'bob': raise ZeroDivisionError\n"
            "    return where(backend, mailbox)\n"
            "MaildirBackend.where = fail\n"
            "words = ['--listen', 'unix:sock', '--backend', 'maildir:mail']\n"
            "sys.exit(main(['check', *words, 'ann@example.org', 'bob@example.org']))\n"
        )
        done = forks.run(program, directory=tmp_path)

        assert "ann@example.org -> ann@example.org in maildir:mail" in done.said
        assert "ZeroDivisionError" in done.said
        assert 1 == done.status

    def test_an_address_that_is_no_text(self, tmp_path: Path, forks: Forks) -> None:
        """
        As an argument has it that is not UTF-8.  What is, is text where the locale has no more than
        ASCII, too.
        """
        words = ("check", "--listen", "unix:sock", "--backend", "maildir:mail")
        addresses = ("\udcff@example.org", "\udcc3\udcbc@example.org")

        done = forks.run(LMTPSVC, *words, *addresses, directory=tmp_path)

        _, refused, found = done.said.splitlines()
        assert refused.endswith("\\udcff@example.org: 501 5.1.3 Bad recipient address syntax")
        assert found.endswith("/mail/example.org/ü")
        assert done.status == 1

    def test_which(self, capsys: pytest.CaptureFixture[str]) -> None:
        """
        Without a command, or with a wrong one, it is told which there are.
        """
        assert 1 == lmtpsvc([])
        assert 1 == lmtpsvc(["chekc"])
        empty, wrong = capsys.readouterr().err.splitlines()

        assert (
            f"lmtpsvc: which command?; expected {', '.join(COMMANDS)}; see lmtpsvc --help" == empty
        )
        assert "lmtpsvc: 'chekc' is no command; did you mean 'check'?; see lmtpsvc --help" == wrong

    def test_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        """
        Each command stands in the help, with what it does.
        """
        assert 0 == lmtpsvc(["--help"])
        said = capsys.readouterr().out

        for name, (_, text) in COMMANDS.items():
            assert re.search(rf"^  {name} +{re.escape(text)}$", said, re.MULTILINE)
