"""
Several messages for one mailbox, appended together: locked once, marked once, synced once.

What cannot be appended is cut off again, and answered; the others go on.  Why a crash in the middle
leaves nothing in part is told in `lmtpsvc.backends.mbox_mark`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Final
from zlib import crc32

from twisted.logger import Logger
from twisted.python.failure import Failure

from ..envelope import Mailbox
from ..errors import DeliveryError, from_os_error, refusal
from ..interfaces import IMessage
from ..quota import Quota
from .mbox_files import MboxFiles, Spot
from .mbox_format import from_line, render, separator
from .mbox_locks import locked
from .mbox_mark import Mark, mend, put, take_away
from .mbox_settings import MboxSettings
from .target import Waiting

_log = Logger()

#: Nothing has been appended.
_NOTHING: Final = (0, 0)


class Letter(Waiting):
    """
    *message* on its way to one mailbox, which may hold as much as *quota* says, and those who wait
    for it.
    """

    def __init__(self, message: IMessage, mailbox: Mailbox, quota: Quota | None = None) -> None:
        super().__init__()
        self.message, self.mailbox, self.quota = message, mailbox, quota
        #: When its wait for a lock is over, once it has to wait.
        self.until: float | None = None


#: Who is to be answered, and what went wrong, if anything did.
Answers = list[tuple[Letter, Failure | None]]


class MboxBatch:
    """
    Stores *letters* in the mailbox at *spot*, in a worker thread; none of them only mends it.

    *seconds* is the time of day.
    """

    def __init__(
        self,
        spot: Spot,
        letters: list[Letter],
        files: MboxFiles,
        settings: MboxSettings,
        seconds: Callable[[], float],
    ) -> None:
        self._spot, self._letters, self._files = spot, letters, files
        self._settings, self._seconds = settings, seconds
        self._answers: Answers = []

    def store(self) -> Answers:
        """
        Do it all.

        Raises:
            Busy: Somebody else has locked the mailbox; nothing has been done.
        """
        spot = self._spot
        if self._letters and all(letter.is_cancelled for letter in self._letters):
            return []
        try:
            descriptor = self._files.open(spot)
            try:
                with locked(descriptor, spot.path, self._settings.locks, spot.rights):
                    self._files.check_again(descriptor, spot)
                    mend(descriptor, spot.path)
                    self._append_all(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            self._refuse_rest(error)
        return self._answers

    def _append_all(self, descriptor: int) -> None:
        letters = [letter for letter in self._letters if not letter.is_cancelled]
        if not letters:
            return
        start = os.fstat(descriptor).st_size
        gap = separator(descriptor, start)
        now = self._seconds()
        heads = [from_line(letter.message.envelope.sender, now) for letter in letters]
        mark = Mark(start, tuple(map(crc32, heads)))
        try:
            is_marked = put(descriptor, mark)
            if is_marked:
                os.fsync(descriptor)
            else:
                self._files.tell_unmarked(self._spot)
            done = _NOTHING
            written: list[Letter] = []
            for letter, head in zip(letters, heads, strict=True):
                if letter.begin():
                    before = done
                    done = self._append(descriptor, start, done, gap + head, letter)
                    if done != before:
                        written.append(letter)
                        gap = b""
            if written:
                length, checksum = done
                if is_marked:
                    put(descriptor, Mark(start, mark.heads, length, checksum))
                os.fsync(descriptor)
                self._files.sync_name(descriptor, self._spot)
                # Before anybody is told: an fsync of ext4 that is under way when the journal is
                # given up may come back without an error.  What changes the file then does not.
                take_away(descriptor)
        except BaseException:
            self._undo(descriptor, start)
            raise
        if not written:
            self._undo(descriptor, start)
            return
        self._answers += [(letter, None) for letter in written]

    def _append(
        self, descriptor: int, start: int, done: tuple[int, int], head: bytes, letter: Letter
    ) -> tuple[int, int]:
        """
        Append one message behind what is *done*, which is a length and its checksum; returns what
        is done then.  If it fails it is cut off again, and answered.

        Raises:
            OSError: It could not be cut off.
        """
        length, checksum = done
        try:
            self._check_room(start + length + len(head), letter)
            with letter.message.open("\n") as source:
                for octets in render(head, source):
                    _write(descriptor, octets)
                    length += len(octets)
                    checksum = crc32(octets, checksum)
        except Exception as error:
            os.ftruncate(descriptor, start + done[0])
            self._refuse(letter, error)
            return done
        return length, checksum

    def _check_room(self, octets: int, letter: Letter) -> None:
        """
        Make sure that *letter* has room behind so many octets.

        Raises:
            DeliveryError: It has not.
        """
        if letter.quota is not None:
            # With the blank line; what quoting adds is the mailbox's gain.
            octets += letter.message.sizes("\n").physical + 1
            if not letter.quota.has_room(octets, 0):
                raise refusal(self._settings.mailbox_full)

    def _undo(self, descriptor: int, start: int) -> None:
        """
        Have the file as it was.  If that fails, the mark stays, and the next one will mend it.
        """
        try:
            os.ftruncate(descriptor, start)
            os.fsync(descriptor)
            take_away(descriptor)
        except OSError as error:
            _log.error(
                "{path} is not as it was at octet {start}: {error}",
                path=self._spot.path,
                start=start,
                error=error,
            )

    def _refuse_rest(self, error: OSError) -> None:
        """
        Refuse those that have no answer yet.
        """
        answered = {letter for letter, _ in self._answers}
        for letter in self._letters:
            if letter not in answered:
                self._refuse(letter, error)

    def _refuse(self, letter: Letter, error: Exception) -> None:
        failure = Failure(error)
        if isinstance(error, OSError):
            _log.error(
                "{id}: no delivery to {mailbox} in {path}: {error}",
                id=letter.message.id,
                mailbox=letter.mailbox,
                path=self._spot.path,
                error=error,
            )
            failure = Failure(self._refusal(error))
        self._answers.append((letter, failure))

    def _refusal(self, error: OSError) -> DeliveryError:
        full = self._settings.mailbox_full
        if error.errno == errno.EFBIG:
            # It is the file that is too large, not the message.
            return refusal(full)
        return from_os_error(error, full)


def _write(descriptor: int, octets: bytes) -> None:
    rest = memoryview(octets)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
