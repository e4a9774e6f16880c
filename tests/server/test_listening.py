"""
The queue of those who wait to be accepted.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped]  # it has no types
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory

from lmtpsvc.server.listening import Listener, Listening

CLIENTS = 100

in_reactor: Callable[[Callable[..., Any]], Callable[..., Any]] = pytest_twisted.ensureDeferred


def knock(path: Path, clients: int) -> None:
    """
    Connect so many clients while nobody accepts; the kernel refuses at once when the queue is full.
    """
    with ExitStack() as connections:
        for _ in range(clients):
            client = connections.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect(str(path))


async def stop(listening: Listening) -> None:
    """
    Close what it listens on, as the service does when it stops.
    """
    await listening._stop_listening()


@in_reactor
async def test_a_burst_finds_room(tmp_path: Path) -> None:
    """
    A hundred clients that come while the service is busy are queued, and not put off for a second.
    """
    words = f"unix:{tmp_path}/socket"
    listening = Listening([Listener(words, serverFromString(reactor, words))], Factory())
    listening.startService()

    knock(tmp_path / "socket", CLIENTS)

    await stop(listening)


@in_reactor
async def test_the_operator_decides(tmp_path: Path) -> None:
    """
    A queue length that stands in the endpoint is kept.
    """
    words = f"unix:{tmp_path}/socket:backlog=3"
    listening = Listening([Listener(words, serverFromString(reactor, words))], Factory())
    listening.startService()

    with pytest.raises(BlockingIOError):
        knock(tmp_path / "socket", CLIENTS)

    await stop(listening)
