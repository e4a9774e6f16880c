"""
One server, one load: start it on an empty store, warm it up, send, and look for what it has accepted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import evolve, field, frozen

from .client import Client, LoadError, Sent, to_port
from .ledger import Ledger
from .place import LARGE, Place, empty
from .processes import cpu_of, forget_peaks, free_port, running, usage
from .runs import Idle, Run
from .servers import Server
from .workloads import KB, USERS, Workload

#: How long an idle machine has to settle, in seconds, before memory is read.
_SETTLING = 0.5
_TICKS = os.sysconf("SC_CLK_TCK")


@frozen
class Stock:
    """
    A store, and the ledger of what was put into it.
    """

    store: Path
    ledger: Ledger = field(factory=Ledger)


@frozen
class Running:
    """
    A server that runs, as some processes, on *store*; its *ledger* has what it has acknowledged.
    """

    server: Server
    store: Path
    port: int
    pids: Sequence[int]
    ledger: Ledger = field(factory=Ledger)


@contextmanager
def started(
    server: Server, place: Place, stock: Stock | None = None, *, look_up: bool = True
) -> Iterator[Running]:
    """
    Run a server on a store, which is empty if none is given; in the end, look there for all that it
    has acknowledged, unless the mail is not ours.

    Raises:
        StartError: It does not start.
        LoadError: Something is missing, or damaged, or nobody was told of it.
    """
    work = place.fresh()
    if stock is None:
        stock = Stock(work / "mail")
        stock.store.mkdir()
    port = free_port()
    command = server.command(work, stock.store, port)
    with running(command, port, work / "out", server.environment) as pid:
        yield Running(server, stock.store, port, [pid], stock.ledger)
    if server.keeps and look_up:
        findings = stock.ledger.compare(stock.store)
        if not findings.good:
            raise LoadError(f"{server.name} has lost or spoiled mail: {findings}")
    if stock.ledger.largest >= LARGE:
        empty(stock.store)


def warm(here: Running, workload: Workload) -> None:
    """
    Have the mailboxes made, and the processes, that the workload will use.
    """
    users = workload.users if len(workload.users) <= len(USERS) else USERS
    send_to_all(here, evolve(workload, users=users, octets=KB, reconnect=False))


def send_to_all(here: Running, workload: Workload) -> None:
    """
    A message for each of the users of a workload.
    """
    client = Client(to_port(here.port), workload, here.ledger)
    try:
        client.open()
        client.send_to_all()
    finally:
        client.close()


def timed(here: Running, workload: Workload, seconds: float, point: str) -> Run:
    """
    Send for so long.

    Raises:
        LoadError: The server did what makes a measurement worthless.
    """
    client = Client(to_port(here.port), workload, here.ledger)
    try:
        client.open()
        with watched(here) as watch:
            sent = client.send(seconds)
    finally:
        client.close()
    return watch.run(workload, sent, point)


class Watch:
    """
    What a server and its machine do for a while.
    """

    def __init__(self, here: Running) -> None:
        self._here = here
        forget_peaks(here.pids)
        self._begun = time.monotonic()
        self._busy = _machine_busy()
        self._cpu = cpu_of(here.pids)

    def end(self) -> None:
        """
        Take the sums.
        """
        self._elapsed = time.monotonic() - self._begun
        self._busy = _machine_busy() - self._busy
        self._usage = usage(self._here.pids)
        self._cpu = self._usage.cpu - self._cpu

    def run(self, workload: Workload, sent: Sent, point: str) -> Run:
        """
        What all of it comes to.
        """
        if not sent.deliveries:
            raise LoadError(f"nothing was delivered: {dict(sent.refused)}")
        latencies = sorted(sent.latencies)
        others = (self._busy - self._cpu - sent.cpu) / self._elapsed / (os.cpu_count() or 1)
        return Run(
            server=self._here.server.name,
            point=point,
            messages=sent.messages,
            deliveries=sent.deliveries,
            octets=workload.octets,
            seconds=sent.seconds,
            cpu=self._cpu,
            peak=self._usage.peak,
            memory=self._usage.shared,
            half=quantile(latencies, 0.5),
            late=quantile(latencies, 0.99),
            client=sent.cpu,
            others=max(others, 0.0),
            refused=sum(sent.refused.values()),
        )


@contextmanager
def watched(here: Running) -> Iterator[Watch]:
    """
    Watch a server while something is done to it.
    """
    watch = Watch(here)
    yield watch
    watch.end()


def quantile(latencies: list[float], share: float) -> float | None:
    """
    The latency below which this share of all, which are sorted, remain.
    """
    return latencies[min(int(len(latencies) * share), len(latencies) - 1)] if latencies else None


def idle(server: Server, place: Place, connections: int) -> Idle:
    """
    What so many connections cost that have said LHLO and nothing more.
    """
    workload = Workload(f"{connections} idle connections", sessions=10)
    with started(server, place) as here:
        # What is made for the first connection, or the first message, is not made for each.
        send_to_all(here, evolve(workload, octets=KB, users=range(100)))
        client = Client(to_port(here.port), workload, here.ledger)
        try:
            time.sleep(_SETTLING)
            before = usage(here.pids).shared
            client.open(connections)
            time.sleep(_SETTLING)
            after = usage(here.pids).shared
        finally:
            client.close()
    return Idle(server.name, connections, (after - before) * 1024 / connections)


def measure(server: Server, place: Place, key: str, workload: Workload, seconds: float) -> Run:
    """
    One run of the table.
    """
    with started(server, place) as here:
        warm(here, workload)
        os.sync()
        return timed(here, workload, seconds, key)


def _machine_busy() -> float:
    """
    Seconds that all processors together were busy, for us or for their host's other guests.
    """
    with open("/proc/stat") as file:
        fields = [int(word) for word in file.readline().split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / _TICKS
