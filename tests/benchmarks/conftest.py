"""
A server that says what a test wants, at the other end of pairs of sockets.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from attrs import define, field

#: The lines that a client sends, text included, and what they are answered with.
Answers = Callable[[bytes], bytes]


@define
class ScriptedServer:
    """
    LMTP in a thread for each connection; *answers* may change what is said to a line.

    A final reply is asked for as ``b"."`` with a space and the address behind it.  With *trickle*,
    octets leave one by one.
    """

    answers: Answers = field(default=lambda _: b"250 2.0.0 Ok")
    greeting: bytes = b"220 here"
    trickle: bool = False
    lines: list[bytes] = field(factory=list)
    texts: list[bytes] = field(factory=list)
    connections: int = 0
    threads: list[threading.Thread] = field(factory=list)

    def connect(self) -> socket.socket:
        """
        The client's end of a new connection.
        """
        ours, theirs = socket.socketpair()
        self.connections += 1
        self.threads.append(threading.Thread(target=self._serve, args=(theirs,)))
        self.threads[-1].start()
        return ours

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines, suppress(OSError):
            self._say(connection, self.greeting)
            recipients: list[bytes] = []
            for line in lines:
                command = line.rstrip(b"\r\n")
                self.lines.append(command)
                if command.startswith(b"RCPT"):
                    recipients.append(command.partition(b"<")[2].rstrip(b">"))
                default = {b"DATA": b"354 go on", b"QUIT": b"221 bye"}.get(command)
                answer = self.answers(command)
                if not answer:
                    return
                self._say(connection, default or answer)
                if default is not None and command == b"QUIT":
                    return
                if command == b"DATA":
                    text = b"".join(iter(lambda: next(lines, b".\r\n"), b".\r\n"))
                    self.texts.append(text)
                    for recipient in recipients:
                        self._say(connection, self.answers(b". " + recipient))
                    recipients = []

    def _say(self, connection: socket.socket, reply: bytes) -> None:
        octets = reply + b"\r\n"
        for piece in [octets[n : n + 1] for n in range(len(octets))] if self.trickle else [octets]:
            connection.sendall(piece)


@pytest.fixture
def scripted() -> Iterator[Callable[..., ScriptedServer]]:
    """
    Makes servers; whoever is connected to them hangs up before the test ends.
    """
    servers: list[ScriptedServer] = []

    def make(**how: object) -> ScriptedServer:
        servers.append(ScriptedServer(**how))  # type: ignore[arg-type]  # as the test says
        return servers[-1]

    yield make
    for server in servers:
        for thread in server.threads:
            thread.join(10)
            assert not thread.is_alive()
