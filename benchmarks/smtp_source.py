"""
The same load by Postfix's own client, for those who would rather trust that one.

It waits for each reply before it sends the next command, and tells no latencies.
"""

from __future__ import annotations

import os
import subprocess
import time

from .client import LoadError, Sent
from .ledger import DOMAIN
from .measure import started, watched
from .place import Place
from .runs import Run
from .servers import Server
from .workloads import Workload


def measure(server: Server, place: Place, key: str, workload: Workload, seconds: float) -> Run:
    """
    One run of the table; afterwards, what is stored is counted.
    """
    with started(server, place, look_up=False) as here:
        # These make the mailboxes, and tell how many take about as long as they should.
        few = 20 * workload.sessions if workload.most is None else workload.sessions
        took = _send(here.port, workload, few).seconds
        messages = max(workload.sessions, int(few / took * seconds))
        if workload.most is not None:
            messages = min(messages, workload.most)
        with watched(here) as watch:
            sent = _send(here.port, workload, messages)
        run = watch.run(workload, sent, key)
        stored = sum(1 for _ in (here.store / DOMAIN).glob("*/new/*"))
        accepted = (few + messages) * workload.recipients
        if server.keeps and stored != accepted:
            raise LoadError(f"{server.name}: {stored} are stored, and {accepted} were accepted")
    return run


def _send(port: int, workload: Workload, messages: int) -> Sent:
    command = ["smtp-source", "-L", "-s", str(workload.sessions), "-m", str(messages)]
    command += ["-l", str(workload.octets), "-f", "sender@bench.example", "-t", f"user@{DOMAIN}"]
    command += ["-r", str(workload.recipients)]
    command += [] if workload.reconnect else ["-d"]
    before, cpu = time.monotonic(), os.times()
    # A command that is refused makes it fail.
    subprocess.run([*command, f"inet:127.0.0.1:{port}"], check=True)
    took, used = time.monotonic() - before, os.times()
    cpu_seconds = sum(used[2:4]) - sum(cpu[2:4])
    return Sent(messages, messages * workload.recipients, took, cpu_seconds)
