"""
Files and directories that survive a power cut, and what is said when they cannot be had.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import BinaryIO, Final

from ..errors import DeliveryError, TemporaryFailure
from ..errors import refusal as as_error
from ..replies import BAD_MAILBOX, NO_SPACE, TOO_LARGE, Reply

#: The mailbox's owner has used up his quota.
MAILBOX_FULL: Final = Reply(452, "Mailbox full", (2, 2))
#: The same, where the operator wants the message returned at once.
MAILBOX_FULL_FOR_GOOD: Final = Reply(552, "Mailbox full", (2, 2))

#: Octets that are copied at a time.
CHUNK = 1 << 18

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def refusal(error: OSError, mailbox_full: Reply = MAILBOX_FULL) -> DeliveryError:
    """
    Choose the reply for a file system error (codes: RFC 3463 §3.3, §3.4); log the error yourself.

    Anything unforeseen is temporary: a lost mount or a slip of the administrator is no reason to
    return mail to its sender.
    """
    match error.errno:
        case errno.EDQUOT:
            return as_error(mailbox_full)
        case errno.ENOSPC | errno.EROFS:
            # Also what the lack of inodes is called.
            return as_error(NO_SPACE)
        case errno.EFBIG:
            # No file here may be that large, tomorrow neither.
            return as_error(TOO_LARGE)
        case errno.ENAMETOOLONG:
            return as_error(BAD_MAILBOX)
        case errno.EACCES | errno.EPERM | errno.ELOOP | errno.ENOTDIR:
            return TemporaryFailure("Mailbox unavailable, try again later", (2, 0))
        case _:
            return TemporaryFailure("Mail cannot be stored now, try again later", (3, 0))


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


def make_directory(path: str, mode: int) -> bool:
    """
    Make sure there is a directory; one that is made gets exactly *mode*.  True if it was made.
    """
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        return False
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


def write_durably(path: str, source: BinaryIO, mode: int) -> None:
    """
    Write what *source* holds into the new file *path*, and wait until the disk has it.

    Raises:
        OSError: It did not work; there is no such file then.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try:
            if mode & 0o077:
                # As in make_directory.
                os.fchmod(descriptor, mode)
            while chunk := source.read(CHUNK):
                _write(descriptor, chunk)
            os.fsync(descriptor)
        finally:
            # NFS tells of a full quota here, so it must be before success.
            os.close(descriptor)
    except BaseException:
        remove(path)
        raise


def _write(descriptor: int, octets: bytes) -> None:
    written = os.write(descriptor, octets)
    while written < len(octets):
        octets = octets[written:]
        written = os.write(descriptor, octets)


def sync_file(path: str) -> None:
    """
    Wait until the disk has the contents of the file *path*.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
    returns how many.
    """
    removed = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                continue
            with suppress(FileNotFoundError):
                seen = entry.stat(follow_symlinks=False)
                if max(seen.st_mtime, seen.st_atime) < before:
                    os.unlink(entry.path)
                    removed += 1
    return removed
