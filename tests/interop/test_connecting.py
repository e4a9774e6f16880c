"""
Connecting to a server that is behind with its work.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

from twisted.internet.epollreactor import EPollReactor

from lmtpsvc.client import Client
from lmtpsvc.outgoing.connecting import LONGEST_PAUSE


def _pauses(reactor: EPollReactor) -> bool:
    """
    It is going to ask again.
    """
    now = reactor.seconds()
    return any(0 < each.getTime() - now < LONGEST_PAUSE for each in reactor.getDelayedCalls())


def test_full_backlog(tmp_path: Path) -> None:
    """
    Where too many wait at a UNIX socket, the message waits, too, until it is its turn.
    """
    path = str(tmp_path / "full.sock")
    reactor = EPollReactor()
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(0)
        stack.enter_context(socket.socket(socket.AF_UNIX)).connect(path)
        client = Client(reactor, path)
        delivery = client.send("ann@example.org", ["bob@example.org"], b"Hi\r\n")
        outcome = delivery.outcomes[0]
        while not (outcome.called or _pauses(reactor)):
            reactor.iterate(0.1)
        assert not outcome.called
        stack.enter_context(listener.accept()[0])
        listener.setblocking(False)
        connection: socket.socket | None = None
        while connection is None:
            reactor.iterate(0.1)
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                continue
        stack.enter_context(connection)
        connection.sendall(b"554 5.0.0 not you\r\n")
        connection.close()
        closed = client.close()
        while not closed.called:
            reactor.iterate(0.1)

    assert str(getattr(outcome.result, "heard", None)) == "554 5.0.0 not you"
