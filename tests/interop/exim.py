"""
An Exim without a daemon: it queues a message from its standard input, and runs the queue when told.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from attrs import define

from ..running import run

CONFIGURATION: Final = """\
exim_path = {program}
spool_directory = {top}/spool
log_file_path = {top}/log/%s
exim_user = {user}
exim_group = {group}
primary_hostname = mx.{domain}
domainlist local_domains = {domain}
local_interfaces = 127.0.0.1
keep_environment =
deliver_drop_privilege = true
# A bounce waits for the next queue run, and no delivery goes on behind our back.
queue_only = true
timezone = UTC

begin routers

{router}

begin transports

over_unix:
  driver = lmtp
  socket = {unix}
  batch_max = 50

over_tcp:
  driver = smtp
  protocol = lmtp
  port = {port}
  hosts_override
  hosts = 127.0.0.1
  allow_localhost
"""

ROUTERS: Final = {
    "over_unix": """\
everybody:
  driver = accept
  transport = over_unix
""",
    "over_tcp": """\
everybody:
  driver = manualroute
  transport = over_tcp
  route_list = * 127.0.0.1
  self = send
""",
}


@define
class Exim:
    """
    All under *top*, a new directory that every account may enter.
    """

    program: Path
    top: Path
    domain: str
    transport: str
    unix: Path
    port: int
    user: str = "nobody"

    def configure(self) -> None:
        """
        Write the configuration, and lists of accounts that have Exim's own.

        Debian's Exim wants the account Debian-exim, which is there only where the package is
        installed; it is run where /etc/passwd and /etc/group are other files.
        """
        account = pwd.getpwnam(self.user)
        self.top.mkdir()
        for name in ("spool", "log"):
            (self.top / name).mkdir()
            os.chown(self.top / name, account.pw_uid, account.pw_gid)
        (self.top / "exim.conf").write_text(
            CONFIGURATION.format(
                program=self.program,
                top=self.top,
                user=account.pw_uid,
                group=account.pw_gid,
                domain=self.domain,
                router=ROUTERS[self.transport],
                unix=self.unix,
                port=self.port,
            )
        )
        ids = f"{account.pw_uid}:{account.pw_gid}"
        for name, entry in {
            "passwd": f"Debian-exim:x:{ids}::/nonexistent:/bin/false\n",
            "group": f"Debian-exim:x:{account.pw_gid}:\n",
        }.items():
            (self.top / name).write_text(Path("/etc", name).read_text() + entry)

    def send(self, sender: str, recipients: Sequence[str], text: bytes) -> None:
        """
        Queue *text*, with LF line endings.
        """
        said = self._run("-oi", "-f", sender, "--", *recipients, stdin=text)
        assert said == "", said

    def run_queue(self) -> None:
        """
        Try every message once, and return when that is done.
        """
        self._run("-qff")

    def queued(self) -> str:
        """
        What ``exim -bp`` lists.
        """
        return self._run("-bp")

    @property
    def log(self) -> str:
        """
        Exim's main log, and the log that it writes when things go very wrong.
        """
        return "".join(path.read_text() for path in sorted((self.top / "log").iterdir()))

    def _run(self, *arguments: str, stdin: bytes = b"") -> str:
        done = run(
            [
                *("unshare", "--mount", "--", "sh", "-c"),
                'for f in passwd group; do mount --bind $f /etc/$f || exit; done; exec "$@"',
                "sh",
                *(str(self.program), "-C", str(self.top / "exim.conf"), *arguments),
            ],
            stdin=stdin,
            cwd=self.top,
        )
        output = done.stdout.decode(errors="replace")
        assert done.returncode == 0, output
        return output
