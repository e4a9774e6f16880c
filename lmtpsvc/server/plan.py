"""
What the service delivers with, and how that is exchanged while it runs.

Connections stay.  A transaction keeps what it began with to its end, and what nobody needs any more
is stopped then.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from typing import Any, Final

from attrs import define, frozen
from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..delivery.agent import DeliveryAgent
from ..interfaces import IBackend
from ..session.extensions import Extensions
from .factory import LMTPFactory, trusts_nobody
from .open_files import allow_files
from .tls import ServerTLS

#: A part that has not stopped after so long is named: an operator may wonder.
PATIENCE_SECONDS: Final = 10


class CannotReload(Exception):
    """
    What is asked for cannot be; the text is one line for the operator.
    """


@frozen(eq=False)
class Plan:
    """
    All that a reload may change.  *parts* are started in their order, those that are services;
    *backends* are those among them that may be used again, by their words.  *fixed* are the keys
    that have changed, and will not before a restart.  *worries* are lines that somebody should read.
    """

    agent: DeliveryAgent
    extensions: Extensions
    parts: Sequence[object]
    backends: Mapping[str, IBackend]
    summary: str
    fixed: Sequence[str] = ()
    #: Whether a host, an IP address or ``local``, may say who the client is.
    trusts: Callable[[str], bool] = trusts_nobody
    tls: ServerTLS | None = None
    worries: Sequence[str] = ()

    @property
    def services(self) -> list[IService]:
        return [IService(part) for part in self.parts if IService.providedBy(part)]


@define(eq=False)
class _Leaving:
    """
    A service that is to stop; *gone* is there once it does.
    """

    service: IService
    gone: Deferred[Any] | None = None


class CurrentPlan(Service):
    """
    The plan in force; *again* makes a new one from it, or raises CannotReload.
    """

    _log = Logger(namespace="lmtpsvc.server")

    def __init__(self, factory: LMTPFactory, plan: Plan, again: Callable[[Plan], Plan]) -> None:
        self._factory, self._plan, self._again = factory, plan, again
        factory.trusts = plan.trusts
        # Those that are not needed any more, once transactions that began with them have ended.
        self._leaving: dict[int, _Leaving] = {}

    def startService(self) -> None:
        """
        Start all parts.

        Raises:
            OSError: One of them cannot be started.
        """
        super().startService()
        for service in self._plan.services:
            self._start_one(service)
        self._say_worries()

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """
        Fires when all parts are stopped, each in its turn; those that were leaving come first.
        """
        yield maybeDeferred(super().stopService)
        for leaving in list(self._leaving.values()):
            yield self._stop(leaving.service)
        for service in reversed(self._plan.services):
            yield self._end(service)

    def reload(self) -> None:
        """
        Put a new plan in force, or say why the old one stays.
        """
        if not self.running:
            return
        old = self._plan
        try:
            new = self._again(old)
            self._start(_without(new.services, old.services))
        except CannotReload as error:
            self._log.error("{reason} (the old configuration stays in force)", reason=str(error))
            return
        except Exception:
            self._log.failure("cannot reload; the old configuration stays in force")
            return
        self._plan = new
        leaving = _without(reversed(old.services), new.services)
        self._leaving.update((id(each), _Leaving(each)) for each in leaving)
        self._log.info("reloaded: {summary}", summary=new.summary)
        if new.fixed:
            self._log.warn("changed, but not before a restart: {keys}", keys=", ".join(new.fixed))
        self._factory.trusts = new.trusts
        self._say_worries()
        self._factory.tls = new.tls
        self._factory.use(new.agent, new.extensions).addCallback(lambda _: self._leave(leaving))

    def _say_worries(self) -> None:
        worries = list(self._plan.worries)
        too_few = allow_files(self._plan.agent.limits.connections)
        if too_few is not None:
            worries.append(f"max-connections: {too_few}")
        for worry in worries:
            self._log.warn("{worry}", worry=worry)

    def _start(self, services: Iterable[IService]) -> None:
        started: list[IService] = []
        for service in services:
            try:
                self._start_one(service)
            except OSError as error:
                for each in reversed(started):
                    self._end(each)
                raise CannotReload(f"{error.filename}: {error.strerror}") from error
            started.append(service)

    def _start_one(self, service: IService) -> None:
        """
        Start a part.

        Raises:
            OSError: With the file, or else the part, and what is wrong; a defect has been logged.
        """
        name = type(service).__name__
        try:
            begun: object = service.startService()
            if isinstance(begun, Coroutine):
                begun.close()
                raise TypeError(
                    "startService is async: nobody waits for it, so that it must not be"
                )
        except OSError as error:
            what = error.filename or name
            raise OSError(error.errno or 0, error.strerror or str(error), what) from error
        except Exception as error:
            self._log.failure("{name} cannot be started", name=name)
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise OSError(0, said, name) from error
        if isinstance(begun, Deferred):
            # Twisted's own do not wait for it either.
            begun.addErrback(
                lambda failure: self._log.failure("{name} has not started", failure, name=name)
            )

    def _leave(self, services: Iterable[IService]) -> None:
        for service in services:
            self._stop(service)

    def _stop(self, service: IService) -> Deferred[Any]:
        """
        Stop one that is leaving; fires when it has gone.
        """
        leaving = self._leaving.get(id(service))
        if leaving is None:
            return succeed(None)
        if leaving.gone is None:
            leaving.gone = self._end(service)
            leaving.gone.addCallback(lambda _: self._leaving.pop(id(service)))
        gone: Deferred[Any] = Deferred()
        leaving.gone.addCallback(lambda _: gone.callback(None))
        return gone

    def _end(self, service: IService) -> Deferred[Any]:
        """
        Stop a part; fires when it has stopped, or says that it cannot: the others are to stop, too.
        """
        name = type(service).__name__

        def tell() -> None:
            self._log.warn(
                "{name} has not stopped after {seconds} seconds; waiting for it",
                name=name,
                seconds=PATIENCE_SECONDS,
            )

        def over(outcome: object) -> None:
            if late.active():
                late.cancel()
            if isinstance(outcome, Failure):
                self._log.failure("{name} cannot be stopped", outcome, name=name)

        late = self._plan.agent.clock.callLater(PATIENCE_SECONDS, tell)
        return maybeDeferred(service.stopService).addBoth(over)


def _without(services: Iterable[IService], others: Iterable[IService]) -> list[IService]:
    """
    Those of *services* that are not among *others*: a plugin may compare as it likes.
    """
    known = {id(each) for each in others}
    return [each for each in services if id(each) not in known]
