"""
The process that stores small messages, but for the syncing.

Usage: idle_writer.py PROJECT MEMORY SIZE, see `lmtpsvc.backends.disk_writer_start.PROGRAM`.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """
    Do all but wait for the disk.
    """
    # Python was started without the package.
    sys.path.append(sys.argv[1])
    from lmtpsvc.backends import disk_writer
    from lmtpsvc.backends.file_systems import FileSystem

    for owner, name in ((FileSystem, "sync"), (os, "fsync")):
        assert hasattr(owner, name), f"{owner!r} has no {name} any more: see what it syncs with now"
        setattr(owner, name, lambda *_, **__: None)
    disk_writer.main(*map(int, sys.argv[2:]))


if __name__ == "__main__":
    main()
