"""
The message that ``lmtpsvc send`` sends: a file, standard input, or one made up.
"""

from __future__ import annotations

import io
import re
import sys
import tempfile
from collections.abc import Sequence
from email.message import EmailMessage
from email.policy import SMTPUTF8
from email.utils import formatdate, make_msgid
from typing import IO, BinaryIO

from ..client import own_name
from ..envelope import Recipient, Sender

#: Octets that are kept in memory.
_SHORT = 1_048_576
_CHUNK = 65_536

_lone_lf = re.compile(rb"(?<!\r)\n").sub


class Letter:
    """
    A message, to be opened any number of times.
    """

    def __init__(self, octets: bytes | None, file: IO[bytes] | None) -> None:
        self._octets, self._file = octets, file

    def open(self) -> BinaryIO:
        """
        A new file at its beginning.
        """
        if self._octets is not None:
            return io.BytesIO(self._octets)
        assert self._file is not None, "there are octets or a file"
        return open(self._file.name, "rb")

    def close(self) -> None:
        """
        Remove what was made.
        """
        if self._file is not None:
            self._file.close()


def letter(
    path: str | None, sender: Sender, recipients: Sequence[Recipient], *, binary: bool
) -> Letter:
    """
    Read the message from *path*, with CRLF for each lone LF unless it is *binary*; ``-`` is standard
    input, and None one made up.

    Raises:
        OSError: It cannot be read.
    """
    if path is None:
        return Letter(_made_up(sender, recipients), None)
    if path == "-":
        return _taken(sys.stdin.buffer, binary=binary)
    with open(path, "rb") as source:
        return _taken(source, binary=binary)


def _taken(source: BinaryIO, *, binary: bool) -> Letter:
    octets = source.read(_SHORT)
    if len(octets) < _SHORT:
        return Letter(octets if binary else _lone_lf(b"\r\n", octets), None)
    file = tempfile.NamedTemporaryFile(prefix="lmtpsvc-send-")  # noqa: SIM115 - closed by close()
    held = b""
    while octets:
        # Half a CRLF waits for the other half.
        octets = held + octets
        held = b"\r" if octets.endswith(b"\r") else b""
        octets = octets.removesuffix(held) if held else octets
        file.write(octets if binary else _lone_lf(b"\r\n", octets))
        octets = source.read(_CHUNK)
    file.write(held)
    file.flush()
    return Letter(None, file)


def _made_up(sender: Sender, recipients: Sequence[Recipient]) -> bytes:
    message = EmailMessage(SMTPUTF8)
    host = own_name()
    message["Date"] = formatdate(localtime=True)
    message["From"] = str(sender) or f"lmtpsvc@{host}"
    message["To"] = ", ".join(str(recipient) for recipient in recipients[:20])
    message["Subject"] = "A test of lmtpsvc send"
    message["Message-ID"] = make_msgid(domain=host)
    message.set_content("This message was made up by lmtpsvc send.\n")
    return bytes(message)
