"""
Passwords that are looked at in threads.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.cred.credentials import UsernamePassword
from twisted.internet.defer import Deferred

from lmtpsvc.auth.checkers import AT_ONCE, ScramChecker
from lmtpsvc.auth.stored_keys import KeysFile, format_line, make_keys


def test_a_few_at_once(tmp_path: Path) -> None:
    """
    However many ask, most threads stay free for others; and all get their answer.
    """
    file = tmp_path / "logins"
    file.write_text(format_line("ann", make_keys("secret", 4096)) + "\n")
    jobs: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def in_thread(job: Callable[[], Any], /) -> Deferred[Any]:
        jobs.append((job, Deferred()))
        return jobs[-1][1]

    checker = ScramChecker(KeysFile(str(file)), in_thread)
    found: list[object] = []
    asked = [
        checker.requestAvatarId(UsernamePassword(b"ann", b"secret")).addBoth(found.append)
        for _ in range(10)
    ]
    # Who goes frees no thread that works already, and is not worked for otherwise.
    for gone in (0, 5):
        asked[gone].cancel()
    assert AT_ONCE == len(jobs)

    running = []
    while jobs:
        running.append(len(jobs))
        job, result = jobs.pop(0)
        result.callback(job())

    assert {1, AT_ONCE} == set(running)
    assert [b"ann"] * 8 == [each for each in found if isinstance(each, bytes)]
