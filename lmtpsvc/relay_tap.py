"""
How the parts of the relay are put together, once `RelayOptions` has understood the words.
"""

from __future__ import annotations

from attrs import evolve
from twisted.application.service import IService, Service
from twisted.internet.interfaces import IReactorFromThreads

from . import replies
from .backends.pool import WorkerPool
from .config import BrokenConfig
from .delivery.text_log import TextLog
from .networks import Networks
from .relay.delivering import Deliverer, Rates
from .relay.inbox import Inbox
from .relay.queue import Queue
from .relay.routes import IRouter
from .relay.schedule import Schedule
from .relay_options import RelayOptions
from .server.allocation import keep_memory
from .server.factory import LMTPFactory
from .server.hangup import Hangup
from .server.plan import CannotReload, CurrentPlan, Plan
from .server.service import LMTPService
from .server.stop_once import StopOnce
from .session.smtp import SMTPSession
from .wiring.agent import SPOOL_THREADS, delivery_agent
from .wiring.relay import RelayParts

#: What twistd asks for.
Options = RelayOptions
__all__ = ["Options", "makeService"]


class RelayService(LMTPService):
    """
    Listens for SMTP, and passes mail on.
    """

    program = RelayOptions.program
    shuns_smtp_port = False


class OpenQueue(Service):
    """
    *queue*, looked at when it starts: before anybody is let in.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def startService(self) -> None:
        """
        Open it.

        Raises:
            OSError: It cannot be used.
        """
        super().startService()
        try:
            # Not before we are the user that it is to belong to.
            self._queue.privilegedStartService()
        except ValueError as error:
            raise OSError(None, str(error), "--queue") from error
        self._queue.startService()

    def stopService(self) -> object:
        super().stopService()
        return self._queue.stopService()


class InForce(Service):
    """
    Has *deliverer* go by *router* from when it starts.
    """

    def __init__(self, deliverer: Deliverer, router: IRouter) -> None:
        self._deliverer, self._router = deliverer, router

    def startService(self) -> None:
        super().startService()
        self._deliverer.router = self._router


class Running:
    """
    The queue and who delivers, as long as the service runs; and what is asked of them by now.
    """

    def __init__(self, options: RelayOptions) -> None:
        self._options, config = options, options.config
        threads = IReactorFromThreads(options.reactor)
        self.spool_threads = WorkerPool(threads, SPOOL_THREADS, "spool")
        self.queue = Queue.at(config.queue, options.reactor)
        rates = Rates(
            per_destination=config.connections_per_server,
            retry=config.retry_server,
            stop=config.limits.stop_seconds,
        )
        self.deliverer = Deliverer(
            self.queue,
            options.parts.router,
            options.reactor,
            hostname=options.parts.hostname,
            schedule=Schedule(
                config.retry_after, warn=config.warn_after, give_up=config.give_up_after
            ),
            rates=rates,
        )

    def plan(self, parts: RelayParts) -> Plan:
        """
        What receives, with the parts that a configuration asks for.
        """
        config = parts.config
        agent = delivery_agent(
            self._options.reactor,
            config,
            parts.rules,
            parts.directory,
            Inbox(self.queue, parts.domains[0]),
            self.spool_threads.submit,
            self._options.parts.hostname,
            delivered_to="never",
            success=replies.queued,
        )
        return Plan(
            agent,
            parts.extensions,
            # The routes come last, when nothing can fail any more.
            (*parts.directories.values(), InForce(self.deliverer, parts.router)),
            {},
            parts.summary,
            self._options.fixed(config),
            Networks(config.trusted).__contains__,
            parts.tls,
            [f"{key}: {text}" for key, text in parts.worries],
        )

    def again(self, old: Plan) -> Plan:
        """
        The plan that file and command line ask for by now.

        Raises:
            CannotReload: There is something wrong with them.
        """
        options = self._options
        try:
            parts = options.parts_again()
        except BrokenConfig as error:
            raise CannotReload(options.sources.told(error)) from error
        new = self.plan(parts)
        # Who listens for nothing but TLS does so until a restart, whatever the file says by now.
        if new.tls is None and any(each.encrypted for each in options["listeners"]):
            new = evolve(new, tls=old.tls)
        return new


def makeService(options: RelayOptions) -> IService:
    """
    Join the parts; nothing here can fail.
    """
    keep_memory()
    current = Running(options)
    plan = current.plan(options.parts)
    factory = LMTPFactory(plan.agent, plan.extensions)
    factory.speaks, factory.tls = SMTPSession, plan.tls
    plans = CurrentPlan(factory, plan, current.again)
    # In the reverse order they stop: nothing is passed on when the queue is closed.
    parts = [
        StopOnce(options.reactor),
        Hangup(options.reactor, plans.reload),
        TextLog(clock=options.reactor),
        options["json-log"],
        OpenQueue(current.queue),
        current.deliverer,
        plans,
    ]
    return RelayService(
        options["listeners"], factory, parts, plan.summary, current.spool_threads.stop
    )
