"""
The mbox backend keeps the contract.
"""

from __future__ import annotations

import mailbox as readers
import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from lmtpsvc.envelope import Mailbox
from lmtpsvc.interfaces import IBackend
from lmtpsvc.specs import backend_from_string
from lmtpsvc.testing import BackendContract


def _unquoted(text: bytes) -> bytes:
    return re.sub(rb"^>(>*From )", rb"\1", text, flags=re.MULTILINE)


class TestMbox(BackendContract):
    def make(self, reactor: Any, directory: Path) -> IBackend:
        return backend_from_string(reactor, f"mbox:{directory}/{{domain}}-{{user}}")

    def stored(self, directory: Path, mailbox: Mailbox) -> list[bytes]:
        """
        As Python reads it, with what mboxrd has quoted taken back.
        """
        path = self.path(directory, mailbox)
        if not path.exists():
            return []
        with closing(readers.mbox(path, create=False)) as box:
            texts = [box.get_bytes(key) for key in box.iterkeys()]
        # An expression takes its time for each line, and most texts have nothing to take back.
        return [_unquoted(text) if b">From " in text else text for text in texts]

    def expected(self, text: bytes) -> bytes:
        """
        A file of lines has an end to each.
        """
        return text if text.endswith(b"\n") or not text else text + b"\r\n"

    @contextmanager
    def broken(self, directory: Path, mailbox: Mailbox) -> Iterator[None]:
        """
        There is a directory where the file should be.
        """
        path = self.path(directory, mailbox)
        path.mkdir()
        yield
        os.rmdir(path)

    def path(self, directory: Path, mailbox: Mailbox) -> Path:
        return directory / f"{mailbox.domain}-{mailbox.user}"
