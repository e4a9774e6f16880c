"""
SIGHUP: who gets it, and for how long.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.logger import LogEvent

from lmtpsvc.server.hangup import Hangup


class Reactor:
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def callFromThread(self, function: Any) -> None:
        self.calls.append(function)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """
    Whatever a test does, a terminal that goes away ends the tests.
    """
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def reactor() -> Reactor:
    return Reactor()


def heed() -> None: ...


class TestHangup:
    @pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN])
    def test_heeded(self, before: Any, reactor: Reactor) -> None:
        """
        While it runs, each signal is a call in the reactor; afterwards all is as before.
        """
        signal.signal(signal.SIGHUP, before)
        hangup = Hangup(reactor, heed)

        hangup.startService()
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        hangup.stopService()

        assert [heed, heed] == reactor.calls
        assert before == signal.getsignal(signal.SIGHUP)

    def test_somebody_elses(self, reactor: Reactor, logged: list[LogEvent]) -> None:
        """
        A program that has a use for SIGHUP keeps it.
        """
        theirs: list[int] = []
        signal.signal(signal.SIGHUP, lambda number, _: theirs.append(number))
        hangup = Hangup(reactor, heed)

        hangup.startService()
        os.kill(os.getpid(), signal.SIGHUP)
        hangup.stopService()
        os.kill(os.getpid(), signal.SIGHUP)

        assert [signal.SIGHUP] * 2 == theirs
        assert [] == reactor.calls
        assert 1 == len(logged)

    def test_taken_away(self, reactor: Reactor) -> None:
        """
        Who takes it while this runs keeps it, too.
        """
        hangup = Hangup(reactor, heed)
        hangup.startService()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

        hangup.stopService()

        assert signal.SIG_IGN == signal.getsignal(signal.SIGHUP)

    def test_other_thread(self, reactor: Reactor, logged: list[LogEvent]) -> None:
        """
        In a thread that is not the main one, there are no signals, and that is no error.
        """
        before = signal.getsignal(signal.SIGHUP)

        def run() -> None:
            hangup = Hangup(reactor, heed)
            hangup.startService()
            hangup.stopService()

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()

        assert "main thread" in logged[0]["log_format"]
        assert before == signal.getsignal(signal.SIGHUP)

    def test_held_back(self, reactor: Reactor) -> None:
        """
        One that a worker got on its way is heeded once there is somebody.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        # To this thread: others in the process of the tests do not hold it back.
        signal.pthread_kill(threading.get_ident(), signal.SIGHUP)
        hangup = Hangup(reactor, heed)

        hangup.startService()
        hangup.stopService()

        assert [heed] == reactor.calls
