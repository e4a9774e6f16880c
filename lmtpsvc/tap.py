"""
The words of ``twistd lmtp``, and how the parts of the service are put together.

All wiring is here, and this is the only place that names the reactor.  A mistake in the words is
found in `Options`, where it is one line on the terminal; `makeService` has nothing left that could
be wrong.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

from twisted.application.service import IService
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.python import usage

from .backends.pool import WorkerPool
from .delivery.agent import DeliveryAgent
from .delivery.json_log import JSONLog
from .delivery.routing import AddressRules, Routing
from .delivery.spool import SpoolSettings
from .limits import Limits, limit_options, limits_from
from .quantities import count
from .server.command import Account, Command
from .server.counts import Counts
from .server.factory import LMTPFactory
from .server.inherited import Inheritance, InheritedSocketReactor
from .server.listening import SMTP_PORT, Listener
from .server.service import LMTPService
from .server.supervisor import Supervisor
from .server.worker import Worker, WorkerFactory
from .session.standard import standard_extensions
from .specs import (
    backend_factories,
    backend_from_string,
    describe,
    directory_factories,
    directory_from_string,
)
from .wire.grammar import match_domain

DEFAULT_LISTEN = "tcp:8024:interface=127.0.0.1"
DEFAULT_BACKEND = "maildir:mail/{domain}/{user}"
#: What the least patient client waits for the replies behind the text.
CLIENT_PATIENCE_SECONDS = 300
#: Threads that write spooled files.
SPOOL_THREADS = 4
#: What --workers says: a number, or auto.
DEFAULT_WORKERS = "1"
#: How long a worker may take to stop, beyond what transactions and commits in flight may.
STOP_MARGIN_SECONDS = 5.0

_loopback = re.compile(r"unix:|tcp6?:.*interface=(127\.|localhost\b|\\?:\\?:1\b)").match


class Options(usage.Options):
    """
    What ``twistd lmtp`` understands.
    """

    longdesc = (
        "Receives mail over LMTP (RFC 2033) from an MTA that keeps the queue, and answers each"
        " recipient as soon as that recipient's mail is safe on disk.  With no options: any"
        f" recipient, Maildirs under ./mail, {DEFAULT_LISTEN}."
    )

    optParameters: ClassVar[list[list[Any]]] = [
        ["backend", "b", DEFAULT_BACKEND, "Where mail goes; see --help-backends"],
        ["users", "u", None,
         "Who lives here; see --help-users.  Default: any, when listening on this machine only"],
        ["hostname", None, None, "Name of this service, in greetings and headers"],
        ["recipient-delimiter", None, "+", "What splits user+detail; empty for nothing"],
        ["delivered-to", None, "single",
         "When to add Delivered-To: single (recipient), always (costs a copy each) or never"],
        ["spool", None, None, "Directory for large messages on their way in"],
        ["json-log", None, None, "File for one JSON object per recipient, which may be rotated; or -"],
        ["workers", None, DEFAULT_WORKERS,
         "Processes that share the connections; auto is one per processor"],
        *([option, None, default, text] for option, default, text in limit_options()),
    ]  # fmt: skip

    optFlags: ClassVar[list[list[Any]]] = [
        ["keep-case", None, "Look up local parts as they are written, not in lower case"],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["listen"] = []

    def opt_listen(self, words: str) -> None:
        """
        A Twisted endpoint to listen on: tcp:24, unix:/run/lmtp.sock:mode=660,
        ssl:2424:privateKey=FILE:certKey=FILE, systemd:…  May be repeated.  [default: tcp:8024:interface=127.0.0.1]
        """
        self["listen"].append(words)

    opt_l = opt_listen

    def opt_version(self) -> None:
        """
        Show the version of lmtpsvc and of Twisted, and leave.
        """
        try:
            ours = version("lmtpsvc")
        except PackageNotFoundError:
            ours = "(not installed)"
        sys.stdout.write(f"lmtpsvc {ours}, Twisted {version('Twisted')}\n")
        sys.exit(0)

    def opt_help_backends(self) -> None:
        """
        Show the installed backends, and leave.
        """
        sys.stdout.write(describe(backend_factories()))
        sys.exit(0)

    def opt_help_users(self) -> None:
        """
        Show the installed directories of users, and leave.
        """
        sys.stdout.write(describe(directory_factories()))
        sys.exit(0)

    def parseOptions(self, options: Any = None) -> None:
        """
        Read the command line.  A mistake is one line: Twisted would print all options before it.
        """
        self["words"] = list(sys.argv[1:] if options is None else options)
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            raise SystemExit(f"twistd lmtp: {error}; see twistd lmtp --help") from None

    def parseArgs(self, *words: str) -> None:
        if words:
            raise usage.UsageError(f"{words[0]!r} is no option")

    def postOptions(self) -> None:
        """
        Turn words into objects here, where a mistake is still a usage error.
        """
        # Imported here: a plugin that imports it at the top would choose everybody's reactor.
        from twisted.internet import reactor

        self["reactor"] = reactor
        self["inheritance"] = Inheritance.claim(os.environ)
        self["workers"] = self._workers()
        self["limits"] = self._limits()
        self["rules"] = self._rules()
        if self["delivered-to"] not in {"single", "always", "never"}:
            raise usage.UsageError("--delivered-to is single, always or never")
        self["listeners"] = self._listeners(self["listen"] or [DEFAULT_LISTEN])
        self["users"] = self["users"] or self._default_users()
        self["directory"] = self._made("users", directory_from_string)
        self["store"] = self._made("backend", backend_from_string)
        self["command"] = Command.of(getattr(self, "parent", None), self["words"])
        self["files"] = self._files()
        if self["json-log"] is not None:
            try:
                self["json-log"] = JSONLog.to(self["json-log"])
            except OSError as error:
                raise usage.UsageError(
                    f"--json-log {self['json-log']}: {error.strerror}"
                ) from error

    def _limits(self) -> Limits:
        try:
            return limits_from(self)
        except ValueError as error:
            raise usage.UsageError(str(error)) from error

    def _rules(self) -> AddressRules:
        hostname = self["hostname"] or socket.gethostname()
        if match_domain(hostname) is None or not hostname.isascii():
            raise usage.UsageError(
                f"--hostname: {hostname!r} is not a host name; write one like mx.example.org"
            )
        delimiter = self["recipient-delimiter"]
        if len(delimiter) > 1 or delimiter == "@":
            raise usage.UsageError("--recipient-delimiter is one character, or empty")
        return AddressRules(hostname, delimiter, not self["keep-case"])

    def _workers(self) -> int:
        """
        How many processes to start; 1 is this one alone, and so is each that was started.
        """
        if self["inheritance"] is not None:
            return 1
        if self["workers"] == "auto":
            usable = getattr(os, "sched_getaffinity", None)
            number = len(usable(0)) if usable is not None else os.cpu_count() or 1
        else:
            try:
                number = count(self["workers"])
            except ValueError as error:
                raise usage.UsageError(f"--workers: {error}, or auto") from error
        # What a worker runs would have to be there, too.
        if number > 1 and (getattr(self, "parent", None) or {}).get("chroot") is not None:
            raise usage.UsageError("--workers cannot be started with --chroot; take --workers 1")
        return number

    def _files(self) -> list[str]:
        """
        The files that processes beside this one write to.
        """
        logs = [self["command"].log_of(number) for number in range(1, self["workers"] + 1)]
        if self["json-log"] not in {None, "-"}:
            logs.append(os.path.abspath(self["json-log"]))
        return [log for log in logs if log is not None]

    def _listeners(self, listen: Sequence[str]) -> list[Listener]:
        """
        The endpoints; those of a worker listen on the sockets that it has inherited.
        """
        given = self["inheritance"]
        if given is None:
            return [self._listener(words, self["reactor"]) for words in listen]
        self["counts"] = counts = Counts(given.table, given.workers)
        return [
            self._listener(
                words, InheritedSocketReactor(self["reactor"], socket, counts, given.number)
            )
            for words, socket in zip(listen, given.sockets, strict=True)
        ]

    def _listener(self, words: str, reactor: Any) -> Listener:
        # Said before anything is touched; what other endpoints turn out to be is looked at later.
        if re.match(rf"(tcp6?|ssl|tls):(.*:)?(port=)?{SMTP_PORT}(:|$)", words):
            raise usage.UsageError(
                f"--listen {words}: LMTP must not be on port 25 (RFC 2033); take 24, or a UNIX"
                " socket"
            )
        if words.startswith("systemd:") and "domain=UNIX" in words:
            # Twisted takes such a socket for one of its own: it makes it writable for everybody,
            # and removes it at the end.
            raise usage.UsageError(
                f"--listen {words}: a UNIX socket of systemd's would be opened to everybody;"
                " let it be made here: unix:/run/lmtp.sock:mode=660"
            )
        try:
            return Listener(words, serverFromString(reactor, words))
        except Exception as error:
            # What an endpoint's parser raises is not documented, and a mistake of the operator's.
            raise usage.UsageError(
                f"--listen {words}: not an endpoint ({error}); write tcp:24:interface=127.0.0.1"
                " or unix:/run/lmtp.sock:mode=660"
            ) from error

    def _default_users(self) -> str:
        for words in self["listen"]:
            if _loopback(words) is None:
                raise usage.UsageError(
                    f"--users is needed, because {words} can be reached from elsewhere;"
                    " --users any takes mail for everybody"
                )
        return "any"

    def _made(self, option: str, make: Callable[[object, str], Any]) -> Any:
        try:
            return make(self["reactor"], self[option])
        except ValueError as error:
            raise usage.UsageError(f"--{option}: {error}") from error


def makeService(options: Options) -> IService:
    """
    Join the parts; nothing here can fail.
    """
    summary = f"mail goes to {options['backend']}, users: {options['users']}"
    limits = options["limits"]
    if limits.delivery_seconds + limits.grace_seconds >= CLIENT_PATIENCE_SECONDS:
        summary += (
            f"; a delivery may take {limits.delivery_seconds + limits.grace_seconds:g} seconds,"
            " but clients may give up after 300 and send everything again"
        )
    if options["workers"] > 1:
        return _supervisor(options, summary)
    reactor, rules = options["reactor"], options["rules"]
    backend, directory = options["store"], options["directory"]
    clock = IReactorTime(reactor)
    capabilities = backend.capabilities
    spool_threads = WorkerPool(IReactorFromThreads(reactor), SPOOL_THREADS, "spool")
    agent = DeliveryAgent(
        Routing(directory, backend, rules, clock, limits.lookup_seconds),
        backend,
        clock,
        rules.hostname,
        limits,
        SpoolSettings(
            limits.spool_memory,
            options["spool"] or capabilities.spool_directory or tempfile.gettempdir(),
            capabilities.line_ending,
            spool_threads.submit,
        ),
        options["delivered-to"],
    )
    parts = [directory, backend]
    if options["json-log"] is not None:
        parts.insert(0, options["json-log"])
    extensions = standard_extensions(limits)
    given: Inheritance | None = options["inheritance"]
    if given is None:
        return LMTPService(
            options["listeners"],
            LMTPFactory(agent, extensions),
            parts,
            summary,
            spool_threads.stop,
        )
    return Worker(
        options["listeners"],
        WorkerFactory(agent, extensions, options["counts"], given.number),
        parts,
        summary,
        spool_threads.stop,
        reactor,
        options["counts"],
        given.number,
        given.lifeline,
    )


def _supervisor(options: Options, summary: str) -> IService:
    """
    The service in several processes.  What delivers is made in each of them; that it could be made
    here says that the words are right.
    """
    # Here, because it imports the reactor.
    from twisted.runner.procmon import ProcessMonitor

    limits = options["limits"]
    if options["json-log"] is not None:
        # Only workers write to it; here, it would stay open after it was moved away.
        options["json-log"].stopService()
    return Supervisor(
        options["listeners"],
        summary,
        options["reactor"],
        ProcessMonitor,
        options["command"],
        options["workers"],
        limits.stop_seconds + limits.grace_seconds + STOP_MARGIN_SECONDS,
        options["files"],
        Account.of(getattr(options, "parent", None)),
    )
