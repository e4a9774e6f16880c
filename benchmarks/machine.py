"""
What was measured on: a few words that say why somebody else has other numbers.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from .place import file_system
from .servers import REPOSITORY


def description(where: Path) -> str:
    """
    Processor, memory, kernel, file system of *where*, and versions, in a paragraph.
    """
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {_processors()}, {_memory()} GB, {_distribution()},"
        f" Linux {platform.release()}; {_disk(where)}; lmtpsvc {version('lmtpsvc')}{_commit()},"
        f" Python {platform.python_version()}, Twisted {version('Twisted')}{_peers()}"
    )


def _processors() -> str:
    found = re.search(r"^model name\s*: (.*)$", _read("/proc/cpuinfo"), re.MULTILINE)
    model = " ".join(found[1].split()) if found else platform.machine()
    virtual = ", virtual" if " hypervisor" in _read("/proc/cpuinfo") else ""
    return f"{len(os.sched_getaffinity(0))} x {model}{virtual}"


def _memory() -> int:
    found = re.search(r"^MemTotal:\s+(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    return round(int(found[1]) / (1 << 20)) if found else 0


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return "unknown"


def _disk(where: Path) -> str:
    kind, options, device = file_system(where)
    number = where.stat().st_dev
    name = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve().name
    journal = ""
    if kind == "ext4":
        has = any(Path("/proc/fs/jbd2").glob(f"{name}-*"))
        journal = " with a journal" if has else " without a journal"
    return f"{kind}{journal} ({options}) on {name if name.isalnum() else device}"


def _commit() -> str:
    if shutil.which("git") is None:
        return ""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return f" ({found})" if found else ""


def _peers() -> str:
    peers = ""
    for name, command in (("Dovecot", ["dovecot", "--version"]), ("Postfix", _POSTFIX)):
        if shutil.which(command[0]):
            said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
            peers += f", {name} {said.split()[0]}" if said.split() else ""
    return peers


_POSTFIX = ["postconf", "-d", "-h", "mail_version"]


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
