"""
Who waits for a file system: a process, or a thread where that does not.
"""

from __future__ import annotations

from functools import partial

from .file_systems import FileSystem
from .pool import Pool
from .sync_process import Ended, SyncProcess
from .syncing import Syncing, Wait


class Waits:
    """
    Waits for file systems, each in a thread of *pool* if *process* cannot; *syncing* learns how long
    it has taken.
    """

    def __init__(self, pool: Pool, syncing: Syncing, process: SyncProcess | None) -> None:
        self._pool, self._syncing, self._process = pool, syncing, process

    def begin(self, file_system: FileSystem, *, finally_: bool, ended: Ended) -> None:
        """
        Wait until the disk has all that was written to *file_system*, see `FileSystem.sync`; then
        call *ended*, in the reactor thread, with what has gone wrong, or None.
        """
        if self._process is not None and file_system.is_reliable:
            wait = self._syncing.begin()
            over = partial(self._over, wait, file_system, ended)
            if self._process.wait(file_system, finally_=finally_, ended=over):
                return
            self._syncing.forget(wait)
        self._pool.run(partial(self._wait, file_system, finally_, ended))

    def stop(self) -> None:
        """
        End the process; the pool must be stopped after that.
        """
        if self._process is not None:
            self._process.stop()

    def _over(
        self, wait: Wait, file_system: FileSystem, ended: Ended, error: Exception | None
    ) -> None:
        self._syncing.end_whole(wait, file_system)
        ended(error)

    def _wait(self, file_system: FileSystem, finally_: bool, ended: Ended) -> None:
        """
        In a worker thread.
        """
        error: Exception | None = None
        try:
            self._syncing.whole(file_system, finally_=finally_)
        except Exception as caught:
            error = caught
        self._pool.post(ended, error)
