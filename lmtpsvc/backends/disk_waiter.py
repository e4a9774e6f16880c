"""
The program of a process that waits for the disk on behalf of another, see `sync_process`.

Usage: disk_waiter.py

Standard input is a socket.  A request is one octet with the descriptor of a directory: ``s`` has
syncfs(2) wait for the file system that it is on, ``f`` does that and then syncs the directory
itself.  The answer is a number in four octets: 0, or the errno of what went wrong.  The first
answer, 0, comes before any request: it says that the program runs.  The end of the requests is the
end of the program, not a signal, which may be meant for all processes of the service.

Started without any package, so that it takes as little memory and time as Python can do with.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from _socket import CMSG_SPACE, socket
from struct import calcsize, pack, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_DESCRIPTOR = calcsize("i")


def main() -> None:
    """
    Wait as long as there are requests.
    """
    of_the_service = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    for number in of_the_service:
        signal.signal(number, signal.SIG_IGN)
    syncfs = ctypes.CDLL(None, use_errno=True).syncfs
    service = socket(fileno=0)
    service.send(pack("i", 0))
    while True:
        request, ancillary, _, _ = service.recvmsg(1, CMSG_SPACE(_DESCRIPTOR))
        if not request or not ancillary:
            # Nobody asks any more; or this process may not have what it is sent, so it is of no use.
            return
        ((_, _, octets),) = ancillary
        (descriptor,) = unpack("i", octets)
        error = _wait(syncfs, descriptor, finally_=request == b"f")
        # Before the answer: the service may let the disk be unmounted then.
        os.close(descriptor)
        service.send(pack("i", error))


def _wait(syncfs: Callable[[int], int], descriptor: int, *, finally_: bool) -> int:
    if syncfs(descriptor):
        return ctypes.get_errno() or errno.EIO
    try:
        if finally_:
            os.fsync(descriptor)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


if __name__ == "__main__":
    try:
        main()
    except ConnectionError:
        # The service is gone, and nobody waits for an answer.
        pass
