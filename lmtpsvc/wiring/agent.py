"""
Who receives, checks addresses and delivers: the same for every service that listens.
"""

from __future__ import annotations

import tempfile
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime

from ..config import ListeningConfig
from ..delivery.agent import DeliveryAgent
from ..delivery.routing import AddressRules, Routing
from ..delivery.spool import SpoolSettings
from ..in_thread import InThread
from ..interfaces import IBackend, IDirectory

#: Threads that write spooled files, for all agents of a service.
SPOOL_THREADS: Final = 4


def delivery_agent(
    reactor: Any,
    config: ListeningConfig,
    rules: AddressRules,
    directory: IDirectory,
    backend: IBackend,
    in_thread: InThread,
    hostname: str,
    **more: Any,
) -> DeliveryAgent:
    """
    The agent that *config* asks for, which spools with *in_thread*; *more* as `DeliveryAgent` has
    it.
    """
    limits, capabilities = config.limits, backend.capabilities
    spool = config.spool or capabilities.spool_directory or tempfile.gettempdir()
    is_kept = capabilities.links_spooled and spool == capabilities.spool_directory
    clock = IReactorTime(reactor)
    return DeliveryAgent(
        Routing(directory, backend, rules, clock, limits.lookup_seconds),
        backend,
        clock,
        hostname,
        limits,
        SpoolSettings(
            limits.spool_memory,
            spool,
            capabilities.line_ending,
            in_thread,
            is_kept=is_kept and more.get("delivered_to") != "always",
        ),
        **more,
    )
