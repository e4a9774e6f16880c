"""
A client that keeps so many sessions busy, and measures how long each reply takes.

MAIL, all RCPT and DATA go in one packet, the text follows the 354, and the next message the last
reply.  One thread and one epoll do it all: the client shall take little from the server's machine.
"""

from __future__ import annotations

import gc
import random
import resource
import socket
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum, auto
from itertools import cycle, islice
from select import EPOLLIN, EPOLLOUT, epoll

from attrs import define, field

from .ledger import DOMAIN, Ledger, mailbox
from .text import Text, text_of
from .workloads import Workload

#: How long a server may be silent, in seconds.
PATIENCE = 60.0
#: So many connections are on their way at a time: what waits to be accepted has a bound.
CONNECTING = 100

Chooser = Callable[[], Sequence[int]]


class LoadError(Exception):
    """
    The server did what makes a measurement worthless; the text says what.
    """


class Stage(Enum):
    """
    What a session waits for.
    """

    GREETING = auto()
    HELLO = auto()
    NOTHING = auto()
    ENVELOPE = auto()
    TEXT = auto()
    BYE = auto()


@define(eq=False)
class Session:
    """
    One connection: what is not yet sent, what has been heard, and what about.
    """

    socket: socket.socket
    stage: Stage = Stage.GREETING
    awaited: int = 1
    replies: list[bytes] = field(factory=list)
    rest: bytes = b""
    unsent: list[memoryview] = field(factory=list)
    number: int = 0
    users: Sequence[int] = ()
    #: When what has the final dot in it was given to the kernel.
    ended: float = 0.0


@define
class Sent:
    """
    What a server has said to so many messages: deliveries, how long, and the latency of each reply.

    *latencies* are seconds from the final dot to the reply of each recipient; *cpu* are the seconds
    that the client took; *refused* counts replies that are not 250.
    """

    messages: int = 0
    deliveries: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    latencies: array[float] = field(factory=lambda: array("d"))
    refused: Counter[str] = field(factory=Counter)


