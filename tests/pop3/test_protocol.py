"""
A POP3 connection without sockets: what fails, what takes its time, and who does not listen.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from io import BytesIO
from typing import Any, BinaryIO, TypeVar

import pytest
from attrs import define, field
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, execute, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.mail.interfaces import IMailboxPOP3
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyClass

from lmtpsvc.backends.sql.reading import StoreError
from lmtpsvc.pop3.mailbox import StoredMailboxPOP3
from lmtpsvc.pop3.protocol import POP3Factory, POP3Server

T = TypeVar("T")

LOGIN = b"USER ann\r\nPASS secret\r\n"


class OnTheSpot:
    """
    A pool that does each job when it comes.
    """

    def submit(self, job: Callable[[], T]) -> Deferred[T]:
        return execute(job)


class Later(OnTheSpot):
    """
    One that does a job when it is told to.
    """

    def __init__(self) -> None:
        self.jobs: list[Callable[[], object]] = []

    def submit(self, job: Callable[[], T]) -> Deferred[T]:
        done: Deferred[T] = Deferred()
        self.jobs.append(lambda: execute(job).chainDeferred(done))
        return done


@define
class Box:
    """
    A mailbox of one message, as slow or as broken as a test wants it.
    """

    text: bytes = b"Subject: a\r\n\r\nbody\r\n"
    synced: Callable[[], Deferred[None]] = lambda: succeed(None)
    opened: Callable[[], Any] | None = None
    marked: bool = False
    files: list[BinaryIO] = field(factory=list)

    def listMessages(self, i: int | None = None) -> Any:
        size = 0 if self.marked else len(self.text)
        if i is None:
            return [size]
        if i:
            raise ValueError
        return size

    def getMessage(self, i: int) -> Any:
        if self.opened is not None:
            return self.opened()
        self.files.append(BytesIO(self.text))
        return self.files[-1]

    def getUidl(self, i: int) -> bytes:
        return b"1.1"

    def deleteMessage(self, i: int) -> None:
        self.marked = True

    def undeleteMessages(self) -> None:
        self.marked = False

    def sync(self) -> Deferred[None]:
        return self.synced()


@implementer(IRealm)
@define
class Realm:
    box: Box
    wait: Deferred[None] = field(factory=lambda: succeed(None))
    logouts: list[bytes] = field(factory=list)

    def requestAvatar(self, avatarId: bytes | tuple[()], mind: object, *interfaces: Any) -> Any:
        def logout() -> None:
            assert isinstance(avatarId, bytes)
            self.logouts.append(avatarId)

        return self.wait.addCallback(lambda _: (IMailboxPOP3, self.box, logout))


class Transport(StringTransport):
    """
    One that also knows whether it was cut off.
    """

    aborting = lost = False

    def abortConnection(self) -> None:
        self._must_be_there()
        self.aborting = True

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        super().registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        self._must_be_there()
        super().unregisterProducer()

    def _must_be_there(self) -> None:
        # What Twisted's TLS says once it is lost.
        if self.lost:
            raise AttributeError("'NoneType' object has no attribute 'shutdown'")


class Wire:
    """
    Both ends of a connection.
    """

    def __init__(self, realm: Realm, pool: object = None) -> None:
        users = InMemoryUsernamePasswordDatabaseDontUse(ann=b"secret")
        self.factory = POP3Factory(Portal(realm, [users]), pool or OnTheSpot())  # type: ignore[arg-type]  # all of a pool that is used
        protocol = self.factory.buildProtocol(None)
        assert protocol is not None
        self.protocol: POP3Server = protocol
        self.clock, self.transport = Clock(), Transport()
        self.protocol.callLater = self.clock.callLater  # type: ignore[assignment]  # as TimeoutMixin has it
        self.protocol.makeConnection(self.transport)
        self.transport.clear()

    def say(self, octets: bytes) -> bytes:
        """
        What is answered at once.
        """
        self.protocol.dataReceived(octets)
        return self.heard()

    def heard(self) -> bytes:
        found: bytes = self.transport.value()
        self.transport.clear()
        return found

    def lose(self) -> None:
        self.protocol.connectionLost(Failure(ConnectionDone()))
        self.transport.lost = True
        assert self.clock.getDelayedCalls() == []
        assert self.factory.connections == set()


def kinds(answers: bytes) -> list[bytes]:
    return [line.split(b" ")[0] for line in answers.splitlines()]


def test_interface() -> None:
    """
    The mailbox is one as Twisted knows them.
    """
    assert verifyClass(IMailboxPOP3, StoredMailboxPOP3)


class TestWaiting:
    def test_for_the_login(self) -> None:
        """
        Commands that are sent behind PASS wait for it, and no more is read meanwhile.
        """
        slow: Deferred[None] = Deferred()
        wire = Wire(Realm(Box(), slow))

        assert kinds(wire.say(LOGIN + b"STAT\r\nFOO\r\nNOOP\r\n")) == [b"+OK"]
        assert wire.transport.producerState == "paused"
        slow.callback(None)

        assert kinds(wire.heard()) == [b"+OK", b"+OK", b"-ERR", b"+OK"]
        assert wire.transport.producerState == "producing"

    def test_lost_while_logging_in(self) -> None:
        """
        Whoever is gone before the login is done is logged out again.
        """
        slow: Deferred[None] = Deferred()
        realm = Realm(Box(), slow)
        wire = Wire(realm)
        wire.say(LOGIN)

        wire.lose()
        slow.callback(None)

        assert realm.logouts == [b"ann"]

    def test_for_the_deletion(self) -> None:
        """
        QUIT is answered when the messages are gone, and nothing behind it counts.
        """
        slow: Deferred[None] = Deferred()
        wire = Wire(Realm(Box(synced=lambda: slow)))
        wire.say(LOGIN)

        assert wire.say(b"DELE 1\r\nQUIT\r\nNOOP\r\n") == b"+OK marked\r\n"
        assert not wire.transport.disconnecting
        slow.callback(None)

        assert wire.heard() == b"+OK bye\r\n"
        assert wire.transport.disconnecting

    def test_for_a_slow_reader(self) -> None:
        """
        A message is not read faster than the client takes it.
        """
        box = Box(b"x\r\n" * 200_000)
        wire = Wire(Realm(box))
        wire.say(LOGIN)
        sent = []
        wire.protocol.pauseProducing()
        sent.append(wire.say(b"RETR 1\r\n"))
        assert 0 < len(sent[0]) < len(box.text) / 2
        while wire.transport.producer is not None and wire.transport.streaming:
            wire.protocol.resumeProducing()
            sent.append(wire.heard())

        assert b"".join(sent) == b"+OK here it is\r\n" + box.text + b".\r\n"
        assert box.files[0].closed

    def test_ten_minutes(self) -> None:
        """
        Whoever says nothing, or takes nothing, for ten minutes is cut off; nothing is deleted.
        """
        wire = Wire(Realm(Box(b"x\r\n" * 200_000, synced=lambda: pytest.fail("deleted"))))
        wire.say(LOGIN + b"DELE 1\r\nRSET\r\n")
        wire.protocol.pauseProducing()
        wire.say(b"RETR 1\r\n")

        wire.clock.advance(599)
        assert not wire.transport.aborting
        wire.clock.advance(1)

        assert wire.transport.aborting
        wire.lose()


class TestTrouble:
    def test_no_mailbox_now(self) -> None:
        """
        A database that does not answer is no wrong password: the client may try again.
        """
        slow: Deferred[None] = Deferred()
        wire = Wire(Realm(Box(), slow))
        wire.say(LOGIN)
        slow.errback(OSError("password of the database: secret"))

        assert wire.heard() == b"-ERR [SYS/TEMP] try again later\r\n"

    @pytest.mark.parametrize(
        ("error", "said"), [(ValueError, b"no such message any more"), (OSError, b"[SYS/TEMP]")]
    )
    def test_unreadable(self, error: type[Exception], said: bytes) -> None:
        """
        A message that cannot be read is refused, and the conversation goes on.
        """

        def opened() -> None:
            raise error("secret")

        wire = Wire(Realm(Box(opened=opened)))
        wire.say(LOGIN)

        answers = wire.say(b"RETR 1\r\nNOOP\r\n")

        assert answers.startswith(b"-ERR " + said)
        assert kinds(answers) == [b"-ERR", b"+OK"]
        assert b"secret" not in answers

    @pytest.mark.parametrize(
        ("error", "level"),
        [
            (StoreError("OperationalError: database is locked"), LogLevel.error),
            (OSError("gone"), LogLevel.error),
            (ZeroDivisionError("gone"), LogLevel.critical),
        ],
    )
    def test_told(self, error: Exception, level: object) -> None:
        """
        The log has one line for each trouble of the database, and a traceback for a defect only.
        """

        def broken() -> Any:
            raise error

        slow: Deferred[None] = Deferred()
        refused = Wire(Realm(Box(), slow))
        refused.say(LOGIN)
        wire = Wire(Realm(Box(opened=broken, synced=broken)))
        with capturedLogs() as events:
            slow.errback(error)
            wire.say(LOGIN + b"RETR 1\r\nDELE 1\r\nQUIT\r\n")

        assert [event["log_level"] for event in events] == [level] * 3
        lines = [formatEvent(event) for event in events]
        what = ["nobody can log in", "a message cannot be read", "deleted messages stay"]
        if level is LogLevel.error:
            what = [f"{each}: {error}" for each in what]
        assert lines == what

    def test_unreadable_in_the_middle(self) -> None:
        """
        Half a message does not look like a whole one.
        """

        class Broken(BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                piece = super().read(10)
                if not piece:
                    raise OSError("gone")
                return piece

        wire = Wire(Realm(Box(opened=lambda: Broken(b"x" * 20))))
        wire.say(LOGIN)

        assert wire.say(b"RETR 1\r\nNOOP\r\n") == b"+OK here it is\r\n" + b"x" * 20
        assert wire.transport.aborting

    @pytest.mark.parametrize("silent", [False, True])
    def test_lost_while_reading(self, silent: bool) -> None:
        """
        Whoever is gone while a message is read, or is cut off then, is nobody's defect: nothing is
        asked of the transport any more, and the file is closed.
        """
        box, pool = Box(), Later()
        wire = Wire(Realm(box), pool)
        wire.say(LOGIN + b"RETR 1\r\n")
        if silent:
            wire.clock.advance(600)

        wire.lose()
        with capturedLogs() as events:
            while pool.jobs:
                pool.jobs.pop(0)()

        assert box.files[0].closed
        gc.collect()
        assert events == []

    def test_not_deleted(self) -> None:
        """
        QUIT says so if messages could not be deleted (RFC 1939 §6).
        """

        def synced() -> Deferred[None]:
            raise OSError

        wire = Wire(Realm(Box(synced=synced)))
        wire.say(LOGIN)

        assert wire.say(b"DELE 1\r\nQUIT\r\n").splitlines()[1].startswith(b"-ERR [SYS/TEMP]")
        assert wire.transport.disconnecting

    def test_too_many(self) -> None:
        """
        Connections beyond the limit are closed.
        """
        wire = Wire(Realm(Box()))
        wire.factory._most = 1

        assert wire.factory.buildProtocol(None) is None
        wire.lose()
        assert wire.factory.buildProtocol(None) is not None
