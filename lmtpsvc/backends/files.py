"""
Files and directories that survive a power cut.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO, Final

from .calls import PATIENT, Calls

#: Octets that are copied at a time.
CHUNK = 1 << 18

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC

_NAMELESS: Final = os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC

#: Where a file without a name can be linked from.
_OPENED: Final = "/proc/self/fd"

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def sync_directory(path: str) -> os.stat_result:
    """
    Make the names in *path* durable; returns what the directory is.
    """
    descriptor = os.open(path, _DIRECTORY)
    try:
        os.fsync(descriptor)
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def check_room(root: str, advice: str = "", *, if_there: bool = True) -> None:
    """
    Make sure that mail could be stored in *root*, or that it could be made.

    A root that is there must be writable, unless *if_there* says that this does not matter.

    Raises:
        ValueError: With one line that says what is in the way, and gives *advice*.
    """
    nearest = root
    while not os.path.lexists(nearest):
        nearest = os.path.dirname(nearest)
    if not os.path.isdir(nearest):
        raise ValueError(f"{nearest} is not a directory")
    if nearest == root and not if_there:
        return
    if not os.access(nearest, os.W_OK | os.X_OK, effective_ids=True):
        raise ValueError(f"{nearest} is not writable for user {os.geteuid()}{advice}")


def make_directory(path: str, mode: int, *, exactly: bool = True) -> bool:
    """
    Make sure there is a directory; one that is made gets *exactly* the *mode*.  True if it was made.
    """
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        return False
    if exactly:
        # The umask may have taken away what the operator asked for.
        os.chmod(path, mode)
    return True


def make_directory_durably(path: str, mode: int) -> None:
    """
    Make sure there is a directory *path*, with all above it, that survives a power cut.

    A directory that exists is synced too: who made it may not have come to do so.
    """
    parent = os.path.dirname(path)
    if not os.path.isdir(path) and parent != path:
        make_directory_durably(parent, mode)
        make_directory(path, mode)
    sync_directory(path)
    if parent != path:
        with suppress(PermissionError):
            # A directory that we may not read is not one in which we made something.
            sync_directory(parent)


def create(path: str, source: BinaryIO, mode: int, *, durably: bool, calls: Calls = PATIENT) -> int:
    """
    Write what *source* holds into the new file *path*; if *durably*, wait until the disk has it.
    Returns which device it is on.  All is done by way of *calls*, but for the wait.

    Raises:
        OSError: It did not work; there is no such file then.
    """

    def fill(descriptor: int) -> int:
        while chunk := source.read(CHUNK):
            written = calls.write(descriptor, chunk)
            while written < len(chunk):
                chunk = chunk[written:]
                written = calls.write(descriptor, chunk)
        if durably:
            os.fsync(descriptor)
        return calls.device(descriptor)

    return _new_file(path, mode, calls, fill)


def create_at_once(path: str, octets: memoryview, mode: int, *, durably: bool) -> int:
    """
    Write *octets* into the new file *path*; if *durably*, wait until the disk has it.  Returns which
    device it is on.

    Raises:
        OSError: It did not work; there is no such file then.
    """

    def fill(descriptor: int) -> int:
        _fill(descriptor, octets, path)
        if durably:
            os.fsync(descriptor)
        return os.fstat(descriptor).st_dev

    return _new_file(path, mode, PATIENT, fill)


def can_give_names() -> bool:
    """
    Whether `give_name` works at all: not where nobody has mounted /proc.
    """
    return os.path.isdir(_OPENED)


def create_nameless(directory: str, octets: memoryview, mode: int) -> int:
    """
    Write *octets* into a new file on the file system of *directory*, that is in no directory yet, and
    is gone when nobody has it open.  Returns its descriptor.

    Raises:
        OSError: It did not work; EOPNOTSUPP or EISDIR: it cannot on this file system.
    """
    descriptor = os.open(directory, _NAMELESS, mode)
    try:
        _fill(descriptor, octets, directory)
        if mode & 0o077:
            # As in make_directory.
            os.fchmod(descriptor, mode)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def give_name(descriptor: int, path: str) -> None:
    """
    Let what `create_nameless` has made be the new file *path*, too.

    Raises:
        OSError: It cannot be, or there is one.
    """
    # Python follows symbolic links only where a directory is given, which counts for relative paths only.
    os.link(f"{_OPENED}/{descriptor}", path, src_dir_fd=0, follow_symlinks=True)


def _fill(descriptor: int, octets: memoryview, path: str) -> None:
    if os.write(descriptor, octets) != len(octets):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def _new_file(path: str, mode: int, calls: Calls, fill: Callable[[int], int]) -> int:
    """
    Make the new file *path* and *fill* it; returns what that does, and if anything goes wrong there is
    no file.
    """
    descriptor = calls.open(path, _NEW, mode)
    try:
        try:
            if mode & 0o077:
                # As in make_directory.
                os.fchmod(descriptor, mode)
            return fill(descriptor)
        finally:
            # NFS tells of a full quota here, so it must be before success.
            calls.close(descriptor)
    except BaseException:
        remove(path)
        raise


def touch(path: str, mode: int) -> None:
    """
    Make sure there is a file *path*; an empty one if it is made.
    """
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, mode))


def remove(path: str) -> None:
    """
    Remove a file of ours, if it is there and can be removed.
    """
    with suppress(OSError):
        os.unlink(path)


def remove_older(directory: str, before: float) -> int:
    """
    Remove the files in *directory* that nobody has touched since *before*, a time in seconds;
    returns how many.  One that cannot be removed is in nobody's way.
    """
    removed = 0
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                continue
            with suppress(OSError):
                seen = entry.stat(follow_symlinks=False)
                if max(seen.st_mtime, seen.st_atime) < before:
                    os.unlink(entry.path)
                    removed += 1
    return removed
