"""
The program of a process that stores messages in Maildirs on behalf of another: `disk_writer_start` runs it, and
`write_process` sends it letters.

Standard input is a socket with letters, standard output one for the answers; the message's octets are
in memory that is shared.  The first answer, with nothing in it, says that the program runs.  The end
of the letters is the end of the program, not a signal, which may be meant for all processes of the
service.

All letters that are there are taken together: their messages are written, the disk is
waited for, and they are shown in ``new``.  The next wait is for these names, and for the texts of what
has come meanwhile: each wait is for all that was done before it began.

What is waited for with others has no name before it is in ``new`` (O_TMPFILE): ``tmp`` need not be written
twice for each message, and whatever ends the program leaves nothing there.

It imports next to nothing, so that it takes as little memory and time as Python can do with.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from .file_systems import FileSystem
from .files import (
    can_give_names,
    create_at_once,
    create_nameless,
    give_name,
    remove,
    sync_directory,
)
from .identity import as_user
from .letter_box import LetterBox
from .letters import NOTHING, SAFE, SHOWN, WRITTEN, Letter, Outcome, Receipt, pack_receipt

# The file is the one in tmp, and not open.
_IN_TMP: Final = -1

# What open(2) says where all files have names from the beginning.
_NO_NAMELESS: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR})

#: A file system on which nothing is on its way is kept open for so many seconds: to open it takes as
#: long as all that is done for one message, but as long as it is open it cannot be unmounted.
KEPT: Final = 5.0


class DiskWriter:
    """
    Stores what letters ask for, which come from *receive*, see `LetterBox.receive`; *answer* takes what has
    become of them.  *room* has the octets of their messages.  *check* raises ConnectionError if nobody
    wants to hear any more: nothing is shown then, as whoever has sent the messages gets no answer, and sends
    them again.
    """

    def __init__(
        self,
        receive: Callable[[float | None], list[Letter] | None],
        answer: Callable[[Receipt], object],
        room: memoryview,
        check: Callable[[], object] = lambda: None,
    ) -> None:
        self._receive, self._answer, self._room, self._check = receive, answer, room, check
        self._can_give_names = can_give_names()
        # In new, by device; no wait has begun for their names.
        self._shown: list[tuple[int, Outcome]] = []
        # By device, opened before anything was written there that is waited for: so it tells of all that
        # is lost.
        self._file_systems: dict[int, FileSystem] = {}
        self._begin_anew()

    def _begin_anew(self) -> None:
        # What the next answer will tell.
        self._outcomes: list[Outcome] = []
        self._whole: float | None = None
        self._each: float | None = None
        self._lost = 0
        self._tells_since = -math.inf

    def run(self) -> None:
        """
        Store what comes, until there is nothing more to come.

        Raises:
            ConnectionError: Nobody wants to hear of it any more.
        """
        while (letters := self._receive(self._patience())) is not None:
            if self._is_alone(letters):
                self._store_alone(letters[0])
            elif letters or self._shown:
                self._store(letters)
            else:
                # Nothing has come for a while.
                self._let_go(set())
            self._tell()

    def _tell(self) -> None:
        """
        Answer, if there is something to be said.
        """
        if self._outcomes:
            waits = self._whole, self._each, self._lost, self._tells_since
            self._answer(Receipt(self._outcomes, *waits))
            self._begin_anew()

    def _patience(self) -> float | None:
        """
        How many seconds to wait for letters, at most.
        """
        if self._shown:
            return 0.0
        return KEPT if self._file_systems else None

    def _is_alone(self, letters: list[Letter]) -> bool:
        """
        Whether a wait for all would be for one message with one name, and no more.
        """
        if len(letters) != 1 or self._shown:
            return False
        letter = letters[0]
        return len(letter.new) == 1 and not letter.together

    def _let_go(self, in_use: set[int]) -> None:
        """
        Close the file systems but those *in_use*.
        """
        for device in self._file_systems.keys() - in_use:
            self._file_systems.pop(device).close()

    # ── many, with a wait for all ────────────────────────────────────────────────────────────────

    def _store(self, letters: list[Letter]) -> None:
        written = [
            (letter, file) for letter in letters if (file := self._write(letter)) is not None
        ]
        shown, self._shown = self._shown, []
        if not written and not shown:
            return
        if len(self._file_systems) > 1:
            # Nobody is to wait for one on which nothing is on its way.
            in_use = {letter.device for letter, _ in written}
            self._let_go(in_use.union(device for device, _ in shown))
        failed = self._wait(finally_=bool(shown))
        for device, outcome in shown:
            self._outcomes.append(outcome._replace(what=SHOWN) if device in failed else outcome)
        self._check()
        if not failed:
            # Clients have their replies while the others get their names: they come again the sooner.
            self._tell()
        for letter, file in written:
            if letter.device in failed:
                what = WRITTEN if self._leave(letter, file) else NOTHING
                self._outcomes.append(Outcome(letter.number, what, []))
            else:
                refused = self._show(letter, file)
                self._shown.append((letter.device, Outcome(letter.number, SAFE, refused)))

    def _write(self, letter: Letter) -> int | None:
        """
        Write the message into a file without a name, and return its descriptor, or into ``tmp``: that is
        `_IN_TMP`.  If neither works, nothing is there, and it is None.
        """
        try:
            with as_user(letter.uid, letter.gid):
                if self._is_watched(letter):
                    file = self._create_nameless(letter)
                    if file == _IN_TMP:
                        self._create(letter)
                    return file
        except (OSError, ValueError):
            # The service finds out what it is, and tells.  Or a path that it can have we cannot.
            pass
        self._outcomes.append(Outcome(letter.number, NOTHING, []))
        return None

    def _create_nameless(self, letter: Letter) -> int:
        """
        Raises:
            OSError: It did not work, nor would it in ``tmp``.
        """
        if not self._can_give_names:
            return _IN_TMP
        directory = os.path.dirname(letter.tmp)
        try:
            file = create_nameless(directory, self._octets(letter), letter.mode)
        except OSError as error:
            if error.errno in _NO_NAMELESS:
                return _IN_TMP
            raise
        if os.fstat(file).st_dev != letter.device:
            _close(file)
            raise _moved(letter)
        return file

    def _leave(self, letter: Letter, file: int) -> bool:
        """
        Leave the message in ``tmp``, for somebody else to go on with.
        """
        if file == _IN_TMP:
            return True
        try:
            with as_user(letter.uid, letter.gid):
                give_name(file, letter.tmp)
        except (OSError, ValueError):
            # As in _write.
            return False
        finally:
            _close(file)
        return True

    def _is_watched(self, letter: Letter) -> bool:
        """
        See to it that we hear of all that is lost there from now on; False if that is not possible.
        """
        if letter.device in self._file_systems:
            return True
        file_system = FileSystem(os.path.dirname(letter.tmp))
        if file_system.device != letter.device or not file_system.is_reliable:
            file_system.close()
            return False
        self._file_systems[letter.device] = file_system
        return True

    def _create(self, letter: Letter, *, durably: bool = False) -> None:
        """
        Raises:
            OSError: It did not work, and nothing is in ``tmp``.
        """
        device = create_at_once(letter.tmp, self._octets(letter), letter.mode, durably=durably)
        if device != letter.device:
            remove(letter.tmp)
            raise _moved(letter)

    def _octets(self, letter: Letter) -> memoryview:
        return self._room[letter.begin : letter.begin + letter.size]

    def _wait(self, *, finally_: bool) -> set[int]:
        """
        Wait for all file systems; returns those that may have lost something.
        """
        failed: set[int] = set()
        before = time.monotonic()
        for device, file_system in self._file_systems.items():
            try:
                file_system.sync(finally_=finally_)
            except OSError as error:
                failed.add(device)
                self._lost = error.errno or errno.EIO
            if finally_:
                self._tells_since = max(self._tells_since, file_system.tells_since)
        # There may have been one that nobody has been told of.
        self._whole = max(self._whole or 0.0, time.monotonic() - before)
        return failed

    def _show(self, letter: Letter, file: int) -> list[int]:
        """
        Show the message; returns who has not got it.
        """
        try:
            with as_user(letter.uid, letter.gid):
                return self._put_into_new(letter, file)
        except PermissionError:
            # It cannot be its owner any more; what is left in tmp will be removed some day.
            return list(range(len(letter.new)))
        finally:
            if file != _IN_TMP:
                _close(file)

    def _put_into_new(self, letter: Letter, file: int) -> list[int]:
        """
        Give the file its name in ``new`` of all, of the source last: that is where the one in ``tmp`` is
        moved; returns who has not got it.
        """
        refused: list[int] = []
        forbidden = 0
        for index in reversed(range(len(letter.new))):
            path = letter.new[index]
            try:
                if file != _IN_TMP:
                    give_name(file, path)
                elif index:
                    os.link(letter.tmp, path)
                else:
                    os.rename(letter.tmp, path)
            except (OSError, ValueError) as error:
                # As in _write.
                refused.append(index)
                forbidden += isinstance(error, PermissionError)
        if file == _IN_TMP:
            if 0 in refused:
                remove(letter.tmp)
        elif forbidden == len(letter.new):
            # Some policy of the system may always forbid it.
            self._can_give_names = False
        return refused

    # ── one alone ────────────────────────────────────────────────────────────────────────────────

    def _store_alone(self, letter: Letter) -> None:
        """
        What else is being written to the file system is nothing to us then.
        """
        outcome = Outcome(letter.number, NOTHING, [])
        before = time.monotonic()
        try:
            with as_user(letter.uid, letter.gid):
                self._create(letter, durably=True)
                self._check()
                outcome = Outcome(letter.number, SAFE, self._put_into_new(letter, _IN_TMP))
                if not outcome.refused:
                    if not _make_durable(letter):
                        outcome = outcome._replace(what=SHOWN)
                    # There were two waits.
                    self._each = (time.monotonic() - before) / 2
        except ConnectionError:
            raise
        except (OSError, ValueError):
            # As in _write.
            outcome = Outcome(letter.number, NOTHING, [])
        self._outcomes.append(outcome)


def _moved(letter: Letter) -> OSError:
    # Somebody has put the mailbox elsewhere since it was last looked at.
    return OSError(errno.EXDEV, os.strerror(errno.EXDEV), letter.tmp)


def _close(file: int) -> None:
    # Only a server would have to say something now, and the wait is over.
    with suppress(OSError):
        os.close(file)


def _make_durable(letter: Letter) -> bool:
    """
    Wait until the disk has the name in the first ``new``; False if that is another directory than it
    was: nobody knows whether its own name is safe.

    Raises:
        OSError: It has not; the file has been removed.
    """
    path = letter.new[0]
    try:
        seen = sync_directory(os.path.dirname(path))
    except BaseException:
        # Who syncs it again might be told that all is well, but not if there is something new in it.
        remove(path)
        raise
    return letter.inode in (0, seen.st_ino) and seen.st_dev == letter.device


def main(shared: int, size: int) -> None:
    """
    Store what comes; *shared* is the descriptor of the shared memory, of *size* octets.
    """
    of_the_service = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    for number in of_the_service:
        signal.signal(number, signal.SIG_IGN)
    # Whoever sends a letter goes on first: that is the reactor thread, which others wait for.
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    letters, answers = socket.socket(fileno=0), socket.socket(fileno=1)
    # As with letters, see `LetterBox`.
    answers.setblocking(True)
    box = LetterBox(letters)
    room = memoryview(mmap.mmap(shared, size, prot=mmap.PROT_READ))
    os.close(shared)

    def answer(what: Receipt) -> None:
        answers.send(pack_receipt(what))

    try:
        answer(Receipt([], None, None, 0))
        DiskWriter(box.receive, answer, room, box.check).run()
    except ConnectionError:
        # The service is gone, and nobody waits for an answer.
        pass
