"""
What is measured after what: in each round, every server has its turn with every load.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from attrs import field, frozen

from . import disk, growth, measure, smtp_source
from .machine import description
from .place import Place, empty
from .runs import Limit, Results
from .servers import Server
from .tables import number
from .workloads import IDLE, WORKLOADS

#: What is to be done, in words, and what does it and says what came of it.
Turn = tuple[str, Callable[[Place], str]]


def say(text: str, end: str = "\n") -> None:
    """
    Tell whoever waits.
    """
    print(text, end=end, file=sys.stderr, flush=True)


@frozen
class Turns:
    """
    All that is to be measured: *names* are keys of workloads and of what grows.

    *pictured* are the servers that grow; *seconds* are those of a run; *idle* is how many
    connections do nothing.
    """

    servers: Sequence[Server]
    pictured: Sequence[Server]
    names: Sequence[str]
    rounds: int
    rounds_of_growth: int
    seconds: float
    idle: int
    smtp_source: bool = False
    results: Results = field(factory=Results)
    _stocks: dict[str, measure.Stock] = field(factory=dict)

    def run(self, place: Place) -> Results:
        """
        Measure it all, and say how far we are.

        Raises:
            StartError, LoadError: A server does not do its work; nothing is worth anything then.
        """
        self.results.machine = description(place.root)
        say(self.results.machine)
        turns = list(self._turns())
        begun = time.monotonic()
        for done, (title, turn) in enumerate(turns):
            left = (time.monotonic() - begun) / max(done, 1) * (len(turns) - done) / 60
            say(f"[{done + 1}/{len(turns)}, {left:.0f} min left] {title}: ", end="")
            say(turn(place))
        return self.results

    def _turns(self) -> Iterator[Turn]:
        workloads = [name for name in self.names if name in WORKLOADS]
        for _ in range(self.rounds):
            for key in workloads:
                title = f"{key}, {WORKLOADS[key].title}"
                yield f"{title}, disk", partial(self._limit, key)
                for server in self.servers:
                    yield f"{title}, {server.name}", partial(self._run, key, server)
        if IDLE in self.names:
            for server in self.servers:
                yield f"{IDLE}, {server.name}", partial(self._idle, server)
        for _ in range(self.rounds_of_growth):
            for name in self.names:
                if name in growth.SERIES:
                    for server in self.pictured:
                        if server.keeps or not growth.SERIES[name].stored:
                            yield f"{name}, {server.name}", partial(self._grow, name, server)

    def _limit(self, key: str, place: Place) -> str:
        workload = WORKLOADS[key]
        stores = [place.fresh(), place.fresh()]
        limit = Limit(
            key,
            disk.one_by_one(stores[0], workload, self.seconds / 2),
            disk.in_batches(stores[1], workload, self.seconds / 2),
        )
        for store in stores:
            empty(store)
        self.results.limits.append(limit)
        return f"{number(limit.one_by_one)}/s one by one, {number(limit.in_batches)}/s in batches"

    def _run(self, key: str, server: Server, place: Place) -> str:
        by = smtp_source.measure if self.smtp_source else measure.measure
        run = by(server, place, key, WORKLOADS[key], self.seconds)
        self.results.table.append(run)
        return f"{number(run.rate)}/s, {number(run.cpu_per_delivery)} us CPU"

    def _idle(self, server: Server, place: Place) -> str:
        idle = measure.idle(server, place, self.idle)
        self.results.idle.append(idle)
        return f"{idle.kilobytes:.1f} KB each"

    def _grow(self, name: str, server: Server, place: Place) -> str:
        series, rates = growth.SERIES[name], []
        if series.stock is not None and name not in self._stocks:
            self._stocks[name] = series.stock(place)
        for run in growth.points(series, server, place, self._stocks.get(name), self.seconds):
            self.results.growth.setdefault(name, []).append(run)
            rates.append(number(run.rate))
        return f"{', '.join(rates)}/s"
