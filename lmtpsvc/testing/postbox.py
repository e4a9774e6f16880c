"""
Postbox: an LMTP service in the test's own process, that keeps what an application sends.

`Postbox` is for tests in which Twisted's reactor runs, `BlockingPostbox` for all others: its reactor
runs in a thread of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, Final, Self, TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.internet.threads import blockingCallFromThread
from twisted.python.failure import Failure

from ..client import Dialect
from ..delivery.agent import DeliveryAgent
from ..delivery.routing import AddressRules, Routing
from ..delivery.spool import SpoolSettings
from ..directory.anyone import Anyone
from ..limits import Limits
from ..replies import Reply
from ..server.factory import LMTPFactory
from ..session.dsn import DSN
from ..session.smtp import SMTPSession
from ..session.standard import standard_extensions
from .pigeonhole import Hold, Mail, Pigeonhole
from .reactor_thread import reactor_in_thread

__all__ = ["BlockingPostbox", "Hold", "Mail", "Postbox"]

T = TypeVar("T")

#: Where it listens if nobody says: a port that is free.
ANYWHERE: Final = "tcp:0:interface=127.0.0.1"
#: How long `next` waits, in seconds.
PATIENCE: Final = 10.0
#: Seconds that who has not finished sending gets when it stops.
STOP_SECONDS: Final = 1.0


class _Postbox:
    """
    What both have in common: the service, and what is to be answered.

    *listen* is a server endpoint string of Twisted's, *dialect* LMTP, or SMTP for an application
    that sends by a relay: there is one reply for all behind the text then, 250 if anybody has it.
    *limits* are those of the service, `lmtpsvc.limits.Limits`.
    """

    def __init__(
        self,
        reactor: Any,
        listen: str = ANYWHERE,
        *,
        dialect: Dialect = Dialect.LMTP,
        hostname: str = "postbox.example",
        limits: Limits | None = None,
    ) -> None:
        self._reactor, self._listen = reactor, listen
        # Whose detail it is, is the application's to know.
        rules = AddressRules(hostname, delimiter="")
        self._pigeonhole = Pigeonhole(reactor, rules)
        self._port: IListeningPort | None = None
        limits = limits or Limits(stop_seconds=STOP_SECONDS)
        clock = IReactorTime(reactor)
        agent = DeliveryAgent(
            Routing(Anyone(), self._pigeonhole, rules, clock, limits.lookup_seconds),
            self._pigeonhole,
            clock,
            hostname,
            evolve(limits, spool_memory=limits.message_size),
            # All is kept in memory, so that there is neither a thread nor a file.
            SpoolSettings(limits.message_size, "/nowhere", "\r\n", maybeDeferred),
        )
        self._factory = LMTPFactory(agent, standard_extensions(limits, [DSN()], binary=True))
        if dialect is Dialect.SMTP:
            self._factory.speaks = SMTPSession

    # ── where it is ──────────────────────────────────────────────────────────────────────────────

    @property
    def host(self) -> str:
        """
        The address that it listens on; on a UNIX socket, its path, as smtplib wants it.
        """
        address = self._address()
        return str(getattr(address, "host", None) or self.path)

    @property
    def port(self) -> int:
        """
        The TCP port that it listens on; 0 on a UNIX socket.
        """
        return int(getattr(self._address(), "port", 0))

    @property
    def path(self) -> str:
        """
        The UNIX socket that it listens on; empty if it is a port.
        """
        name: bytes | str = getattr(self._address(), "name", "")
        return name.decode() if isinstance(name, bytes) else name

    @property
    def destination(self) -> str:
        """
        The same in words for `lmtpsvc.client.Client`.
        """
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    # ── what has come ────────────────────────────────────────────────────────────────────────────

    @property
    def messages(self) -> list[Mail]:
        """
        All that has arrived, in that order.
        """
        return list(self._pigeonhole.arrived)

    def clear(self) -> None:
        """
        Forget what has arrived, and what was to be answered.
        """
        self._pigeonhole.clear()

    # ── what is answered ─────────────────────────────────────────────────────────────────────────

    def refuse(
        self,
        recipient: str | None = None,
        reply: str | Reply = "550 5.1.1 No such user",
        *,
        times: int | None = None,
    ) -> None:
        """
        Answer *reply* when *recipient* is named (RCPT); None is everybody of whom nothing else was
        said.  After so many *times*, all is well again.  May be called from any thread.

        Raises:
            ValueError: *recipient* is no address, or *reply* no refusal.
        """
        self._pigeonhole.refuse(recipient, reply, times)

    def fail(
        self,
        recipient: str | None = None,
        reply: str | Reply = "451 4.3.0 Try again later",
        *,
        times: int | None = None,
    ) -> None:
        """
        Answer *reply* for *recipient* behind the text; else as `refuse`.  The message counts as
        arrived all the same.
        """
        self._pigeonhole.fail(recipient, reply, times)

    def hold(self, recipient: str | None = None) -> Hold:
        """
        Answer nothing for *recipient* behind the text, until the `Hold` is released.
        """
        return self._pigeonhole.hold(recipient)

    def accept(self, recipient: str | None = None) -> None:
        """
        Take back what `refuse`, `fail` or `hold` have said of *recipient*.
        """
        self._pigeonhole.accept(recipient)

    # ── the service ──────────────────────────────────────────────────────────────────────────────

    def _address(self) -> object:
        if self._port is None:
            raise RuntimeError("it is not started")
        return self._port.getHost()

    def _start(self) -> None:
        if self._port is not None:
            raise RuntimeError("it is started already")
        listening: list[Any] = []
        endpoint = serverFromString(self._reactor, self._listen)
        # Every endpoint of Twisted listens, or fails to, at once.
        endpoint.listen(self._factory).addBoth(listening.append)
        [port] = listening
        if isinstance(port, Failure):
            port.raiseException()
        self._port = port

    def _stop(self) -> Deferred[Any]:
        port, self._port = self._port, None
        self._pigeonhole.close()
        stopped: Deferred[Any] = maybeDeferred(port.stopListening if port else _nothing)
        return stopped.addCallback(lambda _: self._factory.stop())


class Postbox(_Postbox):
    """
    For tests in which *reactor* runs, by default the one of the process: trial, pytest-twisted.

        postbox = Postbox().start()
        self.addCleanup(postbox.stop)
        ...
        mail = await postbox.next()

    or ``async with Postbox() as postbox``.  Awaiting works in tasks of asyncio on Twisted's asyncio
    reactor, too.
    """

    def __init__(self, reactor: Any = None, listen: str = ANYWHERE, **options: Any) -> None:
        if reactor is None:
            from twisted.internet import reactor  # noqa: PLC0415
        super().__init__(reactor, listen, **options)

    def start(self) -> Self:
        """
        Listen.

        Raises:
            ValueError: *listen* is no endpoint.
            CannotListenError, OSError: It is taken, or cannot be made.
        """
        self._start()
        return self

    def stop(self) -> Deferred[None]:
        """
        Fires when nobody listens any more, and no connection is left.  Whoever is held hears 451.
        """
        return _awaited(self._stop())

    def next(self, seconds: float = PATIENCE) -> Deferred[Mail]:
        """
        Fires with the oldest message that nobody has asked for yet, when it has arrived: it may not
        be answered yet.

        Fails:
            TimeoutError: None has come in so many *seconds*.
            CancelledError: The postbox was stopped.
        """
        return _awaited(self._pigeonhole.next(seconds))

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


class BlockingPostbox(_Postbox):
    """
    For tests without a reactor, with smtplib for instance; all methods wait by themselves.

        with BlockingPostbox() as postbox:
            send_invoices(postbox.host, postbox.port)
            mail = postbox.next()

    Its reactor runs in a thread, one for all of them, and is none that Twisted has installed.
    """

    def __init__(self, listen: str = ANYWHERE, **options: Any) -> None:
        super().__init__(reactor_in_thread(), listen, **options)

    def start(self) -> Self:
        """
        See `Postbox.start`.
        """
        blockingCallFromThread(self._reactor, self._start)
        return self

    def stop(self) -> None:
        """
        See `Postbox.stop`.
        """
        blockingCallFromThread(self._reactor, self._stop)

    def next(self, seconds: float = PATIENCE) -> Mail:
        """
        See `Postbox.next`.

        Raises:
            TimeoutError: None has come in so many *seconds*.
        """
        # Of a call with a Deferred, its types make nothing.
        waiting: Any = self._pigeonhole.next
        mail: Mail = blockingCallFromThread(self._reactor, waiting, seconds)
        return mail

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Awaited(Deferred[Any]):
    """
    One that a task of asyncio may await as well as a coroutine of Twisted's.
    """

    def __await__(self) -> Generator[Any, Any, Any]:
        try:
            loop = asyncio.get_running_loop()
            in_task = asyncio.current_task() is not None
        except RuntimeError:
            in_task = False
        return self.asFuture(loop).__await__() if in_task else super().__await__()


def _awaited(result: Deferred[T]) -> Deferred[T]:
    told: Deferred[T] = _Awaited(lambda _: result.cancel())
    result.chainDeferred(told)
    return told


def _nothing() -> None:
    """
    It was not started.
    """
