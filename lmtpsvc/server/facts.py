"""
What is known of a connection when it has just been made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import ISSLTransport

from ..envelope import UNKNOWN_HOST
from ..session.connection import Connection, Terms
from ..wire.proxy_header import ProxyHeader
from .direct import DirectConnection
from .peer_uid import peer_uid

if TYPE_CHECKING:
    from .factory import LMTPFactory


def first_facts(
    transport: Any, factory: LMTPFactory, terms: Terms, told: ProxyHeader | None
) -> Connection:
    """
    Who is at the other end of *transport*, and how it may go on there: as the kernel has it, or as a
    proxy in front has *told* before anything else.
    """
    if isinstance(transport, DirectConnection):
        (host, port), tls = transport.host_and_port(), False
    else:
        peer = transport.getPeer()
        host, port = getattr(peer, "host", "local"), getattr(peer, "port", None)
        tls = ISSLTransport.providedBy(transport)
    uid = peer_uid(transport) if host == "local" else None
    identifier = ""
    if told is not None and not told.is_own:
        # It is not the proxy that talks to us now.
        host, port = told.host or UNKNOWN_HOST, told.port
        tls, identifier, uid = tls or told.tls, told.identifier, None
    return Connection(
        host,
        port,
        tls=tls,
        offers_tls=factory.tls is not None and not tls,
        uid=uid,
        is_trusted=factory.trusts(host),
        terms=terms,
        session=identifier,
    )