class Client:
    """
    As many sessions as the workload wants, over what *connect* gives.
    """

    def __init__(
        self, connect: Callable[[], socket.socket], workload: Workload, ledger: Ledger
    ) -> None:
        self._new_connection = connect
        self._workload = workload
        self._ledger = ledger
        self._text: Text = text_of(workload.octets)
        self._random = random.Random(f"{workload.title} {ledger.numbered}")
        self._epoll = epoll()
        self._sessions: dict[int, Session] = {}
        self._busy = 0
        self._may_send: Callable[[], bool] = lambda: False
        self._choose: Chooser = self.at_random
        self._sent = Sent()
        self._heard = {
            Stage.GREETING: self._greeted,
            Stage.HELLO: self._welcomed,
            Stage.NOTHING: self._surprised,
            Stage.ENVELOPE: self._allowed,
            Stage.TEXT: self._answered,
            Stage.BYE: self._left,
        }

    # ── what the caller does ─────────────────────────────────────────────────────────────────────

    def open(self, sessions: int | None = None) -> None:
        """
        Connect all sessions, and greet.

        Raises:
            LoadError: The server does not want that.
        """
        wanted = self._workload.sessions if sessions is None else sessions
        _allow_descriptors(wanted + 100)
        while wanted or self._busy:
            while wanted and self._busy < CONNECTING:
                wanted -= 1
                self._busy += 1
                self._connect()
            self._wait()

    def send(self, seconds: float) -> Sent:
        """
        Send for so long, or until the workload says that it is enough, to recipients at random.

        Raises:
            LoadError: A command was refused, or the connection was lost.
        """
        begun = time.perf_counter()
        most = self._workload.most
        return self._send(
            lambda: (
                time.perf_counter() - begun < seconds
                and (most is None or self._sent.messages + self._busy <= most)
            ),
            self.at_random,
        )

    def send_to_all(self) -> Sent:
        """
        Send until each user has something and each session has sent something.

        Raises:
            LoadError: A command was refused, or the connection was lost.
        """
        users, recipients = self._workload.users, self._workload.recipients
        left = max(-(-len(users) // recipients), self._workload.sessions)
        turns = cycle(users)

        def may_send() -> bool:
            nonlocal left
            left -= 1
            return left >= 0

        return self._send(may_send, lambda: list(islice(turns, recipients)))

    def at_random(self) -> Sequence[int]:
        """
        The recipients of one message.
        """
        users, recipients = self._workload.users, self._workload.recipients
        if recipients == 1:
            return (users[int(self._random.random() * len(users))],)
        return self._random.sample(users, recipients)

    def close(self) -> None:
        """
        Hang up.
        """
        for session in self._sessions.values():
            session.socket.close()
        self._sessions.clear()
        self._epoll.close()

    # ── the loop ─────────────────────────────────────────────────────────────────────────────────

    def _send(self, may_send: Callable[[], bool], choose: Chooser) -> Sent:
        self._may_send, self._choose, self._sent = may_send, choose, Sent()
        with _without_collection():
            before, cpu = time.perf_counter(), time.process_time()
            for session in list(self._sessions.values()):
                self._busy += 1
                self._next(session)
            while self._busy:
                self._wait()
            self._sent.seconds = time.perf_counter() - before
            self._sent.cpu = time.process_time() - cpu
        return self._sent

    def _wait(self) -> None:
        ready = self._epoll.poll(PATIENCE)
        if not ready:
            stages = Counter(session.stage.name for session in self._sessions.values())
            raise LoadError(f"nothing was heard for {PATIENCE:.0f} seconds: {dict(stages)}")
        for descriptor, event in ready:
            session = self._sessions[descriptor]
            if event & EPOLLOUT:
                self._write(session)
            # Whoever hangs up is heard, too.
            if event & ~EPOLLOUT:
                self._read(session)

    def _connect(self) -> None:
        connection = self._new_connection()
        connection.setblocking(False)
        self._sessions[connection.fileno()] = Session(connection)
        self._epoll.register(connection, EPOLLIN)

    def _read(self, session: Session) -> None:
        try:
            octets = session.socket.recv(65536)
        except OSError as problem:
            raise LoadError(f"{session.stage.name}: {problem}") from None
        now = time.perf_counter()
        if not octets:
            raise LoadError(f"{session.stage.name}: the server hung up")
        *lines, session.rest = (session.rest + octets).split(b"\r\n")
        replies = [line for line in lines if line[3:4] != b"-"]
        if session.stage is Stage.TEXT:
            self._sent.latencies.extend([now - session.ended] * len(replies))
        session.replies += replies
        if len(session.replies) >= session.awaited:
            replies, session.replies = session.replies, []
            if len(replies) > session.awaited or session.unsent:
                raise LoadError(f"{session.stage.name}: not expected: {replies[-1]!r}")
            self._heard[session.stage](session, replies)

    def _write(self, session: Session, *octets: bytes | memoryview) -> None:
        session.unsent += map(memoryview, octets)
        if session.stage is Stage.TEXT:
            session.ended = time.perf_counter()
        try:
            count = session.socket.sendmsg(session.unsent)
        except BlockingIOError:
            count = 0
        except OSError as problem:
            raise LoadError(f"{session.stage.name}: {problem}") from None
        while session.unsent and count >= len(session.unsent[0]):
            count -= len(session.unsent.pop(0))
        if session.unsent:
            session.unsent[0] = session.unsent[0][count:]
        events = EPOLLIN | EPOLLOUT if session.unsent else EPOLLIN
        if not octets or session.unsent:
            self._epoll.modify(session.socket, events)

    # ── the conversation ─────────────────────────────────────────────────────────────────────────

    def _ask(
        self, session: Session, stage: Stage, awaited: int, *octets: bytes | memoryview
    ) -> None:
        session.stage, session.awaited = stage, awaited
        self._write(session, *octets)

    def _greeted(self, session: Session, replies: list[bytes]) -> None:
        self._expect(b"220", replies)
        self._ask(session, Stage.HELLO, 1, b"LHLO bench.example\r\n")

    def _welcomed(self, session: Session, replies: list[bytes]) -> None:
        self._expect(b"250", replies)
        session.stage = Stage.NOTHING
        self._next(session)

    def _surprised(self, session: Session, replies: list[bytes]) -> None:
        raise LoadError(f"not asked for: {replies[0]!r}")

    def _next(self, session: Session) -> None:
        """
        Send the envelope of another message, or rest.
        """
        if not self._may_send():
            session.stage = Stage.NOTHING
            self._busy -= 1
            return
        session.number, session.users = self._ledger.number(self._text.octets), self._choose()
        words = [b"MAIL FROM:<sender@bench.example>\r\n"]
        words += [_rcpt(user) for user in session.users]
        words.append(b"DATA\r\n")
        self._ask(session, Stage.ENVELOPE, len(words), b"".join(words))

    def _allowed(self, session: Session, replies: list[bytes]) -> None:
        self._expect(b"354", replies[-1:])
        self._expect(b"250", replies[:-1])
        header = self._text.header(session.number)
        self._ask(session, Stage.TEXT, len(session.users), header, self._text.body)

    def _answered(self, session: Session, replies: list[bytes]) -> None:
        self._sent.messages += 1
        for user, reply in zip(session.users, replies, strict=True):
            if reply.startswith(b"250"):
                self._sent.deliveries += 1
                self._ledger.entries.add((session.number, user))
            else:
                self._sent.refused[reply.decode("utf-8", "replace")] += 1
        if self._workload.reconnect:
            self._ask(session, Stage.BYE, 1, b"QUIT\r\n")
        else:
            self._next(session)

    def _left(self, session: Session, replies: list[bytes]) -> None:
        self._expect(b"221", replies)
        del self._sessions[session.socket.fileno()]
        self._epoll.unregister(session.socket)
        session.socket.close()
        self._connect()

    def _expect(self, code: bytes, replies: Sequence[bytes]) -> None:
        for reply in replies:
            if not reply.startswith(code):
                raise LoadError(f"expected {code.decode()}, heard {reply!r}")


def to_port(port: int) -> Callable[[], socket.socket]:
    """
    What connects to a port of this machine.
    """

    def connect() -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", port), PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    return connect


def _rcpt(user: int) -> bytes:
    return b"RCPT TO:<%s@%s>\r\n" % (mailbox(user).encode(), DOMAIN.encode())


def _allow_descriptors(wanted: int) -> None:
    """
    Have room for so many connections; servers inherit it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


@contextmanager
def _without_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
