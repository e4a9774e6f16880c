"""
The service under test, as an administrator starts it.
"""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..running import accepts, free_port, twistd
from .store import Store

DOMAIN = "example.test"
#: Who has a mailbox.
USERS = ("ann", "bob", "cat", "jörg", "sender")
#: Who has one for the conversations of tests/transcripts.
CONVERSING = ("ann", "bob", "cat", "jörg", f"postmaster: ann@{DOMAIN}")


@contextmanager
def running_service(
    top: Path, users: Iterable[str] = USERS, more: Sequence[str] = ()
) -> Iterator[Service]:
    """
    A service with an empty store of its own under *top*, that ends well.
    """
    service = Service(Path(tempfile.mkdtemp(prefix="s", dir=top)), users, more=more)
    service.directory.chmod(0o755)
    try:
        service.start()
        yield service
    finally:
        status = service.stop()
    # twistd cleans up, and then ends with the signal that stopped it.
    assert status == -signal.SIGTERM, service.log
    assert "Traceback" not in service.log, service.log
    assert service.store.unfinished() == []


class Service:
    """
    ``twistd lmtp`` on a TCP port and a UNIX socket, for *users* of example.test, names or whole
    lines; *options* are those of the Maildirs, *listed* is another directory of users than a file,
    and *more* are further words.

    A program of its own: the interpreter and the modules are those that the tests run with.
    """

    def __init__(
        self,
        directory: Path,
        users: Iterable[str],
        options: Mapping[str, str] = {},
        listed: str | None = None,
        more: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        self.store = Store(directory / "mail")
        self.store.root.mkdir()
        self.tcp = ("127.0.0.1", free_port())
        self.unix = directory / "lmtp.sock"
        words = "".join(f":{name}={value}" for name, value in options.items())
        known = directory / "users"
        lines = (user if ":" in user else f"{user}@{DOMAIN}" for user in users)
        known.write_text("".join(f"{line}\n" for line in lines))
        self._daemon = twistd(
            directory,
            "lmtp",
            *("--listen", f"tcp:{self.tcp[1]}:interface=127.0.0.1"),
            *("--listen", f"unix:{self.unix}:mode=666"),
            *("--backend", f"maildir:{self.store.root}/{{domain}}/{{user}}{words}"),
            *("--users", listed or f"file:{known}"),
            *more,
            log="service.log",
        )

    def start(self) -> None:
        """
        Start, and return when both sockets are open.
        """
        self._daemon.start(lambda: accepts(self.tcp) and accepts(self.unix))

    def stop(self) -> int | None:
        """
        Stop it as a service manager does, and return its status.
        """
        return self._daemon.stop()

    def kill(self) -> None:
        """
        End it at once, as a power cut would.
        """
        self._daemon.signal(signal.SIGKILL)
        self._daemon.stop()

    @property
    def log(self) -> str:
        """
        All that it has said so far.
        """
        return self._daemon.log.read_text(errors="replace")
