"""
The benchmarks do what they say, in a few messages: no time is measured here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from benchmarks import measure, smtp_source
from benchmarks.place import Place
from benchmarks.servers import DISCARD, DOVECOT, OURS, known
from benchmarks.workloads import WORKLOADS

FEW = evolve(WORKLOADS["b"], users=range(20), recipients=2, most=30)


@pytest.mark.parametrize("name", [OURS, "2 workers", DISCARD, DOVECOT, "smtp-sink"])
def test_few(
    name: str, tmp_path: Path, peer: Callable[[str], Any], unavailable: Callable[[str], Any]
) -> None:
    """
    All is delivered, and looked for where the server keeps it.
    """
    if name in {DOVECOT, "smtp-sink"}:
        peer(name)
    if name == DOVECOT and os.geteuid() != 0:
        unavailable("root")
    server = known(1)[name]

    run = measure.measure(server, Place(enter(tmp_path)), "b", FEW, 60)

    assert (run.messages, run.deliveries, run.refused) == (30, 60, 0)
    assert run.peak > 0


def test_smtp_source(tmp_path: Path, peer: Callable[[str], Any]) -> None:
    """
    Postfix's client sends it, too.
    """
    peer("smtp-source")

    run = smtp_source.measure(known(1)[OURS], Place(enter(tmp_path)), "b", FEW, 60)

    assert (run.messages, run.deliveries) == (30, 60)


def test_idle(tmp_path: Path) -> None:
    """
    Connections that do nothing take some memory.
    """
    found = measure.idle(known(1)[OURS], Place(enter(tmp_path)), 20)

    assert found.connections == 20


def enter(directory: Path) -> Path:
    """
    Let nobody, who is Dovecot's user here, into *directory* and what it is in.
    """
    for each in (directory, *directory.parents):
        if each.stat().st_uid == os.geteuid():
            each.chmod(each.stat().st_mode | 0o711)
        if each.name.startswith("pytest-of-"):
            break
    return directory
