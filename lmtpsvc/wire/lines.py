"""
One command line: its verb, and what LHLO says.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from .. import replies
from . import grammar
from .commands import CommandError

#: Octets of lines that are worth remembering: nobody is to fill the memory with long ones.
_SHORT: Final = 128


def split_verb(line: bytes) -> tuple[bytes, bytes]:
    """
    Part a *line*, its CRLF gone, into the verb in upper case and what follows the space.

    White space around the argument is no part of it (RFC 5321 §4.1.1 wants trailing one to be
    tolerated).

    Raises:
        CommandError: There is a NUL, or a CR or LF that ends nothing (RFC 5321 §2.3.8).  To guess
            that it does is how a second command is smuggled in.
    """
    return _split_again(line) if len(line) <= _SHORT else _split(line)


def _split(line: bytes) -> tuple[bytes, bytes]:
    if b"\n" in line or b"\r" in line or b"\0" in line:
        raise CommandError(replies.LINE_ENDING)
    verb, _, argument = line.partition(b" ")
    return verb.upper(), argument.strip(b" \t")


# Most lines have been said before: the same verbs, senders and recipients come again and again.
_split_again = lru_cache(maxsize=1024)(_split)


def parse_hello(argument: bytes) -> str:
    """
    Read what follows ``LHLO`` (RFC 2033 §4.1): the client's domain or address literal, as it is
    written.

    It will stand in a Received header, so nothing is let through that means something there.  It
    is ASCII: before LHLO is answered no client can know whether UTF-8 is welcome (RFC 6531
    §3.7.1).  A dot at the end is no part of the name.

    Raises:
        CommandError: It is neither.
    """
    return _hello_again(argument) if len(argument) <= _SHORT else _hello(argument)


def _hello(argument: bytes) -> str:
    if not argument.isascii() or len(argument) > grammar.MAX_DOMAIN:
        raise CommandError(replies.BAD_HELLO)
    name = argument.decode("ascii")
    if name.startswith("["):
        # RFC 5321 §4.1.3: no tag but IPv6 was ever registered, and what another one allows inside
        # would be a comment, or worse, in the header.
        known = name.endswith("]") and grammar.is_ip_literal(name)
    else:
        name = name.removesuffix(".")
        known = grammar.match_domain(name) is not None
    if not known:
        raise CommandError(replies.BAD_HELLO)
    return name


# The same few clients come again and again.
_hello_again = lru_cache(maxsize=1024)(_hello)
