"""
What a disk allows: the files of a workload, made durable without a protocol, a check or a log.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

from .ledger import DOMAIN, mailbox
from .text import text_of
from .workloads import Workload

#: Threads that sync one by one, at most.
THREADS = 16

_libc = ctypes.CDLL(None, use_errno=True)


def one_by_one(store: Path, workload: Workload, seconds: float) -> float:
    """
    Deliveries per second if each file and each directory is synced for itself, by as many threads as
    the workload has sessions, up to 16.

    Each message is written and synced, gets a name in each mailbox by a hard link, and every one of
    these directories is synced.
    """
    boxes = _boxes(store, workload)

    def deliver(number: int) -> None:
        source = _write(boxes[number % len(boxes)], number, workload, sync=True)
        for directory in _show(source, number, boxes, workload):
            _sync_directory(directory)

    return _rate(deliver, min(workload.sessions, THREADS), 1, workload, seconds)


def in_batches(store: Path, workload: Workload, seconds: float) -> float:
    """
    Deliveries per second if one syncfs follows so many messages as the workload has sessions.
    """
    boxes = _boxes(store, workload)
    batch = workload.sessions
    root = os.open(store, os.O_RDONLY)

    def deliver(number: int) -> None:
        for each in range(number * batch, (number + 1) * batch):
            source = _write(boxes[each % len(boxes)], each, workload, sync=False)
            _show(source, each, boxes, workload)
        if _libc.syncfs(root) != 0:
            raise OSError(ctypes.get_errno(), "syncfs")

    try:
        return _rate(deliver, 1, batch, workload, seconds)
    finally:
        os.close(root)


def _boxes(store: Path, workload: Workload) -> list[str]:
    # It takes its time to be made.
    text_of(workload.octets)
    boxes = []
    for user in workload.users:
        box = store / DOMAIN / mailbox(user)
        for name in ("tmp", "new", "cur"):
            (box / name).mkdir(parents=True)
        boxes.append(str(box))
    os.sync()
    return boxes


def _write(box: str, number: int, workload: Workload, *, sync: bool) -> str:
    path = f"{box}/tmp/{number}.bench"
    text = text_of(workload.octets)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, text.header(number))
        body = text.body
        while body:
            body = body[os.write(descriptor, body) :]
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return path


def _show(source: str, number: int, boxes: Sequence[str], workload: Workload) -> list[str]:
    """
    Give a message its names; returns the directories that hold them.
    """
    first = number * workload.recipients
    directories = [
        f"{boxes[each % len(boxes)]}/new" for each in range(first, first + workload.recipients)
    ]
    for directory in directories[1:]:
        os.link(source, f"{directory}/{number}.bench")
    os.rename(source, f"{directories[0]}/{number}.bench")
    return directories


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rate(
    deliver: Callable[[int], None], threads: int, batch: int, workload: Workload, seconds: float
) -> float:
    """
    Deliveries per second; *deliver* does *batch* messages at a time.
    """
    numbers = count()
    most = None if workload.most is None else workload.most // batch
    done = [0] * threads
    begun = time.perf_counter()

    def work(thread: int) -> None:
        while time.perf_counter() - begun < seconds:
            number = next(numbers)
            if most is not None and number >= most:
                return
            deliver(number)
            done[thread] += 1

    workers = [threading.Thread(target=work, args=(each,)) for each in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(done) * batch * workload.recipients / (time.perf_counter() - begun)
