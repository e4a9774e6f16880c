"""
Other people's LMTP servers, for our client to talk to: Dovecot's, Cyrus', and Postfix' smtp-sink.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ..certificates import self_signed
from ..running import Daemon, accepts, free_port

DOVECOT: Final = """\
base_dir = {top}/run
state_dir = {top}/state
log_path = {top}/log
protocols = lmtp
listen = 127.0.0.1
ssl = yes
ssl_cert = <{certificate}
ssl_key = <{certificate}
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
first_valid_uid = {uid}
login_trusted_networks = 127.0.0.0/8
lmtp_client_workarounds =
mail_location = maildir:{top}/mail/%d/%n
userdb {{
  driver = passwd-file
  args = {top}/users
}}
passdb {{
  driver = static
  args = {passdb}
}}
{more}
service lmtp {{
  user = {user}
  chroot =
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
  unix_listener lmtp {{
    mode = 0666
  }}
}}
service anvil {{
  chroot =
}}
protocol lmtp {{
  postmaster_address = postmaster@example.test
  auth_username_format = %Lu
}}
"""

IMAPD: Final = """\
configdirectory: {top}/conf
defaultpartition: default
partition-default: {top}/mail
proc_path: {top}/conf/proc
mboxname_lockpath: {top}/conf/lock
unixhierarchysep: yes
virtdomains: userid
admins: cyrus
autocreate_quota: 0
autocreate_post: yes
autocreate_users: {users}
sieveusehomedir: false
sievedir: {top}/conf/sieve
lmtp_downcase_rcpt: yes
"""

CYRUS: Final = """\
START {{
  recover cmd="ctl_cyrusdb -C {top}/imapd.conf -r"
}}
SERVICES {{
  lmtp cmd="lmtpd -C {top}/imapd.conf -a" listen="127.0.0.1:{port}" proto="tcp4" prefork=0
}}
EVENTS {{
}}
DAEMON {{
}}
"""


class Server:
    """
    A running server on loopback.
    """

    def __init__(self, top: Path, port: int, daemon: Daemon) -> None:
        self.top, self.port, self._daemon = top, port, daemon
        self.address = f"127.0.0.1:{port}"

    @property
    def log(self) -> str:
        """
        What it has said.
        """
        return "".join(
            path.read_text(errors="replace")
            for path in (self.top / "log", self.top / "output")
            if path.exists()
        )

    def mail(self, user: str) -> list[bytes]:
        """
        The messages that *user* of example.test has in a Maildir.
        """
        new = self.top / "mail" / "example.test" / user / "new"
        return [path.read_bytes() for path in sorted(new.iterdir())] if new.exists() else []


@contextmanager
def dovecot(
    program: Path,
    top: Path,
    users: tuple[str, ...],
    passdb: str = "nopassword=y",
    more: str = "",
) -> Iterator[Server]:
    """
    Dovecot's LMTP, with TLS for mx.example.test, for *users* of example.test.  *passdb* is what is
    known of all of them, and *more* are further lines of its configuration.
    """
    account = pwd.getpwuid(os.geteuid() or pwd.getpwnam("nobody").pw_uid)
    group = "nogroup" if account.pw_name == "nobody" else account.pw_name
    port = free_port()
    top.mkdir()
    for name in ("run", "state", "mail"):
        (top / name).mkdir()
    self_signed(top / "tls.pem", "mx.example.test")
    ids = f"{account.pw_uid}:{account.pw_gid}"
    (top / "users").write_text(
        "".join(f"{user}@example.test::{ids}::{top}/home/{user}::\n" for user in users)
    )
    (top / "dovecot.conf").write_text(
        DOVECOT.format(
            top=top,
            certificate=top / "tls.pem",
            user=account.pw_name,
            group=group,
            uid=account.pw_uid,
            port=port,
            passdb=passdb,
            more=more,
        )
    )
    for path in (top, *top.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid)
    yield from _running(
        top, port, [str(program), "-F", "-c", str(top / "dovecot.conf")], account.pw_name
    )


@contextmanager
def cyrus(master: Path, top: Path, users: tuple[str, ...]) -> Iterator[Server]:
    """
    Cyrus' lmtpd, which takes everybody who connects for authenticated, with mailboxes for *users* of
    example.test.
    """
    port = free_port()
    top.mkdir()
    for name in (
        "db",
        "lock",
        "log",
        "msg",
        "proc",
        "ptclient",
        "quota",
        "sieve",
        "socket",
        "user",
    ):
        (top / "conf" / name).mkdir(parents=True)
    (top / "mail").mkdir()
    (top / "imapd.conf").write_text(
        IMAPD.format(top=top, users=" ".join(f"{user}@example.test" for user in users))
    )
    (top / "cyrus.conf").write_text(CYRUS.format(top=top, port=port))
    account = pwd.getpwnam("cyrus")
    for path in (top, *top.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid)
    words = [str(master), "-C", str(top / "imapd.conf"), "-M", str(top / "cyrus.conf")]
    words += ["-p", str(top / "master.pid"), "-D"]
    yield from _running(top, port, words, "cyrus")


@contextmanager
def smtp_sink(program: Path, top: Path, *options: str) -> Iterator[Server]:
    """
    Postfix' smtp-sink, which takes everything; ``-L`` makes it speak LMTP.
    """
    port = free_port()
    top.mkdir()
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    words = [str(program), *user, *options, f"127.0.0.1:{port}", "100"]
    yield from _running(top, port, words, None)


def _running(top: Path, port: int, words: list[str], user: str | None) -> Iterator[Server]:
    if os.geteuid() != 0:
        user = None
    daemon = Daemon(words, log=top / "output", cwd=top, user=user)
    daemon.start(lambda: accepts(("127.0.0.1", port)))
    try:
        yield Server(top, port, daemon)
    finally:
        daemon.stop()
