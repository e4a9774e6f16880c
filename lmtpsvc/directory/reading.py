"""
Look at a users file: has it changed, is it whole, and what does it say?  All of this blocks.

Somebody may be writing it just now.  Half a file is a file in which many people do not live, and
their mail would bounce.  So a file is believed only if it has rested for a second.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import NamedTuple

from attrs import frozen

from .lines import BrokenLines, parse
from .table import Table

#: How long a file has to stay as it is before it is read again.
REST_SECONDS = 1.0

#: How many broken lines are told; there may be as many as there are lines.
MAX_PROBLEMS = 20


class Signature(NamedTuple):
    """
    What changes when a file does.

    With the time of the last change (ctime) a file is noticed that was put in place with the old
    time of modification, and one whose permissions were mended.
    """

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Signature:
        return cls(
            status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        )


@frozen
class Look:
    """
    What one look at the file found.

    *is_judged* says that *table* or *problems* are what the file of this signature says.
    """

    signature: Signature
    is_judged: bool = False
    table: Table | None = None
    problems: tuple[str, ...] = ()


def look(
    path: str,
    delimiters: str,
    judged: Signature | None,
    seen: Signature | None,
    wall_seconds: Callable[[], float],
) -> Look:
    """
    Read the file *path*, unless it is the one that was *judged* before, or has not come to rest.

    A file that is still the one *seen* with the last look has rested, whatever the clocks say: on
    a network file system they are those of two machines.

    Raises:
        OSError: It cannot be read.
    """
    before = Signature.of(os.stat(path))
    if before == judged:
        return Look(before)
    if before != seen and wall_seconds() - before.changed_ns / 1e9 < REST_SECONDS:
        return Look(before)
    found = read(path, delimiters)
    return found if found.signature == before == Signature.of(os.stat(path)) else Look(before)


def read(path: str, delimiters: str) -> Look:
    """
    Read the file *path* as it is.

    Raises:
        OSError: It cannot be read.
    """
    with open(path, "rb", opener=_open_at_once) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "not a regular file", path)
        octets = file.read()
    try:
        return Look(Signature.of(status), is_judged=True, table=parse(octets, delimiters))
    except BrokenLines as error:
        told = [f"line {line}: {problem}" for line, problem in error.problems[:MAX_PROBLEMS]]
        more = len(error.problems) - len(told)
        if more:
            told.append(f"and {more:,} more")
        return Look(Signature.of(status), is_judged=True, problems=tuple(told))


def _open_at_once(path: str, flags: int) -> int:
    """
    Open, but do not wait until somebody writes to it if *path* is a named pipe.
    """
    return os.open(path, flags | os.O_NONBLOCK)
