"""
What MAIL and RCPT say: a path and parameters (RFC 5321 §4.1.1.2, §4.1.1.3, §4.1.1.11).

The same few senders and recipients come again and again, each time with another SIZE.  So paths
are remembered, without their parameters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Final, TypeVar
from unicodedata import normalize

from .. import replies
from ..envelope import NO_PARAMETERS, Address, Recipient, Sender
from ..replies import Reply
from . import grammar
from .commands import CommandError
from .lines import split_verb

# The address of a line, and what is made of it.
_Said = TypeVar("_Said")
_Made = TypeVar("_Made")

#: Octets of a RCPT that is worth remembering.
_SHORT: Final = 128

# Up to the ">" that closes the path: one in quotes does not.  Neither "<" nor ">" may stand
# anywhere else.
_up_to_bracket = re.compile(
    rb'[^"<>]*<[^"<>]*(?:"[^"\\]*(?:\\.[^"\\]*)*"[^"<>]*)*>', re.DOTALL
).match

# What nearly every MTA says behind the path of a MAIL, and how it says it.
_size_and_body = re.compile(
    rb"SIZE=([0-9]{1,20})(?: BODY=(7BIT|8BITMIME))?|BODY=(7BIT|8BITMIME)"
).fullmatch


def parse_mail(argument: bytes) -> tuple[Address | None, Mapping[str, str | None]]:
    """
    Read what follows ``MAIL`` and a space: ``FROM:<ann@example.org> SIZE=1000``.

    Returns the address, None for the null reverse-path ``<>``; and the parameters, by keyword in
    upper case, None for one without a value.  Neither may be changed.  Anything may be UTF-8:
    whether SMTPUTF8 (RFC 6531) was asked for is not looked at.

    Raises:
        CommandError: With the reply to send.
    """
    match = _up_to_bracket(argument)
    if match is None:
        raise CommandError(replies.BAD_MAIL)
    said = match[0]
    address = _reverse_path(said)
    if len(said) == len(argument):
        return address, NO_PARAMETERS
    return address, _parameters(argument[len(said) :], replies.BAD_MAIL)


def parse_rcpt(argument: bytes) -> tuple[Address, Mapping[str, str | None]]:
    """
    Read what follows ``RCPT`` and a space: ``TO:<ann@example.org> NOTIFY=NEVER``.

    ``<Postmaster>``, in any case and without a domain, is ``Address("postmaster", "")``.  All else
    is as in `parse_mail`.
    """
    return _recipient_again(argument) if len(argument) <= _SHORT else _recipient(argument)


def _recipient(argument: bytes) -> tuple[Address, Mapping[str, str | None]]:
    match = _up_to_bracket(argument)
    if match is None:
        raise CommandError(replies.BAD_RCPT)
    said = match[0]
    address = _forward_path(said)
    if len(said) == len(argument):
        return address, NO_PARAMETERS
    return address, _parameters(argument[len(said) :], replies.BAD_RCPT)


_recipient_again = lru_cache(maxsize=1024)(_recipient)


def plain_recipients(lines: Sequence[bytes]) -> tuple[Recipient, ...] | None:
    """
    The recipients of *lines* without their CRLF, if each is a RCPT as most are: short, in ASCII and
    without parameters.  None if one is not, whether or not it is well formed.
    """
    if len(lines) == 1:
        (line,) = lines
        recipient = _plain_again(line) if len(line) <= _SHORT else None
        return None if recipient is None else (recipient,)
    if max(map(len, lines), default=0) > _SHORT:
        return None
    recipients = tuple(map(_plain_again, lines))
    # all() asks no recipient anything, as `None in` would.
    return recipients if all(recipients) else None  # type: ignore[return-value]


@lru_cache(maxsize=4096)
def _plain_again(line: bytes) -> Recipient | None:
    return _plain(line, b"RCPT", parse_rcpt, Recipient)


def plain_sender(line: bytes) -> Sender | None:
    """
    The sender of *line* without its CRLF, if that is a MAIL as most are: see `plain_recipients`.
    """
    # One with a SIZE comes once, and is not to push out those that come again.
    return _plain_sender_again(line) if len(line) <= _SHORT and line.endswith(b">") else None


@lru_cache(maxsize=1024)
def _plain_sender_again(line: bytes) -> Sender | None:
    return _plain(line, b"MAIL", parse_mail, Sender)


def sized_mail(line: bytes) -> tuple[Address | None, Mapping[str, str | None]] | None:
    """
    What `parse_mail` reads in *line* without its CRLF, if that is a MAIL with a SIZE, a BODY or both, as
    most MTAs write them, and otherwise as in `plain_sender`.  None if it is not, whether or not it is
    well formed.
    """
    path, _, said = line.partition(b"> ")
    match = _size_and_body(said)
    if match is None:
        return None
    sender = plain_sender(path + b">")
    if sender is None:
        return None
    size, body, body_alone = match.groups()
    parameters: dict[str, str | None] = {}
    if size is not None:
        parameters["SIZE"] = size.decode("ascii")
    if body is not None or body_alone is not None:
        parameters["BODY"] = (body or body_alone).decode("ascii")
    return sender.address, parameters


def _plain(
    line: bytes,
    wanted: bytes,
    parse: Callable[[bytes], tuple[_Said, Mapping[str, str | None]]],
    make: Callable[[_Said], _Made],
) -> _Made | None:
    """
    What *make* makes of the address in *line*, if that is in ASCII, of the *wanted* verb, and without
    parameters.
    """
    if not line.isascii():
        return None
    try:
        verb, argument = split_verb(line)
        if verb != wanted:
            return None
        address, parameters = parse(argument)
    except CommandError:
        return None
    return None if parameters else make(address)


def parse_asked(argument: bytes, shape: Reply) -> tuple[Address, bool]:
    """
    Read what follows ``VRFY`` or ``EXPN`` and a space: ``ann``, ``ann@example.org`` or
    ``<ann@example.org>``, and whether ``SMTPUTF8`` stands behind it (RFC 6531 §3.7.4.2).

    A name without a domain is ``Address("ann", "")``.

    Raises:
        CommandError: With *shape*.
    """
    said, utf8 = argument, False
    if argument[-9:].upper() == b" SMTPUTF8":
        said, utf8 = argument[:-9].rstrip(b" "), True
    if said[:1] == b"<" and said[-1:] == b">":
        said = said[1:-1]
    elif b"<" in said:
        # "Ann Example <ann@example.org>" is a String, too, but nobody is found by that name.
        raise CommandError(shape)
    if b"@" in said:
        return _address(said, shape), utf8
    address = _address(said + b"@localhost", shape)
    return Address(address.local, ""), utf8


@lru_cache(maxsize=1024)
def _reverse_path(said: bytes) -> Address | None:
    """
    ``FROM:<...>`` (RFC 5321 §4.1.1.2).
    """
    path = _path(said, b"FROM:", replies.BAD_MAIL)
    return _address(path, replies.BAD_SENDER) if path else None


def _forward_path(said: bytes) -> Address:
    """
    ``TO:<...>`` (RFC 5321 §4.1.1.3).
    """
    path = _path(said, b"TO:", replies.BAD_RCPT)
    if path.lower() == b"postmaster":
        return Address("postmaster", "")
    return _address(path, replies.BAD_RECIPIENT)


def _path(said: bytes, keyword: bytes, shape: Reply) -> bytes:
    """
    What stands between the brackets of *said*.
    """
    start = len(keyword)
    if said[:start].upper() != keyword:
        raise CommandError(shape)
    # RFC 5321 §4.1.1.2 has no space behind the colon.  Many clients do.
    if said[start : start + 1] == b" ":
        start += 1
    if said[start : start + 1] != b"<":
        raise CommandError(shape)
    return said[start + 1 : -1]


def _address(path: bytes, bad: Reply) -> Address:
    """
    The mailbox that *path* names; *bad* is what to say if it names none.
    """
    try:
        text = path.decode()
    except UnicodeDecodeError:
        raise CommandError(bad) from None
    match = grammar.match_path(text)
    if match is None or not (text.isascii() or grammar.is_printable(text)):
        raise CommandError(bad)
    local, quoted, domain, literal = match.groups()
    if local is None:
        local = grammar.unquote(quoted)
    domain = _domain(domain) if literal is None else _literal(literal)
    if (
        domain is None
        or len(domain.encode()) > grammar.MAX_DOMAIN
        or len(local.encode()) > grammar.MAX_LOCAL_PART
    ):
        raise CommandError(bad)
    # RFC 5321 §2.4: local parts keep their case.
    return Address(local, domain)


def _domain(said: str) -> str | None:
    """
    The one way to write the domain *said*; None if there is none.
    """
    domain = said.lower()
    if said.isascii():
        return domain
    # RFC 5891 §5.2: a U-label is in NFC.  Some characters turn into ASCII on the way there, even
    # into ";" and "`": so look once more.
    domain = normalize("NFC", domain)
    return domain if grammar.match_domain(domain) else None


def _literal(said: str) -> str | None:
    return said.lower() if grammar.is_ip_literal(said) else None


def _parameters(said: bytes, shape: Reply) -> Mapping[str, str | None]:
    """
    Read ``" SIZE=1000 SMTPUTF8"``, all that follows a path.

    RFC 5321 §4.1.1.11 has one space between two parameters; more do no harm.
    """
    if said[:1] != b" ":
        raise CommandError(shape)
    try:
        text = said.decode()
    except UnicodeDecodeError:
        raise CommandError(replies.BAD_PARAMETER) from None
    if not (text.isascii() or grammar.is_printable(text)):
        raise CommandError(replies.BAD_PARAMETER)
    parameters: dict[str, str | None] = {}
    for parameter in text.split(" "):
        if not parameter:
            continue
        keyword, equals, value = parameter.partition("=")
        if grammar.match_keyword(keyword) is None:
            raise CommandError(replies.SYNTAX)
        if equals and grammar.match_value(value) is None:
            raise CommandError(replies.BAD_PARAMETER)
        keyword = keyword.upper()
        if keyword in parameters:
            raise CommandError(replies.REPEATED_PARAMETER)
        parameters[keyword] = value if equals else None
    return MappingProxyType(parameters)
