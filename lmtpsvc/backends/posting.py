"""
One message on its way into Maildirs, and the steps by which it comes there.

All run in worker threads.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from attrs import define, field

from ..interfaces import IMessage, Sizes
from ..response_codes import Codes
from .calls import PATIENT, Calls
from .file_systems import check_written
from .files import create, remove
from .identity import as_user, identity
from .names import Names
from .places import Place, Places
from .settings import Settings
from .sharing import Named
from .target import Target

# What link(2) says where a copy may still succeed: another file system, too many links, links to
# others' files forbidden (fs.protected_hardlinks), a file system that has no links, the file gone.
_NO_LINK: Final = (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.ENOENT)


@define(eq=False)
class Posting:
    """
    *message*, under one name, for *targets* that belong to the same user and group.

    It is written to ``tmp`` of one of the targets, the *source*, and hard-linked from there.
    """

    message: IMessage
    targets: list[Target]
    settings: Settings
    places: Places
    names: Names
    #: The octets of the file, and the sizes, if they are at hand.
    whole: tuple[bytes, Sizes] | None = field(default=None, init=False, repr=False)
    #: Of the file; with the sizes in it, which may take a look at the whole message.
    name: str = field(default="", init=False)
    source: Target | None = field(default=None, init=False)
    #: The file in ``tmp`` of the source, that is linked from.
    tmp: str = field(default="", init=False)
    #: The file system that it is on.
    device: int = field(default=-1, init=False)
    #: It was written before this began, in the spool.
    is_taken: bool = field(default=False, init=False)
    #: It may have had no name when it was last written: the disk takes it for a deleted file then.
    may_be_deleted: bool = field(default=False, init=False)

    @property
    def octets(self) -> int:
        """
        Of the file.
        """
        return self.message.sizes(self.settings.line_ending).physical

    @property
    def written_to(self) -> Target:
        """
        The source, once it is one.
        """
        assert self.source is not None, "it was written"
        return self.source

    def new(self, target: Target) -> str:
        """
        The file as mail readers will see it.
        """
        return f"{target.place.directory}/new/{self.name}"

    def codes(self, target: Target) -> Codes:
        """
        What the reply for *target*, who has the message, tells besides.
        """
        sharing = self.settings.sharing
        if sharing is None:
            return None
        message = self.message
        if not (message.is_for_all and message.envelope.sender.wants_maildata):
            return None
        sizes = message.sizes(self.settings.line_ending)
        return [sharing.code(Named(self.new(target), sizes, message.digest))]

    def write(self, target: Target, *, durably: bool, calls: Calls = PATIENT) -> None:
        """
        Have the whole message in ``tmp`` of *target*, which is the source then.

        Raises:
            OSError: It did not work; there is no such file then.
        """
        try:
            self.put(target, durably=durably, calls=calls)
        except FileNotFoundError:
            # Nobody has made the mailbox, or somebody has removed it since.
            target.known = self.places.make(target.place, durably=durably)
            self.put(target, durably=durably)

    def put(self, target: Target, *, durably: bool, calls: Calls = PATIENT) -> None:
        """
        The same, where the Maildir is known to be there.

        Raises:
            OSError: It did not work; there is no such file then.
        """
        place, message, settings = target.place, self.message, self.settings
        path = self.begin_in(target)
        self.is_taken = False
        if message.path is not None and self._take(message.path, place, path, durably):
            self.is_taken = True
            return
        # Opened by the service: what is spooled is not for the user to read.
        with message.open(settings.line_ending) as source, as_user(place.uid, place.gid):
            self.device = create(path, source, settings.file_mode, durably=durably, calls=calls)

    def begin_in(self, target: Target) -> str:
        """
        *target* is the source from now on; returns where in its ``tmp`` the message is to be.
        """
        self.source = target
        self.tmp = f"{target.place.directory}/tmp/{self.give_name()}"  # noqa: S108 - within the Maildir
        return self.tmp

    def give_name(self) -> str:
        """
        The name of the file, which is made when it is first asked for.
        """
        if not self.name:
            sizes = self.whole[1] if self.whole else self.message.sizes(self.settings.line_ending)
            self.name = self.names.make(sizes)
        return self.name

    def _take(self, spooled: str, place: Place, path: str, durably: bool) -> bool:
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
            self.device = seen.st_dev
            if durably:
                self.sync()
        return True

    def sync(self) -> None:
        """
        Wait until the disk has the file in ``tmp``.

        Raises:
            OSError: It has not; the file has been removed.
        """
        self._ask(os.fsync)

    def check(self) -> None:
        """
        Make sure that what was spooled was written, after its file system has been synced.

        Raises:
            OSError: It was not; the file has been removed.
        """
        self._ask(check_written)

    def _ask(self, question: Callable[[int], None]) -> None:
        place = self.written_to.place
        with as_user(place.uid, place.gid):
            try:
                descriptor = os.open(self.tmp, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    question(descriptor)
                finally:
                    os.close(descriptor)
            except BaseException:
                remove(self.tmp)
                raise

    def link(self, target: Target, calls: Calls = PATIENT) -> bool:
        """
        Show the file to *target*, whose Maildir has been made; False if there can be no link.
        """
        place, reservation = target.place, target.reservation
        if reservation is not None:
            reservation.hold()
        with as_user(place.uid, place.gid):
            try:
                calls.link(self.tmp, f"{place.directory}/new/{self.name}")
            except OSError as error:
                if error.errno not in _NO_LINK:
                    raise
            else:
                return True
        if reservation is not None:
            reservation.let_go()
        return False

    def rename(self, calls: Calls = PATIENT) -> None:
        """
        Show the file to the source, and to nobody after that.

        Raises:
            OSError: It did not work; the file has been removed.
        """
        source = self.written_to
        if source.reservation is not None:
            source.reservation.hold()
        try:
            try:
                self.move(calls)
            except FileNotFoundError:
                # Somebody has removed new/ since.  Synced when the name is.
                source.known = self.places.make(source.place, durably=False)
                self.move()
        except BaseException:
            self.withdraw()
            raise

    def move(self, calls: Calls = PATIENT) -> None:
        """
        The same, where nothing is done about what goes wrong.

        Raises:
            OSError: It did not work.
        """
        place = self.written_to.place
        with as_user(place.uid, place.gid):
            calls.rename(self.tmp, f"{place.directory}/new/{self.name}")

    def is_shown(self, target: Target) -> bool:
        """
        Whether the file is in the Maildir of *target*, where a mail reader may have seen it already.

        Raises:
            OSError: That cannot be found out.
        """
        with as_user(target.place.uid, target.place.gid):
            return self._found(target) is not None

    def sync_shown(self, target: Target) -> None:
        """
        Wait until the disk has the file in the Maildir of *target*, and that it has a name: where there is
        no journal, to sync the directory does not see to that.

        Raises:
            OSError: It has not.
        """
        with as_user(target.place.uid, target.place.gid):
            descriptor = self._open_shown(target)
            if descriptor is None:
                # A mail reader has removed it; others may still have it.
                return
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        self.may_be_deleted = False

    def _open_shown(self, target: Target) -> int | None:
        while (path := self._found(target)) is not None:
            # If it is not there, a mail reader has moved it just now.
            with suppress(FileNotFoundError):
                return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return None

    def _found(self, target: Target) -> str | None:
        """
        Where in the Maildir of *target* the file is.
        """
        path, directory = self.new(target), target.place.directory
        if os.path.lexists(path):
            return path
        try:
            entries = os.scandir(directory + "/cur")
        except FileNotFoundError:
            # No mail reader has put anything there, unless all is gone: on a disk that has been
            # unmounted, say.
            os.stat(directory + "/new")
            return None
        with entries:
            # Its name goes on with what the reader thinks of it: ``:2,S``.
            return next((entry.path for entry in entries if entry.name.startswith(self.name)), None)

    def withdraw(self, target: Target | None = None) -> None:
        """
        Take the file out of *target*'s ``new``, or out of ``tmp``.
        """
        place = self.written_to.place if target is None else target.place
        with as_user(place.uid, place.gid):
            remove(self.tmp if target is None else self.new(target))


#: A message that has been put into ``new`` of a target.
Shown = tuple[Posting, Target]
