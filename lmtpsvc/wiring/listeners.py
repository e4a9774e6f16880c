"""
From the words of ``--listen`` to an endpoint.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from twisted.internet.endpoints import serverFromString

from ..server.listening import SMTP_PORT, Listener
from ..server.proxied import ProxiedReactor
from ..session.connection import Terms
from ..values import split_terms

_loopback = re.compile(r"unix:|tcp6?:.*interface=(127\.|localhost\b|\\?:\\?:1\b)").match

#: Whether an endpoint is a UNIX socket that systemd has made: ``systemd:domain=UNIX:name=lmtp``.
is_unix_socket_of_systemd = re.compile(r"systemd:(.*:)?(domain=)?UNIX(:|$)").match


def listener(words: str, reactor: Any, *, for_smtp: bool = False) -> Listener:
    """
    The endpoint that *words* ask for, and on what terms: ``proxied:tcp:24``.  It is one for LMTP,
    unless *for_smtp*.

    Raises:
        ValueError: There is none, or LMTP must not be there.
    """
    said, endpoint = split_terms(words)
    terms = Terms(
        tls_required="tls-required" in said,
        login_required="login-required" in said,
        proxied="proxied" in said,
    )
    if terms.proxied:
        reactor = ProxiedReactor(reactor)
    # Said before anything is touched; what other endpoints turn out to be is looked at later.
    if not for_smtp and re.match(rf"(tcp6?|ssl|tls):(.*:)?(port=)?{SMTP_PORT}(:|$)", endpoint):
        raise ValueError(
            f"{words}: LMTP must not be on port 25 (RFC 2033); take 24, or a UNIX socket"
        )
    if is_unix_socket_of_systemd(endpoint):
        # Twisted takes such a socket for one of its own: it makes it writable for everybody, and
        # removes it at the end.
        raise ValueError(
            f"{words}: a UNIX socket of systemd's would be opened to everybody; let it be made"
            " here: unix:/run/lmtp.sock:mode=660"
        )
    if number := re.match(r"tls:([0-9]+)(:|$)", endpoint):
        # For Twisted that is a directory of certificates, and the port is 443.
        raise ValueError(f"{words}: a port stands behind tcp:, write tls:tcp:{number[1]}")
    if "tls" in said and endpoint.startswith("ssl:"):
        raise ValueError(f"{words}: there is TLS in ssl: already; take one of the two")
    try:
        return Listener(words, serverFromString(reactor, endpoint), terms, "tls" in said)
    except Exception as error:
        # What an endpoint's parser raises is not documented, and a mistake of the operator's.
        raise ValueError(
            f"{words}: not an endpoint ({error}); write tcp:24:interface=127.0.0.1 or"
            " unix:/run/lmtp.sock:mode=660"
        ) from error


def needs_certificate(words: str) -> bool:
    """
    Whether nobody could do anything at the endpoint *words* if the service had no certificate.
    """
    terms, endpoint = split_terms(words)
    return "tls" in terms or ("tls-required" in terms and not endpoint.startswith("ssl:"))


def reachable_from_elsewhere(listen: Iterable[str]) -> str | None:
    """
    The first of the endpoints *listen* that not only this machine can connect to.
    """
    return next((words for words in listen if _loopback(split_terms(words)[1]) is None), None)
