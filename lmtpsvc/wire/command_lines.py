"""
What a client says: values to command lines, CRLF included.

Nothing gets into a line that could end it: whoever hands in an address or a parameter with a CR, an
LF, a space or a NUL gets a ValueError, and nothing is sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from typing import Any, Final

from ..envelope import Address
from . import grammar
from .xtext import encode_utf8_address

#: Octets of a line that every server takes (RFC 5321 §4.5.3.1.4).
COMMAND_LINE: Final = 512

# RFC 3461 §4: xchar is what may stand for itself.
_not_xchar: Final = re.compile(rb"[^!-*,-<>-~]")


def xtext(text: str) -> str:
    """
    *text* as RFC 3461 §4 writes it, so that any character may stand in a parameter.
    """
    return _not_xchar.sub(lambda match: b"+%02X" % match[0][0], text.encode()).decode("ascii")


def original_recipient(text: str) -> str:
    """
    The value of ORCPT for ``TYPE;ADDRESS``, an address as people write it: in xtext (RFC 3461 §4.2),
    or as RFC 6533 §3 has it if the type is ``utf-8``.

    Raises:
        ValueError: It has no type.
    """
    kind, semicolon, address = text.partition(";")
    if not (kind and semicolon):
        raise ValueError(f"ORCPT has no address type: {text!r}")
    if kind.lower() == "utf-8":
        return f"{kind};{encode_utf8_address(address)}"
    return f"{kind};{xtext(address)}"


@lru_cache(maxsize=1024)
def path(address: Address | None) -> bytes:
    """
    ``<ann@example.org>``, or ``<>`` for None (RFC 5321 §4.1.2).

    Raises:
        ValueError: This cannot be an address.
    """
    if address is None:
        return b"<>"
    text = str(address)
    if not address.domain:
        # RFC 5321 §4.1.1.3: the only one without a domain.
        if address.local.lower() == "postmaster":
            return b"<Postmaster>"
        raise ValueError(f"not an address, it has no domain: {text!r}")
    match = grammar.match_path(text)
    if (
        match is None
        or not grammar.is_printable(text)
        or (match[4] is not None and not grammar.is_ip_literal(match[4]))
        or len(address.domain.encode()) > grammar.MAX_DOMAIN
        or len(address.local.encode()) > grammar.MAX_LOCAL_PART
    ):
        raise ValueError(f"not an address: {text!r}")
    return f"<{text}>".encode()


def mail_line(sender: Address | None, parameters: Mapping[str, Any]) -> bytes:
    """
    ``MAIL FROM:<...>`` with *parameters* (RFC 5321 §4.1.1.2), which are as in `parameter_words`.

    Raises:
        ValueError: A value cannot be said.
    """
    return b"MAIL FROM:" + path(sender) + parameter_words(parameters) + b"\r\n"


def rcpt_line(recipient: Address, parameters: Mapping[str, Any]) -> bytes:
    """
    ``RCPT TO:<...>`` with *parameters* (RFC 5321 §4.1.1.3).

    Raises:
        ValueError: A value cannot be said.
    """
    return b"RCPT TO:" + path(recipient) + parameter_words(parameters) + b"\r\n"


def parameter_words(parameters: Mapping[str, Any]) -> bytes:
    """
    Each parameter with a space before it: ``True`` or None is one without a value, False is left
    out, a number or text stands as it is, and a list, tuple or set is joined with commas.

    Raises:
        ValueError: A keyword or value has a character that must not stand there.
    """
    if not parameters:
        return b""
    words = []
    for keyword, value in parameters.items():
        if value is False:
            continue
        if grammar.match_keyword(keyword) is None:
            raise ValueError(f"not a parameter: {keyword!r}")
        if value is True or value is None:
            words.append(f" {keyword}")
            continue
        text = _value_text(value)
        if grammar.match_value(text) is None:
            raise ValueError(f"not a value of {keyword}: {text!r}")
        words.append(f" {keyword}={text}")
    return "".join(words).encode()


def _value_text(value: Any) -> str:
    if isinstance(value, set | frozenset):
        return ",".join(sorted(map(str, value)))
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def attribute_lines(
    verb: str, attributes: Mapping[str, str | None], known: Iterable[str]
) -> Iterator[bytes]:
    """
    ``XCLIENT ADDR=... NAME=...``, on as many lines as it takes; none if there is nothing to say.

    Only names in *known*, those that the server lists, are said.  A value is any text, as it is put into xtext;
    None says that it is not known.  An IPv6 address gets the ``IPV6:`` that Postfix and Dovecot
    want before it.
    """
    allowed = {name.upper() for name in known}
    line = verb.encode()
    for name, value in attributes.items():
        keyword = name.upper()
        if keyword not in allowed:
            continue
        said = "[UNAVAILABLE]" if value is None else xtext(_with_tag(keyword, value))
        word = f" {keyword}={said}".encode()
        if len(line) > len(verb) and len(line) + len(word) + 2 > COMMAND_LINE:
            yield line + b"\r\n"
            line = verb.encode()
        line += word
    if len(line) > len(verb):
        yield line + b"\r\n"


def _with_tag(keyword: str, value: str) -> str:
    if not keyword.endswith("ADDR") or ":" not in value:
        return value
    try:
        IPv6Address(value)
    except AddressValueError:
        return value
    return f"IPV6:{value}"


def hello_line(verb: str, hostname: str) -> bytes:
    """
    ``LHLO client.example.org`` (RFC 2033 §4.1).

    Raises:
        ValueError: *hostname* is neither a domain nor an address literal in ASCII.
    """
    literal = hostname.startswith("[") and hostname.endswith("]")
    if not hostname.isascii() or not (
        grammar.is_ip_literal(hostname) if literal else grammar.match_domain(hostname)
    ):
        raise ValueError(f"not a host name: {hostname!r}")
    return f"{verb} {hostname}\r\n".encode("ascii")
