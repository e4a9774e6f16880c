"""
The steps by which a message comes into a Maildir: written to ``tmp``, shown in ``new``, synced.

All run in worker threads.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from functools import partial

from attrs import frozen
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..interfaces import IMessage
from .files import refusal, remove, sync_file, write_durably
from .identity import as_user, identity
from .places import Place, Places
from .pool import Pool
from .settings import Settings
from .target import Target

_log = Logger()


@frozen
class Posting:
    """
    Puts *message*, under the file *name*, into Maildirs.

    """

    message: IMessage
    name: str
    settings: Settings
    places: Places
    pool: Pool

    def path(self, target: Target, where: str) -> str:
        """
        The file in ``tmp`` or ``new``.
        """
        return f"{target.place.directory}/{where}/{self.name}"

    def attempt(self, target: Target, step: Callable[[Target], object]) -> bool:
        """
        Do one *step*; False if it failed, and *target* has been answered.
        """
        try:
            step(target)
        except OSError as error:
            _log.error(
                "{id}: no delivery to {mailbox} in {directory}: {error}",
                id=self.message.id,
                mailbox=target.mailbox,
                directory=target.place.directory,
                error=error,
            )
            self.pool.post(target.fire, Failure(refusal(error, self.settings.mailbox_full)))
        except Exception:
            self.pool.post(target.fire, Failure())
        else:
            return True
        return False

    def write(self, target: Target) -> None:
        """
        Have the whole message in ``tmp``, safe.
        """
        place = target.place
        if not self.places.is_safe(place):
            self.places.make(place)
        try:
            self._put(target)
        except FileNotFoundError:
            # Somebody has removed the mailbox since.
            self.places.make(place)
            self._put(target)

    def _put(self, target: Target) -> None:
        place, path = target.place, self.path(target, "tmp")
        if self.message.path is not None and self._take(self.message.path, place, path):
            return
        # Opened by the service: what is spooled is not for the user to read.
        with self.message.open(self.settings.line_ending) as source, as_user(place.uid, place.gid):
            write_durably(path, source, self.settings.file_mode)

    def _take(self, spooled: str, place: Place, path: str) -> bool:
        """
        Make the *spooled* file itself the one in ``tmp``, if it is as ours would be.

        It goes by way of ``tmp`` so that it has a name when it is synced: without one (O_TMPFILE),
        a file system without a journal takes it for a deleted file after a power cut.
        """
        with as_user(place.uid, place.gid):
            try:
                seen = os.stat(spooled)
                owner = (seen.st_uid, seen.st_gid)
                if (
                    owner != identity(place.uid, place.gid)
                    or stat.S_IMODE(seen.st_mode) != self.settings.file_mode
                ):
                    return False
                # Python follows symbolic links (/proc/self/fd/N is one) only where a directory is
                # given, which counts for relative paths only.
                os.link(os.path.abspath(spooled), path, src_dir_fd=0, follow_symlinks=True)
            except OSError:
                return False
            try:
                sync_file(path)
            except BaseException:
                remove(path)
                raise
        return True

    def show(self, target: Target) -> None:
        """
        Move the file from ``tmp`` to ``new``, unless nobody wants it any more.
        """
        place = target.place
        tmp, new = self.path(target, "tmp"), self.path(target, "new")
        with as_user(place.uid, place.gid):
            if not target.begin():
                remove(tmp)
                return
            try:
                os.rename(tmp, new)
            except BaseException:
                remove(tmp)
                raise
        self.settle(target)

    def settle(self, target: Target) -> None:
        """
        Wait until what is in ``new`` is safe, and answer.
        """
        place = target.place
        try:
            self.places.sync(place)
        except BaseException:
            # Nobody knows whether it would be there; the client keeps its copy.
            with as_user(place.uid, place.gid):
                remove(self.path(target, "new"))
            raise
        self.pool.post(target.fire)
        if self.places.is_untidy(place):
            self.pool.run(partial(self.places.tidy, place))
