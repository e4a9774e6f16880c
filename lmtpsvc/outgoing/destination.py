"""
From words to where a message goes: ``mail.example.org:24``, ``/run/lmtp.sock``, or an endpoint string
as Twisted has them.
"""

from __future__ import annotations

import re
from typing import Any, Final

from attrs import frozen
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, clientFromString
from twisted.internet.interfaces import IStreamClientEndpoint

from ..specs import parse

# Without its brackets, an IPv6 address could not be told from its port.
_host_and_port: Final = re.compile(
    r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/@\s]+)):([0-9]{1,5})"
).fullmatch
_endpoint: Final = re.compile(r"[a-z][a-z0-9]*:").match


@frozen
class Destination:
    """
    An endpoint, and the *host* that it leads to; empty if that cannot be told.  *is_verified* says
    that there is TLS from the first octet on, with a certificate in the name of the host.
    """

    endpoint: IStreamClientEndpoint
    host: str
    is_verified: bool = False


def destination(reactor: Any, words: str) -> Destination:
    """
    What *words* mean: ``HOST:PORT``, ``[IPV6]:PORT``, the path of a UNIX socket, ``unix:PATH``,
    ``tcp:HOST:PORT``, or any string that `twisted.internet.endpoints.clientFromString` takes.

    Raises:
        ValueError: None of these.
    """
    if words.startswith("/"):
        return Destination(UNIXClientEndpoint(reactor, words), "")
    match = _host_and_port(words)
    if match is not None and 0 < int(match[3]) < 65536:
        host = match[1] or match[2]
        return Destination(HostnameEndpoint(reactor, host, int(match[3])), host)
    if _endpoint(words) is None:
        raise ValueError(f"{words}: not a destination; write HOST:PORT, unix:PATH or tcp:HOST:PORT")
    try:
        endpoint = clientFromString(reactor, words)
        spec = parse(words)
    except Exception as error:
        # What an endpoint's parser raises is not documented, and a mistake of who wrote the words.
        raise ValueError(f"{words}: not a destination ({error})") from error
    if spec.name == "unix" and not (spec.options.get("path") or any(spec.words)):
        raise ValueError(f"{words}: not a destination; write unix:PATH")
    if spec.name == "ssl" and not spec.options.get("hostname"):
        # Twisted would take any certificate of an authority that it knows, whoever shows it.
        raise ValueError(
            f"{words}: not a destination; write tls:HOST:PORT, or say with hostname= in whose name"
            " the certificate must be"
        )
    host = ""
    if spec.name in {"tcp", "ssl", "tls"}:
        host = spec.options.get("host") or (spec.words[0] if spec.words else "")
    return Destination(endpoint, host, spec.name in {"ssl", "tls"})
