"""
A reactor in a thread of its own, for tests that have none.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

from twisted.internet.pollreactor import PollReactor


class _OwnReactor(PollReactor):
    """
    One beside that of the process, which may be running in another thread.
    """

    #: Which thread is *the* reactor's, is told of that of the process.
    _registerAsIOThread = False


@cache
def reactor_in_thread() -> Any:
    """
    The one reactor of this kind; it is started now if nobody has asked for it yet, and never stopped:
    its thread ends with the process.
    """
    reactor = _OwnReactor()
    running = threading.Event()
    reactor.callWhenRunning(running.set)
    threading.Thread(
        target=reactor.run, args=(False,), name="lmtpsvc.testing reactor", daemon=True
    ).start()
    running.wait()
    return reactor
