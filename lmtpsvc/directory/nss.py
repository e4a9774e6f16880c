"""
Ask the system for a user, and tell "nobody of that name" from "it cannot be known".

`pwd.getpwnam` raises the same KeyError for both: with no file descriptor left, or an LDAP server
that is down, it says that root does not exist, and mail for everybody would bounce.  So whenever it
does, getpwnam_r(3) is asked once more, for the status that Python drops.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pwd

# What getpwnam_r(3) lists as "the given name was not found", besides 0.
_NOT_FOUND = {0, errno.ENOENT, errno.ESRCH, errno.EBADF, errno.EPERM}

# struct passwd takes 48 to 80 octets, by system; we never look into it.
_STRUCT_SIZE = 1024
_FIRST_SIZE = 16 * 1024
_LAST_SIZE = 1024 * 1024


def look_up(name: str) -> pwd.struct_passwd | None:
    """
    The system user *name*, or None if there is none.  Blocks.

    Raises:
        OSError: It cannot be known now.
    """
    try:
        return pwd.getpwnam(name)
    except KeyError:
        status = _status(name)
    except MemoryError as error:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from error
    if status not in _NOT_FOUND:
        raise OSError(status, os.strerror(status))
    return None


def _status(name: str) -> int:
    """
    The error number with which getpwnam_r(3) ends; EAGAIN if it finds the user after all.
    """
    getpwnam_r = ctypes.CDLL(None).getpwnam_r
    record = ctypes.create_string_buffer(_STRUCT_SIZE)
    found = ctypes.c_void_p()
    size = _FIRST_SIZE
    while True:
        space = ctypes.create_string_buffer(size)
        status: int = getpwnam_r(
            name.encode(), record, space, ctypes.c_size_t(size), ctypes.byref(found)
        )
        if status == errno.ERANGE and size < _LAST_SIZE:
            size *= 2
            continue
        if status == 0 and found.value is not None:
            return errno.EAGAIN
        return status
