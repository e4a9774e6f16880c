"""
What was measured: one run, all runs of an evening, and the medians of those that belong together.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import cattrs
from attrs import define, field, frozen

T = TypeVar("T")


@frozen
class Run:
    """
    One load on one server.

    *point* is the key of a workload, or the number that grows.  *seconds* are those of the load, *cpu* those of
    processors that the server took, *client* those that the client took, *others* what the machine
    did besides, as a share of it.  *peak* and *memory* are MB, peaks summed up and shared pages
    counted once.  Latencies are seconds from the final dot to a reply; None if they are not known.
    """

    server: str
    point: str
    messages: int
    deliveries: int
    octets: int
    seconds: float
    cpu: float
    peak: float
    memory: float
    half: float | None = None
    late: float | None = None
    client: float = 0.0
    others: float = 0.0
    refused: int = 0

    @property
    def rate(self) -> float:
        """
        Deliveries per second.
        """
        return self.deliveries / self.seconds

    @property
    def message_rate(self) -> float:
        """
        Messages per second.
        """
        return self.messages / self.seconds

    @property
    def megabytes(self) -> float:
        """
        MB of mail per second.
        """
        return self.messages * self.octets / self.seconds / (1 << 20)

    @property
    def cpu_per_delivery(self) -> float:
        """
        Microseconds of processor time for each delivery.
        """
        return self.cpu / self.deliveries * 1e6

    @property
    def cpu_per_thousand(self) -> float:
        """
        Seconds of processor time for 1,000 messages.
        """
        return self.cpu / self.messages * 1e3


@frozen
class Limit:
    """
    What the disk allows for a workload: deliveries per second, synced one by one and in batches.
    """

    point: str
    one_by_one: float
    in_batches: float


@frozen
class Idle:
    """
    KB of memory (PSS) for each of so many connections that do nothing.
    """

    server: str
    connections: int
    kilobytes: float


@define
class Results:
    """
    All that one evening brought; growth by the name of what grows.
    """

    machine: str = ""
    table: list[Run] = field(factory=list)
    limits: list[Limit] = field(factory=list)
    idle: list[Idle] = field(factory=list)
    growth: dict[str, list[Run]] = field(factory=dict)

    def save(self, path: Path) -> None:
        """
        Write it to a file.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(cattrs.unstructure(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Results:
        """
        What was written to a file.

        Raises:
            ValueError: That is not what is in there.
        """
        try:
            found = json.loads(path.read_text())
            if not isinstance(found, dict):
                raise TypeError("no object")
            return cattrs.structure(found, cls)
        except (cattrs.BaseValidationError, TypeError, ValueError) as problem:
            raise ValueError(f"{path} has no results: {problem}") from None


def median(values: Iterable[float | None]) -> float | None:
    """
    The median of those that are known; None if none is.
    """
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def middle(runs: Iterable[Run], what: Callable[[Run], float | None]) -> float:
    """
    The median of a property of some runs; 0 if it is not known.
    """
    return median(map(what, runs)) or 0.0


def of(runs: Iterable[Run], server: str, point: str) -> list[Run]:
    """
    The runs of one server at one point.
    """
    return [run for run in runs if run.server == server and run.point == point]


def in_order(things: Iterable[T]) -> list[T]:
    """
    Each thing once, in the order in which they came first.
    """
    return list(dict.fromkeys(things))
