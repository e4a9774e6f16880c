"""
Servers that run for one measurement, and what they take: processor time and memory.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import frozen

SECONDS_TO_START = 20.0
SECONDS_TO_STOP = 30.0
_TICKS = os.sysconf("SC_CLK_TCK")


class StartError(Exception):
    """
    A server does not start; the text has what it said.
    """


@frozen
class Usage:
    """
    Of some processes and all below them: seconds of processor time, ended children included; the sum of the
    peaks of resident memory, and the share of memory that is theirs now (PSS), in MB.
    """

    cpu: float
    peak: float
    shared: float
    processes: int


def tree(pid: int) -> Iterator[int]:
    """
    A process and all below it.
    """
    yield pid
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from tree(int(child))


def trees(pids: Iterable[int]) -> list[int]:
    """
    Some processes and all below them.
    """
    return [each for pid in pids for each in tree(pid)]


def cpu_of(pids: Iterable[int]) -> float:
    """
    Seconds of processor time, by some processes and all below them.
    """
    total = 0
    for each in trees(pids):
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15]))
    return total / _TICKS


def usage(pids: Sequence[int]) -> Usage:
    """
    What some processes and all below them have taken so far.
    """
    all_of_it = trees(pids)
    return Usage(
        cpu_of(pids),
        sum(_megabytes(each, "status", "VmHWM:") for each in all_of_it),
        sum(_megabytes(each, "smaps_rollup", "Pss:") for each in all_of_it),
        len(all_of_it),
    )


def forget_peaks(pids: Iterable[int]) -> None:
    """
    Let the peaks of memory count from now on.
    """
    for each in trees(pids):
        with suppress(OSError):
            Path(f"/proc/{each}/clear_refs").write_text("5")


def _megabytes(pid: int, file: str, key: str) -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1]) / 1024
    return 0.0


def free_port() -> int:
    """
    A port of this machine on which nobody listens.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def running(
    command: Sequence[str], port: int, log: Path, environment: dict[str, str]
) -> Iterator[int]:
    """
    A server that greets on *port*; gives its process number.

    Raises:
        StartError: It does not.
    """
    with log.open("wb") as out:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, **environment},
            cwd=log.parent,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + SECONDS_TO_START
        while not _greets(port):
            if server.poll() is not None or time.monotonic() > deadline:
                raise StartError(f"{' '.join(command)}\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)
        yield server.pid
    finally:
        _stop(server)


def _greets(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as probe:
        return probe.recv(3) == b"220"
    return False


def _stop(server: subprocess.Popen[bytes]) -> None:
    """
    End a server and what it has started.
    """
    server.terminate()
    try:
        server.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        pass
    # What it has left behind is in its process group.
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
