"""
What the service has stored, read as plain files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from email.message import Message
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import Final

from attrs import frozen

_sizes: Final = re.compile(r",S=(\d+),W=(\d+)(?::2,[A-Z]*)?\Z")
_transaction_id: Final = re.compile(r"\bwith \w*LMTP\w*\s+id (\w+)")
_bare_lf: Final = re.compile(rb"(?<!\r)\n")


@frozen
class Stored:
    """
    One file of a Maildir.
    """

    path: Path

    @property
    def text(self) -> bytes:
        return self.path.read_bytes()

    @property
    def header(self) -> Message:
        with self.path.open("rb") as file:
            return BytesHeaderParser().parse(file)

    @property
    def transaction_id(self) -> str:
        """
        What the service called the transaction: the id in the topmost Received.
        """
        found = _transaction_id.search(self.header["Received"])
        assert found is not None, self.header["Received"]
        return found[1]

    @property
    def sizes(self) -> tuple[int, int]:
        """
        What the name says: ``S=`` octets on disk, ``W=`` octets with CRLF line endings.
        """
        found = _sizes.search(self.path.name)
        assert found is not None, self.path.name
        return int(found[1]), int(found[2])


@frozen
class Store:
    """
    The Maildirs under *root*, as ``domain/user``.
    """

    root: Path

    def users(self) -> list[str]:
        """
        Every address that has a mailbox.
        """
        return sorted(
            f"{path.name}@{path.parent.name}" for path in self.root.glob("*/*") if path.is_dir()
        )

    def mailbox(self, address: str) -> list[Stored]:
        """
        All messages of *address*, seen or not.
        """
        user, _, domain = address.partition("@")
        home = self.root / domain / user
        return [Stored(path) for place in ("new", "cur") for path in _files(home / place)]

    def unfinished(self) -> list[Path]:
        """
        What lies in any ``tmp``.
        """
        return list(self.root.glob("*/*/tmp/*"))

    def give_to(self, uid: int, gid: int) -> None:
        """
        Make everything the property of another account.
        """
        os.chown(self.root, uid, gid)
        for directory, folders, files in os.walk(self.root):
            for name in (*folders, *files):
                os.chown(Path(directory, name), uid, gid, follow_symlinks=False)


def _files(directory: Path) -> Iterator[Path]:
    return (path for path in sorted(directory.iterdir()) if path.is_file())


def with_crlf(stored: bytes) -> bytes:
    """
    What IMAP makes of a stored file: every line ends with CRLF, the CR that is there included.

    So a bare LF that came over the wire is served as CRLF, and so is CR CR LF, whose CR LF was
    stored as LF.  That is the price of files with LF lines, the form that every other Maildir
    reader expects; Dovecot's own delivery pays it too.
    """
    return _bare_lf.sub(b"\r\n", stored)
