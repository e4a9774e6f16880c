"""
File systems that can be filled, locked and unplugged.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lmtpsvc.testing.disk import cut_power, make_ext4, run, run_when_left

MIB = 1024 * 1024


@contextmanager
def undisturbed() -> Iterator[None]:
    """
    Control-C waits until what is done here is done: half-made disks are nobody's to clean up.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Mount:
    """
    Something mounted on a directory of ours.
    """

    def __init__(self, point: Path) -> None:
        self.point = point
        point.mkdir(parents=True, exist_ok=True)

    @property
    def root(self) -> Path:
        """
        Where the server's mailboxes go; a directory that is on the disk for good.
        """
        root = self.point / "mail"
        if not root.is_dir():
            root.mkdir()
            descriptor = os.open(self.point, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        return root

    def remount(self, options: str, seconds: float = 10.0) -> None:
        """
        Change the mount options, once nobody has a file open for writing.
        """
        run_when_left("mount", "-o", f"remount,{options}", self.point, seconds=seconds)

    def unmount(self, seconds: float = 10.0) -> None:
        """
        Unmount, once everybody has left: who stores for a service that was killed ends behind it.
        """
        run_when_left("umount", self.point, seconds=seconds)

    def close(self) -> None:
        """
        Unmount whatever is still in the way.
        """
        if os.path.ismount(self.point):
            run("umount", "-l", self.point)


class MemoryDisk(Mount):
    """
    A tmpfs with so much room, and so many inodes.
    """

    def __init__(self, point: Path, octets: int, inodes: int = 0) -> None:
        super().__init__(point)
        run("mount", "-t", "tmpfs", "-o", f"size={octets},nr_inodes={inodes}", "faults", point)


class Disk(Mount):
    """
    An ext4 file system with a journal, on a loop device.
    """

    def __init__(self, point: Path, octets: int, options: Sequence[str] = ()) -> None:
        super().__init__(point)
        self._options = options
        self._image = point.with_suffix(".img")
        with self._image.open("wb") as image:
            image.truncate(octets)
        self.device = run("losetup", "--find", "--show", self._image).strip()
        try:
            self.format()
        except BaseException:
            self.close()
            raise

    def format(self) -> None:
        """
        Start with an empty file system, mounted.
        """
        if os.path.ismount(self.point):
            self.unmount()
        make_ext4(self.device, "-O", "has_journal", *self._options)
        self.mount()

    def mount(self) -> None:
        """
        Mount; after a power cut, this replays the journal.
        """
        run("mount", "-t", "ext4", self.device, self.point)

    def cut_power(self) -> None:
        """
        From now on, what is on the disk is all there is.
        """
        cut_power(self.point)

    def restart(self) -> None:
        """
        Mount what the power cut left, and check that the file system itself is sound.
        """
        self.unmount()
        self.mount()
        self.unmount()
        run("e2fsck", "-fn", self.device)
        self.mount()

    def close(self) -> None:
        super().close()
        run("losetup", "--detach", self.device)
        self._image.unlink()
