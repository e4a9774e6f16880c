"""
The words of ``twistd lmtp``, and the file that ``--config`` names.

Words become objects here, where a mistake is one line on the terminal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

from attrs import fields
from twisted.python import usage

from .auth.specs import describe_checkers
from .config import (
    DEFAULT_BACKEND,
    DEFAULT_LISTEN,
    LIMITS,
    BrokenConfig,
    Config,
    ListeningConfig,
    Problem,
)
from .delivery.json_log import JSONLog
from .interfaces import IBackend
from .limits import limit_options
from .server.command import Command
from .server.counts import Counts
from .server.direct import DirectReactor
from .server.inherited import Inheritance, InheritedSocketReactor
from .server.listening import Listener
from .specs import backend_factories, describe, directory_factories, extension_factories
from .wiring.listeners import listener
from .wiring.parts import Parts, make_parts
from .wiring.sources import Sources


class ListeningOptions(usage.Options):
    """
    What every service understands that listens.

    Afterwards, *config* is what these *sources* say.
    """

    #: Who speaks, in front of a mistake.
    program: ClassVar[str]

    #: What it is all about; its keys are options too.
    of: ClassVar[type[ListeningConfig]]

    #: It may be on the port of SMTP.
    is_for_smtp: ClassVar[bool] = False

    #: The keys of it that are options which may be repeated.
    lists: ClassVar[tuple[str, ...]] = ("listen", "trusted", "extension", "auth")

    optParameters: ClassVar[list[list[Any]]] = [
        ["config", "c", None,
         "TOML file with these options as keys, and more; options given here count more"],
        ["hostname", None, None, "Name of this service, in greetings and headers"],
        ["recipient-delimiter", None, "+", "What splits user+detail; empty for nothing"],
        ["spool", None, None, "Directory for large messages on their way in"],
        ["json-log", None, None, "File for one JSON object per recipient, which may be rotated; or -"],
        ["tls-certificate", None, None,
         "PEM file: the certificate for STARTTLS and tls:, and those that lead to its authority"],
        ["tls-key", None, None, "PEM file: its private key, if it is not in the same file"],
        ["tls-client-ca", None, None, "PEM file: authorities that sign certificates of clients"],
        ["tls-client", None, None,
         "Certificates of clients: no, ask or require.  Default: ask, where --tls-client-ca is given"],
        *([option, None, default, text] for option, default, text in limit_options()),
    ]  # fmt: skip

    optFlags: ClassVar[list[list[Any]]] = [
        ["keep-case", None, "Look up local parts as they are written, not in lower case"],
    ]

    sources: Sources[Any]
    config: ListeningConfig
    reactor: Any

    def __init__(self) -> None:
        super().__init__()
        keys = {each.name.replace("_", "-") for each in fields(self.of)} | LIMITS
        #: The options that are keys of the file too.
        self._keys = tuple(name for name in self.defaults if name in keys)
        # What is not given is left to the file, and to the defaults behind it; those shown by
        # --help are the same.
        for name in self._keys:
            self[name] = None
        for name in self.lists:
            self[name] = []

    def opt_listen(self, words: str) -> None:
        """
        A Twisted endpoint to listen on: tcp:24, unix:/run/lmtp.sock:mode=660,
        tls:tcp:2424 (TLS from the first octet on, with --tls-certificate), systemd:…  In front of it may stand what it
        asks of clients: proxied:, tls:, tls-required:, login-required:.  May be repeated.  [default: tcp:8024:interface=127.0.0.1]
        """
        self["listen"].append(words)

    opt_l = opt_listen

    def opt_extension(self, words: str) -> None:
        """
        An ESMTP extension that is not built in; see --help-extensions.  May be repeated.
        """
        self["extension"].append(words)

    def opt_auth(self, words: str) -> None:
        """
        Who may log in: a checker of twisted.cred, such as scram:FILE; see --help-auth.  May be repeated.
        """
        self["auth"].append(words)

    def opt_trusted(self, words: str) -> None:
        """
        Who may say on whose behalf it connects (XCLIENT, XFORWARD, PROXY): networks with commas
        between, 10.0.0.0/8,2001:db8::7, and local for UNIX sockets.  May be repeated.  Default: nobody
        """
        self["trusted"].append(words)

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

    def opt_help_auth(self) -> None:
        """
        Show the installed checkers of logins, and leave.
        """
        sys.stdout.write(describe_checkers())
        sys.exit(0)

    def opt_help_users(self) -> None:
        """
        Show the installed directories of users, and leave.
        """
        sys.stdout.write(describe(directory_factories()))
        sys.exit(0)

    def opt_help_extensions(self) -> None:
        """
        Show the installed extensions that are not built in, and leave.
        """
        sys.stdout.write(describe(extension_factories()) or "none is installed\n")
        sys.exit(0)

    def parseOptions(self, options: Any = None) -> None:
        """
        Read the command line.  A mistake is one line: Twisted would print all options before it.
        """
        self["words"] = list(sys.argv[1:] if options is None else options)
        try:
            super().parseOptions(options)
        except BrokenConfig as error:
            said = self.sources.told(error)
            if self.sources.is_of_command_line(error.problems[0]):
                said += f"; see {self.program} --help"
            raise SystemExit(f"{self.program}: {said}") from None
        except usage.UsageError as error:
            raise SystemExit(f"{self.program}: {error}; see {self.program} --help") from None

    def parseArgs(self, *words: str) -> None:
        if words:
            raise usage.UsageError(f"{words[0]!r} is no option")

    def take_words(self) -> None:
        """
        The first step: what was said, before anything is looked at.
        """
        # Imported here: a plugin that imports it at the top would choose everybody's reactor.
        from twisted.internet import reactor

        self.reactor = reactor
        if self["config"] is not None:
            self["config"] = os.path.abspath(self["config"])
        given = {name: self[name] for name in self._keys if self[name] is not None}
        if "keep-case" in given:
            given["keep-case"] = True
        given.update({name: self[name] for name in self.lists if self[name]})
        self.sources = Sources(self["config"], given, self.program, os.getcwd(), self.of)

    def json_log(self) -> JSONLog | None:
        """
        The log that the configuration asks for, open.

        Raises:
            BrokenConfig: It cannot be opened.
        """
        path = self.config.json_log
        if path is None:
            return None
        try:
            return JSONLog.to(path)
        except OSError as error:
            problem = Problem(("json-log",), f"{path}: {error.strerror}")
            raise BrokenConfig([problem]) from error

    def listeners(self, reactors: Sequence[Any]) -> list[Listener]:
        """
        The endpoints that the configuration asks for; each listens with the one of *reactors* at
        its place.

        Raises:
            BrokenConfig: One of them is none.
        """
        made = []
        for position, (words, reactor) in enumerate(zip(self.config.listen, reactors, strict=True)):
            try:
                made.append(listener(words, reactor, for_smtp=self.is_for_smtp))
            except ValueError as error:
                raise BrokenConfig([Problem(self.config.place_of(position), str(error))]) from error
        return made

    def changed(self, config: ListeningConfig, names: Iterable[str]) -> list[str]:
        """
        Those keys of *names* that *config* has changed.
        """
        return [
            name.replace("_", "-")
            for name in names
            if getattr(config, name) != getattr(self.config, name)
        ]


class Options(ListeningOptions):
    """
    What ``twistd lmtp`` understands.

    Afterwards, *parts* are what its *config* asks for.
    """

    longdesc = (
        "Receives mail over LMTP (RFC 2033) from an MTA that keeps the queue, and answers each"
        " recipient as soon as that recipient's mail is safe on disk.  With no options: any"
        f" recipient, Maildirs under ./mail, {DEFAULT_LISTEN}."
    )

    program = "twistd lmtp"
    of = Config

    optParameters: ClassVar[list[list[Any]]] = [
        ["backend", "b", DEFAULT_BACKEND, "Where mail goes; see --help-backends"],
        ["users", "u", None,
         "Who lives here; see --help-users.  Default: any, when listening on this machine only"],
        ["delivered-to", None, "single",
         "When to add Delivered-To: single (recipient), always (costs a copy each) or never"],
        ["original-recipient", None, "no",
         "Header for the recipient that the sender named (ORCPT): X-Original-To, Original-Recipient"],
        ["dsn", None, "no",
         "Who makes delivery reports: no (no DSN), relayed (the client), or smtp:HOST:PORT to send ours"],
        ["vrfy", None, "no", "Who is told by VRFY and EXPN who lives here: no (nobody), trusted or yes"],
        ["workers", None, "1", "Processes that share the connections; auto is one per processor"],
    ]  # fmt: skip

    sources: Sources[Config]
    config: Config
    parts: Parts

    def opt_help_backends(self) -> None:
        """
        Show the installed backends, and leave.
        """
        sys.stdout.write(describe(backend_factories()))
        sys.exit(0)

    def postOptions(self) -> None:
        """
        Turn words into objects here, where a mistake is still a usage error.
        """
        self.take_words()
        self["inheritance"] = Inheritance.claim(os.environ)
        self.config = config = self.sources.read()
        self["workers"] = self._workers(config)
        self["listeners"] = self._listeners(config)
        self.parts = make_parts(config, self.reactor)
        self["command"] = Command.of(getattr(self, "parent", None), self._words_of_worker(config))
        self["files"] = self._files(config)
        self["json-log"] = self.json_log()

    def parts_again(self, kept: Mapping[str, IBackend]) -> Parts:
        """
        The parts that file and command line ask for now.  Backends that are *kept*, by their words,
        are used again.

        Raises:
            BrokenConfig: With all problems.
        """
        return self.sources.again(lambda config: make_parts(config, self.reactor, kept))

    def fixed(self, config: Config) -> list[str]:
        """
        The keys that *config* would change, but for which it is too late while the service runs.
        """
        return self.changed(config, ("listen", "listeners", "json_log", "workers"))

    def _workers(self, config: Config) -> int:
        """
        How many processes to start; 1 is this one alone, and so is each that was started.
        """
        if self["inheritance"] is not None:
            return 1
        # What a worker runs would have to be there, too.
        chroot = (getattr(self, "parent", None) or {}).get("chroot")
        if config.workers > 1 and chroot is not None:
            raise usage.UsageError("--workers cannot be started with --chroot; take --workers 1")
        return config.workers

    def _words_of_worker(self, config: Config) -> list[str]:
        """
        The words for a worker: it inherits the sockets of today, whatever the file says tomorrow.
        """
        words: list[str] = self["words"]
        if "listen" in self.sources.given:
            return words
        return [*words, *(word for each in config.listen for word in ("--listen", each))]

    def _files(self, config: Config) -> list[str]:
        """
        The files that processes beside this one write to.
        """
        logs = [self["command"].log_of(number) for number in range(1, self["workers"] + 1)]
        if config.json_log not in {None, "-"}:
            logs.append(os.path.abspath(config.json_log or ""))
        return [log for log in logs if log is not None]

    def _listeners(self, config: Config) -> list[Listener]:
        """
        The endpoints; those of a worker listen on the sockets that it has inherited.
        """
        given = self["inheritance"]
        reactors: Sequence[Any] = [DirectReactor(self.reactor)] * len(config.listen)
        if given is not None:
            self["counts"] = counts = Counts(given.table, given.workers)
            reactors = [
                InheritedSocketReactor(self.reactor, socket, counts, given.number)
                for socket in given.sockets
            ]
        return self.listeners(reactors)
