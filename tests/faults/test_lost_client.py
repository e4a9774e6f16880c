"""
Clients that are gone before they have said, or heard, everything.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from lmtpsvc.testing.load import PATIENCE

from .client import Connection
from .messages import KIB, Ledger, compose
from .service import Service, wait_until
from .store import inspect, leftovers, messages
from .test_full_disk import THREE, clean


def hang_up(connection: Connection, *, rudely: bool) -> None:
    """
    Close the connection; *rudely* with a reset, as when the client's machine forgets it.
    """
    if rudely:
        linger = struct.pack("ii", 1, 0)
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    connection.close()


@pytest.mark.parametrize("rudely", [False, True])
def test_within_the_text(
    directory: Path, service: Callable[..., Service], port: int, rudely: bool
) -> None:
    """
    Of half a message nothing is delivered, and no spool file is left.
    """
    root = directory / "mail"
    running = service(root, port=port)
    message = compose(Random(0), THREE, 900 * KIB)
    for share in (0.0, 0.01, 0.6, 1.0):
        connection = running.connection()
        _, data = connection.begin(message.recipients)
        assert data.code == 354
        # All but the dot, at most.
        part = message.stuffed[: int(share * (len(message.stuffed) - 3))]
        connection.send(part)
        if len(part) > 256 * KIB:
            wait_until(lambda: running.open_files(root), PATIENCE, "it is spooled in a file")
        hang_up(connection, rudely=rudely)
        clean(running)

    ledger = Ledger()
    with running.connection() as connection:
        replies = connection.deliver(message, ledger)
    assert [250] * 3 == [reply.code for reply in replies]
    assert inspect(root, ledger).harm == []
    assert len(messages(root)) == 3
    assert "Traceback" not in running.log


@pytest.mark.parametrize("rudely", [False, True])
def test_before_the_replies(
    directory: Path, service: Callable[..., Service], port: int, rudely: bool
) -> None:
    """
    A client that does not wait for its replies may or may not be delivered for: whole, or not.

    Nothing is left in ``tmp``, nothing crashes, and the next client is served.
    """
    root = directory / "mail"
    running = service(root, port=port)
    ledger = Ledger()
    for n in range(20):
        message = compose(Random(n), THREE, 1000 if n % 3 else 400 * KIB)
        ledger.will_send(message)
        connection = running.connection()
        connection.begin(message.recipients)
        connection.send(message.stuffed)
        hang_up(connection, rudely=rudely)
    with running.connection() as connection:
        replies = connection.deliver(compose(Random(20), THREE, 1000), ledger)
    assert [250] * 3 == [reply.code for reply in replies]
    clean(running)
    assert leftovers(root) == []
    assert inspect(root, ledger).harm == []
    assert "Traceback" not in running.log
