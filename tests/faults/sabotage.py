"""
Run twistd with its syncing taken out, or written down.

Usage: sabotage.py files|large-files|directories|file-systems|process|process-always|process-awaited -- TWISTD-ARGUMENTS
       sabotage.py record|record-file-systems FILE -- TWISTD-ARGUMENTS

``files`` makes fsync of regular files do nothing, ``large-files`` that of those that were spooled
in a file, ``directories`` that of directories; ``record`` syncs as ever, and adds to FILE one line
for each sync that is done: the path.  These four sync one by one, never a file system as a whole, and
so store nothing by way of the process that stores small messages.  ``file-systems`` leaves out just
that, wherever the server thinks that it pays, and all syncs of the process; ``process`` takes syncing
as a whole for what pays always, and leaves out the syncs of the process only; ``process-always`` leaves
out nothing, and starts the process anew at once when it has ended; ``process-awaited`` leaves out nothing
either, and never ends the process because it does not get on; ``record-file-systems`` syncs file
systems always, in threads, and adds to FILE "finally", if it was done for good, or "not yet".
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class HasFileno(Protocol):
    """
    An open file.
    """

    def fileno(self) -> int: ...


Sync = Callable[[int | HasFileno], None]

RECORD = os.O_WRONLY | os.O_APPEND | os.O_CREAT

SPOOL_MEMORY = 256 * 1024

SKIPPED: dict[str, Callable[[os.stat_result], bool]] = {
    "files": lambda seen: stat.S_ISREG(seen.st_mode),
    "large-files": lambda seen: stat.S_ISREG(seen.st_mode) and seen.st_size > SPOOL_MEMORY,
    "directories": lambda seen: stat.S_ISDIR(seen.st_mode),
}


def descriptor_of(file: int | HasFileno) -> int:
    """
    What os.fsync takes is a descriptor, or something that has one.
    """
    return file if isinstance(file, int) else file.fileno()


def skipping(skipped: Callable[[os.stat_result], bool], sync: Sync) -> Sync:
    """
    A sync that does nothing for what is *skipped*.
    """

    def partial_sync(file: int | HasFileno) -> None:
        descriptor = descriptor_of(file)
        if not skipped(os.fstat(descriptor)):
            sync(descriptor)

    return partial_sync


def recording(record: int, sync: Sync) -> Sync:
    """
    A sync that tells what was synced.
    """

    def recorded_sync(file: int | HasFileno) -> None:
        descriptor = descriptor_of(file)
        sync(descriptor)
        os.write(record, os.readlink(f"/proc/self/fd/{descriptor}").encode() + b"\n")

    return recorded_sync


def replace(owner: object, name: str, replacement: object) -> None:
    """
    Put something else in the place of what is there.
    """
    assert hasattr(owner, name), f"{owner!r} has no {name} any more: see what it syncs with now"
    setattr(owner, name, replacement)


def main() -> None:
    """
    Do what the command line says.
    """
    # This directory's modules are nobody's top-level modules.
    del sys.path[0]
    from lmtpsvc.backends import disk_writer_start, syncing, write_process
    from lmtpsvc.backends.file_systems import FileSystem

    end = sys.argv.index("--")
    mode, *rest = sys.argv[1:end]
    if mode in {"file-systems", "process"}:
        program = Path(__file__).with_name("idle_writer.py")
        project = str(Path(__file__).parents[2])
        replace(disk_writer_start, "PROGRAM", ("-I", "-S", str(program), project))
        if mode == "file-systems":
            replace(syncing.Syncing, "whole", lambda *_, **__: None)
        else:
            # However quick the disk is just now.
            replace(syncing.Syncing, "whole_pays", lambda *_: True)
    elif mode in {"process-always", "process-awaited"}:
        if mode == "process-always":
            replace(write_process, "PAUSE", 0.0)
        else:
            replace(write_process, "LAST_PATIENCE", 3600.0)
        replace(syncing.Syncing, "whole_pays", lambda *_: True)
    elif mode == "record-file-systems":
        record, whole = os.open(rest[0], RECORD, 0o600), syncing.Syncing.whole

        def recorded_whole(
            self: syncing.Syncing, file_system: FileSystem, *, finally_: bool = True
        ) -> None:
            whole(self, file_system, finally_=finally_)
            os.write(record, b"finally\n" if finally_ else b"not yet\n")

        replace(write_process.WriteProcess, "is_there", False)
        replace(syncing.Syncing, "whole", recorded_whole)
        replace(syncing.Syncing, "whole_pays", lambda *_: True)
    else:
        replace(syncing, "can_sync_file_systems", lambda: False)
        for name in ("fsync", "fdatasync"):
            sync = getattr(os, name)
            if mode == "record":
                record = os.open(rest[0], RECORD, 0o600)
                replace(os, name, recording(record, sync))
            else:
                replace(os, name, skipping(SKIPPED[mode], sync))

    from twisted.scripts.twistd import run

    sys.argv[1:] = sys.argv[end + 1 :]
    run()


if __name__ == "__main__":
    main()
