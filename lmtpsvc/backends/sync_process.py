"""
A process that waits for the disk.

A thread that waits needs the interpreter's lock before and after, of the reactor thread, which has
it whenever there is something to do: each time, both stop and are woken by the kernel.  With fifty
sessions that was a fifth of all processor time.  A process has a lock of its own.

There is one, started when it is first missed, and it waits for one file system at a time.  Whatever
it does not do, because it waits already, has ended, or cannot be started, threads do.
"""

from __future__ import annotations

import errno
import math
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from .file_systems import FileSystem
from .pool import Pool

_log = Logger()

#: What the process runs.
PROGRAM: Final = Path(__file__).with_name("disk_waiter.py")

#: After one has ended by itself, or could not be started, so many seconds go by without.
PAUSE: Final = 60.0

#: A process that has not answered for so many seconds is ended: if the disk hangs, that changes
#: nothing; if somebody has stopped the process, nobody would ever hear of it.
PATIENCE: Final = 10.0

#: What is told of a wait that is over: what has gone wrong, if anything has.
Ended = Callable[[Exception | None], object]

_ANSWER: Final = struct.Struct("i")


@implementer(IReadDescriptor)
class SyncProcess:
    """
    The process, and the socket to it; all in the thread of *reactor*.  Only its start and its end,
    which wait, are left to *pool*.
    """

    def __init__(self, reactor: Any, pool: Pool) -> None:
        self._reactor, self._pool = reactor, pool
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._is_starting = False
        # It has said that it runs.
        self._is_ready = False
        self._not_before = -math.inf
        # Who is to be told of the wait that is on.
        self._ended: Ended | None = None
        # How many there have been; and who looks, now and then, whether one does not end.
        self._count = 0
        self._watch: IDelayedCall | None = None

    def wait(self, file_system: FileSystem, *, finally_: bool, ended: Ended) -> bool:
        """
        Wait until the disk has all that was written so far, as `FileSystem.sync` does, and call
        *ended* then, in the reactor thread; False if the process is not there to wait.
        """
        if self._socket is None:
            self._start()
            return False
        if not self._is_ready or self._ended is not None:
            return False
        request = b"f" if file_system.needs_fsync(finally_=finally_) else b"s"
        try:
            socket.send_fds(self._socket, [request], [file_system.fileno()])
        except OSError:
            # If it has ended, the socket tells so in a moment.
            return False
        self._ended = ended
        self._count += 1
        if self._watch is None:
            self._watch = self._reactor.callLater(PATIENCE, self._look, self._count)
        return True

    def stop(self) -> None:
        """
        Have it end; the pool can be stopped then, and ends behind it.
        """
        self._not_before = math.inf
        self._let_go()

    # ── its beginning and its end ────────────────────────────────────────────────────────────────

    def _start(self) -> None:
        if not self._is_starting and self._reactor.seconds() >= self._not_before:
            self._is_starting = True
            self._pool.run(self._start_one)

    def _start_one(self) -> None:
        """
        In a worker thread.
        """
        try:
            ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with its:
                try:
                    process = _started(its)
                except BaseException:
                    ours.close()
                    raise
        except Exception as error:
            # Or there is no Python that could be named: `sys.executable` may be None.
            self._pool.post(self._has_not_started, error)
        else:
            self._pool.post(self._has_started, process, ours)

    def _has_started(self, process: subprocess.Popen[bytes], ours: socket.socket) -> None:
        self._is_starting = False
        ours.setblocking(False)
        self._process, self._socket = process, ours
        self._reactor.addReader(self)
        if self._not_before == math.inf:
            # Nobody wants it any more.
            self._let_go()

    def _has_not_started(self, error: Exception) -> None:
        self._is_starting = False
        self._rest("no process that waits for the disk can be started: {error}", error=error)

    def _rest(self, why: str, **values: object) -> None:
        """
        Do without it for a while.
        """
        self._not_before = max(self._not_before, self._reactor.seconds() + PAUSE)
        _log.warn(why + "; threads do it", **values)

    def _let_go(self) -> None:
        """
        End the process; nobody wants anything of it any more.
        """
        process, ours = self._process, self._socket
        self._process = self._socket = None
        self._is_ready = False
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if process is not None and ours is not None:
            self._reactor.removeReader(self)
            ours.close()
            # It ends by itself then, but not if it has been stopped.
            process.kill()
            self._pool.run(process.wait)

    def _look(self, count: int) -> None:
        """
        End the process if the wait that was the last, *count*, is not over: its socket tells when it
        has ended.
        """
        self._watch = None
        if self._ended is None or self._process is None:
            return
        if self._count == count:
            self._process.kill()
        else:
            self._watch = self._reactor.callLater(PATIENCE, self._look, self._count)

    # ── what the reactor calls ───────────────────────────────────────────────────────────────────

    def fileno(self) -> int:
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        return "SyncProcess"

    def doRead(self) -> None:
        """
        It has answered, or ended.
        """
        if self._socket is None:
            return
        try:
            answer = self._socket.recv(_ANSWER.size)
        except BlockingIOError:
            return
        except OSError:
            answer = b""
        if not answer:
            self._has_ended()
        elif self._is_ready:
            (number,) = _ANSWER.unpack(answer)
            self._tell(OSError(number, os.strerror(number)) if number else None)
        else:
            self._is_ready = True

    def connectionLost(self, reason: Failure) -> None:
        """
        The reactor has let go of it, at its end.
        """
        self.stop()
        self._tell_of_end()

    def _has_ended(self) -> None:
        self._rest("the process that waits for the disk has ended")
        self._let_go()
        self._tell_of_end()

    def _tell_of_end(self) -> None:
        # Whether the disk has what it was waiting for, nobody knows.
        self._tell(OSError(errno.EIO, "the process that waits for the disk has ended"))

    def _tell(self, error: Exception | None) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            try:
                ended(error)
            except Exception:
                _log.failure("the end of a wait was not taken")


def _started(its: socket.socket) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own program
        # Without any package: what it does not know takes no memory.
        [sys.executable, "-I", "-S", os.fspath(PROGRAM)],
        stdin=its.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # It keeps no disk from being unmounted.
        cwd="/",
    )
