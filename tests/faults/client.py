"""
An LMTP client that shows everything, and the load that many of them make.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Sequence
from random import Random
from types import TracebackType
from typing import Self

from lmtpsvc.testing.load import PATIENCE

from .messages import KIB, Ledger, Message, Reply, compose

#: Where a server listens: the path of a UNIX socket, or host and port.
Where = str | tuple[str, int]


def connect(where: Where, seconds: float = PATIENCE) -> socket.socket:
    """
    A connected socket, of which no operation takes longer than *seconds*.
    """
    if isinstance(where, tuple):
        return socket.create_connection(where, seconds)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(seconds)
        connection.connect(where)
    except OSError:
        connection.close()
        raise
    return connection


class Farewell(ConnectionError):
    """
    The server said 421, whatever it had been asked.
    """

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.line)
        self.reply = reply


class Connection:
    """
    One LMTP conversation; the greeting is read and LHLO answered when it is made.
    """

    def __init__(self, where: Where, seconds: float = PATIENCE) -> None:
        self.socket = connect(where, seconds)
        try:
            self._lines = self.socket.makefile("rb")
            self.greeting = self.reply()
            self.lhlo = self.command("LHLO client.example.net")
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """
        Drop the connection without a word.
        """
        self._lines.close()
        self.socket.close()

    def send(self, octets: bytes) -> None:
        """
        Send octets as they are.
        """
        self.socket.sendall(octets)

    def reply(self) -> Reply:
        """
        Read one reply, with all its lines.

        Raises:
            Farewell: It is a 421.
            ConnectionError: There is none; the server has closed the connection.
        """
        text = ""
        while True:
            line = self._lines.readline()
            if not line.endswith(b"\r\n"):
                raise ConnectionResetError(f"connection closed after {text + line.decode()!r}")
            text += line.decode()
            if line[3:4] != b"-":
                reply = Reply(int(line[:3]), text.rstrip("\r\n"))
                if reply.code == 421:
                    raise Farewell(reply)
                return reply

    def command(self, line: str) -> Reply:
        """
        Send a command and read its reply.
        """
        self.send(line.encode() + b"\r\n")
        return self.reply()

    def begin(self, recipients: Sequence[str]) -> tuple[list[Reply], Reply]:
        """
        Pipeline MAIL, all RCPTs and DATA; return the replies to RCPT and to DATA.
        """
        self.send(
            b"MAIL FROM:<sender@example.net>\r\n"
            + b"".join(b"RCPT TO:<%s>\r\n" % recipient.encode() for recipient in recipients)
            + b"DATA\r\n"
        )
        mail = self.reply()
        assert mail.code == 250, mail
        return [self.reply() for _ in recipients], self.reply()

    def deliver(self, message: Message, ledger: Ledger | None = None) -> list[Reply]:
        """
        Send one message, and return what each recipient was answered, be it to RCPT or in the end.

        Replies are put down as they are read: if the connection breaks between two of them, the
        ledger knows the first.
        """
        if ledger is None:
            ledger = Ledger()
        ledger.will_send(message)
        offered, data = self.begin(message.recipients)
        accepted = []
        for recipient, reply in zip(message.recipients, offered, strict=True):
            if reply.code == 250:
                accepted.append(recipient)
            else:
                ledger.record(message, recipient, reply)
        if accepted:
            assert data.code == 354, data
            self.send(message.stuffed)
            ledger.await_replies(message, accepted)
            for recipient in accepted:
                ledger.record(message, recipient, self.reply())
        return [ledger.replies[message.id, recipient] for recipient in message.recipients]


class Load:
    """
    Clients that deliver without a pause until they are told to stop.

    The mix is what the store must cope with at the same time: single recipients, several that
    share one file, mailboxes and domains that do not exist yet, and, if *large*, messages that do
    not fit into the memory of the spool.
    """

    def __init__(
        self,
        where: Where,
        ledger: Ledger,
        seed: object,
        *,
        connections: int = 8,
        large: bool = True,
    ) -> None:
        self.ledger = ledger
        self._where = where
        self._large = large
        self._stopping = threading.Event()
        self._faults: list[BaseException] = []
        #: How many connections the server ended.
        self.ended = 0
        #: The 421s among them.
        self.farewells: list[Reply] = []
        self._threads = [
            threading.Thread(target=self._run, args=(Random(f"{seed}/{n}"),), daemon=True)
            for n in range(connections)
        ]

    def start(self) -> None:
        """
        Begin.
        """
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float = PATIENCE) -> None:
        """
        Let each client finish what it has begun and one message more, and wait for all of them.

        Raises:
            AssertionError: The server said something that it must not say.
        """
        self._stopping.set()
        for thread in self._threads:
            thread.join(seconds)
            assert not thread.is_alive(), "a client is stuck: the server owes it a reply"
        for fault in self._faults:
            raise fault

    def _run(self, random: Random) -> None:
        try:
            with Connection(self._where) as connection:
                last = False
                while not last:
                    last = self._stopping.is_set()
                    connection.deliver(self._message(random), self.ledger)
        except Farewell as farewell:
            self.farewells.append(farewell.reply)
            self.ended += 1
        except (ConnectionError, FileNotFoundError):
            self.ended += 1
        except BaseException as error:
            self._faults.append(error)

    def _message(self, random: Random) -> Message:
        kind = random.random()
        if kind < 0.5:
            recipients = {f"user{random.randrange(40)}@example.org"}
        elif kind < 0.8:
            count = random.randrange(2, 6)
            recipients = {f"user{random.randrange(40)}@example.org" for _ in range(count)}
        else:
            new = random.randbytes(4).hex()
            domain = f"{new}.example" if kind > 0.9 else "example.org"
            recipients = {f"new-{new}@{domain}", f"user{random.randrange(40)}@example.org"}
        octets = random.randrange(100, 20 * KIB)
        if self._large and random.random() < 0.12:
            octets = random.randrange(260 * KIB, 500 * KIB)
        return compose(random, tuple(sorted(recipients)), octets)


def quietly_close(connections: Sequence[Connection]) -> None:
    """
    Close all, whatever state they are in.
    """
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.close()
