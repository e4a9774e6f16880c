"""
The TOML file: what it may say, what counts more, and the one line that a mistake is answered with.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import evolve, fields
from OpenSSL import SSL
from twisted.python import usage

from lmtpsvc.config import BrokenConfig, Config, Problem, Route, read_file, structure
from lmtpsvc.delivery.json_log import JSONLog
from lmtpsvc.limits import Limits
from lmtpsvc.options import Options
from lmtpsvc.session.auth import Auth
from lmtpsvc.session.connection import Terms
from lmtpsvc.tap import makeService
from lmtpsvc.values import split_terms

from .certificates import Authority

FULL = """
listen = ["unix:sock:mode=660", "tcp:24:interface=127.0.0.1"]
backend = "local"
users = "any"
hostname = "mx.example.org"
recipient-delimiter = "-"
keep-case = true
delivered-to = "never"
spool = "."
json-log = "-"
workers = 1

[limits]
max-message-size = "10M"
max-errors = 5
idle-timeout = 300.5
stop-timeout = "1m"

[backends]
local = "maildir:mail/{domain}/{user}"
archive = "maildir:archive/{domain}/{user}"

[[routes]]
to = ["*.example.org", "ann@example.net"]
backend = "archive"

[[routes]]
to = "example.com"
backend = "maildir:com"
users = "any"
"""


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Options]]:
    """
    Read a file of this text, and a command line, in an empty directory.
    """
    monkeypatch.chdir(tmp_path)

    def options(text: str, *words: str) -> Options:
        Path("lmtp.toml").write_text(text)
        options = Options()
        options.parseOptions(["--config", "lmtp.toml", *words])
        logs.append(options["json-log"])
        return options

    logs: list[JSONLog | None] = []
    yield options
    for log in logs:
        if log is not None:
            log.stopService()


@pytest.fixture
def certificates(tmp_path: Path) -> None:
    """
    A certificate, its key, another key, and an authority.
    """
    (tmp_path / "authority").mkdir()
    authority = Authority(tmp_path / "authority")
    pair = authority.sign()
    pair.certificate.rename(tmp_path / "own.pem")
    pair.key.rename(tmp_path / "own.key")
    authority.sign().key.rename(tmp_path / "other.key")
    authority.path.rename(tmp_path / "ca.pem")


@pytest.fixture
def mistake(options: Callable[..., Options]) -> Callable[..., str]:
    """
    Read a wrong file; the line that it is answered with, the path taken off.
    """

    def mistake(text: str, *words: str) -> str:
        with pytest.raises(SystemExit) as caught:
            options(text, *words)
        said = caught.value.code
        assert isinstance(said, str), "a text, so that the status is 1"
        assert said.isprintable(), "one line"
        assert said.startswith("twistd lmtp: ")
        return said.removeprefix("twistd lmtp: ").replace(f"{os.getcwd()}/", "")

    return mistake


class TestValues:
    def test_empty(self, options: Callable[..., Options]) -> None:
        """
        An empty file is the defaults.
        """
        made = options("")

        assert Config() == made.config
        assert "mail goes to maildir:mail/{domain}/{user}, users: any" == made.parts.summary

    def test_full(self, options: Callable[..., Options]) -> None:
        """
        Every key arrives, numbers with quotes or without.
        """
        made = options(FULL)

        assert made.config == Config(
            listen=("unix:sock:mode=660", "tcp:24:interface=127.0.0.1"),
            backend="local",
            users="any",
            hostname="mx.example.org",
            recipient_delimiter="-",
            keep_case=True,
            delivered_to="never",
            spool=str(Path.cwd()),
            json_log="-",
            workers=1,
            limits=Limits(
                message_size=10 * 1024 * 1024, errors=5, idle_seconds=300.5, stop_seconds=60
            ),
            backends={
                "local": "maildir:mail/{domain}/{user}",
                "archive": "maildir:archive/{domain}/{user}",
            },
            routes=(
                Route(("*.example.org", "ann@example.net"), "archive"),
                Route(("example.com",), "maildir:com", "any"),
            ),
        )
        assert "mail goes to local, users: any; 2 routes" == made.parts.summary
        assert 3 == len(made.parts.backends)
        assert 1 == len(made.parts.directories), "one object for the same words"
        assert makeService(made) is not None

    def test_one_word_is_a_list(self) -> None:
        """
        A list of one needs no brackets.
        """
        assert ("unix:x",) == structure({"listen": "unix:x"}).listen

    def test_routes_say_who_lives_here(self, options: Callable[..., Options]) -> None:
        """
        Where routes have users and nothing else has, nobody lives in the other domains, and it may
        listen where it likes.
        """
        made = options('listen = "tcp:24"\n[[routes]]\nto = "example.org"\nusers = "any"\n')

        assert "those of routes" == made.parts.users
        assert list(made.parts.directories) == ["any"]


class TestOverrides:
    @pytest.mark.parametrize(
        ("words", "key", "value"),
        [
            (["--listen", "unix:x"], "listen", ("unix:x",)),
            (["--backend", "archive"], "backend", "archive"),
            (["--backend", "maildir:x"], "backend", "maildir:x"),
            (["--users", "passwd"], "users", "passwd"),
            (["--hostname", "b.example.org"], "hostname", "b.example.org"),
            (["--recipient-delimiter", ""], "recipient_delimiter", ""),
            (["--recipient-delimiter", "+"], "recipient_delimiter", "+"),
            (["--delivered-to", "single"], "delivered_to", "single"),
            (["--original-recipient", "x-original-to"], "original_recipient", "X-Original-To"),
            (["--dsn", "relayed"], "dsn", "relayed"),
            (["--vrfy", "trusted"], "vrfy", "trusted"),
            (["--spool", "/tmp"], "spool", "/tmp"),
            (["--json-log", "log"], "json_log", "log"),
            (["--workers", "3"], "workers", 3),
        ],
    )
    def test_command_line(
        self, words: list[str], key: str, value: object, options: Callable[..., Options]
    ) -> None:
        """
        An option counts more than the key, although it says what is the default; others stay.
        """
        changed = options(FULL, *words).config
        before = options(FULL).config

        assert value == getattr(changed, key)
        assert [key] == [
            each.name for each in fields(Config)
            if getattr(changed, each.name) != getattr(before, each.name)
        ]  # fmt: skip

    def test_spool(self, options: Callable[..., Options]) -> None:
        """
        The spool is where it was when the service was started, also if twistd goes elsewhere then.
        """
        assert str(Path.cwd() / "large") == options("", "--spool", "large").config.spool

    def test_limits(self, options: Callable[..., Options]) -> None:
        """
        One limit on the command line leaves those of the file.
        """
        limits = options(FULL, "--max-errors", "7").config.limits

        assert (7, 60) == (limits.errors, limits.stop_seconds)

    def test_keep_case(self, options: Callable[..., Options]) -> None:
        """
        A flag may come from either.
        """
        assert options("", "--keep-case").config.keep_case
        assert options("keep-case = true").config.keep_case

    def test_mistake_of_the_command_line(self, mistake: Callable[..., str]) -> None:
        """
        What the command line says wrongly is not laid at the door of the file.
        """
        said = mistake(FULL, "--max-errors", "x")

        assert (
            "--max-errors: 'x' is not a whole number of at least 1; see twistd lmtp --help" == said
        )

    def test_mistake_of_the_file(self, mistake: Callable[..., str]) -> None:
        """
        Nor the other way round, where a key of a route has the name of an option.
        """
        text = '[[routes]]\nto = "a.example"\nbackend = "maildir:~"'
        said = mistake(text, "--backend", "maildir:x", "--listen", "unix:x")

        assert said.startswith("lmtp.toml: [[routes]] 1: backend: maildir: ~")

    def test_a_worker_keeps_its_sockets(self, options: Callable[..., Options]) -> None:
        """
        A worker that is started again listens on what it inherits, whatever the file says by then.
        """
        words = options('listen = ["unix:a", "unix:b"]')["command"].words

        assert ["--listen", "unix:a", "--listen", "unix:b"] == words[-4:]
        assert "b" not in options('listen = "unix:b"', "--listen", "unix:a")["command"].words[-1]


LISTENERS = """
listen = "unix:a"
trusted = "10.0.0.0/8, local"
tls-certificate = "own.pem"
tls-key = "own.key"

