"""
Messages for several disks, and for disks that may not be relied on.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lmtpsvc.backends import file_systems
from lmtpsvc.backends.letters import (
    NOTHING,
    SAFE,
    SHOWN,
    WRITTEN,
    Letter,
)

from .conftest import Break, Calls, Service, steps

#: What stat(2) says of Dee's Maildir in some tests; and of nothing else.
ELSEWHERE = 4711

NFS = 0x6969


@pytest.fixture
def dee_elsewhere(patch: pytest.MonkeyPatch) -> None:
    """
    Dee's Maildir is on another device.
    """
    real = os.fstat

    def fstat(descriptor: int) -> Any:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        return SimpleNamespace(st_dev=ELSEWHERE) if "/dee/" in path else real(descriptor)

    patch.setattr(os, "fstat", fstat)


@pytest.mark.usefixtures("dee_elsewhere")
@pytest.mark.parametrize("others", [[], ["ann"], ["ann", "bob"]])
def test_moved_elsewhere(service: Service, others: list[str]) -> None:
    """
    A mailbox that is not where it is said to be gets nothing, and the others get theirs.
    """
    letters = [*[service.letter("1", user) for user in others], service.letter("2", "dee")]
    outcomes = service.run(letters, [])

    *stored, dee = [outcomes[letter.number].what for letter in letters]
    assert NOTHING == dee
    assert {SAFE} >= set(stored)
    assert ["1"] * len(others) == service.texts(*others)
    assert ["", ""] == [*service.texts("dee"), service.written]


@pytest.mark.usefixtures("dee_elsewhere")
def test_all_have_moved(service: Service, calls: Calls) -> None:
    """
    Nothing is written to a file system that we would hear nothing of, and nothing is waited for.
    """
    outcomes = service.run([service.letter("1", "dee"), service.letter("2", "dee")])

    assert [NOTHING, NOTHING] == [outcome.what for outcome in outcomes.values()]
    assert [("answer", "1 2")] == calls
    assert None is service.receipts[0].whole


@pytest.mark.parametrize("kind", [NFS, "unknown"])
def test_file_system_without_a_promise(
    service: Service, monkeypatch: pytest.MonkeyPatch, calls: Calls, kind: Any
) -> None:
    """
    Where a wait for all says nothing, it is not relied upon; to sync one file is a promise anywhere.
    """

    def file_system(_: int) -> int:
        if kind == "unknown":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return int(kind)

    monkeypatch.setattr(file_systems, "_file_system", file_system)
    both = [service.letter("1", "ann"), service.letter("2", "bob")]
    outcomes = service.run(both, [service.letter("3", "cy")])

    assert [NOTHING, NOTHING, SAFE] == [outcome.what for outcome in outcomes.values()]
    assert "syncfs" not in steps(calls)
    assert ["", "", "3", ""] == [*service.texts("ann", "bob", "cy"), service.written]


@pytest.mark.usefixtures("dee_elsewhere")
@pytest.mark.parametrize("when", ["texts", "names"])
def test_one_of_two_disks_fails(service: Service, break_call: Break, when: str) -> None:
    """
    What is on the other is safe.
    """
    letters = [service.letter("1", "ann"), service.letter("2", "dee", device=ELSEWHERE)]

    def lose() -> list[Letter]:
        break_call("syncfs", "/dee/", errno.EIO)
        return []

    if when == "texts":
        lose()
        outcomes = service.run(letters)
    else:
        outcomes = service.run(letters, lose)

    assert {1: SAFE, 2: WRITTEN if when == "texts" else SHOWN} == {
        number: outcome.what for number, outcome in outcomes.items()
    }
    assert {errno.EIO} == {receipt.lost for receipt in service.receipts} - {0}


@pytest.mark.usefixtures("dee_elsewhere")
def test_a_disk_with_nothing_on_its_way(service: Service, calls: Calls) -> None:
    """
    It can be unmounted, and nobody waits for it, however busy the other is.
    """
    opened = []

    def more() -> list[Letter]:
        opened.append(sorted(Path(path).parts[-2] for path in service.opened()))
        return [service.letter("3", "ann"), service.letter("4", "bob")]

    letters = [service.letter("1", "ann"), service.letter("2", "dee", device=ELSEWHERE)]
    service.run(letters, more, more, more)

    assert [["ann", "dee"], ["ann", "dee"], ["ann"]] == opened
    waits = [path for call, path in calls if call == "syncfs"]
    assert ["ann/tmp", "dee/tmp"] * 2 == waits[:4]
    assert ["ann/tmp"] * 3 == waits[4:]
