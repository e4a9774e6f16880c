"""
The tables of docs/performance.md, from what was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from .growth import SERIES
from .runs import Results, Run, in_order, median, middle, of
from .workloads import IDLE, WORKLOADS

#: Above this share of the machine, what others did on it has spoilt the run.
_DISTURBED = 0.15


def render(results: Results) -> str:
    """
    All tables that there is something for, in Markdown.
    """
    parts = [render_table(results)]
    parts += [growth(name, runs) for name, runs in results.growth.items()]
    return "\n\n".join(parts) + "\n"


def render_table(results: Results) -> str:
    """
    The same without what grows.
    """
    parts = [results.machine]
    if results.table:
        parts += [overview(results), *warnings(results), *details(results)]
    if results.idle:
        parts.append(idle(results))
    return "\n\n".join(parts)


def overview(results: Results) -> str:
    """
    Deliveries per second: workloads and servers, as ratios to the first of them, Dovecot if it is
    there, beside what the disk allows.
    """
    servers = in_order(run.server for run in results.table)
    disks = ["disk, one by one", "disk, in batches"] if results.limits else []
    head = ["deliveries/s", *disks, *servers]
    lines = []
    for key in in_order(run.point for run in results.table):
        base = _rate(results.table, servers[0], key)
        limits = [limit for limit in results.limits if limit.point == key]
        if results.limits:
            disk = [
                median(limit.one_by_one for limit in limits),
                median(limit.in_batches for limit in limits),
            ]
        else:
            disk = []
        rates = [_rate(results.table, server, key) for server in servers]
        cells = [_with_ratio(rate, base, number) for rate in (*disk, *rates)]
        lines.append([f"{key}: {WORKLOADS[key].title}", *cells])
    return "\n".join([f"In brackets: times {servers[0]}.", "", *_table(head, lines)])


def details(results: Results) -> Iterable[str]:
    """
    A table for each workload: rates, latencies, processor and memory of each server.
    """
    head = [
        *(
            "server",
            "messages/s",
            "deliveries/s",
            "x",
            "least to most",
            "reply p50",
            "p99, ms",
            "x",
        ),
        *("CPU s/1,000 messages", "x", "peak MB", "x"),
    ]
    servers = in_order(run.server for run in results.table)
    for key in in_order(run.point for run in results.table):
        base = of(results.table, servers[0], key)
        lines = []
        for server in servers:
            runs = of(results.table, server, key)
            if not runs:
                continue
            rates = [run.rate for run in runs]
            lines.append(
                [
                    server,
                    number(middle(runs, lambda run: run.message_rate)),
                    number(middle(runs, lambda run: run.rate)),
                    _ratio(runs, base, lambda run: run.rate),
                    f"{number(min(rates))} to {number(max(rates))}",
                    _milliseconds(median(run.half for run in runs)),
                    _milliseconds(median(run.late for run in runs)),
                    _ratio(runs, base, lambda run: run.late),
                    number(middle(runs, lambda run: run.cpu_per_thousand)),
                    _ratio(runs, base, lambda run: run.cpu_per_thousand),
                    number(max(run.peak for run in runs)),
                    _ratio(runs, base, lambda run: run.peak),
                ]
            )
        yield "\n".join([f"### {key}: {WORKLOADS[key].title}", "", *_table(head, lines)])


def idle(results: Results) -> str:
    """
    What a connection costs that does nothing.
    """
    servers = in_order(each.server for each in results.idle)
    base = median(each.kilobytes for each in results.idle if each.server == servers[0])
    head = ["server", "connections", "KB each", "x"]
    lines = []
    for server in servers:
        found = [each for each in results.idle if each.server == server]
        kilobytes = median(each.kilobytes for each in found) or 0.0
        ratio = f"{kilobytes / base:.3f}" if base else "–"
        lines.append([server, f"{found[0].connections:,}", f"{kilobytes:,.1f}", ratio])
    title = f"### {IDLE}: connections that do nothing"
    return "\n".join([title, "", *_table(head, lines)])


def growth(name: str, runs: Sequence[Run]) -> str:
    """
    What one delivery costs at each point of a series.
    """
    servers = in_order(run.server for run in runs)
    head = [name, *(f"{server}, {what}" for server in servers for what in ("/s", "us CPU", "MB"))]
    lines = []
    for point in in_order(run.point for run in runs):
        cells = [_octets(point) if name == "octets" else f"{int(point):,}"]
        for server in servers:
            found = of(runs, server, point)
            cells.append(number(middle(found, lambda run: run.rate)) if found else "–")
            cells.append(number(middle(found, lambda run: run.cpu_per_delivery)) if found else "–")
            cells.append(number(middle(found, lambda run: run.memory)) if found else "–")
        lines.append(cells)
    return "\n".join([f"### {SERIES[name].title}", "", *_table(head, lines)])


def warnings(results: Results) -> Iterable[str]:
    """
    What should keep the reader from believing too much.
    """
    refused = sum(run.refused for run in results.table)
    if refused:
        yield f"**{refused} recipients were refused.**"
    disturbed = [run for run in results.table if run.others > _DISTURBED]
    if disturbed:
        yield (
            f"In {len(disturbed)} of {len(results.table)} runs, more than"
            f" {_DISTURBED:.0%} of the machine worked for others."
        )


def number(value: float) -> str:
    """
    Three digits that mean something, or all of those in front of the point.
    """
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _octets(count: str) -> str:
    value = int(count)
    return f"{value >> 20} MB" if value >= 1 << 20 else f"{value >> 10} KB"


def _milliseconds(seconds: float | None) -> str:
    return "–" if seconds is None else number(seconds * 1000)


def _rate(runs: Sequence[Run], server: str, key: str) -> float | None:
    return median(run.rate for run in of(runs, server, key))


def _with_ratio(value: float | None, base: float | None, show: Callable[[float], str]) -> str:
    if value is None:
        return "–"
    return show(value) + (f" ({value / base:.2f})" if base else "")


def _ratio(runs: Sequence[Run], base: Sequence[Run], what: Callable[[Run], float | None]) -> str:
    above, below = median(map(what, runs)), median(map(what, base))
    return f"{above / below:.2f}" if above is not None and below else "–"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> Iterable[str]:
    """
    A table in Markdown; the first column is text.
    """
    yield f"| {' | '.join(head)} |"
    yield "|---|" + "--:|" * (len(head) - 1)
    for line in lines:
        yield f"| {' | '.join(line)} |"
