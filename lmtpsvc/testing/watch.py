"""
Finds out whether the reactor thread is held up, without a stopwatch that a busy machine would fool.

What waits is known by name: the calls of Python's standard library that ask a disk, a network, a
database, another thread or another process, and wait for the answer.  While the watch is on, each
call of the reactor thread is looked at.  What computes for long is seen by its processor time.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from types import FrameType, TracebackType
from typing import Any, Final, Self

from twisted.internet.interfaces import IDelayedCall, IReactorTime

import twisted

_FILES: Final = (
    "open read pread readv write pwrite writev fsync fdatasync sync truncate ftruncate sendfile"
    " copy_file_range rename replace link symlink unlink remove mkdir rmdir listdir scandir stat"
    " lstat readlink access chmod chown utime system wait waitpid waitid posix_spawn fork"
)

_SOCKETS: Final = {"connect", "accept", "recv", "recv_into", "recvfrom", "send", "sendall"}

#: What waits: functions by module, methods by the module of their class.
WAITS: Final = {
    "time": {"sleep"},
    "posix": set(_FILES.split()),
    "fcntl": {"flock", "lockf"},
    "io": {"open"},
    "_io": {"open"},
    "select": {"select", "poll"},
    "_socket": {"getaddrinfo", "gethostbyname", *_SOCKETS},
    "socket": _SOCKETS,
    "_ssl": {"read", "write", "do_handshake"},
    "_sqlite3": {"connect"},
    "sqlite3": {"connect", "execute", "executemany", "executescript", "commit", "fetchall"},
    "_posixsubprocess": {"fork_exec"},
    "_queue": {"get"},
    # A lock is not waited for unless from one of these methods of threading.
    "_thread": set(),
}

_WAITING_FOR_THREADS: Final = {"wait", "join", "_wait_for_tstate_lock"}

_ROOT = os.path.dirname(twisted.__file__)
#: The reactor's own calls, which do not wait, or are what it is there for.
_REACTOR: Final = tuple(
    os.path.join(_ROOT, name)
    for name in ("internet/", "_threads/", "logger/", "protocols/", "python/log", "python/util")
)

#: Processor time that one turn of the reactor may take, in seconds; a hundred times what it should.
MOST_SECONDS: Final = 0.25


class CallWatch:
    """
    While it is entered, in the reactor thread, *waits* fills with what should not have been called.
    """

    def __init__(self) -> None:
        self.waits: list[str] = []
        self._before: Any = None

    def __enter__(self) -> Self:
        self._before = sys.getprofile()
        sys.setprofile(self._look)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        sys.setprofile(self._before)

    def _look(self, frame: FrameType, event: str, called: Any) -> None:
        if event != "c_call":
            return
        name = called.__name__
        module = called.__module__ or type(called.__self__).__module__
        if module == "_thread":
            if name != "acquire" or frame.f_code.co_name not in _WAITING_FOR_THREADS:
                return
        elif name not in WAITS.get(module, ()):
            return
        if not _is_excused(frame):
            where = "".join(traceback.format_stack(frame, 6))
            self.waits.append(f"{module.strip('_')}.{name}, from\n{where}")


class TurnWatch:
    """
    Between `start` and `stop`, measures the processor time of the longest turn of the reactor.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._tick: IDelayedCall | None = None
        self._last = 0.0
        self.longest = 0.0

    def start(self) -> None:
        """
        Begin, in the reactor thread.
        """
        self._last = time.thread_time()
        self._tick = self._clock.callLater(0, self._turn)

    def stop(self) -> None:
        """
        End; the turn that calls this counts up to here.
        """
        self._measure()
        if self._tick is not None and self._tick.active():
            self._tick.cancel()

    def _turn(self) -> None:
        self._measure()
        # Not 0: there must be time left for the threads that do the work.
        self._tick = self._clock.callLater(0.001, self._turn)

    def _measure(self) -> None:
        now = time.thread_time()
        self.longest = max(self.longest, now - self._last)
        self._last = now


def _is_excused(frame: FrameType) -> bool:
    """
    Whether the reactor itself calls, or it is a matter of Python's: imports, the start of a thread,
    the source in a traceback.
    """
    if frame.f_code.co_filename.startswith(_REACTOR):
        return True
    above: FrameType | None = frame
    while above is not None:
        code = above.f_code
        if code.co_filename.startswith("<frozen importlib") or code.co_name == "updatecache":
            return True
        if code is threading.Thread.start.__code__:
            return True
        above = above.f_back
    return False
