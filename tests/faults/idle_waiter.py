"""
The process that waits for the disk, but for the waiting.
"""

from __future__ import annotations

import os
import runpy
import sys


def main() -> None:
    """
    Answer each request at once.
    """
    # Python was started without the package; where this is, that is not far.
    here = os.path.dirname(os.path.abspath(__file__))
    program = os.path.join(here, "..", "..", "lmtpsvc", "backends", "disk_waiter.py")
    if not os.path.exists(program):
        sys.exit(f"{program} is not there any more: see what waits for the disk now")
    names = runpy.run_path(program)["main"].__globals__
    assert "_wait" in names
    names["_wait"] = lambda *_, **__: 0
    names["main"]()


if __name__ == "__main__":
    main()
