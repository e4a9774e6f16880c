"""
The file ``maildirsize``: how much is in a Maildir, kept by all who change it (Maildir++).

The first line is the quota, ``100000000S,10000C``.  Each line behind it is what somebody added or
took away, ``octets messages``; the sum of all is what is there.  A change is one line, written with
one call to the end of the file, so that nobody needs a lock for it.  When the file is missing, too
long, wrong or about another quota, or when it says that there is no room and may be wrong, what is
there is counted, and a new file put in its place: https://www.inter7.com/courierimap/README.maildirquota.html

Everything here blocks, and is done as the user whose Maildir it is: see `.identity`.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from io import BytesIO
from typing import Final, NamedTuple

from attrs import frozen
from twisted.logger import Logger

from ..quota import Quota
from .files import create, remove

_log = Logger()

NAME: Final = "maildirsize"

#: A file that is as long as this is made anew.
MOST_OCTETS: Final = 5120

#: What says "no room" and is older than this is not believed.
STALE_SECONDS: Final = 15 * 60

_limit = re.compile(rb"([0-9]{1,19})([SC])").fullmatch
_change = re.compile(rb"[ \t]*(-?[0-9]{1,19})[ \t]+(-?[0-9]{1,19})[ \t\r]*").fullmatch
_size = re.compile(r",S=([0-9]{1,19})(?=[,:]|\Z)", re.ASCII).search

# Not a link to elsewhere, nor a named pipe that nobody writes to.
_FLAGS: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

# What is said of a link, a directory, and a socket.
_NO_FILE: Final = (errno.ELOOP, errno.EISDIR, errno.ENXIO)


class Sums(NamedTuple):
    """
    How much there is.
    """

    octets: int = 0
    messages: int = 0


@frozen
class Record:
    """
    What the file says: *quota*, the sum of its lines, how many these are, and when it was written.
    """

    quota: Quota
    sums: Sums
    changes: int
    written: float

    def is_certain(self, now: float) -> bool:
        """
        Whether "no room" can be believed at *now*: one line, which is a count, and not an old one.
        """
        return self.changes == 1 and now - self.written < STALE_SECONDS


def parse(octets: bytes, written: float = 0.0) -> Record | None:
    """
    What the contents of a file say; None if they are to be made anew.
    """
    if len(octets) >= MOST_OCTETS or not octets.endswith(b"\n"):
        return None
    first, *lines = octets[:-1].split(b"\n")
    quota = _parse_quota(first)
    changes = [_change(line) for line in lines]
    if quota is None or not changes:
        return None
    total_octets = total_messages = 0
    for change in changes:
        if change is None:
            return None
        total_octets += int(change[1])
        total_messages += int(change[2])
    if total_octets < 0 or total_messages < 0:
        return None
    return Record(quota, Sums(total_octets, total_messages), len(changes), written)


def _parse_quota(line: bytes) -> Quota | None:
    limits = {b"S": 0, b"C": 0}
    for part in line.strip().split(b","):
        match = _limit(part)
        if match is None:
            return None
        limits[match[2]] = int(match[1])
    return Quota(limits[b"S"], limits[b"C"])


def read(inbox: str) -> Record | None:
    """
    What ``maildirsize`` of the Maildir *inbox* says; None if it is to be made anew.

    Raises:
        OSError: It cannot be read.
    """
    try:
        descriptor = os.open(f"{inbox}/{NAME}", os.O_RDONLY | _FLAGS)
        try:
            octets = os.read(descriptor, MOST_OCTETS)
            return parse(octets, os.fstat(descriptor).st_mtime)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        _log.warn(
            "{inbox}: {name} is no file, counting: {error}", inbox=inbox, name=NAME, error=error
        )
        return None


def append(inbox: str, change: Sums) -> None:
    """
    Add *change*.  Where there is no file, or something else, there is nothing to do: who needs it counts.

    Raises:
        OSError: It did not work.
    """
    try:
        descriptor = os.open(f"{inbox}/{NAME}", os.O_WRONLY | os.O_APPEND | _FLAGS)
    except OSError as error:
        if error.errno in (errno.ENOENT, *_NO_FILE):
            return
        raise
    try:
        os.write(descriptor, b"%d %d\n" % change)
    finally:
        os.close(descriptor)


def recount(inbox: str, quota: Quota, mode: int, *, store: bool) -> Sums:
    """
    Count what is in the Maildir *inbox*, folders included.  With *store*, write it down, if nobody
    has changed anything meanwhile; a new file has *mode*.

    Raises:
        OSError: It did not work.
    """
    before = _changed(inbox)
    sums = _count(before)
    if store and before:
        try:
            _write(inbox, quota, sums, mode, before)
        except OSError as error:
            # It is only that the next one has to count again.
            _log.warn("{inbox}: no new {name}: {error}", inbox=inbox, name=NAME, error=error)
    return sums


def _write(inbox: str, quota: Quota, sums: Sums, mode: int, before: dict[str, int]) -> None:
    """
    Put a new file in place of the old.
    """
    limits = [f"{quota.octets}S"] * bool(quota.octets) + [f"{quota.messages}C"] * bool(
        quota.messages
    )
    text = "{}\n{} {}\n".format(",".join(limits) or "0S", *sums)
    # Each process, and each thread, writes its own.
    name = f"{NAME}.{os.getpid()}.{os.urandom(8).hex()}"
    beside = os.path.join(inbox, "tmp", name)
    create(beside, BytesIO(text.encode()), mode, durably=False)
    try:
        if _changed(inbox) == before:
            os.rename(beside, f"{inbox}/{NAME}")
            return
    except BaseException:
        remove(beside)
        raise
    remove(beside)


def _changed(inbox: str) -> dict[str, int]:
    """
    The directories that have messages, and when something last came or went in each.
    """
    try:
        with os.scandir(inbox) as entries:
            folders = [
                entry.name
                for entry in entries
                if entry.name[0] == "." and entry.is_dir(follow_symlinks=False)
            ]
    except FileNotFoundError:
        # Nothing has come yet.
        return {}
    found = {}
    for maildir in (inbox, *(f"{inbox}/{folder}" for folder in folders)):
        for name in ("new", "cur"):
            try:
                status = os.stat(f"{maildir}/{name}", follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if stat.S_ISDIR(status.st_mode):
                found[f"{maildir}/{name}"] = status.st_mtime_ns
    return found


def _count(directories: dict[str, int]) -> Sums:
    sizes = [size for directory in directories for size in _sizes(directory)]
    return Sums(sum(sizes), len(sizes))


def _sizes(directory: str) -> Iterator[int]:
    """
    Octets of each message.
    """
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name[0] == ".":
                    continue
                match = _size(entry.name)
                if match is not None:
                    yield int(match[1])
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield status.st_size
    except FileNotFoundError:
        # The folder was removed meanwhile.
        return
