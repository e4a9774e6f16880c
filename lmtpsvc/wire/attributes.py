"""
The attributes of XCLIENT and XFORWARD, and the fields that Dovecot hands on.

``NAME=value`` with values in xtext, as Postfix's XCLIENT_README and XFORWARD_README have it.  What
stands in them comes from a host that is trusted, but has often been said by a stranger to that one:
it reaches logs and headers, so that nothing gets through that means something there.
"""

from __future__ import annotations

import re
from binascii import Error, a2b_base64
from collections.abc import Container, Mapping
from ipaddress import IPv6Address, ip_address
from types import MappingProxyType
from typing import Final

from .. import replies
from .commands import CommandError
from .xtext import decode_xtext

#: Octets of a value; Postfix takes no longer ones either.
MAX_VALUE: Final = 255
MAX_PORT: Final = 65535

_match_attribute = re.compile(r"([A-Za-z][A-Za-z-]*)=(.+)", re.DOTALL).fullmatch
_match_number = re.compile(r"[0-9]{1,9}", re.ASCII).fullmatch
#: Postfix also says that a name was not found for now; both mean that there is none.
_UNAVAILABLE: Final = {"[UNAVAILABLE]", "[TEMPUNAVAIL]"}
_field_escape = re.compile("\x01(.?)", re.DOTALL)
_FIELD_ESCAPES: Final = {"0": "\0", "1": "\x01", "t": "\t", "r": "\r", "n": "\n"}


def parse_attributes(
    argument: bytes, known: Container[str], longest: int = MAX_VALUE
) -> Mapping[str, str | None]:
    """
    Read what follows the verb: ``ADDR=192.0.2.7 NAME=mx.example.org``.

    Returns the values by name in upper case, one character per octet, and None for one that is
    unavailable.

    Raises:
        CommandError: That is none, or a name is not *known*, or repeated, or a value has more than
            *longest* octets.
    """
    attributes: dict[str, str | None] = {}
    for word in argument.decode("latin-1").split(" "):
        if not word:
            continue
        match = _match_attribute(word)
        if match is None:
            raise CommandError(replies.BAD_ATTRIBUTE)
        name = match[1].upper()
        if name not in known:
            raise CommandError(replies.UNKNOWN_ATTRIBUTE)
        if name in attributes:
            raise CommandError(replies.REPEATED_PARAMETER)
        attributes[name] = _value(match[2], longest)
    if not attributes:
        raise CommandError(replies.BAD_ATTRIBUTE)
    return attributes


def read_host(value: str) -> str:
    """
    An IP address, the one way to write it; an IPv6 address may have ``IPV6:`` in front, which
    Postfix has and Dovecot has not.

    Raises:
        CommandError: It is none, or has a zone, which means nothing elsewhere.
    """
    tagged = value[:5].upper() == "IPV6:"
    try:
        address = ip_address(value[5:] if tagged else value)
    except ValueError:
        raise CommandError(replies.BAD_ATTRIBUTE) from None
    if (tagged and address.version != 6) or "%" in value:
        raise CommandError(replies.BAD_ATTRIBUTE)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def read_number(value: str, most: int = 999_999_999) -> int:
    """
    A number in decimal.

    Raises:
        CommandError: It is none, or more than *most*.
    """
    if _match_number(value) is None or int(value) > most:
        raise CommandError(replies.BAD_ATTRIBUTE)
    return int(value)


def read_port(value: str) -> int:
    """
    A TCP port.

    Raises:
        CommandError: It is none.
    """
    port = read_number(value, MAX_PORT)
    if port == 0:
        raise CommandError(replies.BAD_ATTRIBUTE)
    return port


def read_text(value: str) -> str:
    """
    What somebody is called: at most 255 octets that are UTF-8, and printable.

    Raises:
        CommandError: It is not.
    """
    try:
        text = value.encode("latin-1").decode()
    except UnicodeDecodeError:
        raise CommandError(replies.BAD_ATTRIBUTE) from None
    if not text.isprintable() or len(value) > MAX_VALUE:
        raise CommandError(replies.BAD_ATTRIBUTE)
    return text


def read_token(value: str) -> str:
    """
    A word by which something is known in logs: at most 255 of printable ASCII, without spaces.

    Raises:
        CommandError: It is not.
    """
    if not (value.isascii() and value.isprintable()) or " " in value or len(value) > MAX_VALUE:
        raise CommandError(replies.BAD_ATTRIBUTE)
    return value


def harmless(value: str) -> str:
    """
    *value* with a question mark for each character that is special in a header or in a log, as
    XFORWARD_README asks for.
    """
    return "".join(
        each if "!" <= each <= "~" and each not in '"();,<>\\' else "?" for each in value
    )


def parse_fields(text: str) -> Mapping[str, str]:
    """
    Fields as Dovecot has them: ``name=value``, with tabs between; within, an octet 1 stands in front
    of the second letter of what would otherwise mean something.  *text* has one character per octet.

    A field without ``=`` has an empty value.

    Raises:
        CommandError: It is not UTF-8, or a field has no name.
    """
    fields: dict[str, str] = {}
    for each in text.split("\t"):
        if not each:
            continue
        try:
            field = _field_escape.sub(_unescape, each).encode("latin-1").decode()
        except UnicodeDecodeError:
            raise CommandError(replies.BAD_ATTRIBUTE) from None
        name, _, value = field.partition("=")
        if not name:
            raise CommandError(replies.BAD_ATTRIBUTE)
        fields[name] = value
    return MappingProxyType(fields)


def decode_base64(value: str) -> str:
    """
    The octets of *value*, base64 with its padding, one character each.

    Raises:
        CommandError: It is none.
    """
    try:
        return a2b_base64(value, strict_mode=True).decode("latin-1")
    except (Error, ValueError):
        raise CommandError(replies.BAD_ATTRIBUTE) from None


def _value(said: str, longest: int) -> str | None:
    if said.upper() in _UNAVAILABLE:
        return None
    try:
        value = decode_xtext(said)
    except ValueError:
        raise CommandError(replies.BAD_ATTRIBUTE) from None
    if len(value) > longest:
        raise CommandError(replies.BAD_ATTRIBUTE)
    return value


def _unescape(match: re.Match[str]) -> str:
    return _FIELD_ESCAPES.get(match[1], match[1])
