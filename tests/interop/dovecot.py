"""
A Dovecot of our own: IMAP on loopback, for Maildirs that somebody else has filled.
"""

from __future__ import annotations

import imaplib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from attrs import define, field

from ..running import Daemon, accepts, free_port
from .store import Store

#: It runs as an ordinary account, which owns the Maildirs: neither root nor several accounts are
#: needed.
CONFIGURATION: Final = """\
base_dir = {top}/run
state_dir = {top}/state
log_path = {top}/log
ssl = no
protocols = imap
listen = 127.0.0.1
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
disable_plaintext_auth = no
first_valid_uid = {uid}
mail_location = maildir:{root}/%d/%n
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={top}/home/%u
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service anvil {{
  chroot =
}}
"""

_item: Final = re.compile(rb"\d+ \(UID \d+ RFC822\.SIZE (\d+) BODY\[\] \{\d+\}\Z")


class Served(NamedTuple):
    """
    One message as IMAP shows it.
    """

    size: int
    text: bytes


@define
class Dovecot:
    """
    All under *top*, a new directory; reads *store*, which *user* owns.
    """

    program: Path
    top: Path
    store: Store
    user: str
    uid: int
    gid: int
    group: str
    port: int = field(factory=free_port)
    _daemon: Daemon | None = None

    def start(self) -> None:
        """
        Configure, start, and return when it listens.
        """
        self.top.mkdir()
        for name in ("run", "state", "home"):
            (self.top / name).mkdir()
        configuration = self.top / "dovecot.conf"
        configuration.write_text(
            CONFIGURATION.format(
                top=self.top,
                root=self.store.root,
                user=self.user,
                group=self.group,
                uid=self.uid,
                gid=self.gid,
                port=self.port,
            )
        )
        Store(self.top).give_to(self.uid, self.gid)
        self._daemon = Daemon(
            [str(self.program), "-F", "-c", str(configuration)],
            log=self.top / "output",
            cwd=self.top,
            user=self.user,
        )
        self._daemon.start(lambda: accepts(("127.0.0.1", self.port)))

    def stop(self) -> None:
        """
        Stop it and all its processes.
        """
        if self._daemon is not None:
            self._daemon.stop()

    def inbox(self, address: str) -> Iterator[Served]:
        """
        Every message in the INBOX of *address*, fetched one by one, not marked as seen.
        """
        with imaplib.IMAP4("127.0.0.1", self.port, timeout=60) as imap:
            imap.login(address, "any")
            _, [count] = imap.select(readonly=True)
            assert count is not None
            for number in range(1, int(count) + 1):
                _, data = imap.fetch(str(number), "(UID RFC822.SIZE BODY.PEEK[])")
                assert isinstance(data[0], tuple), data
                head, text = data[0]
                found = _item.match(head)
                assert found is not None, head
                yield Served(int(found[1]), text)

    def complaints(self) -> list[str]:
        """
        Lines of the log that somebody should read.
        """
        log = (self.top / "log").read_text(errors="replace")
        return re.findall(r"^.*(?:Warning|Error|Fatal|Panic): .*$", log, re.MULTILINE)
