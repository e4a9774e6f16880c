"""
What the documentation says is so: links, options, replies, states, and the examples, which are run.

A comment in front of an example names it for the tests: ``<!-- test: first mail -->``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import smtplib
import socket
import ssl
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve, fields, frozen
from twisted.logger import capturedLogs, formatEvent

from lmtpsvc import replies
from lmtpsvc.commands.check import main as check
from lmtpsvc.commands.where import routes
from lmtpsvc.config import DEFAULT_LISTEN, LIMITS, BrokenConfig, Config, structure, structure_as
from lmtpsvc.delivery.log import Timing, log_delivery
from lmtpsvc.directory.lines import parse
from lmtpsvc.envelope import Address, Client, Envelope, Origin, Recipient, Sender
from lmtpsvc.limits import Limits
from lmtpsvc.options import ListeningOptions
from lmtpsvc.relay.config import DEFAULT_LISTEN as RELAY_LISTEN
from lmtpsvc.relay.config import RelayConfig
from lmtpsvc.relay_options import RelayOptions
from lmtpsvc.session.states import TRANSITIONS, State, Verb
from lmtpsvc.tap import Options
from lmtpsvc.wiring.parts import make_parts

from .certificates import self_signed
from .rows import each_row
from .running import free_port, serving, twistd

ROOT = Path(__file__).parent.parent
UNIT = ROOT / "docs" / "systemd" / "lmtpsvc.service"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

_fence = r"```\w*\n(.*?)```\n"
_transaction_id = re.compile(r"\b[0-9a-f]{16}\b")


def page(name: str) -> str:
    """
    The text of a page.
    """
    return (ROOT / name).read_text(encoding="utf-8")


def examples(page_name: str, name: str) -> list[str]:
    """
    The examples that are called *name*.
    """
    return re.findall(rf"<!-- test: {name} -->\n{_fence}", page(page_name), re.DOTALL)


def part(page_name: str, name: str) -> str:
    """
    What stands between ``<!-- name -->`` and ``<!-- end of name -->``.
    """
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- end of {name} -->", page(page_name), re.DOTALL)
    assert found is not None
    return found[1]


def rows(table: str) -> list[list[str]]:
    """
    The cells of a table, its head left out.
    """
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


# ── what can be compared ─────────────────────────────────────────────────────────────────────────


class TestLinks:
    @each_row("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
    def test_lead_somewhere(self, path: Path) -> None:
        """
        Every link within the project has a file, and every ``#part`` a heading, at its end.
        """
        text = path.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"https?:", target):
                continue
            name, _, anchor = target.partition("#")
            there = path.parent / name if name else path

            assert there.exists(), target
            assert not anchor or anchor in anchors(there), target


def anchors(path: Path) -> set[str]:
    """
    What the headings of a page are called in links.
    """
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def option_table(options: ListeningOptions, listen: str) -> str:
    """
    The table of options as it should be; *listen* is the default of ``--listen``.
    """
    lines = ["| option | default | meaning |", "|---|---|---|"]
    for name in sorted(option.rstrip("=") for option in options.longOpt):
        takes_value = f"{name}=" in options.longOpt
        default = listen if name == "listen" else options.defaults.get(name)
        meaning = " ".join(options.docs[name].split()).removesuffix(f"[default: {default}]").strip()
        shown = f"`{default}`" if takes_value and default is not None else ""
        lines.append(f"| `--{name}` | {shown} | {meaning} |")
    return "\n".join(lines) + "\n"


class TestOptions:
    @pytest.mark.parametrize(
        ("page_name", "cls", "listen"),
        [
            ("docs/operate.md", Options, DEFAULT_LISTEN),
            ("docs/relay.md", RelayOptions, RELAY_LISTEN),
        ],
    )
    def test_table(self, page_name: str, cls: type[ListeningOptions], listen: str) -> None:
        """
        Every option stands on its page, with its default and its meaning.

        If this fails, put the expected table between the two comments.
        """
        assert option_table(cls(), listen) == part(page_name, "options")

    def test_relay_file(self) -> None:
        """
        The example of a file is one.
        """
        (example,) = examples("docs/relay.md", "relay file")

        config = structure_as(RelayConfig, tomllib.loads(example))

        assert ("tcp:25", "tls-required:login-required:tcp:587") == config.listen


class TestReplies:
    def test_table(self) -> None:
        """
        Every reply in the table is the one of that name.
        """
        table = rows(part("docs/operate.md", "replies"))

        assert len(table) > 10
        for _, said, name in table:
            assert said.strip("`") == str(getattr(replies, name.strip("`")))

    def test_complete(self) -> None:
        """
        Every reply for a recipient, and every 421, stands in the table.
        """
        wanted = {
            name
            for name, reply in vars(replies).items()
            if isinstance(reply, replies.Reply)
            and (reply.code == 421 or (reply.status or (0, 0))[0] in {1, 2, 3, 4})
            and reply.code > 400
        } - {"BAD_SENDER", "BAD_RECIPIENT"}

        assert wanted <= {name.strip("`") for *_, name in rows(part("docs/operate.md", "replies"))}


class TestStates:
    def test_table(self) -> None:
        """
        The table of commands and states is that of the session.
        """
        states = [
            *[State.NEW, State.READY, State.SENDER, State.RECIPIENTS],
            *[State.CHUNKS, State.REFUSED],
        ]
        verbs = list(Verb)

        table = rows(part("docs/protocol.md", "states"))

        assert len(table) == len(states)
        for state, (_, *cells) in zip(states, table, strict=True):
            for verb, cell in zip(verbs, cells, strict=True):
                assert (verb in TRANSITIONS[state]) == (not cell.startswith("503")), (state, verb)


class TestUsersFile:
    def test_example(self) -> None:
        """
        The example of a users file has no mistake.
        """
        [example] = examples("docs/operate.md", "users")

        assert len(parse(example.encode()).entries) == len(example.splitlines())


class TestConfig:
    def test_keys(self) -> None:
        """
        Every key, and every limit, stands in the table of docs/config.md, and no other.
        """
        told = {
            name
            for key, meaning in rows(page("docs/config.md").split("## Keys\n")[1].split("\n## ")[0])
            for name in re.findall(r"`([a-z-]+)`", key)
            + (re.findall(r"`([a-z-]+)`", meaning) if key == "`[limits]`" else [])
        }
        keys = {field.name.replace("_", "-") for field in fields(Config)}

        assert told == (keys | LIMITS) - {"limits", "backends", "routes", "listeners"}

    def test_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        ``lmtpsvc check`` has nothing against docs/lmtpsvc.toml, once its directories are there.
        """
        monkeypatch.chdir(tmp_path)
        for name in ("run/lmtpsvc", "srv", "etc/lmtpsvc"):
            (tmp_path / name).mkdir(parents=True)
        (tmp_path / "etc/lmtpsvc/users").write_text("ann@example.org\n")
        text = re.sub(r"(?<=:)/(?=run|srv|etc)", "", page("docs/lmtpsvc.toml"))
        (tmp_path / "lmtpsvc.toml").write_text(text)

        assert check(["lmtpsvc.toml"]) == 0

    def test_route(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], success_of: Callable[..., Any]
    ) -> None:
        """
        The line about Ann is what docs/lmtpsvc.toml leads to.
        """
        [line] = examples("docs/config.md", "route")
        from twisted.internet import reactor

        config = structure(tomllib.loads(page("docs/lmtpsvc.toml")))
        config = evolve(
            config, users="any", backends={"local": config.backends["local"]}, routes=()
        )
        parts = make_parts(config, reactor)

        assert success_of(routes(parts, line.split()[0])) == line.splitlines()

    @pytest.mark.parametrize(
        "example", examples("docs/config.md", "toml") + examples("docs/proxies.md", "toml")
    )
    def test_examples(self, example: str) -> None:
        """
        The examples have no mistake.
        """
        assert structure(tomllib.loads(example)) != Config()

    def test_mistake(self) -> None:
        """
        The lines about a mistake are those that are said.
        """
        with pytest.raises(BrokenConfig) as caught:
            structure({"limits": {"max-erorrs": 5}})
        said = f"/etc/lmtpsvc.toml: {caught.value}"

        assert examples("docs/config.md", "mistake") == [f"twistd lmtp: {said}\n"]
        in_force = f"{said} (the old configuration stays in force)\n"
        assert examples("docs/config.md", "in force") == [in_force]

    def test_key_of_another(self) -> None:
        """
        The line of docs/tls.md about a key that does not fit is what is logged.
        """
        files = "/etc/lmtpsvc/key.pem", "/etc/lmtpsvc/chain.pem"
        said = "{}: not the key of the certificate in {}".format(*files)
        source = (ROOT / "lmtpsvc/server/tls.py").read_text()

        assert 'f"{key_file}: not the key of the certificate in {files.certificate}"' in source
        assert examples("docs/tls.md", "not in force") == [
            f"/etc/lmtpsvc.toml: tls-key: {said} (the old configuration stays in force)\n"
        ]


