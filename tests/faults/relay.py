"""
A relay that delivers from a queue to one LMTP server, in a hurry: ``relay.py QUEUE SOCKET``.
"""

from __future__ import annotations

import sys

from twisted.internet import reactor
from twisted.logger import globalLogBeginner, textFileLogObserver

from lmtpsvc.client import TLS, Dialect
from lmtpsvc.relay.delivering import Deliverer, Rates
from lmtpsvc.relay.queue import Queue
from lmtpsvc.relay.routes import ConfiguredRoutes, Hop, to_hops
from lmtpsvc.relay.schedule import Schedule

#: Seconds after which a relay that was killed is succeeded.
LEASE = 2.0


def main(queue_url: str, socket: str) -> None:
    """
    Deliver until somebody makes an end of it.
    """
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    queue = Queue.at(queue_url, reactor, lease=LEASE)
    queue.privilegedStartService()
    queue.startService()
    route = to_hops([Hop(f"unix:{socket}", Dialect.LMTP, TLS.NONE)])
    deliverer = Deliverer(
        queue,
        ConfiguredRoutes([], route),
        reactor,
        hostname="relay.example.net",
        schedule=Schedule((0.2,), give_up=600.0),
        rates=Rates(poll=0.1, retry=0.2),
    )
    deliverer.startService()
    reactor.addSystemEventTrigger("before", "shutdown", deliverer.stopService)
    reactor.addSystemEventTrigger("during", "shutdown", queue.stopService)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
