"""
The locks of an mbox, taken at once or not at all: whoever has to wait gives back what he has got.

So no order of locks can lead to a deadlock with a program that takes them in another, and nobody's
thread waits.  The names are Dovecot's.

``fcntl``    on the whole file.  It belongs to the open file and not to the process (open file
             description locks), so that two backends of one process do not share it; for the
             fcntl locks of all other programs that makes no difference.
``flock``    the same with flock(2), for systems whose programs use that.
``dotlock``  a file with ``.lock`` behind its name, which only one can create.  It has our process
             id and host in it.  If it cannot be created because the directory is not ours to write
             to, there is no delivery.
``dotlock_try``  the same, but where it cannot be created it is done without.

A dot-lock that somebody has left behind is removed: at once if it says that a process of this host
made it, and there is no such process; else when it is five minutes old (as liblockfile does).

What is in a new file reaches the disk long after its name, so that after a power cut a dot-lock is
empty.  So ours has its process id and host in an extended attribute, too, which stands in the inode
and is there whenever the name is, with the boot it was made in: a process that has the number of
one before the power cut is not the same.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import cache
from threading import Lock
from typing import Final

from twisted.logger import Logger

_log = Logger()

KINDS: Final = ("fcntl", "flock", "dotlock", "dotlock_try")

#: Behind the name of the mailbox.
SUFFIX: Final = ".lock"

#: The attribute with the maker of a dot-lock.
MAKER: Final = "user.lmtpsvc.lock"

#: A dot-lock that is older, of a process that cannot be asked for, was left behind.
STALE_SECONDS: Final = 300

# struct flock: type, whence, start, length (0: to the end and beyond), process (none).
_WRITE_LOCK: Final = struct.pack("hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)

# Not ours to write to.
_NO_RIGHT: Final = (errno.EACCES, errno.EPERM, errno.EROFS)

#: Those that this process has or is about to have: any other with its number is of another time.
_ours: set[str] = set()
_ours_lock = Lock()

Rights = Callable[[], AbstractContextManager[None]]


class Busy(Exception):
    """
    Somebody else has a lock.
    """


@contextmanager
def locked(descriptor: int, path: str, kinds: Sequence[str], rights: Rights) -> Iterator[None]:
    """
    Have all locks of *path*, which *descriptor* is; files are made with *rights*.

    Locks of *descriptor* itself last until it is closed.

    Raises:
        Busy: On entering; nothing is locked then.
        OSError: On entering: there can be no such lock.
    """
    with ExitStack() as stack:
        for kind in kinds:
            if kind.startswith("dotlock"):
                stack.enter_context(_dot_locked(path, rights, may_fail=kind == "dotlock_try"))
            else:
                _lock_file(descriptor, kind)
        yield


def _lock_file(descriptor: int, kind: str) -> None:
    try:
        if kind == "flock":
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif hasattr(fcntl, "F_OFD_SETLK"):
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _WRITE_LOCK)
        else:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.EAGAIN, errno.EACCES}:
            raise Busy from error
        raise


@contextmanager
def _dot_locked(path: str, rights: Rights, *, may_fail: bool) -> Iterator[None]:
    path += SUFFIX
    with _ours_lock:
        if path in _ours:
            raise Busy
        _ours.add(path)
    try:
        try:
            with rights():
                made = _create(path)
        except OSError as error:
            if not may_fail or error.errno not in _NO_RIGHT:
                raise
            yield
            return
        try:
            yield
        finally:
            with rights():
                _remove(path, made)
    finally:
        with _ours_lock:
            _ours.discard(path)


def _create(path: str) -> os.stat_result:
    """
    Create a dot-lock, if need be in place of one that was left behind.
    """
    try:
        return _create_new(path)
    except FileExistsError as error:
        try:
            if _removed(path):
                return _create_new(path)
        except (FileExistsError, FileNotFoundError):
            pass
        raise Busy from error


def _create_new(path: str) -> os.stat_result:
    """
    Create a dot-lock that says whose it is from the first moment on: nobody would ask the process
    that died before it had said so.
    """
    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor, is_named = os.open(os.path.dirname(path), flags | os.O_TMPFILE, 0o644), False
    except OSError as error:
        # As for the spool: no such thing in this kernel, or on this file system.
        if error.errno not in {errno.EISDIR, errno.EOPNOTSUPP}:
            raise
        descriptor, is_named = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644), True
    try:
        # On a full disk it is empty, and a lock all the same; so it is without attributes.
        maker = f"{os.getpid()}:{socket.gethostname()}"
        with suppress(OSError):
            os.write(descriptor, f"{maker}\n".encode())
        with suppress(OSError):
            os.setxattr(descriptor, MAKER, f"{maker}:{_boot()}".encode())
        if not is_named:
            # Python follows the symbolic link that this is only where a directory is given.
            os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=0, follow_symlinks=True)
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: str, made: os.stat_result) -> None:
    """
    Remove our dot-lock, but nobody else's, who took ours for one left behind.
    """
    try:
        seen = os.lstat(path)
        # The number of a file that is gone is soon another's.
        if os.path.samestat(made, seen) and made.st_mtime_ns == seen.st_mtime_ns:
            os.unlink(path)
            return
        _log.warn("{path}: somebody has taken our lock away", path=path)
    except OSError as error:
        _log.error("{path} cannot be removed: {error}", path=path, error=error)


def _removed(path: str) -> bool:
    """
    Remove a dot-lock, if it was left behind; False if it was not.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        # Gone just now, or not for us to read: its age is all we have, next time.
        if not _is_old(path):
            return False
        _remove_old(path)
        return True
    try:
        # Of several processes that find it, one removes it: the next would remove the new one of the
        # first.
        with suppress(OSError):
            _lock_file(descriptor, "flock")
        if not _is_left_behind(descriptor, path):
            return False
        if not os.path.samestat(os.fstat(descriptor), os.lstat(path)):
            return False
        _remove_old(path)
    finally:
        os.close(descriptor)
    return True


def _remove_old(path: str) -> None:
    _log.warn("{path}: somebody has left this lock behind; it is removed", path=path)
    os.unlink(path)


def _is_left_behind(descriptor: int, path: str) -> bool:
    process, host, boot = _maker(descriptor)
    if host != socket.gethostname() or not (process.isascii() and process.isdigit()):
        return _is_old(path)
    return boot not in {"", _boot()} or not _lives(int(process))


def _maker(descriptor: int) -> tuple[str, str, str]:
    """
    Process, host and boot of who made a dot-lock; what it does not say is empty.
    """
    with suppress(OSError, ValueError):
        process, host, boot = os.getxattr(descriptor, MAKER).decode().split(":")
        return process, host, boot
    owner = b""
    with suppress(OSError):
        owner = os.read(descriptor, 256)
    process, _, host = owner.decode(errors="replace").strip().partition(":")
    return process, host, ""


@cache
def _boot() -> str:
    """
    What tells this run of the system from all others, or nothing if it does not say.

    Short: with a host's name of the usual length, the attribute needs no block of its own.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read(8)
    except OSError:
        return ""


def _is_old(path: str) -> bool:
    try:
        return time.time() - os.lstat(path).st_mtime > STALE_SECONDS
    except OSError:
        return False


def _lives(process: int) -> bool:
    if process == os.getpid():
        # We would know of it, and not be here: in a container each process has this number.
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        # Of another user.
        return True
    return True
