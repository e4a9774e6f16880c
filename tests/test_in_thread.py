"""
Work in another thread, and a system that has none to give.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.python.threadpool import ThreadPool

from lmtpsvc.directory.file import FileDirectory
from lmtpsvc.envelope import Mailbox
from lmtpsvc.in_thread import in_pool_of


class NoThread(threading.Thread):
    def start(self) -> None:
        raise RuntimeError("can't start new thread")


class Reactor:
    """
    One with Twisted's own pool, in a system with too many threads.
    """

    def __init__(self) -> None:
        self.pool = ThreadPool(0, 1)
        self.pool.threadFactory = NoThread
        self.pool.start()

    def __conform__(self, interface: object) -> Reactor:
        return self

    def getThreadPool(self) -> ThreadPool:
        return self.pool


def test_no_threads(failure_of: Callable[..., Any]) -> None:
    """
    It is an error like any other of the system.
    """
    error = failure_of(in_pool_of(Reactor())(list), OSError)

    assert "can't start new thread" in str(error)


def test_users_file_is_read_again(tmp_path: Path, success_of: Callable[..., Any]) -> None:
    """
    A users file that could not be looked at for that is looked at again.
    """
    path = tmp_path / "users"
    path.write_text("ann@example.org\n")
    os.utime(path, (1, 1))
    clock, calls = Clock(), []
    in_pool = in_pool_of(Reactor())

    def counted(function: Callable[[], Any]) -> Any:
        calls.append(function)
        return in_pool(function)

    directory = FileDirectory(str(path), clock, counted)
    ann = Mailbox("ann", "example.org")
    for _ in range(3):
        clock.advance(10)
        assert [ann] == directory.resolve(ann)

    assert 3 == len(calls)
