"""
The start of a process that runs `disk_writer`, and what it shares with the service: sockets and memory.
"""

from __future__ import annotations

import mmap
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from attrs import frozen

#: Where the process finds this package.
_PACKAGES: Final = os.fspath(Path(__file__).parents[2])

#: What the process runs: the words are where the package is, the descriptor of the shared memory, and
#: how large that is.
_RUN: Final = (
    "import sys;"
    "sys.path.append(sys.argv[1]);"
    "from lmtpsvc.backends.disk_writer import main;"
    "main(*map(int, sys.argv[2:]))"
)

#: The program with its first words: without any package but ours, as others take memory.  Of what is
#: in the environment it hears nothing, but paths must mean the same to both.
PROGRAM: Final = ("-I", "-S", "-X", f"utf8={sys.flags.utf8_mode}", "-c", _RUN, _PACKAGES)

#: Rooms in the shared memory: so many octets each, and so many of them.
ROOMS: Final = ((1 << 14, 64), (1 << 18, 16))

#: Octets of the shared memory.
SIZE: Final = sum(size * count for size, count in ROOMS)

#: Of what the process has said at its end, so many octets are read.
_LAST_WORDS: Final = 4096


@frozen(eq=False)
class Room:
    """
    Room for one message.
    """

    begin: int
    #: Where it goes when it is free again.
    free: list[Room]


@frozen(eq=False)
class Started:
    """
    A process that has been started; `close` lets go of all of it.
    """

    process: subprocess.Popen[bytes]
    #: To it; the other end of that, from which unread letters can be taken back; and from it.
    letters: socket.socket
    unread: socket.socket
    answers: socket.socket
    shared: mmap.mmap
    #: What is free of the shared memory, the smallest first: how large, and those that are so.
    free: list[tuple[int, list[Room]]]
    #: The descriptor of a file in memory, to which it writes its standard error.
    words: int

    def last_words(self) -> str:
        """
        The last line of what it has said: of a traceback, that is what has gone wrong.
        """
        size = os.fstat(self.words).st_size
        octets = os.pread(self.words, _LAST_WORDS, max(size - _LAST_WORDS, 0))
        lines = octets.decode("utf-8", "backslashreplace").strip().splitlines()
        return lines[-1] if lines else ""

    def close(self) -> None:
        """
        Close all that leads to it, and end it; somebody has to wait for the process.
        """
        for each in (self.letters, self.unread, self.answers, self.shared):
            each.close()
        os.close(self.words)
        # It ends by itself then, but not if it has been stopped.
        self.process.kill()


def start() -> Started:
    """
    Start a process; this waits.

    Raises:
        OSError: It cannot be started.
        TypeError: There is no Python that could be named: `sys.executable` may be None.
    """
    # What only the process has when it runs; and what the service has, which is closed if it does not.
    with ExitStack() as theirs, ExitStack() as ours:
        letters, unread = _pair()
        ours.callback(letters.close)
        ours.callback(unread.close)
        answers, its_answers = _pair()
        ours.callback(answers.close)
        theirs.callback(its_answers.close)
        words = os.memfd_create("lmtpsvc-words", os.MFD_CLOEXEC)
        ours.callback(os.close, words)
        memory = os.memfd_create("lmtpsvc", os.MFD_CLOEXEC)
        theirs.callback(os.close, memory)
        os.ftruncate(memory, SIZE)
        shared = ours.enter_context(mmap.mmap(memory, SIZE))
        process = _run(unread, its_answers, words, memory)
        ours.pop_all()
    letters.setblocking(False)
    answers.setblocking(False)
    return Started(process, letters, unread, answers, shared, _rooms(), words)


def _pair() -> tuple[socket.socket, socket.socket]:
    # What is sent in one piece is received in one piece.
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _run(
    letters: socket.socket, answers: socket.socket, words: int, memory: int
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, *PROGRAM, str(memory), str(SIZE)],
        stdin=letters.fileno(),
        stdout=answers.fileno(),
        stderr=words,
        pass_fds=[memory],
        # It keeps no disk from being unmounted.
        cwd="/",
    )


def _rooms() -> list[tuple[int, list[Room]]]:
    """
    The whole of the shared memory, see `Started.free`.
    """
    found: list[tuple[int, list[Room]]] = []
    begin = 0
    for size, count in ROOMS:
        free: list[Room] = []
        # The one that was used last is used next: it is in the processor's caches.
        free += [Room(begin + size * number, free) for number in reversed(range(count))]
        found.append((size, free))
        begin += size * count
    return found
