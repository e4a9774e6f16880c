"""
POP3 (RFC 1939), the server's side, on top of `twisted.mail.pop3`.

From there come the lines, the time-outs, the login and the form of the answers.  What does not hold
up on Python 3, or with a mailbox that takes its time, is done here:

* A mistake of the client (``DELE x``, ``FOO`` behind a slow command) broke the connection off, or
  was never answered: the text of the exception was joined as if it were octets.
* Commands behind PASS did not wait for the login, and QUIT did not wait for the deletions.
* ``DELE 0`` deleted the last message; STAT, LIST and UIDL went on to name those that are deleted.
* RETR read in the reactor thread, and made CR CR LF of CRLF; a dot at the beginning of a message,
  or of a piece, was not doubled.  TOP ended where a piece has no end of a line.
* APOP compares octets with text, so that no password was ever right.  It is not offered here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any, BinaryIO, Final

from twisted.cred.error import LoginDenied, LoginFailed
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from twisted.mail.pop3 import POP3
from twisted.python.failure import Failure
from zope.interface import implementer

from ..backends.pool import Pool
from ..backends.sql.reading import StoreError
from .mailbox import PIECE
from .text import Stuffing, Top

#: Each command with how many words may follow it, before the login and after it.
_BEFORE: Final = {"CAPA": (0, 0), "USER": (1, 1), "PASS": (1, 999), "QUIT": (0, 0)}
_AFTER: Final = dict.fromkeys(("CAPA", "STAT", "RSET", "NOOP", "QUIT"), (0, 0)) | {
    "LIST": (0, 1),
    "UIDL": (0, 1),
    "RETR": (1, 1),
    "TOP": (2, 2),
    "DELE": (1, 1),
}

#: Wrong passwords; then the connection is closed.
_TRIES: Final = 3

#: Lines that are sent at once.
_LINES: Final = 1000

_log = Logger(namespace="lmtpsvc.pop3")


class Refused(Exception):
    """
    The client is told so, and may go on.
    """


@implementer(IPushProducer)
class POP3Server(POP3):
    """
    One connection.  Commands may be pipelined (RFC 2449 §6.6); each is answered before the next is
    looked at, and no more is read meanwhile.
    """

    # RFC 1939 §3: ten minutes at least.
    timeOut = 600

    # Twisted says less of them than it knows.
    transport: Any
    factory: Any
    mbox: Any
    _userIs: bytes | None

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._lines: deque[bytes] = deque()
        # Over: nothing more is done for the client.  Lost: nothing more is asked of the transport,
        # since with TLS one that is lost fails if it is.
        self._busy = self._over = self._lost = False
        self._failed_logins = 0
        # Fires when the transport wants more.
        self._room: Deferred[None] | None = None

    def connectionMade(self) -> None:
        self.factory.connections.add(self)
        # A greeting without <...> offers no APOP (RFC 1939 §7).
        self.successResponse(b"ready")
        self.setTimeout(self.timeOut)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # has a default there
        self._over = self._lost = True
        self._lines.clear()
        self.factory.connections.discard(self)
        super().connectionLost(reason)
        self._give_room(Failure(ConnectionLost()))

    def timeoutConnection(self) -> None:
        # Not loseConnection: that would wait until the client has taken what is on its way.
        self.transport.abortConnection()

    # ── one command after the other ──────────────────────────────────────────────────────────────

    def state_COMMAND(self, line: bytes) -> None:
        self._lines.append(line)
        self._go_on()

    def _go_on(self) -> None:
        while self._lines and not self._busy and not self._over:
            self._busy = True
            answered = ensureDeferred(self._answer(self._lines.popleft()))
            answered.addErrback(self._broken).addCallback(self._answered)
            if self._busy:
                self.transport.pauseProducing()
                answered.addCallback(self._read_on)

    def _answered(self, _: object) -> None:
        self._busy = False

    def _read_on(self, _: object) -> None:
        if not self._over:
            self.resetTimeout()
            self.transport.resumeProducing()
            self._go_on()

    def _broken(self, failure: Failure) -> None:
        # What was said so far can be half an answer.
        if not failure.check(ConnectionLost):
            _complain("the connection is closed", failure)
        self._over = True
        if not self._lost:
            self.transport.abortConnection()

    async def _answer(self, line: bytes) -> None:
        word, *arguments = line.rstrip(b" ").split(b" ")
        verb = word.decode("ascii", "replace").upper()
        commands = _BEFORE if self.mbox is None else _AFTER
        try:
            if verb not in commands:
                known = verb in _BEFORE or verb in _AFTER
                raise Refused("not now" if known else "no such command")
            fewest, most = commands[verb]
            if not fewest <= len(arguments) <= most:
                raise Refused(f"wrong number of words behind {verb}")
            if verb == "PASS":
                # A password may end with spaces, and have some in it.
                arguments = [line[len("PASS ") :]]
            await maybeDeferred(getattr(self, f"do_{verb}"), *arguments)
        except Refused as error:
            self.failResponse(str(error))

    # ── before the login ─────────────────────────────────────────────────────────────────────────

    def listCapabilities(self) -> list[bytes]:
        return [b"USER", b"TOP", b"UIDL", b"PIPELINING", b"RESP-CODES", b"AUTH-RESP-CODE"]

    async def do_PASS(self, password: bytes) -> None:
        if self._userIs is None:
            raise Refused("USER first")
        user, self._userIs = self._userIs, None
        try:
            _, mailbox, logout = await maybeDeferred(self.authenticateUserPASS, user, password)
        except (LoginFailed, LoginDenied):
            _log.info("{peer}: wrong password for {user}", peer=self.transport.getPeer(), user=user)
            self._failed_logins += 1
            self.failResponse("[AUTH] wrong name or password")
            if self._failed_logins == _TRIES:
                self._hang_up()
            return
        except Exception:
            _complain("nobody can log in", Failure())
            raise Refused("[SYS/TEMP] try again later") from None
        if self._over:
            logout()
            return
        self.mbox, self._onLogout = mailbox, logout
        self.successResponse("welcome")

    # ── after it ─────────────────────────────────────────────────────────────────────────────────

    async def do_STAT(self) -> None:
        sizes = [size for _, size in await self._there()]
        self.successResponse(b"%d %d" % (len(sizes), sum(sizes)))

    async def do_LIST(self, number: bytes | None = None) -> None:
        if number is not None:
            index = await self._index(number)
            size = await maybeDeferred(self.mbox.listMessages, index)
            self.successResponse(b"%d %d" % (index + 1, size))
            return
        there = await self._there()
        await self._list(b"%d %d\r\n" % (index + 1, size) for index, size in there)

    async def do_UIDL(self, number: bytes | None = None) -> None:
        uid = self.mbox.getUidl
        if number is not None:
            index = await self._index(number)
            self.successResponse(b"%d %b" % (index + 1, uid(index)))
            return
        there = await self._there()
        await self._list(b"%d %b\r\n" % (index + 1, uid(index)) for index, _ in there)

    async def do_RETR(self, number: bytes) -> None:
        await self._retrieve(number, None)

    async def do_TOP(self, number: bytes, lines: bytes) -> None:
        await self._retrieve(number, Top(_number(lines)))

    async def do_DELE(self, number: bytes) -> None:
        self.mbox.deleteMessage(await self._index(number))
        self.successResponse("marked")

    def do_RSET(self) -> None:
        self.mbox.undeleteMessages()
        self.successResponse("no message is marked")

    async def do_QUIT(self) -> None:
        try:
            if self.mbox is not None:
                await maybeDeferred(self.mbox.sync)
            self.successResponse("bye")
        except Exception:
            _complain("deleted messages stay", Failure())
            self.failResponse("[SYS/TEMP] deleted messages may not have been removed")
        self._hang_up()

    # ── how it is done ───────────────────────────────────────────────────────────────────────────

    def _hang_up(self) -> None:
        self._over = True
        self.transport.loseConnection()

    async def _there(self) -> list[tuple[int, int]]:
        """
        Index and size of each message that is not deleted.
        """
        sizes = await maybeDeferred(self.mbox.listMessages)
        return [(index, size) for index, size in enumerate(sizes) if size]

    async def _index(self, word: bytes) -> int:
        """
        The index of the message that is called *word*, which is there.
        """
        index = _number(word) - 1
        try:
            if index >= 0 and await maybeDeferred(self.mbox.listMessages, index):
                return index
        except ValueError:
            pass
        raise Refused("no such message")

    async def _list(self, lines: Iterator[bytes]) -> None:
        self.successResponse("here they are")
        async with _Sending(self):
            while piece := b"".join(line for line, _ in zip(lines, range(_LINES), strict=False)):
                await self._send(piece)
        self.sendLine(b".")

    async def _retrieve(self, number: bytes, top: Top | None) -> None:
        index = await self._index(number)
        try:
            file: BinaryIO = await maybeDeferred(self.mbox.getMessage, index)
        except ValueError:
            raise Refused("no such message any more") from None
        except Exception:
            _complain("a message cannot be read", Failure())
            raise Refused("[SYS/TEMP] try again later") from None
        try:
            self.successResponse("here it is")
            await self._send_file(file, top)
        finally:
            await self._pool.submit(file.close)

    async def _send_file(self, file: BinaryIO, top: Top | None) -> None:
        stuffing = Stuffing()
        async with _Sending(self):
            while top is None or not top.done:
                piece = await self._pool.submit(partial(file.read, PIECE))
                if not piece:
                    break
                await self._send(stuffing.feed(piece if top is None else top.feed(piece)))
        self.transport.write(stuffing.end())

    async def _send(self, piece: bytes) -> None:
        """
        Send *piece*; returns when there is room for more.
        """
        if self._over:
            raise ConnectionLost
        self.transport.write(piece)
        if self._room is not None:
            await self._room
        # A client that takes nothing for so long is gone.
        self.resetTimeout()

    # ── what the transport calls while something is sent ─────────────────────────────────────────

    def pauseProducing(self) -> None:
        if self._room is None:
            self._room = Deferred()

    def resumeProducing(self) -> None:
        self._give_room(None)

    def stopProducing(self) -> None:
        self._over = True
        self._give_room(Failure(ConnectionLost()))

    def _give_room(self, result: Failure | None) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.callback(result)
            # Perhaps nobody waits: it was full, and then it was over.
            room.addErrback(lambda _: None)


class _Sending:
    """
    The time for which the transport tells when there is room.
    """

    def __init__(self, protocol: POP3Server) -> None:
        self._protocol = protocol

    async def __aenter__(self) -> None:
        self._protocol.transport.registerProducer(self._protocol, True)

    async def __aexit__(self, *error: object) -> None:
        if not self._protocol._lost:
            self._protocol.transport.unregisterProducer()


def _complain(what: str, failure: Failure) -> None:
    """
    Log *failure*: in one line if it is the trouble of a database or a file, else as a defect.
    """
    if failure.check(StoreError, OSError):
        _log.error("{what}: {error}", what=what, error=failure.value)
    else:
        _log.failure("{what}", failure, what=what)


def _number(word: bytes) -> int:
    if not word.isdigit() or len(word) > 9:
        raise Refused("that is not a number")
    return int(word)


class POP3Factory(ServerFactory):
    """
    Makes a `POP3Server` for each connection; who may log in, and to what, is the portal's affair.
    """

    # Twisted would log each start and stop.
    noisy = False

    def __init__(self, portal: Portal, pool: Pool, most: int = 500) -> None:
        """
        *most* connections are served at a time.
        """
        self._portal, self._pool, self._most = portal, pool, most
        self.connections: set[POP3Server] = set()

    def buildProtocol(self, addr: IAddress | None) -> POP3Server | None:
        if len(self.connections) >= self._most:
            return None
        protocol: Any = POP3Server(self._pool)
        protocol.factory, protocol.portal = self, self._portal
        served: POP3Server = protocol
        return served
