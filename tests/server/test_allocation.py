"""
Memory that is needed again and again is kept.
"""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from lmtpsvc.server.allocation import keep_memory

#: Counts how many pages the kernel has to find for pieces that are let go at once.
COUNT = """\
import resource, sys
from lmtpsvc.server.allocation import keep_memory
kept = keep_memory()
bytes(800_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    b"".join([bytes(300_000), bytes(500_000)])
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc only")


def count(**environment: str) -> tuple[bool, int]:
    said = subprocess.run(
        [sys.executable, "-c", COUNT],
        env={"PYTHONPATH": ":".join(sys.path), **environment},
        capture_output=True,
        check=True,
        text=True,
    ).stdout.split()
    return said[0] == "1", int(said[1])


def test_keeps_what_it_needs_again() -> None:
    """
    The first piece costs pages, 400 for the largest, and those that follow cost none.
    """
    kept, pages = count()

    assert kept
    assert 1000 > pages


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_leaves_it_to_the_operator(name: str) -> None:
    """
    Who has said something about it knows better.
    """
    assert not keep_memory({name: "1"})
