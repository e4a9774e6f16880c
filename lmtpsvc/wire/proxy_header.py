"""
The header of the PROXY protocol, both versions: what a proxy says before the client says anything.

HAProxy's ``proxy-protocol.txt`` is the specification; sections are those of its edition of 2020.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from struct import Struct
from struct import error as struct_error
from typing import Final

from attrs import frozen

#: Octets of a header of version 1, CRLF included (§2.1).
MAX_TEXT: Final = 107
#: Octets of one of version 2; 65551 are possible, but proxies keep to what fits into a packet or two.
MAX_BINARY: Final = 4096
#: An identifier has no more (§2.2.5).
MAX_IDENTIFIER: Final = 128

_TEXT: Final = b"PROXY "
_BINARY: Final = b"\r\n\r\n\0\r\nQUIT\n"
# Version and command, family and transport, length of the rest (§2.2).
_fixed = Struct("!BBH")
_HEAD: Final = len(_BINARY) + _fixed.size
_VERSION: Final = 2
_addresses4 = Struct("!4s4sHH")
_addresses6 = Struct("!16s16sHH")
_UNIX_ADDRESSES: Final = 216
_UNSPECIFIED: Final = 0x00
_tlv = Struct("!BH")
_ssl = Struct("!BI")
_UNIQUE_ID, _SSL = 0x05, 0x20
_CLIENT_SSL: Final = 0x01

# One space each, and no zeros in front (§2.1).
_match_text = re.compile(
    rb"PROXY (?:(TCP4) ([0-9.]{7,15}) ([0-9.]{7,15})|(TCP6) ([0-9a-fA-F:.]{2,39}) ([0-9a-fA-F:.]{2,39}))"
    rb" (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})\r\n"
).fullmatch
_match_unknown = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?\r\n").fullmatch


class BadProxyHeader(ValueError):
    """
    What has come is no header; the text is a few words for the log.
    """


@frozen
class ProxyHeader:
    """
    What a header says of the client: its *host*, an IP address, and *port*; None if the proxy does
    not know.  If *is_own*, there is no client: the proxy has connected of its own accord.

    *tls* tells whether the client's connection to the proxy is encrypted, and *identifier* is what
    the proxy calls it: printable ASCII without spaces, or empty.
    """

    host: str | None = None
    port: int | None = None
    is_own: bool = False
    tls: bool = False
    identifier: str = ""


class ProxyHeaderReader:
    """
    Takes octets until the header is there; nothing behind it is looked at.
    """

    __slots__ = ("_buffer", "header")

    def __init__(self) -> None:
        self._buffer = b""
        #: What was read, once it was.
        self.header: ProxyHeader | None = None

    def feed(self, octets: bytes) -> bytes | None:
        """
        Take *octets*.  Returns those behind the header, or None if it is not complete yet.

        Raises:
            BadProxyHeader: It is none, as soon as that is known.
        """
        buffer = self._buffer = self._buffer + octets
        is_text = _begins(buffer, _TEXT)
        if not (is_text or _begins(buffer, _BINARY)):
            raise BadProxyHeader("no PROXY header")
        end = _end_of_text(buffer) if is_text else _end_of_binary(buffer)
        if end is None:
            return None
        self.header = _read_text(buffer[:end]) if is_text else _read_binary(buffer[:end])
        self._buffer = b""
        return buffer[end:]


def _begins(buffer: bytes, with_: bytes) -> bool:
    """
    Whether *buffer* begins so, as far as it goes.
    """
    return buffer[: len(with_)] == with_[: len(buffer)]


# ── version 1 ────────────────────────────────────────────────────────────────────────────────────


def _end_of_text(buffer: bytes) -> int | None:
    end = buffer.find(b"\n", 0, MAX_TEXT)
    if end >= 0:
        return end + 1
    if len(buffer) >= MAX_TEXT:
        raise BadProxyHeader("a PROXY header that is too long")
    return None


def _read_text(line: bytes) -> ProxyHeader:
    if _match_unknown(line) is not None:
        return ProxyHeader()
    match = _match_text(line)
    if match is None:
        raise BadProxyHeader("a PROXY header that is wrong")
    four, source4, to4, _, source6, to6, port, to_port = match.groups()
    try:
        if four:
            host, _to = IPv4Address(source4.decode()), IPv4Address(to4.decode())
            return ProxyHeader(str(host), _port(port, to_port))
        return ProxyHeader(
            _host6(IPv6Address(source6.decode()), IPv6Address(to6.decode())), _port(port, to_port)
        )
    except AddressValueError:
        raise BadProxyHeader("a PROXY header with an address that is none") from None


def _port(*ports: bytes) -> int:
    first, *_ = numbers = [int(each) for each in ports]
    if max(numbers) > 65535:
        raise BadProxyHeader("a PROXY header with a port that is none")
    return first


def _host6(source: IPv6Address, _destination: IPv6Address) -> str:
    """
    An IPv4 client of a proxy that listens on both is an IPv4 client.
    """
    return str(source.ipv4_mapped or source)


# ── version 2 ────────────────────────────────────────────────────────────────────────────────────


def _end_of_binary(buffer: bytes) -> int | None:
    if len(buffer) < _HEAD:
        return None
    _command, _family, length = _fixed.unpack_from(buffer, len(_BINARY))
    end = _HEAD + int(length)
    if end > MAX_BINARY:
        raise BadProxyHeader("a PROXY header that is too long")
    return end if len(buffer) >= end else None


def _read_binary(octets: bytes) -> ProxyHeader:
    command, family, _length = _fixed.unpack_from(octets, len(_BINARY))
    version, command = divmod(command, 16)
    if version != _VERSION or command > 1:
        raise BadProxyHeader("a PROXY header of a version that nobody knows")
    if command == 0:
        # What follows is to be skipped, whatever it is.
        return ProxyHeader(is_own=True)
    rest = octets[_HEAD:]
    if family == _UNSPECIFIED:
        return _read_unspecified(rest)
    try:
        host, port, size = _binary_addresses(family, rest)
        tls, identifier = _read_tlvs(rest[size:])
    except struct_error:
        raise BadProxyHeader("a PROXY header that is too short") from None
    return ProxyHeader(host, port, tls=tls, identifier=identifier)


def _read_unspecified(rest: bytes) -> ProxyHeader:
    """
    What follows may be addresses of some kind, which are to be ignored (§2.2); HAProxy has TLVs there,
    and nothing else.
    """
    try:
        tls, identifier = _read_tlvs(rest)
    except (BadProxyHeader, struct_error):
        return ProxyHeader()
    return ProxyHeader(tls=tls, identifier=identifier)


def _binary_addresses(family: int, rest: bytes) -> tuple[str | None, int | None, int]:
    """
    Host and port of the client, and how many octets they took.
    """
    match family:
        case 0x11:
            source, _, port, _ = _addresses4.unpack_from(rest)
            return str(IPv4Address(source)), port, _addresses4.size
        case 0x21:
            source, to, port, _ = _addresses6.unpack_from(rest)
            return _host6(IPv6Address(source), IPv6Address(to)), port, _addresses6.size
        case 0x31 if len(rest) >= _UNIX_ADDRESSES:
            # A socket on the proxy's machine: not one of ours, and trusted for nothing.
            return None, None, _UNIX_ADDRESSES
    raise BadProxyHeader("a PROXY header of a family that nobody knows")


def _read_tlvs(octets: bytes) -> tuple[bool, str]:
    """
    The two that are of interest (§2.2.5, §2.2.6): whether there was TLS, and an identifier.
    """
    tls, identifier = False, ""
    for kind, value in _tlvs(octets):
        if kind == _SSL:
            client, _verified = _ssl.unpack_from(value)
            tls = bool(client & _CLIENT_SSL)
            # What is inside has the same form.
            for _ in _tlvs(value[_ssl.size :]):
                pass
        elif kind == _UNIQUE_ID and len(value) <= MAX_IDENTIFIER:
            text = value.decode("latin-1")
            if text.isascii() and text.isprintable() and " " not in text:
                identifier = text
    return tls, identifier


def _tlvs(octets: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(octets):
        kind, length = _tlv.unpack_from(octets, position)
        position += _tlv.size
        if position + length > len(octets):
            raise BadProxyHeader("a PROXY header that is too short")
        yield kind, octets[position : position + length]
        position += length
