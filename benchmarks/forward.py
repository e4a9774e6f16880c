"""
A front and its node beside the node alone.

    python -m benchmarks.forward [--only b,d] [--rounds 3] [--seconds 2]

The mail goes into Maildirs, and is looked for there afterwards.  Who is measured takes turns in each
round, so that what counts are the ratios of one run.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from .client import LoadError
from .machine import description
from .measure import Running, timed, warm
from .place import Place, below, empty
from .processes import free_port, running
from .runs import Results, Run
from .servers import Server, lmtpsvc
from .tables import render
from .turns import say
from .workloads import WORKLOADS

#: What the node is started with, and the front; None where there is none.
PAIRS: dict[str, tuple[Sequence[str], str | None]] = {
    "node alone": ((), None),
    "front, node": ((), "forward:127.0.0.1:{port}"),
    "with XCLIENT": (("--trusted", "127.0.0.1"), "forward:127.0.0.1:{port}"),
}


def measure(name: str, place: Place, key: str, seconds: float) -> Run:
    """
    Start the servers on an empty store, send, and look for what was accepted.
    """
    work = place.fresh()
    store = work / "mail"
    store.mkdir()
    words, forward = PAIRS[name]
    node = Server(name, lmtpsvc(*words))
    with ExitStack() as stack:

        def start(server: Server, log: str) -> tuple[int, int]:
            port = free_port()
            command = server.command(work, store, port)
            pid = stack.enter_context(running(command, port, work / log, server.environment))
            return port, pid

        port, pid = start(node, "node")
        pids = [pid]
        if forward is not None:
            front = Server("front", lmtpsvc(f"--backend={forward.format(port=port)}"))
            port, pid = start(front, "front")
            pids.append(pid)
        here = Running(node, store, port, pids)
        # The mailboxes are made, and the connections are there, before the clock runs.
        warm(here, WORKLOADS[key])
        run = timed(here, WORKLOADS[key], seconds, key)
    findings = here.ledger.compare(store)
    if not findings.good:
        raise LoadError(f"{name} has lost or spoiled mail: {findings}")
    empty(store)
    return run


def main() -> None:
    """
    Measure, and print the tables.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--only", default="a,b,d,e", help="workloads: a,b,d")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each run")
    parser.add_argument("--where", type=Path, default=Path("/var/tmp"), help="a disk, not a tmpfs")
    arguments = parser.parse_args()
    with below(arguments.where) as place:
        results = Results(description(place.root))
        for _ in range(arguments.rounds):
            for key in arguments.only.split(","):
                for name in PAIRS:
                    results.table.append(measure(name, place, key, arguments.seconds))
                    say(f"{key}, {name}: {results.table[-1].rate:.0f}/s")
    print(render(results))


if __name__ == "__main__":
    main()
