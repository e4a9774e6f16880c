"""
The servers that are compared, and how each is started.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import frozen

REPOSITORY = Path(__file__).resolve().parent.parent

#: Makes the command line, from a directory to work in, an empty store in it, and a port.
Command = Callable[[Path, Path, int], list[str]]


@frozen
class Server:
    """
    One to be measured: *keeps* says whether what it accepts can be looked for; *owner*, whose the
    mailboxes are, if not the caller's.
    """

    name: str
    command: Command
    keeps: bool = True
    owner: str | None = None
    checkout: Path = REPOSITORY

    @property
    def environment(self) -> dict[str, str]:
        """
        What its process finds in the environment, besides what is there.
        """
        paths = [str(self.checkout), str(self.checkout / "benchmarks")]
        return {"PYTHONPATH": os.pathsep.join(paths)}


# ── ours ─────────────────────────────────────────────────────────────────────────────────────────


def lmtpsvc(*words: str) -> Command:
    """
    The service, with more words behind those that say where it listens and where mail goes.
    """

    def command(work: Path, store: Path, port: int) -> list[str]:
        run = "from twisted.scripts.twistd import run; run()"
        listen = f"tcp:{port}:interface=127.0.0.1:backlog=1000"
        backend = f"maildir:{store}/{{domain}}/{{user}}"
        where = [] if any(word.startswith("--backend") for word in words) else ["-b", backend]
        return [
            *(sys.executable, "-c", run, "-n", "--pidfile="),
            *("lmtp", "--listen", listen, *where, *words),
        ]

    return command


def from_checkout(directory: Path) -> Server:
    """
    The service as another checkout of this project has it.

    Raises:
        ValueError: That is none.
    """
    if not (directory / "lmtpsvc" / "tap.py").exists():
        raise ValueError(f"{directory} is no checkout of lmtpsvc")
    return Server(directory.resolve().name, lmtpsvc(), checkout=directory.resolve())


# ── others ───────────────────────────────────────────────────────────────────────────────────────

_DOVECOT = """\
base_dir = {work}/run
state_dir = {work}/state
log_path = {work}/log
protocols = lmtp
listen = 127.0.0.1
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
default_client_limit = 20000
mail_location = maildir:{store}/%d/%n
mail_uid = {user}
mail_gid = {group}
first_valid_uid = 1
userdb {{
  driver = static
  args = uid={user} gid={group} home={store}/%d/%n
}}
passdb {{
  driver = static
  args = nopassword=y
}}
service lmtp {{
  process_limit = 5000
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
  unix_listener lmtp {{
    mode = 0
  }}
}}
service anvil {{
  chroot =
}}
"""
NOBODY = "nobody"


def dovecot(work: Path, store: Path, port: int) -> list[str]:
    """
    Debian's Dovecot with Maildirs, as it is but for the processes that it may have.
    """
    for name in ("run", "state"):
        (work / name).mkdir()
    shutil.chown(store, NOBODY, "nogroup")
    text = _DOVECOT.format(work=work, store=store, port=port, user=NOBODY, group="nogroup")
    (work / "dovecot.conf").write_text(text)
    return ["dovecot", "-F", "-c", str(work / "dovecot.conf")]


def smtp_sink(work: Path, store: Path, port: int) -> list[str]:
    """
    Postfix's sink: C, one process, keeps nothing.
    """
    privileges = ["-u", NOBODY] if os.geteuid() == 0 else []
    return ["smtp-sink", *privileges, "-L", "-m", "20000", f"127.0.0.1:{port}", "4096"]


def named(words: str) -> Server:
    """
    A server that somebody adds: ``NAME=COMMAND``, with {port}, and with {store} if it keeps mail.

    Raises:
        ValueError: Something is missing.
    """
    name, _, text = words.partition("=")
    if not name or "{port}" not in text:
        raise ValueError(f"{words!r}: expected NAME=COMMAND with {{port}} in it")

    def command(work: Path, store: Path, port: int) -> list[str]:
        return [
            word.replace("{store}", str(store)).replace("{port}", str(port))
            for word in shlex.split(text)
        ]

    return Server(name, command, keeps="{store}" in text)


DOVECOT = "dovecot"
OURS = "lmtpsvc"
DISCARD = "discard"


def known(workers: int) -> dict[str, Server]:
    """
    Those that need no more to be said, by name; *workers* is how many we have by default.
    """
    ours = [Server(OURS, lmtpsvc())]
    ours += [
        Server(name, lmtpsvc("--workers", str(count)))
        for name, count in (("1 worker", 1), ("2 workers", 2))
        if count != workers
    ]
    servers = [
        Server(DOVECOT, dovecot, owner=NOBODY),
        *ours,
        Server(DISCARD, lmtpsvc("--backend", "discard"), keeps=False),
        Server("smtp-sink", smtp_sink, keeps=False),
    ]
    return {server.name: server for server in servers}


def lacks(server: Server) -> Sequence[str]:
    """
    Why a server cannot be measured here: what to install, or who to be.
    """
    if server.name == DOVECOT:
        why = [] if shutil.which("dovecot") else ["install dovecot-lmtpd"]
        return why + ([] if os.geteuid() == 0 else ["be root: Dovecot insists"])
    if server.name == "smtp-sink" and not shutil.which("smtp-sink"):
        return ["install postfix"]
    return []