class TestUnit:
    @pytest.mark.parametrize("name", ["lmtpsvc.service", "lmtpsvc-relay.service"])
    def test_suits_the_defaults(self, name: str) -> None:
        """
        The unit file allows as many files as there may be connections, and waits for our own bounds.
        """
        text = UNIT.with_name(name).read_text()
        unit = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
        limits = Limits()

        assert int(unit["LimitNOFILE"]) > limits.connections + 1000
        assert float(unit["TimeoutStopSec"]) > limits.stop_seconds + limits.grace_seconds


# ── what can be run ──────────────────────────────────────────────────────────────────────────────


@frozen
class Service:
    """
    A running ``twistd lmtp``, in *directory*.
    """

    directory: Path
    port: int


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """
    A service for the examples: with the users of docs/operate.md, and a JSON log.
    """
    directory, port = Path(tempfile.mkdtemp(prefix="lmtp-docs-")), free_port()
    [users] = examples("docs/operate.md", "users")
    (directory / "users").write_text(users)
    program = twistd(
        directory,
        *("lmtp", "--listen", f"tcp:{port}:interface=127.0.0.1"),
        *("--users", "file:users", "--hostname", "mx.example.org", "--json-log", "json"),
    )
    with serving(program, port):
        yield Service(directory, port)
    shutil.rmtree(directory)


