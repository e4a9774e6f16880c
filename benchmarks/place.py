"""
Where the stores lie: on which disk, each in a directory of its own, and nothing deleted before the end.

ext4 without a journal does not use an inode again for minutes after its file was deleted, and looks
past each of them whenever a file is made: who deletes the store of one run slows the next ones down,
a hundredfold.  So all stores stay until everything is measured, and each is put into a part of the
disk of its own, as the kernel does with the directories of a directory with the flag T.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from .workloads import KB, MB

# From the kernel's include/uapi/linux/fs.h.
_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FS_TOPDIR_FL = 0x00020000

#: What a full run of the table leaves behind, about.
ROOM = 8 * KB * MB
#: Files from this size on give their room back once they were looked at.
LARGE = 64 * KB


class Place:
    """
    A directory below which every run gets an empty one.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._numbers = count(1)
        _spread(root)

    def fresh(self) -> Path:
        """
        A directory that nobody has used, which others may enter.
        """
        # Sockets lie in there, whose names have to be short.
        path = self.root / str(next(self._numbers))
        path.mkdir()
        path.chmod(0o755)
        return path


def empty(store: Path) -> None:
    """
    Give back the room of large files, but not the files.
    """
    for directory, _, names in os.walk(store):
        for name in names:
            path = os.path.join(directory, name)
            if os.path.getsize(path) >= LARGE:
                os.truncate(path, 0)


@contextmanager
def below(where: Path) -> Iterator[Place]:
    """
    A place in a directory; all is deleted in the end.

    Raises:
        ValueError: It is no disk, or has too little room.
    """
    if not where.is_dir():
        raise ValueError(f"{where} is no directory")
    if file_system(where)[0] in {"tmpfs", "ramfs"}:
        raise ValueError(f"{where} is in memory, and would tell nothing about a disk: see --where")
    free = shutil.disk_usage(where).free
    if free < ROOM:
        raise ValueError(f"{where} has {free >> 30} GB free, and {ROOM >> 30} GB are needed")
    root = Path(tempfile.mkdtemp(prefix="lmtpsvc-bench-", dir=where))
    root.chmod(0o755)
    try:
        yield Place(root)
    finally:
        shutil.rmtree(root)


@contextmanager
def new_ext4(where: Path) -> Iterator[Place]:
    """
    A place in an ext4 of its own, with a journal, in a file below *where*; needs root.

    Raises:
        ValueError: It cannot be made or mounted.
    """
    with below(where) as outside:
        image, point = outside.root / "image", outside.root / "m"
        point.mkdir()
        # All of it is written now, the file and what ext4 keeps in it: otherwise the disk below would
        # have to find room, and the kernel to go on with its work, while we measure.
        with image.open("wb") as file:
            for _ in range(ROOM // (8 * MB)):
                file.write(bytes(8 * MB))
            os.fsync(file.fileno())
        whole = "lazy_itable_init=0,lazy_journal_init=0"
        _run(
            "mkfs.ext4",
            "-q",
            "-O",
            "has_journal",
            "-E",
            f"nodiscard,{whole}",
            "-i",
            "8192",
            str(image),
        )
        _run("mount", "-o", "loop", str(image), str(point))
        os.sync()
        try:
            point.chmod(0o755)
            yield Place(point)
        finally:
            _run("umount", str(point))


def file_system(path: Path) -> tuple[str, str, str]:
    """
    What a path lies on: the type of the file system, its options, and its device.
    """
    best = ("", "unknown", "", "")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        device, point, kind, options, *_ = line.split()
        if path.resolve().is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind, options, device)
    return best[1:]


def _run(*command: str) -> None:
    """
    Run a command as root may.
    """
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise ValueError(f"{command[0]} is not there") from None
    except subprocess.CalledProcessError as problem:
        raise ValueError(f"{' '.join(command)}: {problem.stderr.strip()}") from None


def _spread(directory: Path) -> None:
    """
    Ask for the directories below to lie in different parts of the disk; not every disk has such.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with suppress(OSError):
            flags = fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, struct.pack("l", 0))
            spread = struct.unpack("l", flags)[0] | _FS_TOPDIR_FL
            fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, struct.pack("l", spread))
    finally:
        os.close(descriptor)
