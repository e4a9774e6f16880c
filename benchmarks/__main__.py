"""
How fast is lmtpsvc on this machine, beside Dovecot?

Servers take turns in each round, so that a machine that slows down slows all of them down: what counts
are the ratios of one run.  All that a server has acknowledged is looked for in its store, and has to
be there, whole and once.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from lmtpsvc.config import Config

from . import growth, page, tables
from .client import LoadError
from .place import below, new_ext4
from .processes import StartError
from .runs import Results
from .servers import DISCARD, DOVECOT, OURS, Server, from_checkout, known, lacks, named
from .turns import Turns, say
from .workloads import IDLE, WORKLOADS

RESULTS = Path("build/benchmark/results.json")


def main(words: Sequence[str] | None = None) -> int:
    """
    Measure what the words ask for, print the tables, and draw the pictures.
    """
    arguments = parse(words)
    try:
        if arguments.again:
            results = Results.load(arguments.results)
        else:
            servers = choose(arguments)
            make = new_ext4 if arguments.ext4 else below
            with make(arguments.where) as place:
                results = turns(arguments, servers).run(place)
            results.save(arguments.results)
    except (LoadError, StartError, ValueError, OSError) as problem:
        print(f"benchmarks: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(tables.render(results))
    status = draw(results, arguments.pictures)
    if arguments.page is not None:
        try:
            page.put(results, arguments.page, arguments.pictures, brief=arguments.ext4)
        except (ValueError, OSError) as problem:
            say(f"benchmarks: {arguments.page}: {problem}")
            return 1
    return status


def _leave(number: int, frame: FrameType | None) -> None:
    """
    Clean up, as after Control-C.
    """
    raise KeyboardInterrupt


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """
    What somebody wants to know.
    """
    keys = ", ".join(f"{key} ({each.title})" for key, each in WORKLOADS.items())
    parser = argparse.ArgumentParser(
        prog="make bench BENCH='...'",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--only",
        metavar="a,b",
        help=f"workloads: {keys}, {IDLE} (idle connections), sessions (the picture);"
        f" with --growth: {', '.join(growth.SERIES)}",
    )
    add("--growth", action="store_true", help="how cost grows, instead of the table")
    add(
        "--servers",
        metavar="NAMES",
        help="only these, with commas between; ratios are to the first",
    )
    add(
        "--add",
        metavar="NAME=COMMAND",
        action="append",
        default=[],
        help="another server: {port} and, if it keeps Maildirs, {store} are put in;"
        " they have to be at {store}/DOMAIN/USER",
    )
    add(
        "--beside",
        metavar="DIRECTORY",
        type=Path,
        action="append",
        default=[],
        help="another checkout of lmtpsvc, such as one from before a change",
    )
    add("--rounds", type=int, help="how often each is measured (the table 3, growth 2)")
    add("--seconds", type=float, default=None, help="for each run (the table 1, growth 0.7)")
    add("--idle", type=int, default=500, help="connections that do nothing (default: 500)")
    add("--where", type=Path, default=Path("/var/tmp"), help="a directory on the disk (/var/tmp)")
    add(
        "--ext4", action="store_true", help="in a new ext4 with a journal, in a file there; as root"
    )
    add(
        "--client",
        choices=("own", "smtp-source"),
        default="own",
        help="Postfix's smtp-source instead of our own client: for cross-checks, without latencies",
    )
    add("--results", type=Path, default=RESULTS, help=f"JSON with all runs ({RESULTS})")
    add("--pictures", type=Path, default=RESULTS.parent, help=f"for SVG ({RESULTS.parent})")
    add("--page", type=Path, help="put it all into this page, such as docs/performance.md")
    add("--again", action="store_true", help="measure nothing: tables and pictures of --results")
    return parser.parse_args(words)


def choose(arguments: argparse.Namespace) -> dict[str, Server]:
    """
    The servers that are to be measured, and can be.

    Raises:
        ValueError: Somebody asked for one that is not known, or not there.
    """
    servers = known(Config().workers)
    added = [*map(named, arguments.add), *map(from_checkout, arguments.beside)]
    servers |= {server.name: server for server in added}
    if arguments.servers:
        names = arguments.servers.split(",")
        unknown = [name for name in names if name not in servers]
        if unknown:
            raise ValueError(f"no server {unknown[0]!r}; there are {', '.join(servers)}")
        servers = {name: servers[name] for name in names}
    if arguments.client == "smtp-source" and shutil.which("smtp-source") is None:
        raise ValueError("smtp-source is not there: install postfix")
    for server in list(servers.values()):
        why = lacks(server)
        if why:
            say(f"without {server.name}: {', '.join(why)}")
            del servers[server.name]
    if not servers:
        raise ValueError("no server is left")
    return servers


def turns(arguments: argparse.Namespace, servers: dict[str, Server]) -> Turns:
    """
    What is to be done.

    Raises:
        ValueError: Somebody asked for a workload that is not known.
    """
    wanted = arguments.only.split(",") if arguments.only else None
    possible = [*growth.SERIES] if arguments.growth else [*WORKLOADS, IDLE, growth.SESSIONS]
    for name in wanted or ():
        if name not in possible:
            raise ValueError(f"no {name!r} here; there are {', '.join(possible)}")
    table = not arguments.growth
    # Of those that are always there, three are enough for a picture.
    others = {*known(Config().workers)} - {DOVECOT, OURS, DISCARD}
    if arguments.servers:
        others = set()
    return Turns(
        servers=list(servers.values()),
        pictured=[server for name, server in servers.items() if name not in others],
        names=[name for name in possible if wanted is None or name in wanted],
        rounds=arguments.rounds or (3 if table else 2),
        rounds_of_growth=1 if table else arguments.rounds or 2,
        seconds=arguments.seconds or (1.0 if table else 0.7),
        idle=arguments.idle,
        smtp_source=arguments.client == "smtp-source",
    )


def draw(results: Results, directory: Path) -> int:
    """
    A picture for each series; returns the exit status.
    """
    if not results.growth:
        return 0
    try:
        from . import pictures
    except ImportError:
        say("no pictures without matplotlib: pip install 'lmtpsvc[bench]', or make bench")
        return 1
    for name, runs in results.growth.items():
        path = directory / f"{name}.svg"
        pictures.draw(name, runs, path)
        say(f"{path} is drawn")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _leave)
    sys.exit(main())
