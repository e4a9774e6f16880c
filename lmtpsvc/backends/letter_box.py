"""
Where a process that stores messages finds its letters: the socket, and whether the service still is there.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from typing import Final

from .letters import Letter, room_for_one, unpack_letter

#: Letters that are taken at a time, at most.
MOST: Final = 64


class LetterBox:
    """
    The end of the socket *letters* that letters come from.
    """

    def __init__(self, letters: socket.socket) -> None:
        # They are not blocking if the service has a default timeout for sockets.
        letters.setblocking(True)
        self._letters, self._page = letters, room_for_one()
        # As the socket has been told.
        self._seconds: float | None = None
        self._poll = select.poll()
        # It tells of the end of the other side, which need not be asked for.
        self._poll.register(letters, 0)

    def receive(self, seconds: float | None) -> list[Letter] | None:
        """
        The letters that are there.  If there is none, waits for one: for so many *seconds*, or, if that
        is None, as long as it takes.  None at the end of all.

        Raises:
            ConnectionError: The service is gone.
        """
        found: list[Letter] = []
        flags = 0
        if seconds == 0:
            flags = socket.MSG_DONTWAIT
        else:
            self._wait_for(seconds)
        try:
            while len(found) < MOST:
                size = self._letters.recv_into(self._page, 0, flags)
                if not size:
                    # The service wants nothing more, or is gone: nobody is told of anything any more.
                    return None
                found.append(unpack_letter(self._page[:size]))
                flags = socket.MSG_DONTWAIT
        except BlockingIOError:
            pass
        return found

    def check(self) -> None:
        """
        Ask whether somebody still wants answers.

        Raises:
            ConnectionError: The service is gone; there may be letters of its.
        """
        if self._poll.poll(0):
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))

    def _wait_for(self, seconds: float | None) -> None:
        """
        Have the kernel see to it: to ask it each time whether something has come, and then for what,
        would take one call more for each.
        """
        if seconds != self._seconds:
            self._seconds = seconds
            # struct timeval; zero is for ever.
            whole, rest = divmod(seconds or 0.0, 1)
            limit = struct.pack("@ll", int(whole), int(rest * 1_000_000))
            self._letters.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
