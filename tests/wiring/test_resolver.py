"""
Name servers, and a machine that has no more sockets.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
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
