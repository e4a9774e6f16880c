"""
Parts: the directories and backends that a configuration asks for, joined by its routes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from attrs import frozen

from ..config import BrokenConfig, Config
from ..delivery.patterns import Patterns
from ..delivery.routes import Destination, RoutedBackend, RoutedDirectory
from ..delivery.routing import AddressRules
from ..interfaces import IBackend, IDirectory, ITellsSince
from ..server.tls import ServerTLS
from ..session.dsn import DSN
from ..session.extensions import Extension, Extensions
from ..session.valid_since import ValidSinceThen
from ..session.verification import Verification
from ..specs import backend_from_string
from .listeners import reachable_from_elsewhere
from .making import Making, Path, there
from .submission import RELAYED, submission_client

T = TypeVar("T")


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


class _Making(Making[Config]):
    def __init__(self, config: Config, reactor: object, kept: Mapping[str, IBackend]) -> None:
        super().__init__(config, reactor)
        self._kept = kept
        self._backends: dict[str, IBackend | None] = {}

    def parts(self) -> Parts:
        config = self.config
        rules = AddressRules(self.hostname(), config.recipient_delimiter, not config.keep_case)
        users = self._users()
        # In this order, so that the default comes first where problems are told.
        directory = None if users is None else self.directory(("users",), users)
        default = self._destination(("backend",), config.backend)
        named = {name: self._named(name) for name in config.backends}
        directories: list[tuple[str, IDirectory]] = []
        destinations: list[tuple[str, Destination]] = []
        for number, route in enumerate(config.routes, 1):
            path = ("routes", number)
            if route.users is not None:
                of_route = self.directory((*path, "users"), route.users)
                directories += [(each, of_route) for each in route.to if of_route is not None]
            if route.backend is not None:
                to = self._destination((*path, "backend"), route.backend)
                destinations += [(each, to) for each in route.to if to is not None]
        by_users = self._patterns(directories)
        by_backend = self._patterns(destinations)
        backends = self._backends.values()
        binary = all(each is not None and each.capabilities.binary for each in backends)
        extensions = self.extensions(self._asked_for(), binary=binary)
        tls = self.tls()
        if self.problems or default is None:
            raise BrokenConfig(self.problems)
        if directories:
            directory = RoutedDirectory(by_users, directory)
        assert directory is not None, "_users says any, or there is a route with users"
        return Parts(
            config,
            "those of routes" if users is None else users,
            rules,
            directory,
            RoutedBackend(default, by_backend, there(named)),
            there(self.directories),
            there(self._backends),
            extensions,
            tls,
        )

    def _asked_for(self) -> list[Extension]:
        """
        Those that are built in, and there because of what configuration or directories say.
        """
        config = self.config
        made: list[Extension] = []
        if config.dsn != "no":
            made.append(DSN())
            self._look_at_submission(config.dsn)
        if config.vrfy != "no":
            made.append(Verification(for_all=config.vrfy == "yes"))
        directories = tuple(self.directories.values())
        if any(map(ITellsSince.providedBy, directories)):
            made.append(ValidSinceThen(lambda: any(map(_tells_since, directories))))
        return made

    def _look_at_submission(self, words: str) -> None:
        if words != RELAYED:
            try:
                submission_client(self.reactor, words, self.config.hostname or "localhost")
            except ValueError as error:
                self.wrong(("dsn",), f"{error}; or relayed, or no")

    def _users(self) -> str | None:
        """
        The words for who lives here; None where only routes say it.
        """
        if self.config.users is not None:
            return self.config.users
        if any(route.users is not None for route in self.config.routes):
            return None
        reachable = reachable_from_elsewhere(self.config.listen)
        if reachable is not None:
            self.wrong(
                ("users",),
                f"needed, because {reachable} can be reached from elsewhere; any takes mail for"
                " everybody",
            )
        return "any"

    def _destination(self, path: Path, words: str) -> Destination | None:
        """
        What *words* name: an entry of ``[backends]``, or else the backend itself.
        """
        if words in self.config.backends:
            return self._named(words)
        try:
            made = self._backend(words)
        except ValueError as error:
            ours = ", ".join(self.config.backends)
            # Of a name alone, nobody knows which of the two was meant.
            more = f"; [backends] has {ours}" if ours and ":" not in words else ""
            self.wrong(path, f"{error}{more}")
            return None
        return None if made is None else Destination(words, made)

    def _named(self, name: str) -> Destination | None:
        words = self.config.backends[name]
        try:
            made = self._backend(words)
        except ValueError as error:
            self.wrong(("backends", name), str(error))
            return None
        return None if made is None else Destination(name, made)

    def _backend(self, words: str) -> IBackend | None:
        kept = self._kept.get(words)
        return self.made(
            words,
            self._backends,
            lambda: backend_from_string(self.reactor, words) if kept is None else kept,
        )

    def _patterns(self, pairs: Iterable[tuple[str, T]]) -> Patterns[T]:
        try:
            return Patterns(pairs, self.config.recipient_delimiter)
        except ValueError as error:
            self.wrong(("routes",), str(error))
            return Patterns([])


def _tells_since(directory: object) -> bool:
    return ITellsSince.providedBy(directory) and ITellsSince(directory).tells_since
