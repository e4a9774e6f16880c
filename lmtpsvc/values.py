"""
What a key of the configuration may be.

Each function reads a value, as TOML or the command line has it, and raises ValueError with one line
that says what was expected.  The second argument is what cattrs passes besides, and is not needed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Final, TypeVar, get_args

from twisted.internet.interfaces import IStreamServerEndpointStringParser
from twisted.plugin import getPlugins

from .delivery.patterns import fold
from .delivery.trace import DeliveredTo, OriginalHeader
from .networks import Networks
from .quantities import count
from .server.tls import ClientCertificates
from .session.verification import Askers
from .wire.grammar import match_domain

T = TypeVar("T")

#: What an endpoint may ask of clients, each a word with a colon in front of it.
TERMS: Final = ("proxied", "tls", "tls-required", "login-required")

#: More processes than that share nothing but their quarrels; a slip of the finger is not to take all
#: memory.
MOST_WORKERS: Final = 1024


def unexpected(value: object, expected: str) -> ValueError:
    """
    The mistake of writing *value* where something else was *expected*.
    """
    return ValueError(f"expected {expected}, found {json.dumps(value, default=str)}")


def text(value: object, _: object = None) -> str:
    if not isinstance(value, str):
        raise unexpected(value, "text in quotes")
    if "\0" in value:
        # No path, host name or database has one.
        raise unexpected(value, "text without a NUL character")
    return value


def directory(value: object, _: object = None) -> str:
    """
    A path that means the same wherever the service goes later.
    """
    name = text(value)
    if not name:
        raise unexpected(value, "a directory")
    return os.path.abspath(name)


def flag(value: object, _: object = None) -> bool:
    if not isinstance(value, bool):
        raise unexpected(value, "true or false")
    return value


def texts(value: object, _: object = None) -> tuple[str, ...]:
    """
    A list of texts; a single one may stand on its own.
    """
    several = [value] if isinstance(value, str) else value
    if not isinstance(several, list) or not all(isinstance(each, str) for each in several):
        raise unexpected(value, "a text, or a list of texts")
    return tuple(map(text, several))


def endpoints(value: object, _: object = None) -> tuple[str, ...]:
    listen = texts(value)
    if not listen:
        raise ValueError("expected at least one endpoint, found none")
    return listen


def split_terms(words: str) -> tuple[frozenset[str], str]:
    """
    Part ``proxied:tcp:24`` into the terms and the endpoint behind them.
    """
    terms: set[str] = set()
    while True:
        first, _, rest = words.partition(":")
        # Twisted has endpoints of that name, with a directory or file behind it.
        if first not in TERMS or (first == "tls" and not _is_endpoint(rest)):
            return frozenset(terms), words
        terms.add(first)
        words = rest


def _is_endpoint(words: str) -> bool:
    name = words.partition(":")[0]
    # Those that Twisted does not have as plugins.
    if name in {*TERMS, "tcp", "unix", "ssl"}:
        return True
    return any(name == parser.prefix for parser in getPlugins(IStreamServerEndpointStringParser))


def networks(value: object, _: object = None) -> tuple[str, ...]:
    """
    A list of networks; several may stand in one text, with commas between.
    """
    words = (word.strip() for several in texts(value) for word in several.split(","))
    return Networks(word for word in words if word).words


def patterns(value: object, _: object = None) -> tuple[str, ...]:
    several = texts(value)
    if not several:
        raise ValueError("expected at least one address or domain, found none")
    for pattern in several:
        fold(pattern)
    return several


def hostname(value: object, _: object = None) -> str:
    name = text(value)
    if match_domain(name) is None or not name.isascii():
        raise ValueError(f"{name!r} is not a host name; write one like mx.example.org")
    return name


def delimiter(value: object, _: object = None) -> str:
    character = text(value)
    if len(character) > 1 or character == "@":
        raise ValueError(f"expected one character, or none, found {character!r}")
    return character


def delivered_to(value: object, _: object = None) -> str:
    if value not in get_args(DeliveredTo):
        raise unexpected(value, "single, always or never")
    return str(value)


def tls_client(value: object, _: object = None) -> str:
    if value not in get_args(ClientCertificates):
        raise unexpected(value, "no, ask or require")
    return str(value)


def original_recipient(value: object, _: object = None) -> str:
    """
    The name of a header, in any case.
    """
    names: dict[str, str] = {name.lower(): name for name in get_args(OriginalHeader)}
    if not isinstance(value, str) or value.lower() not in names:
        raise unexpected(value, "X-Original-To, Original-Recipient or no")
    return names[value.lower()]


def vrfy(value: object, _: object = None) -> str:
    if value not in get_args(Askers):
        raise unexpected(value, "no, trusted or yes")
    return str(value)


def dsn(value: object, _: object = None) -> str:
    """
    Who makes delivery reports: nobody, the relay in front, or we, by way of a server.
    """
    words = text(value)
    if not words:
        raise unexpected(value, "no, relayed, or a server such as smtp:mail.example.org:25")
    return words


def workers(value: object, _: object = None) -> int:
    """
    A number of processes, at most `MOST_WORKERS`; ``auto`` is one per processor.
    """
    if value == "auto":
        usable = getattr(os, "sched_getaffinity", None)
        return len(usable(0)) if usable is not None else os.cpu_count() or 1
    try:
        number = count(_as_written(value))
    except ValueError as error:
        raise ValueError(f"{error}, or auto") from error
    if number > MOST_WORKERS:
        raise ValueError(f"expected at most {MOST_WORKERS} processes, found {number}")
    return number


def quantity(read: Callable[[str], T]) -> Callable[[object, object], T]:
    """
    What *read*, of `lmtpsvc.quantities`, reads; a number may stand without quotes.
    """
    return lambda value, _: read(_as_written(value))


def _as_written(value: object) -> str:
    """
    A number, as it would be written on the command line.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise unexpected(value, "a number, or text in quotes")
    return str(value)
