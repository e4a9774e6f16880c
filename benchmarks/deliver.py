"""
Messages per second, with Postfix's smtp-source as the client, and Dovecot beside if it is there.

    python benchmarks/deliver.py [--only b,d] [--rounds 3] [--seconds 2]

Needs smtp-source (Debian: postfix) and, for the comparison, dovecot-lmtpd; as root, because Dovecot
insists.  Servers take turns in each round, so that a machine that slows down slows all of them down;
what counts are the ratios of one run.  Every message is looked for in the store afterwards.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

REPOSITORY = Path(__file__).resolve().parent.parent
SECONDS_TO_START = 15.0
TICKS = os.sysconf("SC_CLK_TCK")


@frozen
class Workload:
    """
    What smtp-source is told to do; *messages* is how many it would send in about a second here.
    """

    title: str
    sessions: int
    messages: int
    recipients: int = 1
    octets: int = 4096
    reconnect: bool = False


WORKLOADS = {
    "a": Workload("4 KB, 1 session", 1, 800),
    "b": Workload("4 KB, 10 sessions", 10, 2500),
    "c": Workload("4 KB, 50 sessions", 50, 3000),
    "d": Workload("4 KB, 50 recipients, 4 sessions", 4, 200, recipients=50),
    "e": Workload("100 KB, 10 sessions", 10, 800, octets=102_400),
    "f": Workload("20 MB, 2 sessions", 2, 6, octets=20 << 20),
    "g": Workload("4 KB, 10 sessions, a connection each", 10, 1500, reconnect=True),
}


@frozen
class Run:
    """
    One workload against one server: deliveries, seconds, CPU seconds of the server, its peak MB.
    """

    deliveries: int
    seconds: float
    cpu: float
    peak: float

    @property
    def rate(self) -> float:
        """
        Deliveries per second.
        """
        return self.deliveries / self.seconds


DOVECOT = """\
base_dir = {work}/run
state_dir = {work}/state
log_path = {work}/log
protocols = lmtp
listen = 127.0.0.1
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
mail_location = maildir:{store}/%d/%n
mail_uid = {user}
mail_gid = {group}
first_valid_uid = 1
userdb {{
  driver = static
  args = uid={user} gid={group} home={store}/%d/%n
}}
passdb {{
  driver = static
  args = nopassword=y
}}
service lmtp {{
  process_limit = 200
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
  unix_listener lmtp {{
    mode = 0
  }}
}}
service anvil {{
  chroot =
}}
service stats {{
  client_limit = 2000
}}
"""


def lmtpsvc(store: Path, port: int, words: list[str]) -> list[str]:
    """
    The command that starts us.
    """
    run = "from twisted.scripts.twistd import run; run()"
    listen = f"tcp:{port}:interface=127.0.0.1:backlog=1000"
    where = [f"--backend=maildir:{store}/{{domain}}/{{user}}"]
    if any(word.startswith("--backend") for word in words):
        where = []
    return [
        sys.executable,
        "-c",
        run,
        "-n",
        "--pidfile=",
        "lmtp",
        "--listen",
        listen,
        *where,
        *words,
    ]


def dovecot(store: Path, port: int, work: Path) -> list[str]:
    """
    The command that starts Dovecot, its configuration written.
    """
    for name in ("run", "state"):
        (work / name).mkdir()
    work.chmod(0o755)
    shutil.chown(store, "nobody", "nogroup")
    text = DOVECOT.format(work=work, store=store, port=port, user="nobody", group="nogroup")
    (work / "dovecot.conf").write_text(text)
    return ["dovecot", "-F", "-c", str(work / "dovecot.conf")]


def processes(pid: int) -> Iterator[int]:
    """
    A process and all below it.
    """
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*"):
        for child in (task / "children").read_text().split():
            yield from processes(int(child))


def usage(pid: int) -> tuple[float, float]:
    """
    CPU seconds, ended children included, and peak MB of a process and all below it.
    """
    cpu = peak = 0.0
    for each in processes(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        cpu += sum(map(int, fields[11:15])) / TICKS
        for line in Path(f"/proc/{each}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                peak += int(line.split()[1]) / 1024
    return cpu, peak


@contextmanager
def running(command: list[str], port: int, log: Path) -> Iterator[int]:
    """
    A server that answers on *port*; gives its process number.
    """
    paths = [str(REPOSITORY), str(REPOSITORY / "benchmarks")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with log.open("wb") as out:
        server = subprocess.Popen(
            command, stdout=out, stderr=out, env=environment, start_new_session=True
        )
    try:
        deadline = time.monotonic() + SECONDS_TO_START
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{command[0]} does not start:\n{log.read_text()}") from None
                time.sleep(0.05)
        yield server.pid
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def send(workload: Workload, messages: int, port: int) -> float:
    """
    Run smtp-source; returns the seconds that it took.
    """
    command = ["smtp-source", "-L", "-s", str(workload.sessions), "-m", str(messages)]
    command += ["-l", str(workload.octets), "-f", "a@bench.example", "-t", "user@example.org"]
    command += ["-r", str(workload.recipients)]
    command += [] if workload.reconnect else ["-d"]
    before = time.monotonic()
    subprocess.run([*command, f"inet:127.0.0.1:{port}"], check=True)
    return time.monotonic() - before


def measure(name: str, words: list[str], workload: Workload, seconds: float, where: Path) -> Run:
    """
    Start a server on an empty store, send, and look for what it has accepted.
    """
    work = Path(tempfile.mkdtemp(dir=where))
    store = work / "mail"
    store.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    peer = dovecot(store, port, work) if name == "dovecot" else lmtpsvc(store, port, words)
    messages = max(workload.sessions, int(workload.messages * seconds))
    with running(peer, port, work / "out") as pid:
        # The mailboxes are made, and the processes are warm, before the clock runs.
        send(workload, workload.sessions, port)
        before, _ = usage(pid)
        took = send(workload, messages, port)
        cpu, peak = usage(pid)
    expected = (messages + workload.sessions) * workload.recipients
    stored = sum(1 for _ in store.glob("*/*/new/*"))
    if stored != expected and "discard" not in name:
        raise SystemExit(f"{name}: {stored} messages are stored, {expected} were accepted")
    return Run(messages * workload.recipients, took, cpu - before, peak)


def compare(
    names: Sequence[str],
    measure: Callable[[str, Workload, float, Path], Run],
    arguments: argparse.Namespace,
) -> None:
    """
    Let those of *names* take turns in each round, and print what each has done beside the first.
    """
    where = Path(tempfile.mkdtemp(prefix="lmtpsvc-bench-", dir=arguments.where))
    where.chmod(0o755)
    try:
        for key in arguments.only.split(","):
            workload = WORKLOADS[key]
            runs: dict[str, list[Run]] = {name: [] for name in names}
            for _ in range(arguments.rounds):
                for name in names:
                    runs[name].append(measure(name, workload, arguments.seconds, where))
            print(f"\n({key}) {workload.title}")
            base = statistics.median(run.rate for run in runs[names[0]])
            for name, measured in runs.items():
                rate = statistics.median(run.rate for run in measured)
                cpu = statistics.median(run.cpu / run.deliveries * 1e6 for run in measured)
                peak = max(run.peak for run in measured)
                print(
                    f"  {name:20} {rate:9.0f}/s  {rate / base:5.2f} x"
                    f"  {cpu:7.0f} us CPU/delivery  {peak:5.0f} MB",
                    flush=True,
                )
    finally:
        shutil.rmtree(where)


def main() -> None:
    """
    Measure, and print the table.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--only", default=",".join(WORKLOADS), help="workloads, as a,b,d")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="about, for each run")
    parser.add_argument("--where", type=Path, default=Path("/var/tmp"), help="a disk, not a tmpfs")
    arguments = parser.parse_args()
    if shutil.which("smtp-source") is None:
        raise SystemExit("smtp-source is not there; install Debian's postfix")
    servers = {
        "lmtpsvc": [],
        "lmtpsvc, 2 workers": ["--workers", "2"],
        "discard": ["--backend", "discard"],
    }
    if shutil.which("dovecot") is not None and os.geteuid() == 0:
        servers = {"dovecot": [], **servers}
    compare(
        list(servers),
        lambda name, *given: measure(name, servers[name], *given),
        arguments,
    )


if __name__ == "__main__":
    main()