@pytest.mark.interop
class TestFirstMail:
    def test_is_delivered(self, service: Service) -> None:
        """
        The first example of the README, typed as it stands there, shows the mail that came.
        """
        [example] = examples("README.md", "first mail")
        assert "8024" in example

        done = subprocess.run(
            ["sh", "-c", example.replace("8024", str(service.port))],
            cwd=service.directory,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            capture_output=True,
            check=True,
            timeout=60,
        )

        assert done.stdout.decode().endswith("Subject: Hello\n\nHello, Ann.\n")
        assert done.stdout.decode().startswith("Return-Path: <me@example.org>\n")


@pytest.mark.interop
class TestConversation:
    def test_example(self, service: Service) -> None:
        """
        The conversation of docs/protocol.md, word for word but for the transaction id.
        """
        [example] = examples("docs/protocol.md", "conversation")
        with (
            socket.create_connection(("127.0.0.1", service.port), 30) as connection,
            connection.makefile("rb") as said,
        ):
            for line in example.splitlines():
                who, text = line[:2], line[3:]
                if who == "C:":
                    connection.sendall(text.encode() + b"\r\n")
                else:
                    heard = said.readline().decode().removesuffix("\r\n")
                    assert _transaction_id.sub("ID", text) == _transaction_id.sub("ID", heard)


def test_log_of_what_is_told() -> None:
    """
    The line of docs/proxies.md has the fields that Postfix' XFORWARD leads to.
    """
    [line] = examples("docs/proxies.md", "forwarded")
    client = Client(
        "local",
        origin=Origin(host="198.51.100.7", protocol="ESMTP", ident="4F1D2C3B5A"),
    )
    ann = Recipient(Address("ann", "example.org"))
    with capturedLogs() as events:
        log_delivery(
            "665fd1c72c1b55de",
            Envelope(Sender(Address("me", "example.org")), (ann,), client),
            ann,
            "ann@example.org",
            418,
            replies.delivered("665fd1c72c1b55de", str(ann)),
            Timing(0.001, 0.004, 0.005),
        )

    assert [line] == [f"{formatEvent(event)}\n" for event in events]


@pytest.mark.interop
class TestLog:
    def test_fields(self, service: Service) -> None:
        """
        The line of the log and the JSON object have the fields that docs/operate.md shows.
        """
        with smtplib.LMTP("127.0.0.1", service.port) as lmtp:
            lmtp.sendmail("me@example.org", ["ann@example.org"], "Subject: x\n\nx\n")
        [line] = examples("docs/operate.md", "log")
        [shown] = examples("docs/operate.md", "json")
        logged = (service.directory / "log").read_text()
        [*_, written] = (service.directory / "json").read_text().splitlines()

        assert json.loads(shown).keys() == json.loads(written).keys()
        [*_, said] = re.findall(r"\S+ to=.*", logged)
        field = re.compile(r" (\w+)=")
        assert field.findall(line) == field.findall(said)
        for name in json.loads(written):
            assert f"`{name}`" in page("docs/operate.md")


@pytest.mark.interop
class TestTLS:
    def test_endpoint(self, tmp_path: Path) -> None:
        """
        A client of the ``ssl:`` endpoint is greeted, and its message says LMTPS in Received.
        """
        pem = self_signed(tmp_path / "pem", "mx.example.org")
        port = free_port()
        endpoint = f"ssl:port={port}:privateKey={pem}:certKey={pem}:interface=127.0.0.1"
        words = ("lmtp", "--listen", endpoint, "--users", "any", "--stop-timeout", "1")
        context = ssl.create_default_context(cafile=str(pem))

        with (
            serving(twistd(tmp_path, *words), port),
            socket.create_connection(("127.0.0.1", port), 5) as connection,
            context.wrap_socket(connection, server_hostname="mx.example.org") as tls,
        ):
            assert tls.recv(1000).startswith(b"220 ")


