"""
What may be said about a relay, as one typed value.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

from attrs import frozen

from .. import values
from ..config import ListeningConfig, key
from ..domains import ascii_domain
from ..quantities import count, seconds
from ..wire.grammar import match_domain
from .delivering import Rates
from .policy import relay_networks
from .queue import DEFAULT as DEFAULT_QUEUE
from .schedule import Schedule

DEFAULT_LISTEN: Final = "tcp:8025:interface=127.0.0.1"
#: This machine.
DEFAULT_NETWORKS: Final = ("127.0.0.0/8", "::1", "local")
#: Where `twistd lmtp` listens if nobody says.
DEFAULT_LOCAL: Final = "lmtp:127.0.0.1:8024"

_route = re.compile(r"([^=\s]+)=(\S.*)").fullmatch


def domains(value: object, _: object = None) -> tuple[str, ...]:
    """
    A list of domains, in the form of DNS; several may stand in one text, with commas between.
    """
    words = [word.strip() for several in values.texts(value) for word in several.split(",") if word]
    made = []
    for word in words:
        domain = ascii_domain(word.lower())
        if match_domain(domain) is None or not domain.isascii():
            raise ValueError(f"{word!r} is not a domain; write one like example.org")
        made.append(domain)
    return tuple(made)


def networks(value: object, _: object = None) -> tuple[str, ...]:
    """
    A list of networks whose clients may send mail to anybody.
    """
    return relay_networks(values.networks(value)).words


def routes(value: object, _: object = None) -> tuple[tuple[str, str], ...]:
    """
    A list of ``DOMAIN=SERVERS``.
    """
    made = []
    for words in values.texts(value):
        match = _route(words)
        if match is None:
            raise ValueError(
                f"{words!r} is no route; write one like example.org=lmtp:unix:/run/lmtp.sock"
            )
        if "@" in match[1]:
            raise ValueError(f"{words!r}: routes are for domains; write example.org=...")
        made.append((match[1], match[2]))
    return tuple(made)


def times(value: object, _: object = None) -> tuple[float, ...]:
    """
    A list of times, each in seconds; several may stand in one text, with commas between.
    """
    words = [word.strip() for several in values.texts(value) for word in several.split(",")]
    if not words:
        raise ValueError("expected at least one time, found none")
    return tuple([seconds(word) for word in words])


@frozen
class RelayConfig(ListeningConfig):
    """
    All that the operator of ``twistd lmtp-relay`` has said.

    No *domain* means that the name of this host is one.
    """

    check: ClassVar[str] = "lmtpsvc check-relay"

    listen: tuple[str, ...] = key((DEFAULT_LISTEN,), values.endpoints)
    domain: tuple[str, ...] = key((), domains)
    networks: tuple[str, ...] = key(DEFAULT_NETWORKS, networks)
    route: tuple[tuple[str, str], ...] = key((), routes)
    smart_host: str | None = key(None, values.text)
    local: str = key(DEFAULT_LOCAL, values.text)
    queue: str = key(DEFAULT_QUEUE, values.text)
    retry_after: tuple[float, ...] = key(Schedule().pauses, times)
    retry_server: float = key(Rates().retry, values.quantity(seconds))
    warn_after: float = key(Schedule().warn, values.quantity(seconds))
    give_up_after: float = key(Schedule().give_up, values.quantity(seconds))
    connections_per_server: int = key(Rates().per_destination, values.quantity(count))
