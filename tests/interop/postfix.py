"""
A Postfix of our own: one smtpd on loopback, and everything for one domain goes out over LMTP.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import smtplib
from pathlib import Path
from typing import Final

from attrs import define, field, frozen

from ..running import Daemon, accepts, free_port, run, wait_until

MAIN: Final = """\
compatibility_level = 3.6
queue_directory = {top}/queue
data_directory = {top}/data
meta_directory = {top}/etc
maillog_file = {top}/maillog
maillog_file_prefixes = {top}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mx.{domain}
mynetworks = 127.0.0.0/8
mydestination =
alias_maps =
virtual_mailbox_domains = {domain}
virtual_mailbox_maps = static:all
virtual_transport = {via}:{target}
smtpd_relay_restrictions = permit_mynetworks, reject
fast_flush_domains =
disable_dns_lookups = yes
# Everything that changes or refuses a message is off, so that it can be compared octet by octet.
local_header_rewrite_clients =
message_drop_headers =
message_size_limit = 0
mailbox_size_limit = 0
header_size_limit = 1000000
lmtp_line_length_limit = 0
disable_mime_output_conversion = yes
"""

MASTER: Final = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup    unix  n - n 60 1 pickup
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
proxymap  unix  - - n - - proxymap
anvil     unix  - - n - 1 anvil
error     unix  - - n - - error
retry     unix  - - n - - error
lmtp      unix  - - n - - lmtp
smtp      unix  - - n - - smtp
scache    unix  - - n - 1 scache
tlsmgr    unix  - - n 1000? 1 tlsmgr
postlog   unix-dgram n - n - 1 postlogd
"""

#: The directories of the queue, which a package's installation script would make.
_QUEUE: Final = {
    **dict.fromkeys(("incoming", "active", "deferred", "hold", "corrupt"), 0o700),
    **dict.fromkeys(("bounce", "defer", "trace", "private"), 0o700),
    "maildrop": 0o730,
    "public": 0o710,
    "pid": 0o755,
}

_outcome: Final = re.compile(
    r" postfix/\w+\[\d+\]: (?P<queue_id>\w+): to=<(?P<recipient>[^>]*)>, .*"
    r"dsn=(?P<dsn>[\d.]+), status=(?P<status>\w+) \((?P<text>.*)\)$"
)


@frozen
class Outcome:
    """
    A line of Postfix's log that says what became of one recipient of one message.
    """

    queue_id: str
    recipient: str
    dsn: str
    status: str
    text: str


@define
class Postfix:
    """
    All under *top*, an empty directory that every account may enter.
    """

    postconf: Path
    top: Path
    domain: str
    #: Where mail goes: ``unix:PATH`` or ``inet:HOST:PORT``; for SMTP, ``[HOST]:PORT``.
    target: str
    port: int = field(factory=free_port)
    #: Further lines of main.cf.
    more: str = ""
    #: What is spoken there: ``lmtp`` or ``smtp``.
    via: str = "lmtp"
    _daemon: Daemon | None = None

    def start(self) -> None:
        """
        Configure, start, and return when smtpd listens.
        """
        owner, postdrop = pwd.getpwnam("postfix").pw_uid, grp.getgrnam("postdrop").gr_gid
        for name in ("etc", "data", "queue"):
            (self.top / name).mkdir()
        os.chown(self.top / "data", owner, -1)
        for name, mode in _QUEUE.items():
            directory = self.top / "queue" / name
            directory.mkdir()
            directory.chmod(mode)
            os.chown(
                directory,
                0 if name == "pid" else owner,
                postdrop if name in ("maildrop", "public") else -1,
            )
        words = {"top": self.top, "domain": self.domain, "target": self.target, "port": self.port}
        words["via"] = self.via
        (self.top / "etc" / "main.cf").write_text(MAIN.format(**words) + self.more)
        (self.top / "etc" / "master.cf").write_text(MASTER.format(**words))
        self._daemon = Daemon(
            [f"{self._parameter('daemon_directory')}/master", *self._here, "-d"],
            log=self.top / "output",
            cwd=self.top,
        )
        self._daemon.start(lambda: accepts(("127.0.0.1", self.port)))

    @property
    def _here(self) -> list[str]:
        return ["-c", str(self.top / "etc")]

    def _parameter(self, name: str) -> str:
        return run([str(self.postconf), *self._here, "-h", name]).stdout.decode().strip()

    def stop(self) -> None:
        """
        Stop it and all its processes.
        """
        if self._daemon is not None:
            self._daemon.stop()

    def client(self) -> smtplib.SMTP:
        """
        A connection to its smtpd.
        """
        return smtplib.SMTP("127.0.0.1", self.port, timeout=60)

    def queued(self) -> list[str]:
        """
        The names of the files that are still here.

        Messages move while we look: from the left to the right of these places, or from ``active``
        back to the left; and a bounce comes to ``incoming`` before its message leaves ``active``.
        Whoever looks twice misses none.
        """
        places = ("deferred", "maildrop", "incoming", "active", "deferred", "hold", "corrupt")
        return [
            file
            for place in places * 2
            for _, _, files in os.walk(self.top / "queue" / place)
            for file in files
        ]

    def flush_until_empty(self, seconds: float) -> None:
        """
        Have everything tried again, and again, until nothing is left.
        """

        def empty() -> bool:
            if self.queued():
                done = run([str(self.postconf.with_name("postqueue")), *self._here, "-f"])
                assert done.returncode == 0, done.stdout
            return not self.queued()

        wait_until(empty, seconds, "Postfix's queue empty")

    def outcomes(self) -> list[Outcome]:
        """
        What became of every recipient so far.
        """
        found = map(_outcome.search, self.log.splitlines())
        return [Outcome(**match.groupdict()) for match in found if match is not None]

    @property
    def log(self) -> str:
        """
        Postfix's mail log.
        """
        return (self.top / "maillog").read_text(errors="replace")

    def complaints(self) -> list[str]:
        """
        Lines of the log that somebody should read.
        """
        return re.findall(r"^.*(?:warning|error|fatal|panic):.*$", self.log, re.MULTILINE)