@pytest.mark.interop
class TestClient:
    def test_send(self, service: Service) -> None:
        """
        The conversation that docs/client.md shows, but for times and ids, and for the extensions
        of today.
        """
        [example] = examples("docs/client.md", "send")
        command, *shown = example.splitlines()
        letter = b"Subject: Hello\n\nHello, Ann.\n"
        (service.directory / "message.eml").write_bytes(letter)
        words = command.removeprefix("$ lmtpsvc ").replace("8024", str(service.port)).split()

        done = subprocess.run(
            [
                *(sys.executable, "-m", "lmtpsvc", *words),
                *("--hello", "client.example.org", "--no-chunking"),
            ],
            cwd=service.directory,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            check=False,
            timeout=60,
        )

        assert done.returncode == 1, done.stderr
        varies = re.compile(r"\d+\.\d{3}|\b[0-9a-f]{16}\b|(?<=SIZE=)\d+")
        extension = re.compile(r" < 250[- ][A-Z0-9-]+(?: |$)").search

        def fixed(lines: list[str]) -> list[str]:
            return [varies.sub("", line).strip() for line in lines if extension(line) is None]

        assert fixed(done.stdout.decode().splitlines()) == fixed(shown)

    def test_python(self, service: Service) -> None:
        """
        The program of docs/client.md tells what became of both.
        """
        [example] = examples("docs/client.md", "client")
        program = f"{example}\nmain('127.0.0.1:{service.port}')\n"

        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            check=True,
            text=True,
            timeout=60,
        )

        assert re.match(r"ann@example\.org 250 2\.0\.0 .*\nbob@example\.org ", done.stdout)


# ── what other programs must understand ──────────────────────────────────────────────────────────


@pytest.mark.interop
class TestPeers:
    @pytest.mark.parametrize(
        "example", examples("docs/postfix.md", "main.cf") + examples("docs/proxies.md", "main.cf")
    )
    def test_main_cf(self, example: str, peer: Callable[[str], Path], tmp_path: Path) -> None:
        """
        Postfix knows every parameter of the examples, and reads the value that is meant.
        """
        postconf = peer("postconf")
        (tmp_path / "main.cf").write_text(f"compatibility_level = 3.6\n{example}")
        (tmp_path / "master.cf").write_text("lmtp unix - - n - - lmtp\n")

        done = subprocess.run(
            [postconf, "-c", tmp_path, "-n"], capture_output=True, check=True, text=True, timeout=60
        )

        # It warns of parameters that nobody uses, which is how it tells of misspelt ones.
        assert done.stderr == ""
        read = {line for line in done.stdout.splitlines() if line}
        wanted = {line.strip() for line in example.splitlines() if line and line[0] != "#"}
        assert wanted <= read

    def test_haproxy_cfg(self, peer: Callable[[str], Path], tmp_path: Path) -> None:
        """
        HAProxy has nothing against its example, and no warning.
        """
        [example] = examples("docs/proxies.md", "haproxy")
        (tmp_path / "haproxy.cfg").write_text(example)

        done = subprocess.run(
            [peer("haproxy"), "-c", "-f", tmp_path / "haproxy.cfg"],
            capture_output=True,
            check=False,
            text=True,
            timeout=60,
        )

        assert done.returncode == 0, done.stderr
        assert "WARNING" not in done.stderr

    def test_dovecot_conf(self, peer: Callable[[str], Path], tmp_path: Path) -> None:
        """
        Dovecot reads its example.
        """
        [example] = examples("docs/dovecot.md", "dovecot")
        configuration = tmp_path / "dovecot.conf"
        configuration.write_text(f"ssl = no\n{example}")

        done = subprocess.run(
            [peer("doveconf"), "-n", "-c", configuration],
            capture_output=True,
            check=False,
            text=True,
            timeout=60,
        )

        assert done.returncode == 0, done.stderr
        assert "mail_location = maildir:/srv/mail/%d/%n" in done.stdout

    @pytest.mark.parametrize("name", ["lmtpsvc.service", "lmtpsvc.socket", "lmtpsvc-relay.service"])
    def test_units(self, name: str, peer: Callable[[str], Path], tmp_path: Path) -> None:
        """
        ``systemd-analyze`` has nothing to say against the units, with the drop-in and without.
        """
        analyze = peer("systemd-analyze")
        for unit in UNIT.parent.iterdir():
            text = unit.read_text().replace("/opt/lmtpsvc/bin/twistd", sys.executable)
            place = tmp_path / unit.name
            if unit.suffix == ".conf":
                if name != "lmtpsvc.socket":
                    continue
                place = tmp_path / "lmtpsvc.service.d" / "socket.conf"
                place.parent.mkdir()
            place.write_text(text)

        done = subprocess.run(
            [analyze, "verify", f"./{name}"],
            cwd=tmp_path,
            capture_output=True,
            check=False,
            text=True,
            timeout=60,
        )

        assert done.returncode == 0, done.stderr
        assert name not in done.stderr
