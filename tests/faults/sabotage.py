"""
Run twistd with its syncing taken out, or written down.

Usage: sabotage.py files|directories -- TWISTD-ARGUMENTS
       sabotage.py record FILE -- TWISTD-ARGUMENTS

``files`` makes fsync of regular files do nothing, ``directories`` that of directories; ``record``
syncs as ever, and adds to FILE one line for each sync that is done: the path.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable


def skipping(wanted: Callable[[int], bool], sync: Callable[[int], None]) -> Callable[[int], None]:
    """
    A sync that does nothing for files whose mode is *wanted*.
    """

    def partial_sync(file: int) -> None:
        descriptor = file if isinstance(file, int) else file.fileno()
        if not wanted(os.fstat(descriptor).st_mode):
            sync(descriptor)

    return partial_sync


def recording(record: int, sync: Callable[[int], None]) -> Callable[[int], None]:
    """
    A sync that tells what was synced.
    """

    def recorded_sync(file: int) -> None:
        descriptor = file if isinstance(file, int) else file.fileno()
        sync(descriptor)
        os.write(record, os.readlink(f"/proc/self/fd/{descriptor}").encode() + b"\n")

    return recorded_sync


def main() -> None:
    """
    Do what the command line says.
    """
    # This directory's modules are nobody's top-level modules.
    del sys.path[0]
    end = sys.argv.index("--")
    mode, *rest = sys.argv[1:end]
    for name in ("fsync", "fdatasync"):
        sync = getattr(os, name)
        if mode == "record":
            record = os.open(rest[0], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            setattr(os, name, recording(record, sync))
        else:
            wanted = {"files": stat.S_ISREG, "directories": stat.S_ISDIR}[mode]
            setattr(os, name, skipping(wanted, sync))

    from twisted.scripts.twistd import run

    sys.argv[1:] = sys.argv[end + 1 :]
    run()


if __name__ == "__main__":
    main()
