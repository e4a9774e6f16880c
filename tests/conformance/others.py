"""
What other servers answer: ``python -m tests.conformance.others`` starts those that are installed,
holds the conversations with them, and writes the table of docs/conformance.md.

Dovecot and Cyrus come from Debian (dovecot-lmtpd, cyrus-common) and are started as root would;
aiosmtpd from PyPI, in an interpreter of its own: ``--aiosmtpd /path/to/python``.
"""

# ruff: noqa: T201 - a program says what it does.

from __future__ import annotations

import argparse
import grp
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from attrs import frozen

from ..running import Daemon, accepts, free_port
from ..transcripts.__main__ import HERE as TRANSCRIPTS
from ..transcripts.holding import Verdict
from ..transcripts.notation import Conversation
from ..transcripts.reading import read_folder
from ..transcripts.target import Outcome, SocketClient, Target, ask
from .__main__ import PAGE

BEGIN: Final = "<!-- others -->\n"
END: Final = "<!-- end of others -->\n"
USERS: Final = ("ann", "bob", "cat", "postmaster", "jörg")

DOVECOT: Final = """\
base_dir = {top}/run
state_dir = {top}/state
log_path = {top}/log
ssl = no
protocols = lmtp
listen = 127.0.0.1
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
first_valid_uid = 1
mail_location = maildir:{top}/mail/%d/%n
lmtp_rcpt_check_quota = no
recipient_delimiter = +
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = passwd-file
  args = {top}/users
}}
service lmtp {{
  process_limit = 30
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
service stats {{
  chroot =
}}
"""

CYRUS: Final = """\
configdirectory: {top}/conf
defaultpartition: default
partition-default: {top}/mail
proc_path: {top}/conf/proc
mboxname_lockpath: {top}/conf/lock
altnamespace: no
unixhierarchysep: yes
virtdomains: userid
admins: cyrus
autocreate_quota: 0
autocreate_post: yes
autocreate_users: {users}
hashimapspool: true
umask: 077
sieveusehomedir: false
sievedir: {top}/conf/sieve
sasl_pwcheck_method: auxprop
lmtp_downcase_rcpt: yes
postmaster: postmaster@example.org
syslog_prefix: lmtpconformance
"""

CYRUS_MASTER: Final = """\
START {{
  recover cmd="ctl_cyrusdb -C {top}/imapd.conf -r"
}}
SERVICES {{
  lmtp cmd="lmtpd -C {top}/imapd.conf -a" listen="127.0.0.1:{port}" proto="tcp4" prefork=2 maxchild=30
}}
EVENTS {{
}}
DAEMON {{
}}
"""

#: aiosmtpd is a library: who lives here is for the handler to say, and so is a reply for each
#: recipient, since its own LMTP class would send one for all.
AIOSMTPD: Final = """\
import asyncio, sys
from aiosmtpd.lmtp import LMTP

class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody"):
            return "550 5.1.1 No such user"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        return "\\r\\n".join(["250 2.0.0 OK"] * len(envelope.rcpt_tos))

async def main():
    await asyncio.get_running_loop().create_server(
        lambda: LMTP(Handler(), hostname="localhost", enable_SMTPUTF8=True), "127.0.0.1", int(sys.argv[1])
    )
    await asyncio.Event().wait()

asyncio.run(main())
"""


@frozen
class Other:
    """
    A server that was asked.
    """

    name: str
    version: str
    outcomes: Sequence[Outcome]


# ── the servers ──────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _running(
    words: Sequence[str], top: Path, port: int, user: str | None = None
) -> Iterator[Target]:
    daemon = Daemon([*words], log=top / "output", cwd=top, user=user)
    daemon.start(lambda: accepts(("127.0.0.1", port)))
    try:
        yield Target(("127.0.0.1", port))
    finally:
        daemon.stop()


def _give(top: Path, user: str) -> None:
    account = pwd.getpwnam(user)
    for path in (top, *top.rglob("*")):
        shutil.chown(path, account.pw_uid, account.pw_gid)


def _version(words: Sequence[str]) -> str:
    return subprocess.run([*words], capture_output=True, text=True, check=True).stdout.split()[0]


def dovecot(top: Path, conversations: Sequence[Conversation]) -> Other:
    """
    Dovecot's LMTP server, with Maildirs and a file of users.
    """
    port, user = free_port(), "nobody"
    account = pwd.getpwnam(user)
    group = grp.getgrgid(account.pw_gid).gr_name
    for name in ("run", "state", "home", "mail"):
        (top / name).mkdir()
    users = [f"{each}@example.org" for each in USERS] + ["postmaster"]
    known = (f"{each}::{account.pw_uid}:{account.pw_gid}::{top}/home/{each}::\n" for each in users)
    (top / "users").write_text("".join(known))
    settings = DOVECOT.format(top=top, user=user, group=group, port=port)
    (top / "dovecot.conf").write_text(settings)
    _give(top, user)
    program = shutil.which("dovecot", path="/usr/sbin:/sbin") or "dovecot"
    with _running([program, "-F", "-c", str(top / "dovecot.conf")], top, port, user) as target:
        return Other("Dovecot", _version([program, "--version"]), [*ask(target, conversations)])


