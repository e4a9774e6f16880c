"""
Names for files in a Maildir.

The form is that of https://cr.yp.to/proto/maildir.html: when, unique, where.  ``S=`` (octets of
the file) and ``W=`` (octets with CRLF line endings) are what Courier and Dovecot append, so that
quota and IMAP need not read the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from itertools import count

from ..interfaces import Sizes


class Names:
    """
    Makes names that no other process, here or on another host, makes; from any thread.

    *seconds* is the time of day; *hostname* is made fit for a file name.
    """

    def __init__(self, hostname: str, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._count = count(1)
        # A process number comes again: after a restart at once, in containers always.
        self._rest = f"R{os.urandom(4).hex()}.{escape(hostname)}"

    def make(self, sizes: Sizes) -> str:
        """
        A new name for a message of *sizes*.
        """
        now, (physical, virtual) = self._seconds(), sizes
        second = int(now)
        return (
            f"{second}.M{int((now - second) * 1e6):06d}P{os.getpid()}Q{next(self._count)}"
            f"{self._rest},S={physical},W={virtual}"
        )


def escape(hostname: str) -> str:
    """
    *hostname* without what has a meaning in a path or in a Maildir name.
    """
    return re.sub(r"[/:,\s]", lambda found: f"\\{ord(found[0]):03o}", hostname) or "localhost"
