"""
Watched: the file systems that may be waited for as a whole.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from twisted.logger import Logger

from .file_systems import FileSystem
from .haste import Haste
from .identity import as_user
from .places import Known, Place, Places
from .syncing import Syncing

_log = Logger()


class Watched:
    """
    File systems by device, in a worker thread.  Each is opened before anything is written there that is
    waited for: so it tells of all that is lost.
    """

    def __init__(self, places: Places, syncing: Syncing, haste: Haste) -> None:
        self._places, self._syncing, self._haste = places, syncing, haste
        self._file_systems: dict[int, FileSystem] = {}

    def __bool__(self) -> bool:
        return bool(self._file_systems)

    def __contains__(self, device: int) -> bool:
        return device in self._file_systems

    def watch(self, place: Place, known: Known) -> None:
        """
        Hear of all that is lost from now on of what is written to *place*, if that is possible.
        """
        if known.device in self._file_systems:
            return
        with suppress(OSError), as_user(place.uid, place.gid):
            self._open(os.path.join(place.directory, "tmp"))

    def watch_above(self, place: Place, root: str | None) -> None:
        """
        The same, before directories are made for *place* below *root*, so that they are heard of, too.
        """
        if self._places.known(place) is None:
            with suppress(OSError):
                self._open(root or place.shared)

    def sync(self, device: int, *, finally_: bool) -> bool:
        """
        Make all durable that is on *device*, see `FileSystem.sync`; False if that is not certain.
        """
        file_system = self._file_systems[device]
        try:
            self._syncing.whole(file_system, finally_=finally_)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                self._places.doubt()
                _log.warn(
                    "{directory}: syncfs failed ({error}), syncing one by one",
                    directory=file_system.directory,
                    error=error,
                )
            return False
        return True

    def tells_since(self, device: int) -> float:
        """
        See `FileSystem.tells_since`.
        """
        return self._file_systems[device].tells_since

    def close(self) -> None:
        """
        Close all of them.
        """
        for file_system in self._file_systems.values():
            file_system.close()

    def _open(self, directory: str) -> None:
        file_system = FileSystem(directory)
        self._haste.saw(file_system)
        if self._file_systems.setdefault(file_system.device, file_system) is not file_system:
            file_system.close()
