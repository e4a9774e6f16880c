"""
How the parts of the service are put together, once `Options` has understood the words.

All wiring is here; `makeService` has nothing left that could be wrong.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve
from twisted.application.service import IService
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger

from .backends.pool import WorkerPool
from .config import BrokenConfig
from .delivery.text_log import TextLog
from .interfaces import IBackend
from .limits import Limits
from .networks import Networks
from .options import Options
from .server.allocation import keep_memory
from .server.command import Account
from .server.factory import LMTPFactory
from .server.hangup import Hangup
from .server.inherited import Inheritance
from .server.plan import CannotReload, CurrentPlan, Plan
from .server.service import LMTPService
from .server.stop_once import StopOnce
from .server.supervisor import Supervisor
from .server.worker import Worker, WorkerFactory
from .wiring.agent import SPOOL_THREADS, delivery_agent
from .wiring.parts import Parts
from .wiring.submission import Reporters

#: What twistd asks for.
__all__ = ["Options", "makeService"]

#: What the least patient client waits for the replies behind the text.
CLIENT_PATIENCE_SECONDS = 300
#: How long a worker may take to stop, beyond what transactions and commits in flight may.
STOP_MARGIN_SECONDS = 10.0

_log = Logger(namespace="lmtpsvc.server")


def makeService(options: Options) -> IService:
    """
    Join the parts; nothing here can fail.
    """
    keep_memory()
    if options["workers"] > 1:
        return _supervisor(options)
    reactor = options.reactor
    spool_threads = WorkerPool(IReactorFromThreads(reactor), SPOOL_THREADS, "spool")
    reporters = Reporters(reactor, spool_threads.submit)
    plan = _plan(options, options.parts, spool_threads, reporters)

    def again(old: Plan) -> Plan:
        new = _plan(options, _parts_again(options, old.backends), spool_threads, reporters)
        # Who listens for nothing but TLS does so until a restart, whatever the file says by now.
        if new.tls is None and any(each.encrypted for each in options["listeners"]):
            new = evolve(new, tls=old.tls)
        return new

    given: Inheritance | None = options["inheritance"]
    factory = (
        LMTPFactory(plan.agent, plan.extensions)
        if given is None
        else WorkerFactory(plan.agent, plan.extensions, options["counts"], given.number)
    )
    factory.tls = plan.tls
    current = CurrentPlan(factory, plan, again)
    # The signal is heeded until all else has stopped.
    parts = [Hangup(reactor, current.reload), TextLog(clock=reactor), options["json-log"], current]
    if given is None:
        parts.insert(0, StopOnce(reactor))
        return LMTPService(options["listeners"], factory, parts, plan.summary, spool_threads.stop)
    return Worker(
        options["listeners"],
        factory,
        parts,
        plan.summary,
        spool_threads.stop,
        reactor,
        options["counts"],
        given.number,
        given.lifeline,
    )


def _plan(options: Options, parts: Parts, spool_threads: WorkerPool, reporters: Reporters) -> Plan:
    """
    What delivers, with the parts that a configuration asks for.
    """
    config = parts.config
    hostname = parts.rules.hostname
    reporter = reporters.reporter(config.dsn, hostname)
    agent = delivery_agent(
        options.reactor,
        config,
        parts.rules,
        parts.directory,
        parts.backend,
        spool_threads.submit,
        hostname,
        delivered_to=config.delivered_to,
        original_recipient=config.original_recipient,
        reporter=reporter,
    )
    return Plan(
        agent,
        parts.extensions,
        parts.all if reporter is None else (*parts.all, reporter),
        parts.backends,
        _summary(parts),
        options.fixed(config),
        Networks(config.trusted).__contains__,
        parts.tls,
        [f"{key}: {text}" for key, text in parts.worries],
    )


def _summary(parts: Parts) -> str:
    limits: Limits = parts.config.limits
    most = limits.delivery_seconds + limits.grace_seconds
    if most < CLIENT_PATIENCE_SECONDS:
        return parts.summary
    return (
        f"{parts.summary}; a delivery may take {most:g} seconds, but clients may give up after 300"
        " and send everything again"
    )


def _parts_again(options: Options, kept: Mapping[str, IBackend]) -> Parts:
    """
    What file and command line ask for by now.

    Raises:
        CannotReload: There is something wrong with them.
    """
    try:
        return options.parts_again(kept)
    except BrokenConfig as error:
        raise CannotReload(options.sources.told(error)) from error


def _supervisor(options: Options) -> IService:
    """
    The service in several processes.  What delivers is made in each of them; that it could be made
    here says that the words are right.
    """
    # Here, because it imports the reactor.
    from twisted.runner.procmon import ProcessMonitor

    parts = options.parts
    limits = parts.config.limits
    if options["json-log"] is not None:
        # Only workers write to it; here, it would stay open after it was moved away.
        options["json-log"].stopService()

    def check() -> None:
        again = _parts_again(options, parts.backends)
        if fixed := options.fixed(again.config):
            _log.warn("changed, but not before a restart: {keys}", keys=", ".join(fixed))

    return Supervisor(
        options["listeners"],
        _summary(parts),
        options.reactor,
        ProcessMonitor,
        options["command"],
        options["workers"],
        limits.stop_seconds + limits.grace_seconds + STOP_MARGIN_SECONDS,
        options["files"],
        Account.of(getattr(options, "parent", None)),
        check,
    )
