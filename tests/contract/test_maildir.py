"""
The Maildir backend keeps the contract.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmtpsvc.envelope import Mailbox
from lmtpsvc.interfaces import IBackend
from lmtpsvc.specs import backend_from_string
from lmtpsvc.testing import BackendContract


class TestMaildir(BackendContract):
    def make(self, reactor: Any, directory: Path) -> IBackend:
        return backend_from_string(
            reactor, f"maildir:{directory}/{{domain}}/{{user}}{self.options}"
        )

    options = ""

    def stored(self, directory: Path, mailbox: Mailbox) -> list[bytes]:
        new = directory / mailbox.domain / mailbox.user / "new"
        return [path.read_bytes() for path in new.iterdir()] if new.is_dir() else []

    @contextmanager
    def broken(self, directory: Path, mailbox: Mailbox) -> Iterator[None]:
        """
        There is a file where the Maildir should be.
        """
        home = directory / mailbox.domain / mailbox.user
        home.parent.mkdir(parents=True, exist_ok=True)
        home.touch()
        yield
        os.unlink(home)


class TestMaildirWithCRLF(TestMaildir):
    """
    Its files are what came over the wire.
    """

    options = ":newline=crlf"
    # What is late there is late in the one above, too, which waits for it as long as anybody's.
    settling = 0.05