[[listeners]]
listen = ["unix:b", "unix:c"]
proxied = true

[[listeners]]
listen = "unix:d"
tls-required = true
login-required = true
"""


@pytest.mark.usefixtures("certificates")
class TestListeners:
    """
    What endpoints ask of clients, as tables and as words.
    """

    def test_terms(self, options: Callable[..., Options]) -> None:
        """
        Tables stand behind the plain list, and each endpoint has its terms.
        """
        made = options(LISTENERS)

        words = (
            "unix:a",
            "proxied:unix:b",
            "proxied:unix:c",
            "tls-required:login-required:unix:d",
        )
        assert words == made.config.listen
        assert [
            Terms(),
            Terms(proxied=True),
            Terms(proxied=True),
            Terms(tls_required=True, login_required=True),
        ] == [listener.terms for listener in made["listeners"]]
        assert ("10.0.0.0/8", "local") == made.config.trusted

    def test_worker(self, options: Callable[..., Options]) -> None:
        """
        A worker gets all of them as words, and they mean the same to it.
        """
        first = options(LISTENERS)
        again = options(LISTENERS, *first["command"].words[2:])

        assert first.config.listen == again.config.listen
        assert [each.terms for each in first["listeners"]] == [
            each.terms for each in again["listeners"]
        ]

    def test_only_tables(self, options: Callable[..., Options]) -> None:
        """
        Whoever has tables does not get the default besides.
        """
        assert ("unix:x",) == options("[[listeners]]\nlisten = 'unix:x'").config.listen

    def test_command_line(self, options: Callable[..., Options]) -> None:
        """
        --listen counts more than list and tables, --trusted more than the key.
        """
        words = (
            "--listen",
            "login-required:proxied:unix:x",
            "--trusted",
            "::1",
            "--trusted",
            "local",
        )
        made = options(LISTENERS, *words)

        assert ("login-required:proxied:unix:x",) == made.config.listen
        assert ("::1", "local") == made.config.trusted

    def test_reachable(self, options: Callable[..., Options]) -> None:
        """
        Terms in front do not hide that an endpoint is on this machine only, or not.
        """
        words = ("--trusted", "local", "--listen")
        assert options("", *words, "proxied:tcp:0:interface=127.0.0.1").parts.users == "any"
        with pytest.raises(SystemExit, match="can be reached from elsewhere"):
            options("", *words, "proxied:tcp:0")

    @pytest.mark.parametrize(
        ("words", "terms", "endpoint"),
        [
            ("tcp:24", set(), "tcp:24"),
            ("tls:tcp:24", {"tls"}, "tcp:24"),
            ("tls:tcp6:24", {"tls"}, "tcp6:24"),
            ("tls:proxied:tls-required:unix:x", {"tls", "proxied", "tls-required"}, "unix:x"),
            ("tls:/etc/keys:port=24", set(), "tls:/etc/keys:port=24"),
            ("tls:keys:port=24", set(), "tls:keys:port=24"),
            ("proxied:tls:certs=keys:port=24", {"proxied"}, "tls:certs=keys:port=24"),
            ("login-required:tls", {"login-required"}, "tls"),
            ("unix:proxied:x", set(), "unix:proxied:x"),
        ],
    )
    def test_split(self, words: str, terms: set[str], endpoint: str) -> None:
        """
        Terms stand in front; ``tls:`` is one only if an endpoint is behind it.
        """
        said, rest = split_terms(words)

        assert (terms, endpoint) == (set(said), rest)

    def test_place(self) -> None:
        """
        A mistake in an endpoint is told with its table.
        """
        config = structure(
            {"listen": ["a", "b"], "listeners": [{"listen": ["c", "d"]}, {"listen": "e"}]}
        )

        assert [
            ("listen",),
            ("listen",),
            ("listeners", 1, "listen"),
            ("listeners", 1, "listen"),
            ("listeners", 2, "listen"),
        ] == [config.place_of(position) for position in range(5)]


@pytest.mark.usefixtures("certificates")
class TestTLS:
    """
    Certificates, their keys, and who needs them.
    """

    PAIR = 'tls-certificate = "own.pem"\ntls-key = "own.key"\n'

    @pytest.mark.parametrize(
        ("text", "clients"),
        [
            ("", SSL.VERIFY_NONE),
            ('tls-client-ca = "ca.pem"', SSL.VERIFY_PEER),
            (
                'tls-client-ca = "ca.pem"\ntls-client = "require"',
                SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
            ),
            ('tls-client-ca = "ca.pem"\ntls-client = "no"', SSL.VERIFY_NONE),
        ],
    )
    def test_made(self, text: str, clients: int, options: Callable[..., Options]) -> None:
        """
        Whether clients are asked for a certificate, or have to have one, is as it was said.
        """
        tls = options(self.PAIR + text).parts.tls

        assert tls is not None
        mode = tls.options.getContext().get_verify_mode()
        assert clients == mode & ~SSL.VERIFY_CLIENT_ONCE

    def test_none(self, options: Callable[..., Options]) -> None:
        """
        Without a certificate there is no TLS.
        """
        assert options("").parts.tls is None

    @pytest.mark.parametrize(
        ("listen", "encrypted"),
        [("unix:s", False), ("tls:unix:s", True), ("tls-required:unix:s", False)],
    )
    def test_listener(self, listen: str, encrypted: bool, options: Callable[..., Options]) -> None:
        """
        ``tls:`` in front of an endpoint is TLS from the first octet on.
        """
        [listener] = options(self.PAIR, "--listen", listen)["listeners"]

        assert encrypted == listener.encrypted

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ('tls-key = "own.key"', "lmtp.toml: tls-key: needs tls-certificate"),
            ('tls-client-ca = "ca.pem"', "lmtp.toml: tls-client-ca: needs tls-certificate"),
            ('tls-client = "ask"', "lmtp.toml: tls-client: needs tls-certificate"),
            (f'{PAIR}tls-client = "ask"', "lmtp.toml: tls-client: ask needs tls-client-ca"),
            (
                'tls-client = "maybe"',
                'lmtp.toml: tls-client: expected no, ask or require, found "maybe"',
            ),
            ('listen = "tls:unix:s"', "lmtp.toml: listen: tls:unix:s: needs tls-certificate"),
            (
                '[[listeners]]\nlisten = "unix:s"\ntls-required = true',
                ("lmtp.toml: [[listeners]] 1: listen: tls-required:unix:s: needs tls-certificate"),
            ),
            (
                f'{PAIR}listen = "tls:2424:interface=127.0.0.1"',
                (
                    "lmtp.toml: listen: tls:2424:interface=127.0.0.1: a port stands behind tcp:,"
                    " write tls:tcp:2424"
                ),
            ),
            (
                f'{PAIR}listen = "tls:ssl:0:privateKey=own.key:certKey=own.pem"',
                (
                    "lmtp.toml: listen: tls:ssl:0:privateKey=own.key:certKey=own.pem: there is TLS"
                    " in ssl: already; take one of the two"
                ),
            ),
            (
                'tls-certificate = "own.pem"\ntls-key = "other.key"',
                "lmtp.toml: tls-key: other.key: not the key of the certificate in own.pem",
            ),
            (
                'tls-certificate = "none.pem"',
                "lmtp.toml: tls-certificate: none.pem: No such file or directory",
            ),
        ],
    )
    def test_mistake(self, text: str, line: str, mistake: Callable[..., str]) -> None:
        """
        What is wrong with the files is told in one line, by the key.
        """
        assert line == mistake(text)


class TestAuth:
    """
    Who may log in.
    """

    def test_checkers(self, options: Callable[..., Options]) -> None:
        """
        Options and keys say the same, and the former count more.
        """
        assert ("external",) == options('auth = "external"').config.auth
        words = ("--auth", "external:ann", "--auth", "memory:bob:secret")
        made = options('auth = "external"', *words)
        assert words[1::2] == made.config.auth
        assert any(isinstance(each, Auth) for each in made.parts.extensions._extensions)

    def test_nobody(self, options: Callable[..., Options]) -> None:
        """
        Without checkers there is no AUTH.
        """
        made = options("")
        assert not any(isinstance(each, Auth) for each in made.parts.extensions._extensions)

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            (
                'auth = ["external", "scram:none"]',
                "lmtp.toml: auth: scram: none: No such file or directory",
            ),
            (
                '[[listeners]]\nlisten = "unix:s"\nlogin-required = true',
                "lmtp.toml: [[listeners]] 1: listen: login-required:unix:s: needs auth",
            ),
            ("auth = 1", "lmtp.toml: auth: expected a text, or a list of texts, found 1"),
        ],
    )
    def test_mistake(self, text: str, line: str, mistake: Callable[..., str]) -> None:
        """
        What is wrong with who may log in is told in one line, by the key.
        """
        assert line == mistake(text)


class TestAskedFor:
    """
    The extensions that are there because somebody asks for them.
    """

    @pytest.mark.parametrize(
        ("text", "keywords"),
        [
            ("", set()),
            ('dsn = "relayed"', {"DSN"}),
            ('dsn = "smtp:127.0.0.1:25"', {"DSN"}),
            ('vrfy = "trusted"', {"EXPN"}),
            ('vrfy = "yes"', {"EXPN"}),
            ('users = "file:users"', {"RRVS"}),
        ],
    )
    def test_registered(
        self, text: str, keywords: set[str], options: Callable[..., Options], tmp_path: Path
    ) -> None:
        """
        DSN, EXPN, and where the directory may know it, RRVS.
        """
        (tmp_path / "users").write_text("ann@example.org since=2024-05-01\n")

        made = options(text).parts.extensions._extensions

        assert keywords == {each.keyword for each in made} & {"DSN", "EXPN", "RRVS"}


TOP = (
    "listen, listeners, trusted, users, hostname, recipient-delimiter, keep-case, spool, json-log,"
    " extension, auth, tls-certificate, tls-key, tls-client-ca, tls-client, limits, backend,"
    " delivered-to, original-recipient, dsn, vrfy, workers, backends, routes"
)


class TestMistakes:
    """
    One line that names the file, the line or the key, and what was expected.
    """

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            (
                "users",
                "lmtp.toml: line 1, at its end: Expected '=' after a key in a key/value pair",
            ),
            (
                "users 5",
                "lmtp.toml: line 1, column 7: Expected '=' after a key in a key/value pair",
            ),
            ('a = "\nb', "lmtp.toml: line 1, column 6: Illegal character '\\n'"),
            ("a = [1,", "lmtp.toml: line 1, at its end: Invalid value"),
            ("users = 1\nusers = 2", "lmtp.toml: line 2, at its end: Cannot overwrite a value"),
            ("users = 5", "lmtp.toml: users: expected text in quotes, found 5"),
            ("users = 2026-01-01", 'lmtp.toml: users: expected text in quotes, found "2026-01-01"'),
            ('usres = "any"', "lmtp.toml: usres: unknown key; did you mean 'users'?"),
            ("colour = 1", f"lmtp.toml: colour: unknown key; expected one of {TOP}"),
            (
                "max-errors = 1",
                "lmtp.toml: max-errors: unknown key here; it belongs under [limits]",
            ),
            (
                '[limits]\nusers = "any"',
                (
                    "lmtp.toml: [limits] users: unknown key here; it belongs at the top, before the"
                    " first [table]"
                ),
            ),
            (
                "[limits]\nmax-erorrs = 1",
                "lmtp.toml: [limits] max-erorrs: unknown key; did you mean 'max-errors'?",
            ),
            (
                "[limits]\nmax-errors = 0",
                "lmtp.toml: [limits] max-errors: '0' is not a whole number of at least 1",
            ),
            (
                "[limits]\nmax-errors = true",
                "lmtp.toml: [limits] max-errors: expected a number, or text in quotes, found true",
            ),
            (
                '[limits]\nmax-message-size = "64X"',
                (
                    "lmtp.toml: [limits] max-message-size: '64X' is not a number of octets; write 4096,"
                    " 256K, 64M or 1G"
                ),
            ),
            ("limits = 5", "lmtp.toml: limits: expected a table, found 5"),
            ("listen = []", "lmtp.toml: listen: expected at least one endpoint, found none"),
            ("listen = [1]", "lmtp.toml: listen: expected a text, or a list of texts, found [1]"),
            (
                'listen = "tcp:25"\nusers = "any"',
                (
                    "lmtp.toml: listen: tcp:25: LMTP must not be on port 25 (RFC 2033); take 24, or a"
                    " UNIX socket"
                ),
            ),
            (
                'listen = "tcp:24"',
                (
                    "lmtp.toml: users: needed, because tcp:24 can be reached from elsewhere; any takes"
                    " mail for everybody"
                ),
            ),
            ('keep-case = "yes"', 'lmtp.toml: keep-case: expected true or false, found "yes"'),
            (
                'workers = "many"',
                "lmtp.toml: workers: 'many' is not a whole number of at least 1, or auto",
            ),
            (
                'original-recipient = ""',
                (
                    "lmtp.toml: original-recipient: expected X-Original-To, Original-Recipient or no,"
                    ' found ""'
                ),
            ),
            ('vrfy = "maybe"', 'lmtp.toml: vrfy: expected no, trusted or yes, found "maybe"'),
            (
                'dsn = "maybe"',
                (
                    "lmtp.toml: dsn: maybe: not a destination; write HOST:PORT, unix:PATH or"
                    " tcp:HOST:PORT; or relayed, or no"
                ),
            ),
            (
                'delivered-to = "x"',
                'lmtp.toml: delivered-to: expected single, always or never, found "x"',
            ),
            (
                'hostname = "a b"',
                "lmtp.toml: hostname: 'a b' is not a host name; write one like mx.example.org",
            ),
            (
                'recipient-delimiter = "+-"',
                "lmtp.toml: recipient-delimiter: expected one character, or none, found '+-'",
            ),
            (
                'json-log = "/proc/nonexistent/x"',
                "lmtp.toml: json-log: /proc/nonexistent/x: No such file or directory",
            ),
            (
                'users = "file:/proc/nonexistent"',
                "lmtp.toml: users: file:/proc/nonexistent: No such file or directory",
            ),
            (
                'backend = "nowhere:x"',
                "lmtp.toml: backend: no backend is called 'nowhere': installed: forward, maildir, mbox, pipe, sql",
            ),
            (
                'backend = "lokal"\n[backends]\nlocal = "maildir:x"',
                (
                    "lmtp.toml: backend: no backend is called 'lokal': installed: forward, maildir, mbox, pipe, sql;"
                    " [backends] has local"
                ),
            ),
            ("[backends]\na = 5", "lmtp.toml: [backends] a: expected text in quotes, found 5"),
            (
                '[backends]\na = "maildir:~/x"',
                (
                    "lmtp.toml: [backends] a: maildir: ~/x: write {home} for the user's home directory,"
                    " not ~"
                ),
            ),
            (
                'backends = "x"',
                (
                    'lmtp.toml: backends: expected a table such as NAME = "maildir:/srv/mail",'
                    ' found "x"'
                ),
            ),
            (
                '[routes]\nto = "x"',
                'lmtp.toml: routes: expected tables, each under [[routes]], found {"to": "x"}',
            ),
            ('[[routes]]\nusers = "any"', "lmtp.toml: [[routes]] 1: to: is missing"),
            (
                '[[routes]]\nto = "a.example"',
                "lmtp.toml: [[routes]] 1: expected a backend, users, or both",
            ),
            (
                '[[routes]]\nto = "a.example"\nusers = "any"\n[[routes]]\nto = []\nusers = "any"',
                "lmtp.toml: [[routes]] 2: to: expected at least one address or domain, found none",
            ),
            (
                '[[routes]]\nto = "@a.example"\nusers = "any"',
                (
                    "lmtp.toml: [[routes]] 1: to: for the whole domain, write 'a.example' and not"
                    " '@a.example'"
                ),
            ),
            (
                '[[routes]]\nto = "a.example"\nuser = "any"\nbackend = "maildir:x"',
                "lmtp.toml: [[routes]] 1: user: unknown key; did you mean 'users'?",
            ),
            (
                '[[routes]]\nto = "a.example"\nusers = "nobody"',
                "lmtp.toml: [[routes]] 1: users: no directory is called 'nobody': installed: ",
            ),
            (
                '[[routes]]\nto = "a.example"\nbackend = "x"',
                "lmtp.toml: [[routes]] 1: backend: no backend is called 'x': installed: ",
            ),
            (
                (
                    '[[routes]]\nto = "a.example"\nbackend = "maildir:x"\n'
                    '[[routes]]\nto = ["b.example", "A.example"]\nbackend = "maildir:y"'
                ),
                "lmtp.toml: routes: 'A.example' stands in two routes",
            ),
            (
                "listeners = 1",
                "lmtp.toml: listeners: expected tables, each under [[listeners]], found 1",
            ),
            (
                "[[listeners]]\nproxied = true",
                "lmtp.toml: [[listeners]] 1: listen: is missing",
            ),
            (
                "[[listeners]]\nlisten = 'unix:x'\nproxied = 1",
                "lmtp.toml: [[listeners]] 1: proxied: expected true or false, found 1",
            ),
            (
                "[[listeners]]\nlisten = 'unix:x'\nproxy = true",
                "lmtp.toml: [[listeners]] 1: proxy: unknown key; did you mean 'proxied'?",
            ),
            (
                "[[listeners]]\nlisten = 'unix:x'\nproxied = true",
                (
                    "lmtp.toml: [[listeners]] 1: listen: proxied:unix:x: believes trusted hosts only,"
                    " and there are none; say who the proxies are with trusted"
                ),
            ),
            (
                "listen = ['unix:x', 'haproxy:unix:y']\ntrusted = 'local'",
                (
                    "lmtp.toml: listen: haproxy:unix:y: anybody could claim a trusted address there;"
                    " write proxied:unix:y"
                ),
            ),
            (
                "trusted = ['10.0.0.1/8']",
                (
                    "lmtp.toml: trusted: '10.0.0.1/8' is a host and a network; write 10.0.0.1 or"
                    " 10.0.0.0/8"
                ),
            ),
            (
                "trusted = 'nginx'",
                (
                    "lmtp.toml: trusted: 'nginx' is no network; write 10.0.0.0/8, 192.0.2.7,"
                    " 2001:db8::/32, or local for UNIX sockets"
                ),
            ),
            (
                'users = "any\\u0000"',
                'lmtp.toml: users: expected text without a NUL character, found "any\\u0000"',
            ),
            ("workers = 10000", "lmtp.toml: workers: expected at most 1024 processes, found 10000"),
            ("spool = ''", 'lmtp.toml: spool: expected a directory, found ""'),
            (f"users = {'[' * 2000}", "lmtp.toml: brackets within brackets, too deep to be read"),
            (
                'tls-certificate = "a\\nb"',
                "lmtp.toml: tls-certificate: a\\nb: No such file or directory",
            ),
            (
                "users = 1\nbackend = 2\nspool = 3",
                (
                    "lmtp.toml: users: expected text in quotes, found 1; and 2 more: lmtpsvc check"
                    " lmtp.toml"
                ),
            ),
        ],
    )
    def test_line(self, text: str, line: str, mistake: Callable[..., str]) -> None:
        """
        Each mistake is this line.
        """
        said = mistake(text)

        assert line == (said[: len(line)] if line.endswith(": installed: ") else said)

    def test_no_file(self, mistake: Callable[..., str], tmp_path: Path) -> None:
        """
        A file that is not there, or that is none, is named.
        """
        with pytest.raises(SystemExit) as caught:
            Options().parseOptions(["--config", str(tmp_path / "no")])

        assert f"twistd lmtp: {tmp_path}/no: No such file or directory" == caught.value.code
        with pytest.raises(SystemExit, match="Is a directory"):
            Options().parseOptions(["--config", str(tmp_path)])

    def test_not_utf8(self, tmp_path: Path) -> None:
        """
        The line with octets that are no UTF-8 is told.
        """
        (tmp_path / "x").write_bytes(b"\n\nusers = '\xe4'\n")

        with pytest.raises(BrokenConfig, match="line 3: not UTF-8"):
            read_file(str(tmp_path / "x"))

    def test_all_at_once(self) -> None:
        """
        All mistakes are known after one look.
        """
        with pytest.raises(BrokenConfig) as caught:
            structure({"users": 1, "lisen": 2, "limits": {"max-errors": "x", "y": 1}})

        assert [
            ("users",),
            ("limits", "max-errors"),
            ("limits", "y"),
            ("lisen",),
        ] == [problem.path for problem in caught.value.problems]
        assert str(caught.value.problems[0]) in str(caught.value)

    def test_chroot(self, options: Callable[..., Options]) -> None:
        """
        Workers cannot be started after a chroot.
        """
        made = Options()
        made.parent = usage.Options()
        made.parent["chroot"] = "/x"
        with pytest.raises(SystemExit, match="--workers 1"):
            made.parseOptions(["--workers", "2"])


def test_problem_without_key() -> None:
    """
    What concerns the whole file is said without a key.
    """
    assert "line 1: x" == str(Problem((), "line 1: x"))


class TestAgain:
    def test_backends_stay(self, options: Callable[..., Options]) -> None:
        """
        A backend whose words stay is kept, a directory is read again; others come and go.
        """
        made = options('backend = "maildir:a"\nusers = "any"')
        Path("lmtp.toml").write_text(
            'backend = "maildir:b"\nusers = "any"\n[backends]\nold = "maildir:a"'
        )

        again = made.parts_again(made.parts.backends)

        assert {"maildir:a", "maildir:b"} == set(again.backends)
        assert again.backends["maildir:a"] is made.parts.backends["maildir:a"]
        assert again.directories["any"] is not made.parts.directories["any"]

    def test_elsewhere(
        self, options: Callable[..., Options], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        Relative paths mean what they meant at start, wherever twistd has gone since.
        """
        (tmp_path / "users").write_text("ann@example.org\n")
        made = options('users = "file:users"')
        monkeypatch.chdir("/")

        made.parts_again({})

        assert "/" == os.getcwd()

    def test_the_directory_is_gone(
        self, options: Callable[..., Options], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        If that directory cannot be entered any more, it is said.
        """
        made = options("")
        monkeypatch.chdir("/")
        made.sources = evolve(made.sources, directory="/proc/nonexistent")

        with pytest.raises(BrokenConfig, match="/proc/nonexistent: No such file"):
            made.parts_again({})

    @pytest.mark.parametrize(
        ("text", "keys"),
        [
            ("", []),
            ('listen = "unix:x"', ["listen"]),
            ('[[listeners]]\nlisten = "unix:x"', ["listen", "listeners"]),
            ('trusted = "local"', []),
            ('json-log = "x"\nworkers = 2', ["json-log", "workers"]),
            ('users = "any"\nspool = "x"', []),
        ],
    )
    def test_fixed(self, text: str, keys: list[str], options: Callable[..., Options]) -> None:
        """
        What a running service cannot change is known.
        """
        made = options("")
        Path("lmtp.toml").write_text(text)

        assert keys == made.fixed(made.sources.read())
