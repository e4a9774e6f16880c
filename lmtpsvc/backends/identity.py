"""
Doing file work as the user whose files they are.

A service that runs as root for the sake of its users' mailboxes must not follow a user's symbolic
links with root's rights.  Linux keeps the identity that file access is checked with per thread
(credentials(7)), and setfsuid(2) changes just that: so each worker thread can be another user, at
the price of a few system calls, and the capabilities to override permissions go with it.
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from types import TracebackType

# Not an identity that anybody can have, so that setting it changes nothing and tells the present
# one: setfsuid(2) reports no errors.
_ASK = ctypes.c_uint32(-1)

_OURSELVES = nullcontext()


def as_user(uid: int | None, gid: int | None) -> AbstractContextManager[None]:
    """
    A context in which this thread's file work is done as *uid* and *gid*.

    Without a *uid*, and where the service is not root and so can only be itself, it changes
    nothing.  The service's supplementary groups stay.  A thread that is started within would be
    that user for ever: start none.

    Raises:
        PermissionError: On entering: the identity could not be taken, nothing has been changed.
    """
    if uid is None or os.geteuid() != 0:
        return _OURSELVES
    return _Identity(uid, gid)


def identity(uid: int | None, gid: int | None) -> tuple[int, int]:
    """
    Owner and group of what is made within `as_user`, if its directory does not decide otherwise.
    """
    if uid is None or gid is None or os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    return uid, gid


class _Identity(AbstractContextManager[None]):
    def __init__(self, uid: int, gid: int | None) -> None:
        if gid is None:
            raise PermissionError(errno.EPERM, f"the group of user {uid} is not known")
        self._uid, self._gid = uid, gid

    def __enter__(self) -> None:
        # The group first: it takes root to change it.
        if not _take(self._uid, self._gid):
            self._restore()
            raise PermissionError(errno.EPERM, f"cannot act as {self._uid}:{self._gid}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        uid, gid = os.geteuid(), os.getegid()
        # To be root again first: only root may change the group.
        _calls()[0](uid)
        if not _take(uid, gid):
            # Going on would be doing somebody's file work as somebody else.
            raise RuntimeError(f"cannot be {uid}:{gid} again")


def _take(uid: int, gid: int) -> bool:
    setfsuid, setfsgid = _calls()
    setfsgid(gid)
    setfsuid(uid)
    return bool(setfsuid(_ASK) == uid and setfsgid(_ASK) == gid)


@cache
def _calls() -> tuple[ctypes._NamedFuncPointer, ctypes._NamedFuncPointer]:
    # PyDLL keeps the interpreter's lock: the calls take less time than giving it back.
    try:
        library = ctypes.PyDLL(None)
        return library.setfsuid, library.setfsgid
    except (OSError, AttributeError) as error:
        raise PermissionError(errno.EPERM, "no setfsuid on this system") from error
