"""
Connecting, with the patience that TCP has by itself.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

#: Seconds until a UNIX socket is asked once more; twice as many each time.
FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 1.0


def connect(
    endpoint: IStreamClientEndpoint, factory: IProtocolFactory, clock: Any
) -> Deferred[IProtocol]:
    """
    As *endpoint* connects; where too many wait for a server on a UNIX socket, until it takes us, or
    whoever has called cancels: TCP would say its SYN again.
    """
    return Deferred.fromCoroutine(_connect(endpoint, factory, clock))


async def _connect(
    endpoint: IStreamClientEndpoint, factory: IProtocolFactory, clock: Any
) -> IProtocol:
    pause = FIRST_PAUSE
    while True:
        try:
            return await endpoint.connect(factory)
        except ConnectError as error:
            if not _is_crowded(error):
                raise
        await deferLater(clock, pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def _is_crowded(error: ConnectError) -> bool:
    """
    So Twisted tells of EAGAIN, which it takes for a connection that will be there soon: that it was
    lost.
    """
    return isinstance(error.args[0], Failure)
