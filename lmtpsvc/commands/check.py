"""
``lmtpsvc check``: all that is wrong with a configuration, and where mail for an address would go.

Nothing is made or changed by it, no port is opened, and no backend is started.
"""

from __future__ import annotations

import os
import pwd
import sys
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from getopt import GetoptError, gnu_getopt
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from twisted.internet.task import react
from twisted.python import usage

from ..config import BrokenConfig, Config, ListeningConfig, Problem, misbeliefs, structure_as
from ..interfaces import IDirectory
from ..options import ListeningOptions, Options
from ..specs import backend_factories, directory_factories
from ..wiring.parts import Parts, make_parts
from ..wiring.probe import look_at_directory, look_at_file, look_at_listener
from ..wiring.sources import Sources
from .where import routes, say_routes


class CheckedParts(Protocol):
    """
    What a configuration asks for, as far as it is the same for all services.
    """

    @property
    def directories(self) -> Mapping[str, IDirectory]: ...

    @property
    def worries(self) -> Sequence[tuple[str, str]]: ...

    @property
    def summary(self) -> str: ...


C = TypeVar("C", bound=ListeningConfig)
P = TypeVar("P", bound=CheckedParts)


class CheckingOptions(ListeningOptions):
    """
    What every service's check understands: a file, addresses, and all that the service does.
    """

    optParameters: ClassVar[list[list[Any]]] = [
        ["as", None, None, "The user that the service becomes when it listens; needs root"],
    ]
    optFlags: ClassVar[list[list[Any]]] = [
        ["running", None, "The service is running: do not look whether its ports are free"],
    ]

    def parseOptions(self, options: Any = None) -> None:
        """
        Options may stand behind the file, too.
        """
        words = list(options)
        try:
            said, rest = gnu_getopt(words, self.shortOpt, self.longOpt)
        except GetoptError:
            # Told by those who know how.
            super().parseOptions(words)
            return
        before: list[str] = []
        for name, value in said:
            takes_value = f"{name[2:]}=" in self.longOpt or f"{name[1:]}:" in self.shortOpt
            before += [name, value] if takes_value else [name]
        super().parseOptions([*before, "--", *rest])

    def parseArgs(self, *words: str) -> None:
        """
        A word with @ in it is an address, unless it is a file.
        """
        self["addresses"] = []
        for word in words:
            if "@" in word and not os.path.exists(word):
                self["addresses"].append(word)
            elif self["config"] is None:
                self["config"] = word
            else:
                raise usage.UsageError(f"one file is enough: {word}")

    def postOptions(self) -> None:
        self.take_words()
        self["account"] = None if self["as"] is None else _account(self["as"])


class CheckOptions(CheckingOptions, Options):
    """
    What ``lmtpsvc check`` understands.
    """

    program = "lmtpsvc check"
    synopsis = "Usage: lmtpsvc check [options] [FILE] [ADDRESS...]"
    longdesc = (
        "Tells everything that is wrong with FILE, and with the options of twistd lmtp if some are"
        " given; then where mail for each ADDRESS would go.  The exit status is 0 if nothing is"
        " wrong and no ADDRESS would be refused."
    )


def main(words: Sequence[str]) -> int:
    """
    Check what *words* say; returns the exit status.
    """
    options = CheckOptions()
    options.parseOptions(list(words))
    return tell(options, ServiceCheck(options), routes)


def tell(
    options: CheckingOptions,
    found: Check[C, P],
    to: Callable[[P, str], Coroutine[Any, Any, list[str]]],
) -> int:
    """
    Write what is *found* to standard output, and where mail goes *to* for the addresses; returns the
    exit status.
    """
    parts = found.run()
    for problem in found.problems:
        sys.stdout.write(f"{problem}\n")
    if parts is None:
        return 1
    if not found.problems:
        sys.stdout.write(f"no problem found: {parts.summary}\n")
    lines: list[str] = []
    refused: list[str] = []
    is_broken = False
    if options["addresses"]:
        words = options["addresses"], lines, refused, lambda each: to(parts, each)
        try:
            react(say_routes, (parts.directories, *words), _reactor=options.reactor)
        except SystemExit as ended:
            is_broken = bool(ended.code)
        sys.stdout.writelines(f"{line}\n" for line in lines)
    return 1 if found.problems or refused or is_broken else 0


