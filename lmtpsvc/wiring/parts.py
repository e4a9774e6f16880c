"""
Parts: the directories and backends that a configuration asks for, joined by its routes.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from attrs import frozen

from ..auth.authority import CheckerAuthority
from ..auth.specs import checker_from_string
from ..config import BrokenConfig, Config, Problem
from ..delivery.patterns import Patterns
from ..delivery.routes import Destination, RoutedBackend, RoutedDirectory
from ..delivery.routing import AddressRules
from ..in_thread import in_pool_of
from ..interfaces import IBackend, IDirectory, ITellsSince
from ..server.tls import ServerTLS, TLSFiles, UnusableTLS
from ..session.auth import Auth
from ..session.dsn import DSN
from ..session.extensions import Extension, Extensions
from ..session.standard import standard_extensions
from ..session.valid_since import ValidSinceThen
from ..session.verification import Verification
from ..specs import backend_from_string, directory_from_string, extension_from_string
from ..values import split_terms
from ..wire.grammar import match_domain
from .listeners import needs_certificate, reachable_from_elsewhere
from .submission import RELAYED, submission_client

T = TypeVar("T")
Path = tuple[str | int, ...]


@frozen(eq=False)
class Parts:
    """
    *users* is what says who lives here where no route does, in words.

    *directories* and *backends* are all there are, by their words: the same words are the same
    object.
    """

    config: Config
    users: str
    rules: AddressRules
    directory: IDirectory
    backend: RoutedBackend
    directories: Mapping[str, IDirectory]
    backends: Mapping[str, IBackend]
    extensions: Extensions
    tls: ServerTLS | None

    @property
    def worries(self) -> Sequence[tuple[str, str]]:
        """
        What works, and somebody should look at, each with the key that it is about.
        """
        return () if self.tls is None else self.tls.worries

    @property
    def all(self) -> tuple[object, ...]:
        """
        Directories and backends, in the order in which they are started.
        """
        return (*self.directories.values(), *self.backends.values())

    @property
    def summary(self) -> str:
        """
        What becomes of mail, in a few words for the log.
        """
        text = f"mail goes to {self.config.backend}, users: {self.users}"
        count = len(self.config.routes)
        return f"{text}; {count} {'route' if count == 1 else 'routes'}" if count else text


def make_parts(
    config: Config, reactor: object, kept: Mapping[str, IBackend] | None = None
) -> Parts:
    """
    Make them.  Backends that are *kept*, by their words, are used again; directories are made anew,
    and so read again what they know.

    Raises:
        BrokenConfig: With all problems.
    """
    return _Making(config, reactor, kept or {}).parts()


class _Making:
    def __init__(self, config: Config, reactor: object, kept: Mapping[str, IBackend]) -> None:
        self._config, self._reactor, self._kept = config, reactor, kept
        self._problems: list[Problem] = []
        self._backends: dict[str, IBackend | None] = {}
        self._directories: dict[str, IDirectory | None] = {}

    def parts(self) -> Parts:
        config = self._config
        hostname = config.hostname or socket.gethostname()
        if match_domain(hostname) is None or not hostname.isascii():
            self._wrong(("hostname",), f"{hostname!r} is not a host name; write mx.example.org")
        rules = AddressRules(hostname, config.recipient_delimiter, not config.keep_case)
        users = self._users()
        # In this order, so that the default comes first where problems are told.
        directory = None if users is None else self._directory(("users",), users)
        default = self._destination(("backend",), config.backend)
        named = {name: self._named(name) for name in config.backends}
        directories: list[tuple[str, IDirectory]] = []
        destinations: list[tuple[str, Destination]] = []
        for number, route in enumerate(config.routes, 1):
            path = ("routes", number)
            if route.users is not None:
                of_route = self._directory((*path, "users"), route.users)
                directories += [(each, of_route) for each in route.to if of_route is not None]
            if route.backend is not None:
                to = self._destination((*path, "backend"), route.backend)
                destinations += [(each, to) for each in route.to if to is not None]
        by_users = self._patterns(directories)
        by_backend = self._patterns(destinations)
        extensions = self._extensions()
        tls = self._tls()
        if self._problems or default is None:
            raise BrokenConfig(self._problems)
        if directories:
            directory = RoutedDirectory(by_users, directory)
        assert directory is not None, "_users says any, or there is a route with users"
        return Parts(
            config,
            "those of routes" if users is None else users,
            rules,
            directory,
            RoutedBackend(default, by_backend, _there(named)),
            _there(self._directories),
            _there(self._backends),
            extensions,
            tls,
        )

    def _tls(self) -> ServerTLS | None:
        """
        What handshakes are made with; None where nothing is encrypted.
        """
        config = self._config
        if config.tls_certificate is None:
            for key in ("tls-key", "tls-client-ca", "tls-client"):
                if getattr(config, key.replace("-", "_")) not in {None, "no"}:
                    self._wrong((key,), "needs tls-certificate")
            for position, words in enumerate(config.listen):
                if needs_certificate(words):
                    self._wrong(config.place_of(position), f"{words}: needs tls-certificate")
            return None
        clients = config.tls_client or ("no" if config.tls_client_ca is None else "ask")
        if clients != "no" and config.tls_client_ca is None:
            self._wrong(("tls-client",), f"{clients} needs tls-client-ca")
            return None
        try:
            return ServerTLS.read(
                TLSFiles(config.tls_certificate, config.tls_key, config.tls_client_ca, clients)
            )
        except UnusableTLS as error:
            self._wrong((error.key,), str(error))
            return None

    def _checkers(self) -> list[object]:
        """
        Those who say who may log in.
        """
        config, made = self._config, []
        for words in config.auth:
            try:
                made.append(checker_from_string(words))
            except ValueError as error:
                self._wrong(("auth",), str(error))
        # A host that is trusted may say who has logged in elsewhere.
        if not config.auth and not config.trusted:
            for position, words in enumerate(config.listen):
                if "login-required" in split_terms(words)[0]:
                    self._wrong(config.place_of(position), f"{words}: needs auth")
        return made

    def _extensions(self) -> Extensions:
        """
        What every service has, and what the operator asks for besides.
        """
        made = self._asked_for()
        checkers = self._checkers()
        if checkers:
            made.append(Auth(CheckerAuthority(checkers, in_pool_of(self._reactor))))
        for number, words in enumerate(self._config.extension, 1):
            try:
                made.append(extension_from_string(self._reactor, words))
            except ValueError as error:
                self._wrong(("extension", number), str(error))
        backends = self._backends.values()
        binary = all(each is not None and each.capabilities.binary for each in backends)
        try:
            return standard_extensions(self._config.limits, made, binary=binary)
        except ValueError as error:
            self._wrong(("extension",), str(error))
            return standard_extensions(self._config.limits)

    def _asked_for(self) -> list[Extension]:
        """
        Those that are built in, and there because of what configuration or directories say.
        """
        config = self._config
        made: list[Extension] = []
        if config.dsn != "no":
            made.append(DSN())
            self._look_at_submission(config.dsn)
        if config.vrfy != "no":
            made.append(Verification(for_all=config.vrfy == "yes"))
        directories = tuple(self._directories.values())
        if any(map(ITellsSince.providedBy, directories)):
            made.append(ValidSinceThen(lambda: any(map(_tells_since, directories))))
        return made

    def _look_at_submission(self, words: str) -> None:
        if words != RELAYED:
            try:
                submission_client(self._reactor, words, self._config.hostname or "localhost")
            except ValueError as error:
                self._wrong(("dsn",), f"{error}; or relayed, or no")

    def _users(self) -> str | None:
        """
        The words for who lives here; None where only routes say it.
        """
        if self._config.users is not None:
            return self._config.users
        if any(route.users is not None for route in self._config.routes):
            return None
        reachable = reachable_from_elsewhere(self._config.listen)
        if reachable is not None:
            self._wrong(
                ("users",),
                f"needed, because {reachable} can be reached from elsewhere; any takes mail for"
                " everybody",
            )
        return "any"

    def _destination(self, path: Path, words: str) -> Destination | None:
        """
        What *words* name: an entry of ``[backends]``, or else the backend itself.
        """
        if words in self._config.backends:
            return self._named(words)
        try:
            made = self._backend(words)
        except ValueError as error:
            ours = ", ".join(self._config.backends)
            # Of a name alone, nobody knows which of the two was meant.
            more = f"; [backends] has {ours}" if ours and ":" not in words else ""
            self._wrong(path, f"{error}{more}")
            return None
        return None if made is None else Destination(words, made)

    def _named(self, name: str) -> Destination | None:
        words = self._config.backends[name]
        try:
            made = self._backend(words)
        except ValueError as error:
            self._wrong(("backends", name), str(error))
            return None
        return None if made is None else Destination(name, made)

    def _directory(self, path: Path, words: str) -> IDirectory | None:
        try:
            return self._made(
                words, self._directories, lambda: directory_from_string(self._reactor, words)
            )
        except ValueError as error:
            self._wrong(path, str(error))
            return None

    def _backend(self, words: str) -> IBackend | None:
        kept = self._kept.get(words)
        return self._made(
            words,
            self._backends,
            lambda: backend_from_string(self._reactor, words) if kept is None else kept,
        )

    def _made(self, words: str, made: dict[str, T | None], make: Callable[[], T]) -> T | None:
        """
        What there is for *words*, made only once.  None if that went wrong before, and was told.
        """
        if words not in made:
            made[words] = None
            made[words] = make()
        return made[words]

    def _patterns(self, pairs: Iterable[tuple[str, T]]) -> Patterns[T]:
        try:
            return Patterns(pairs, self._config.recipient_delimiter)
        except ValueError as error:
            self._wrong(("routes",), str(error))
            return Patterns([])

    def _wrong(self, path: Path, text: str) -> None:
        self._problems.append(Problem(path, text))


def _there(found: Mapping[str, T | None]) -> dict[str, T]:
    """
    Those that could be made.
    """
    return {name: each for name, each in found.items() if each is not None}


def _tells_since(directory: object) -> bool:
    return ITellsSince.providedBy(directory) and ITellsSince(directory).tells_since
