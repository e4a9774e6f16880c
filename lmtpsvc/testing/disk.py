"""
A disk whose power can be cut.  It needs root, loop devices and the tools of ext4.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import time
from pathlib import Path
from typing import Final

_TOOLS: Final = ("mount", "umount", "losetup", "mkfs.ext4", "e2fsck")

# From the kernel's fs/ext4/ext4.h: _IOR('X', 125, __u32), and the flag that drops the journal's
# memory instead of writing it.  From then on the file system answers with errors, and nothing more
# reaches the device: what a power cut leaves.
_EXT4_IOC_SHUTDOWN: Final = 0x8004587D
_EXT4_GOING_FLAGS_NOLOGFLUSH: Final = 2

# For so many seconds somebody may still be busy there who is about to end.
_PATIENCE: Final = 10.0


class Unavailable(Exception):
    """
    Such a disk cannot be had on this machine, or by this user.
    """


class Disk:
    """
    An ext4 file system on a loop device, mounted in *directory*.

    Raises:
        Unavailable: It cannot be made here.
    """

    def __init__(self, directory: Path, octets: int = 192 << 20) -> None:
        missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
        if os.geteuid() != 0:
            missing.append("root")
        if missing:
            raise Unavailable(f"a disk to cut the power of needs {', '.join(missing)}")
        self.point = directory / "disk"
        self.point.mkdir()
        self._image = directory / "disk.img"
        with self._image.open("wb") as image:
            image.truncate(octets)
        try:
            self._device = run("losetup", "--find", "--show", self._image).strip()
        except RuntimeError as error:
            raise Unavailable(str(error)) from error
        try:
            self.format()
        except RuntimeError as error:
            self.close()
            raise Unavailable(str(error)) from error

    def format(self) -> None:
        """
        Begin with an empty file system.
        """
        if os.path.ismount(self.point):
            run_when_left("umount", self.point)
        make_ext4(self._device, "-b", "4096")
        self._mount()

    def cut_power(self) -> None:
        """
        From now on, what is on the disk is all there is.
        """
        cut_power(self.point)

    def restart(self) -> None:
        """
        Mount what the power cut has left; whoever had files open must be gone.
        """
        run_when_left("umount", self.point)
        self._mount()

    def close(self) -> None:
        """
        Be gone, however it stands.
        """
        if os.path.ismount(self.point):
            run("umount", "-l", self.point)
        run("losetup", "--detach", self._device)
        self._image.unlink()

    def _mount(self) -> None:
        run("mount", "-t", "ext4", self._device, self.point)


def make_ext4(device: str, *options: str) -> None:
    """
    Make an empty ext4 on *device*.

    Raises:
        RuntimeError: It cannot be made.
    """
    # No lazy initialisation: a kernel thread would write to the device behind our back.
    lazy = "lazy_itable_init=0,lazy_journal_init=0"
    run("mkfs.ext4", "-qF", "-E", lazy, *options, device)


def cut_power(point: Path) -> None:
    """
    Leave the ext4 that is mounted on *point* as a power cut does.
    """
    descriptor = os.open(point, os.O_RDONLY)
    try:
        flags = struct.pack("I", _EXT4_GOING_FLAGS_NOLOGFLUSH)
        fcntl.ioctl(descriptor, _EXT4_IOC_SHUTDOWN, flags)
    finally:
        os.close(descriptor)


def run_when_left(*command: str | Path, seconds: float = _PATIENCE) -> None:
    """
    Run a command on a file system as soon as nobody is busy there any more, which the kernel tells
    nobody; try for so many *seconds*.

    Raises:
        RuntimeError: It still failed then.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            run(*command)
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def run(*command: str | Path) -> str:
    """
    Run a command to its end and return what it printed.

    Raises:
        RuntimeError: It failed; its words are in the text.
    """
    done = subprocess.run(  # noqa: S603 - our own words
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
        # Control-C is not for it.
        start_new_session=True,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stdout}")
    return done.stdout
