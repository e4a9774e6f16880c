"""
Name servers, and a machine that has no more sockets.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.names.client import Resolver
from twisted.names.dns import Message
from twisted.python.failure import Failure

from lmtpsvc.wiring.resolver import SystemResolver


class Machine(MemoryReactorClock):
    """
    A reactor that has no socket, and counts how often it was asked for one.
    """

    asked = 0

    def listenUDP(self, *_words: object, **_more: object) -> Any:
        self.asked += 1
        raise CannotListenError("", 0, OSError(errno.EMFILE, "Too many open files"))


def test_no_sockets(tmp_path: Path, failure_of: Callable[..., Failure]) -> None:
    """
    Who asks for a name when there are no sockets is told so, and so is who asks for it again.
    """
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 192.0.2.1\n")
    machine = Machine()
    resolver = SystemResolver(machine, str(path))

    for count in (1, 2):
        failure_of(resolver.lookupMailExchange("example.org"), CannotListenError)
        assert machine.asked == count


def test_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure_of: Callable[..., Failure]
) -> None:
    """
    An answer that is cut off is asked for over TCP, once.
    """
    asked: list[str] = []

    def cut_off(kind: str) -> Any:
        def query(_self: object, queries: Any, _timeout: object = None) -> Deferred[Message]:
            asked.append(kind)
            message = Message(trunc=1)
            message.queries = queries
            return succeed(message)

        return query

    monkeypatch.setattr(Resolver, "queryUDP", cut_off("UDP"))
    monkeypatch.setattr(Resolver, "queryTCP", cut_off("TCP"))
    resolver = SystemResolver(MemoryReactorClock(), str(tmp_path / "none"))

    failure_of(resolver.lookupMailExchange("example.org"), OSError)
    assert asked == ["UDP", "TCP"]