class Check(Generic[C, P]):
    """
    Finds the *problems* of a configuration, each as one line.
    """

    def __init__(self, options: CheckingOptions) -> None:
        self.options = options
        self.problems: list[str] = []
        self._told: set[tuple[str | int, ...]] = set()

    @abstractmethod
    def make(self, config: C) -> P:
        """
        What *config* asks for.

        Raises:
            BrokenConfig: With all problems.
        """

    def look_at_the_rest(self, config: C) -> None:
        """
        Look at what only one service has.
        """

    def run(self) -> P | None:
        """
        Look at everything; returns what the configuration asks for if that could be made.
        """
        options = self.options
        config = self._config()
        if config is None:
            return None
        if ("trusted",) not in self._told:
            self._tell(list(misbeliefs(config)))
        # Listening is what the service does before it becomes another user.
        for position, words in enumerate(config.listen):
            self.look(
                config.place_of(position),
                *(look_at_listener, words, options.reactor),
                probe=not options["running"],
                for_smtp=options.is_for_smtp,
            )
        if options["account"] is not None:
            _become(options["account"])
            if options["config"] is not None:
                self.look((), _look_at_config, options["config"])
        if config.spool is not None:
            self.look(("spool",), look_at_directory, config.spool)
        if config.json_log not in {None, "-"}:
            self.look(("json-log",), look_at_file, config.json_log)
        self.look_at_the_rest(config)
        try:
            parts = self.make(config)
        except BrokenConfig as error:
            self._tell(error.problems)
            return None
        self._tell([Problem((key,), text) for key, text in parts.worries])
        return parts

    def _config(self) -> C | None:
        """
        The configuration; what is wrong with it is told, and left out so that the rest can be
        looked at.
        """
        sources: Sources[C] = self.options.sources
        try:
            said = sources.said()
        except BrokenConfig as error:
            self._tell(error.problems)
            return None
        try:
            return structure_as(sources.of, said)
        except BrokenConfig as error:
            self._tell(error.problems)
            return structure_as(sources.of, _without(said, error.problems))

    def look(
        self, path: tuple[str | int, ...], look: Callable[..., None], *words: Any, **options: Any
    ) -> None:
        """
        Have something that the key at *path* says be looked at.
        """
        try:
            look(*words, **options)
        except ValueError as error:
            self._tell([Problem(path, str(error))])

    def _tell(self, problems: Sequence[Problem]) -> None:
        """
        Add them; where a key was told already, what follows from that is no news.
        """
        new = [problem for problem in problems if problem.path not in self._told]
        self.problems += [self.options.sources.shown(problem) for problem in new]
        self._told.update(problem.path for problem in new if problem.path[-1:] != ("listen",))


class ServiceCheck(Check[Config, Parts]):
    """
    Of ``twistd lmtp``.
    """

    def make(self, config: Config) -> Parts:
        return make_parts(config, self.options.reactor)


def _without(said: Mapping[str, Any], problems: Sequence[Problem]) -> dict[str, Any]:
    """
    *said* without the keys that have *problems*.
    """
    left = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in said.items()
    }
    for problem in problems:
        match problem.path:
            case ("routes", int(number), *_):
                # One that goes nowhere stays, so that those behind it keep their numbers.
                left["routes"] = list(left["routes"])
                left["routes"][number - 1] = {
                    "to": f"route-{number}.invalid",
                    "backend": left.get("backend", Config().backend),
                }
            case ("listeners", int(number), key, *_) if key != "listen":
                left["listeners"] = list(left["listeners"])
                left["listeners"][number - 1] = {
                    name: each
                    for name, each in left["listeners"][number - 1].items()
                    if name != key
                }
            case ("listeners", *_):
                # Those that are left would have other numbers.
                left.pop("listeners", None)
            case (table, key, *_) if isinstance(left.get(str(table)), dict):
                left[str(table)].pop(key, None)
            case (key, *_):
                left.pop(str(key), None)
    return left


def _look_at_config(path: str) -> None:
    if not os.access(path, os.R_OK, effective_ids=True):
        raise ValueError(f"user {os.geteuid()} cannot read it, so that SIGHUP could not reload it")


# ── another user ─────────────────────────────────────────────────────────────────────────────────


def _account(name: str) -> pwd.struct_passwd:
    if os.geteuid() != 0:
        raise usage.UsageError("--as needs root")
    try:
        return pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError:
        raise usage.UsageError(f"--as {name}: there is no such user") from None


def _become(account: pwd.struct_passwd) -> None:
    # Plugins are imported as root, as twistd does: Python itself may not be readable for everybody.
    backend_factories()
    directory_factories()
    os.initgroups(account.pw_name, account.pw_gid)
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)
