"""
RelayParts: what a relay takes mail for, from whom, and where it goes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence

from attrs import frozen
from zope.interface import implementer

from ..config import BrokenConfig
from ..delivery.routing import AddressRules
from ..domains import ascii_domain
from ..envelope import Mailbox
from ..interfaces import IDirectory
from ..networks import Networks
from ..relay.config import RelayConfig
from ..relay.hops import hops
from ..relay.mx import MXRoutes
from ..relay.policy import RelayPolicy
from ..relay.routes import ConfiguredRoutes, IRouter, Route
from ..server.tls import ServerTLS
from ..session.dsn import DSN
from ..session.extensions import Extensions
from ..session.prdr import PerRecipientReplies
from ..values import split_terms
from .listeners import reachable_from_elsewhere
from .making import Making, Path, there


@implementer(IDirectory)
class OurDomains:
    """
    Asks *users* who lives in *domains*, if anybody knows; of others, the next server does.
    """

    def __init__(self, domains: frozenset[str], users: IDirectory | None) -> None:
        self._domains, self._users = domains, users

    def resolve(self, mailbox: Mailbox) -> Awaitable[Sequence[Mailbox]] | Sequence[Mailbox]:
        if self._users is not None and mailbox.domain in self._domains:
            return self._users.resolve(mailbox)
        return [mailbox]


@frozen(eq=False)
class RelayParts:
    """
    *domains* are our own, the first of which has the postmaster; *directories* are all there are.
    """

    config: RelayConfig
    hostname: str
    domains: Sequence[str]
    rules: AddressRules
    directory: IDirectory
    directories: Mapping[str, IDirectory]
    router: IRouter
    extensions: Extensions
    tls: ServerTLS | None

    @property
    def worries(self) -> Sequence[tuple[str, str]]:
        """
        What works, and somebody should look at, each with the key that it is about.
        """
        found = [] if self.tls is None else list(self.tls.worries)
        reachable = reachable_from_elsewhere(self.config.listen)
        if self.config.users is None and reachable is not None:
            text = (
                f"{reachable} can be reached from elsewhere, and nobody says who lives in our"
                " domains: mail for unknown users is taken, and returned to senders who may be"
                " forged"
            )
            found.append(("users", text))
        return found

    @property
    def summary(self) -> str:
        """
        What becomes of mail, in a few words for the log.
        """
        config = self.config
        others = "by MX" if config.smart_host is None else f"to {config.smart_host}"
        text = f"mail for {', '.join(self.domains)} goes to {config.local}, for others {others}"
        count = len(config.route)
        return f"{text}; {count} {'route' if count == 1 else 'routes'}" if count else text


def make_relay_parts(config: RelayConfig, reactor: object, resolver: object) -> RelayParts:
    """
    Make them.  *resolver* (`twisted.internet.interfaces.IResolver`) is asked where mail goes for
    which the operator has not said it.

    Raises:
        BrokenConfig: With all problems.
    """
    return _Making(config, reactor).parts(resolver)


class _Making(Making[RelayConfig]):
    def __init__(self, config: RelayConfig, reactor: object) -> None:
        super().__init__(config, reactor)
        self._routes: dict[str, Route] = {}

    def parts(self, resolver: object) -> RelayParts:
        config, hostname = self.config, self.hostname()
        domains = config.domain or (hostname.lower(),)
        ours = frozenset(domains)
        users = None if config.users is None else self.directory(("users",), config.users)
        local = self._route(("local",), config.local)
        routes = [
            (domain, self._route(("route", number), words))
            for number, (domain, words) in enumerate(config.route, 1)
        ]
        others: IRouter | Route = MXRoutes(resolver, hostname)
        if config.smart_host is not None:
            others = self._route(("smart-host",), config.smart_host)
        said = {ascii_domain(domain.lower()) for domain, _ in routes}
        routes += [(domain, local) for domain in domains if domain not in said]
        router = self._router(routes, others)
        policy = RelayPolicy(Networks(config.networks), lambda domain: ascii_domain(domain) in ours)
        asked_for = [DSN(), PerRecipientReplies(), policy]
        extensions = self.extensions(asked_for, binary=False, delivers=False)
        tls = self.tls()
        self._look_at_listeners()
        if self.problems:
            raise BrokenConfig(self.problems)
        return RelayParts(
            config,
            hostname,
            domains,
            # The bare <Postmaster> is one of ours.
            AddressRules(domains[0], config.recipient_delimiter, not config.keep_case),
            OurDomains(ours, users),
            there(self.directories),
            router,
            extensions,
            tls,
        )

    def _look_at_listeners(self) -> None:
        """
        Who may relay depends on where a client is, which nobody may make up.
        """
        for position, words in enumerate(self.config.listen):
            endpoint = split_terms(words)[1]
            if endpoint.startswith("haproxy:"):
                self.wrong(
                    self.config.place_of(position),
                    f"{words}: anybody could claim an address of our networks there; write"
                    f" proxied:{endpoint.removeprefix('haproxy:')}, and say who the proxies are with"
                    " trusted",
                )

    def _route(self, path: Path, words: str) -> Route:
        """
        What there is for *words*; the same words are the same route, and share connections.
        """
        if words not in self._routes:
            try:
                # Named so that nobody shares a transaction with those who want it otherwise.
                self._routes[words] = Route(words, hops(self.reactor, words))
            except ValueError as error:
                self.wrong(path, str(error))
                self._routes[words] = Route(words, ())
        return self._routes[words]

    def _router(self, routes: list[tuple[str, Route]], others: IRouter | Route) -> IRouter:
        try:
            return ConfiguredRoutes(routes, others)
        except ValueError as error:
            self.wrong(("route",), str(error))
            return ConfiguredRoutes([], others)