def cyrus(top: Path, conversations: Sequence[Conversation]) -> Other:
    """
    Cyrus' lmtpd, pre-authenticated, below its master; mailboxes are made at the first delivery.
    """
    port = free_port()
    names = ("db", "lock", "log", "msg", "proc", "ptclient", "quota", "sieve", "socket", "user")
    for name in names:
        (top / "conf" / name).mkdir(parents=True)
    (top / "mail").mkdir()
    users = " ".join(f"{each}@example.org" for each in USERS)
    (top / "imapd.conf").write_text(CYRUS.format(top=top, users=users))
    (top / "cyrus.conf").write_text(CYRUS_MASTER.format(top=top, port=port))
    _give(top, "cyrus")
    files = {"-C": "imapd.conf", "-M": "cyrus.conf", "-p": "master.pid"}
    options = [word for each in files for word in (each, str(top / files[each]))]
    with _running(["/usr/sbin/cyrmaster", *options], top, port, "cyrus") as target:
        version = _version(["dpkg-query", "-W", "-f", "${Version}", "cyrus-common"])
        _make_mailboxes(target)
        return Other("Cyrus", version.partition("-")[0], [*ask(target, conversations)])


def _make_mailboxes(target: Target) -> None:
    """
    The first mail makes a mailbox; several at a time would get into each other's way.
    """
    for user in USERS:
        with SocketClient(target) as client:
            client.hear()
            for line in ("LHLO localhost", "MAIL FROM:<>", f"RCPT TO:<{user}@example.org>"):
                client.send(f"{line}\r\n".encode())
                client.hear()


def aiosmtpd(top: Path, conversations: Sequence[Conversation], python: str) -> Other:
    """
    The LMTP class of aiosmtpd, with the handler above.
    """
    port = free_port()
    (top / "server.py").write_text(AIOSMTPD)
    with _running([python, str(top / "server.py"), str(port)], top, port) as target:
        version = _version([python, "-c", "import aiosmtpd; print(aiosmtpd.__version__)"])
        return Other("aiosmtpd", version, [*ask(target, conversations)])


# ── the table ────────────────────────────────────────────────────────────────────────────────────


def table(others: Sequence[Other]) -> str:
    """
    Group of conversations by server: how many went as written, with another code, otherwise.
    """
    head = ["conversations", *(f"{each.name} {each.version}" for each in others)]
    lines = [_row(head), _row(["---"] * len(head))]
    groups = [outcome.conversation.group for outcome in others[0].outcomes]
    lines += [
        _row([f"`{group}`", *(_counts(each, group) for each in others)])
        for group in dict.fromkeys(groups)
    ]
    lines.append(_row(["all", *(_counts(each) for each in others)]))
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _counts(other: Other, group: str | None = None) -> str:
    found: dict[Verdict | None, int] = defaultdict(int)
    for outcome in other.outcomes:
        if group in {None, outcome.conversation.group}:
            found[outcome.verdict] += 1
    words = [(Verdict.SAME, ""), (Verdict.OTHER_CODE, " other code"), (Verdict.OTHER, " otherwise")]
    told = [f"{found[verdict]}{word}" for verdict, word in words if found[verdict]]
    if found[None]:
        told.append(f"{found[None]} not asked")
    return ", ".join(told)


def details(others: Sequence[Other]) -> str:
    """
    What went otherwise, one line each.
    """
    lines = []
    for other in others:
        lines.append(f"== {other.name} {other.version}")
        lines += [
            f"{outcome.verdict.value}: {outcome.conversation.name}: {outcome.differences[-1]}"
            for outcome in other.outcomes
            if outcome.differences and outcome.verdict is not None
        ]
    return "\n".join(lines)


def main(words: list[str]) -> None:
    """
    Ask them all.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.others", description=__doc__)
    parser.add_argument("--aiosmtpd", metavar="PYTHON", default=sys.executable)
    parser.add_argument("--write", action="store_true", help="write docs/conformance.md")
    options = parser.parse_args(words)
    conversations = read_folder(TRANSCRIPTS)
    others = []
    with tempfile.TemporaryDirectory(prefix="others-") as name:
        Path(name).chmod(0o755)
        tops = {each: Path(name) / each for each in ("dovecot", "cyrus", "aiosmtpd")}
        for top in tops.values():
            top.mkdir()
        others.append(dovecot(tops["dovecot"], conversations))
        others.append(cyrus(tops["cyrus"], conversations))
        others.append(aiosmtpd(tops["aiosmtpd"], conversations, options.aiosmtpd))
    print(details(others))
    print(table(others))
    if options.write:
        text = PAGE.read_text(encoding="utf-8")
        before, _, rest = text.partition(BEGIN)
        after = rest.partition(END)[2]
        PAGE.write_text(f"{before}{BEGIN}\n{table(others)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("root is needed, to start Cyrus and Dovecot as their own accounts")
    main(sys.argv[1:])
