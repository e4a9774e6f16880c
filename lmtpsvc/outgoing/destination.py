"""
From words to where a message goes: ``mail.example.org:24``, ``/run/lmtp.sock``, or an endpoint string
as Twisted has them.
"""

from __future__ import annotations

import os
import re
from ipaddress import ip_address
from typing import Any, Final

import idna
from attrs import frozen
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
    clientFromString,
)
from twisted.internet.interfaces import IStreamClientEndpoint

from ..specs import LONGEST_PATH, Spec, parse

# Without its brackets, an IPv6 address could not be told from its port.
_host_and_port: Final = re.compile(
    r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/@\s]+)):([0-9]{1,5})"
).fullmatch
_endpoint: Final = re.compile(r"[a-z][a-z0-9]*:").match
# RFC 1123 §2.1 has neither underscores nor hyphens at the ends, and the DNS has hosts with both.
_name: Final = re.compile(
    r"(?=.{1,254}\Z)(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?"
).fullmatch


@frozen
class Destination:
    """
    An endpoint, and the *host* that it leads to; empty if that cannot be told.  *is_verified* says
    that there is TLS from the first octet on, with a certificate in the name of the host.
    """

    endpoint: IStreamClientEndpoint
    host: str
    is_verified: bool = False


def is_host(name: str) -> bool:
    """
    There may be a host that is called *name*, in ASCII; an IP address is such a name, too.
    """
    return _name(name) is not None or _is_address(name)


def destination(reactor: Any, words: str) -> Destination:
    """
    What *words* mean: ``HOST:PORT``, ``[IPV6]:PORT``, the path of a UNIX socket, ``unix:PATH``,
    ``tcp:HOST:PORT``, or any string that `twisted.internet.endpoints.clientFromString` takes.

    Raises:
        ValueError: None of these.
    """
    if words.startswith("/"):
        _look_at_path(words)
        return Destination(UNIXClientEndpoint(reactor, words), "")
    match = _host_and_port(words)
    if match is not None and _is_port(match[3]):
        host = match[1] or match[2]
        if match[1] and not _is_address(host):
            raise ValueError(f"{words}: there can be no such address")
        return Destination(_by_name(reactor, host, int(match[3])), host)
    if _endpoint(words) is None:
        raise ValueError(f"{words}: not a destination; write HOST:PORT, unix:PATH or tcp:HOST:PORT")
    try:
        endpoint = clientFromString(reactor, words)
        spec = parse(words)
    except Exception as error:
        # What an endpoint's parser raises is not documented, and a mistake of who wrote the words.
        raise ValueError(f"{words}: not a destination ({error})") from error
    if spec.name == "unix":
        path = spec.options.get("path") or next(iter(spec.words), "")
        if not path:
            raise ValueError(f"{words}: not a destination; write unix:PATH")
        _look_at_path(path)
    if spec.name == "ssl" and not spec.options.get("hostname"):
        # Twisted would take any certificate of an authority that it knows, whoever shows it.
        raise ValueError(
            f"{words}: not a destination; write tls:HOST:PORT, or say with hostname= in whose name"
            " the certificate must be"
        )
    host = ""
    if spec.name in {"tcp", "ssl", "tls"}:
        host = _host_of(spec, words)
    return Destination(endpoint, host, spec.name in {"ssl", "tls"})


def _host_of(spec: Spec, words: str) -> str:
    """
    The host that an endpoint leads to.

    Raises:
        ValueError: Twisted would find out that there is no such host or port when it connects, which
            it does not expect then.
    """
    host = spec.options.get("host") or next(iter(spec.words), "")
    port = spec.options.get("port") or spec.words[-1]
    if not _is_port(port):
        raise ValueError(f"{words}: {port} is not a port")
    if host.isascii() and not is_host(host):
        raise ValueError(f"{words}: there can be no such host")
    return host


def _by_name(reactor: Any, host: str, port: int) -> IStreamClientEndpoint:
    """
    Raises:
        ValueError: There can be no such host.
    """
    try:
        if not _is_address(host):
            idna.encode(host)
    except idna.IDNAError as error:
        if _name(host) is None:
            raise ValueError(f"{host}: there can be no such host") from error
        # What IDNA does not allow, HostnameEndpoint takes for no name.  This looks for IPv4 only.
        return TCP4ClientEndpoint(reactor, host, port)
    return HostnameEndpoint(reactor, host, port)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_port(port: str) -> bool:
    return port.isascii() and port.isdigit() and 0 < int(port) < 65536


def _look_at_path(path: str) -> None:
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise ValueError(f"{path}: the path of a socket has {LONGEST_PATH} octets at most")
