"""
How many files the process may have open: each connection is one.

Most systems allow 1024 to begin with, for the sake of programs that use select(2), and many more to who
asks.  When connections have taken all, nothing can be delivered any more, on none of them.
"""

from __future__ import annotations

import resource
from typing import Final

#: For a mail that is stored, a few each; for logs, look-ups and all else.
BESIDE: Final = 256
#: What Linux allows at the most, if nobody has said anything else (fs.nr_open).
_MOST: Final = 1 << 20


def allow_files(connections: int) -> str | None:
    """
    Have this process be allowed as many files as *connections* need: one each, and one for a large
    message of each.  Nobody is allowed more than the hard limit.

    Returns a line that somebody should read if there are not enough for the connections alone.
    """
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Where there is no limit, as for the hard one of some systems, its number is -1.
    allowed, most = (_MOST if each == resource.RLIM_INFINITY else each for each in limits)
    needed = min(2 * connections + BESIDE, most, _MOST)
    if allowed < needed:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, limits[1]))
        except (OSError, ValueError):
            # The system has another opinion, and what there is has to do.
            needed = allowed
        allowed = needed
    if allowed >= min(connections + BESIDE, _MOST):
        return None
    return (
        f"{connections} connections would need {connections + BESIDE} open files, and {allowed} are"
        " allowed (ulimit -n, LimitNOFILE=): when they are used up, no mail can be stored"
    )
