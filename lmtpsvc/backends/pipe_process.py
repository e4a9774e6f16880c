"""
One command: started without a shell, given a file to read, and ended when its time is up.

All of it waits, in a worker thread.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from tempfile import TemporaryFile
from typing import BinaryIO, Final, Self

from attrs import frozen

from .files import CHUNK
from .pipe_settings import Account

#: Seconds between the request to end, and the end.
GRACE: Final = 2.0
#: How often to look where the kernel does not tell that a process has ended.
_LOOK: Final = 0.05

#: Those that could not be ended, until they have ended by themselves and the kernel can forget them.
#: `subprocess` would see to that, too, but warns of each.
_living: Final[list[subprocess.Popen[bytes]]] = []


@frozen
class Ended:
    """
    How a command has ended: with an exit *status*, or by a signal, which is a negative one.
    """

    status: int
    #: The first of what it said, on standard output and error.
    output: bytes
    #: It was ended because its time was up.
    out_of_time: bool = False


def run(
    words: Sequence[str],
    text: BinaryIO,
    environment: Mapping[str, str],
    account: Account | None,
    timeout: float,
    most_output: int,
) -> Ended:
    """
    Run *words*, with *text* as its standard input, for *timeout* seconds at most; of what it says,
    *most_output* octets are kept.  It is the leader of a session of its own, so that all it has
    started can be ended with it.

    Raises:
        OSError: It cannot be started.
    """
    _forget_the_dead()
    # First all that is needed to hear of it: what runs already could not be called off.
    with _readable(text) as source, selectors.DefaultSelector() as selector:
        process = subprocess.Popen(  # noqa: S603 - the operator's own words, and no shell
            list(words),
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=dict(environment),
            start_new_session=True,
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else account.groups,
        )
        source.close()
        assert process.stdout is not None, "asked for above"
        with process.stdout, _Listening(process, selector, most_output) as listening:
            if listening.until(time.monotonic() + timeout):
                return Ended(process.wait(), listening.output)
            for number in (signal.SIGTERM, signal.SIGKILL):
                _tell(process, number)
                if listening.until(time.monotonic() + GRACE):
                    break
            else:
                # It is of a user that is not ours to end, or the kernel has it.
                _living.append(process)
            return Ended(process.returncode or 0, listening.output, out_of_time=True)


class _Listening:
    """
    Reads what a process says until it ends.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], selector: selectors.BaseSelector, most: int
    ) -> None:
        self._process, self._selector, self._most = process, selector, most
        self.output = b""
        assert process.stdout is not None, "it is a pipe"
        self._pipe = process.stdout.fileno()
        os.set_blocking(self._pipe, False)
        self._selector.register(self._pipe, selectors.EVENT_READ)
        # Readable once the process has ended; what it has started may still hold the pipe.
        self._ending: int | None = None
        with suppress(OSError, AttributeError):
            self._ending = os.pidfd_open(process.pid)
            self._selector.register(self._ending, selectors.EVENT_READ)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._ending is not None:
            os.close(self._ending)

    def until(self, when: float) -> bool:
        """
        Wait for the end, but not longer than to *when*; whether it has ended.
        """
        while self._process.poll() is None:
            left = when - time.monotonic()
            if left <= 0:
                return False
            for key, _ in self._selector.select(left if self._ending is not None else _LOOK):
                if key.fd == self._pipe:
                    self._read()
        self._read()
        return True

    def _read(self) -> None:
        """
        Take what is there: all of it, so that the process need not wait, and keep the beginning.
        """
        with suppress(BlockingIOError):
            while octets := os.read(self._pipe, CHUNK):
                self.output += octets[: self._most - len(self.output)]
                if self._process.poll() is not None and len(self.output) >= self._most:
                    return
            # It has closed it.
            with suppress(KeyError):
                self._selector.unregister(self._pipe)


def _tell(process: subprocess.Popen[bytes], number: int) -> None:
    """
    Send a signal to the process and what it has started, as far as we may.
    """
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _forget_the_dead() -> None:
    for process in tuple(_living):
        if process.poll() is not None:
            # Another thread may do the same.
            with suppress(ValueError):
                _living.remove(process)


def _readable(text: BinaryIO) -> BinaryIO:
    """
    *text* as a file of the system, at its beginning: no pipe that somebody would have to fill.
    """
    with suppress(OSError, AttributeError):
        text.fileno()
        return text
    with text:
        copy = TemporaryFile()  # noqa: SIM115 - whoever asked closes it
        try:
            while chunk := text.read(CHUNK):
                copy.write(chunk)
            copy.flush()
            copy.seek(0)
        except BaseException:
            copy.close()
            raise
    return copy
