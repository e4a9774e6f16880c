"""
A front and its node beside the node alone: deliveries per second, with Postfix's smtp-source.

    python benchmarks/forward.py [--only b,d] [--rounds 3] [--seconds 2]

Needs smtp-source (Debian: postfix).  The mail goes into Maildirs, and is looked for there afterwards.
Who is measured takes turns in each round, so that what counts are the ratios of one run.
"""

from __future__ import annotations

import argparse
import socket
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from deliver import Run, Workload, compare, lmtpsvc, running, send, usage

#: What the node is started with, and the front; None where there is none.
PAIRS: dict[str, tuple[Sequence[str], str | None]] = {
    "node alone": ((), None),
    "front, node": ((), "forward:127.0.0.1:{port}"),
    "with XCLIENT": (("--trusted", "127.0.0.1"), "forward:127.0.0.1:{port}"),
}


def measure(name: str, workload: Workload, seconds: float, where: Path) -> Run:
    """
    Start the servers on an empty store, send, and look for what was accepted.
    """
    work = Path(tempfile.mkdtemp(dir=where))
    store = work / "mail"
    store.mkdir()
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        port, front = first.getsockname()[1], second.getsockname()[1]
    words, forward = PAIRS[name]
    messages = max(workload.sessions, int(workload.messages * seconds))
    with ExitStack() as stack:
        node = lmtpsvc(store, port, [*words])
        processes = [stack.enter_context(running(node, port, work / "node"))]
        if forward is not None:
            command = lmtpsvc(store, front, [f"--backend={forward.format(port=port)}"])
            processes.append(stack.enter_context(running(command, front, work / "front")))
        to = port if forward is None else front
        # The mailboxes are made, and the connections are there, before the clock runs.
        send(workload, workload.sessions, to)
        before = sum(usage(pid)[0] for pid in processes)
        took = send(workload, messages, to)
        used = [usage(pid) for pid in processes]
    expected = (messages + workload.sessions) * workload.recipients
    stored = sum(1 for _ in store.glob("*/*/new/*"))
    if stored != expected:
        raise SystemExit(f"{name}: {stored} messages are stored, {expected} were accepted")
    cpu = sum(each for each, _ in used) - before
    return Run(messages * workload.recipients, took, cpu, sum(peak for _, peak in used))


def main() -> None:
    """
    Measure, and print the table.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--only", default="a,b,d,e", help="workloads of deliver.py")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="about, for each run")
    parser.add_argument("--where", type=Path, default=Path("/var/tmp"), help="a disk, not a tmpfs")
    arguments = parser.parse_args()
    compare(list(PAIRS), measure, arguments)


if __name__ == "__main__":
    main()
