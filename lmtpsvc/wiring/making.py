"""
Making: what every service that listens has, made from its configuration.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

from ..auth.specs import checker_from_string
from ..config import ListeningConfig, Problem
from ..in_thread import in_pool_of
from ..interfaces import IDirectory
from ..server.tls import ServerTLS, TLSFiles, UnusableTLS
from ..session.extensions import Extension, Extensions
from ..session.standard import standard_extensions
from ..specs import directory_from_string, extension_from_string
from ..values import split_terms
from ..wire.grammar import match_domain
from .listeners import needs_certificate

C = TypeVar("C", bound=ListeningConfig)
T = TypeVar("T")
Path = tuple[str | int, ...]


class Making(Generic[C]):
    """
    Makes parts of a service as *config* has them, and gathers the *problems* with that.

    *directories* are those that were made, by their words; None is one that could not be.
    """

    def __init__(self, config: C, reactor: Any) -> None:
        self.config, self.reactor = config, reactor
        self.problems: list[Problem] = []
        self.directories: dict[str, IDirectory | None] = {}

    def hostname(self) -> str:
        """
        What the service calls itself.
        """
        hostname = self.config.hostname or socket.gethostname()
        if match_domain(hostname) is None or not hostname.isascii():
            self.wrong(("hostname",), f"{hostname!r} is not a host name; write mx.example.org")
        return hostname

    def tls(self) -> ServerTLS | None:
        """
        What handshakes are made with; None where nothing is encrypted.
        """
        config = self.config
        if config.tls_certificate is None:
            for key in ("tls-key", "tls-client-ca", "tls-client"):
                if getattr(config, key.replace("-", "_")) not in {None, "no"}:
                    self.wrong((key,), "needs tls-certificate")
            for position, words in enumerate(config.listen):
                if needs_certificate(words):
                    self.wrong(config.place_of(position), f"{words}: needs tls-certificate")
            return None
        clients = config.tls_client or ("no" if config.tls_client_ca is None else "ask")
        if clients != "no" and config.tls_client_ca is None:
            self.wrong(("tls-client",), f"{clients} needs tls-client-ca")
            return None
        try:
            return ServerTLS.read(
                TLSFiles(config.tls_certificate, config.tls_key, config.tls_client_ca, clients)
            )
        except UnusableTLS as error:
            self.wrong((error.key,), str(error))
            return None

    def extensions(
        self, asked_for: Iterable[Extension], *, binary: bool, delivers: bool = True
    ) -> Extensions:
        """
        What every service has, those that are *asked_for*, and what the operator has named; *binary*
        and *delivers* as in `standard_extensions`.
        """
        made = list(asked_for)
        checkers = self._checkers()
        if checkers:
            # SCRAM takes more than a megabyte, and most services know no passwords.
            from ..auth.authority import CheckerAuthority  # noqa: PLC0415
            from ..session.auth import Auth  # noqa: PLC0415

            made.append(Auth(CheckerAuthority(checkers, in_pool_of(self.reactor))))
        for number, words in enumerate(self.config.extension, 1):
            try:
                made.append(extension_from_string(self.reactor, words))
            except ValueError as error:
                self.wrong(("extension", number), str(error))
        try:
            return standard_extensions(self.config.limits, made, binary=binary, delivers=delivers)
        except ValueError as error:
            self.wrong(("extension",), str(error))
            return standard_extensions(self.config.limits)

    def _checkers(self) -> list[object]:
        """
        Those who say who may log in.
        """
        config, made = self.config, []
        for words in config.auth:
            try:
                made.append(checker_from_string(words))
            except ValueError as error:
                self.wrong(("auth",), str(error))
        # A host that is trusted may say who has logged in elsewhere.
        if not config.auth and not config.trusted:
            for position, words in enumerate(config.listen):
                if "login-required" in split_terms(words)[0]:
                    self.wrong(config.place_of(position), f"{words}: needs auth")
        return made

    def directory(self, path: Path, words: str) -> IDirectory | None:
        try:
            return self.made(
                words, self.directories, lambda: directory_from_string(self.reactor, words)
            )
        except ValueError as error:
            self.wrong(path, str(error))
            return None

    def made(self, words: str, made: dict[str, T | None], make: Callable[[], T]) -> T | None:
        """
        What there is for *words*, made only once.  None if that went wrong before, and was told.
        """
        if words not in made:
            made[words] = None
            made[words] = make()
        return made[words]

    def wrong(self, path: Path, text: str) -> None:
        self.problems.append(Problem(path, text))


def there(found: Mapping[str, T | None]) -> dict[str, T]:
    """
    Those that could be made.
    """
    return {name: each for name, each in found.items() if each is not None}
