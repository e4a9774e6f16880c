"""
A client that sends exactly the octets it is told to, and shows exactly what comes back.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self


class Outcome(NamedTuple):
    """
    What one transaction was answered: a line per RCPT, and a line per RCPT that was accepted.
    """

    offered: list[str]
    delivered: list[str]

    @property
    def transaction_id(self) -> str:
        """
        What the service called the transaction, which all its 250 say.
        """
        [name] = {line.split()[-2] for line in self.delivered}
        return name


class Client:
    """
    One LMTP connection.
    """

    def __init__(self, address: tuple[str, int] | Path, seconds: float = 60.0) -> None:
        family = socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET
        self._socket = socket.socket(family)
        self._socket.settimeout(seconds)
        self._socket.connect(str(address) if isinstance(address, Path) else address)
        self._lines = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        assert self.reply().startswith("220 ")
        assert self.command("LHLO client.example.net").startswith("250 ")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lines.close()
        self._socket.close()

    def reply(self) -> str:
        """
        The last line of the next reply.
        """
        while True:
            line = self._lines.readline()
            assert line.endswith(b"\r\n"), line
            if line[3:4] == b" ":
                return line[:-2].decode("ascii")

    def say(self, octets: bytes) -> None:
        """
        Send *octets*, whatever they are.
        """
        self._socket.sendall(octets)

    def command(self, line: str) -> str:
        """
        What *line* is answered.
        """
        self._socket.sendall(line.encode() + b"\r\n")
        return self.reply()

    def send(self, sender: str, recipients: Sequence[str], text: bytes) -> Outcome:
        """
        One transaction; *text* ends with CRLF, or is empty.
        """
        assert self.command(f"MAIL FROM:<{sender}> BODY=8BITMIME").startswith("250 ")
        offered = [self.command(f"RCPT TO:<{recipient}>") for recipient in recipients]
        assert self.command("DATA").startswith("354 ")
        self._socket.sendall(stuffed(text) + b".\r\n")
        accepted = [line for line in offered if line.startswith("250 ")]
        return Outcome(offered, [self.reply() for _ in accepted])


def stuffed(text: bytes) -> bytes:
    """
    *text* with a second dot before each dot that starts a line (RFC 5321 §4.5.2); only CRLF ends
    a line.
    """
    return re.sub(rb"(\A|\r\n)\.", rb"\1..", text)
