"""
Who runs the process at the other end of a UNIX socket.
"""

from __future__ import annotations

import socket
import struct
from typing import Any, Final

#: struct ucred of Linux (unix(7), SO_PEERCRED): pid, uid, gid.
_CREDENTIALS: Final = struct.Struct("3i")
#: What the kernel says where it does not know.
_NOBODY_KNOWN: Final = -1


def peer_uid(transport: Any) -> int | None:
    """
    The uid at the time when the other side connected, as the kernel says it; None if *transport* is
    no UNIX socket.
    """
    # With TLS from the first octet on, the socket is one level below.
    plain = getattr(transport, "transport", transport)
    handle: Any = plain.getHandle() if hasattr(plain, "getHandle") else None
    if getattr(handle, "family", None) != socket.AF_UNIX:
        return None
    try:
        said = handle.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except (OSError, AttributeError):
        # AttributeError: this system has no such thing.
        return None
    uid: int = _CREDENTIALS.unpack(said)[1]
    return None if uid == _NOBODY_KNOWN else uid
