"""
A process that stores messages: what it is sent, and what becomes of that.

A thread that writes or waits needs the interpreter's lock before and after, of the reactor thread,
which has it whenever there is something to do: each time, both stop and are woken by the kernel.  And
whatever the reactor thread does by itself keeps all others waiting.  A process has a lock of its own,
and on another processor it works while the next messages come in.

There is one, started when many messages come together.  Whatever it does not do, because it is not there, or
has not got on for a while, threads do.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from .disk_writer_start import Room, Started, start
from .letters import (
    LONGEST,
    NOTHING,
    QUESTION,
    UNKNOWN,
    Outcome,
    Receipt,
    pack_letter,
    room_for_one,
    unpack_letter,
    unpack_receipt,
)
from .pool import Pool

K = TypeVar("K")

_log = Logger()

#: After one has ended by itself, or could not be started, so many seconds go by without.
PAUSE: Final = 60.0

#: If nothing has been answered for so many seconds, what it has not begun is taken back, and it is
#: given nothing more until it answers.
PATIENCE: Final = 0.1

#: A process that has not answered for so many seconds is ended: if the disk hangs, that changes
#: nothing but what it does when it hangs no more; if somebody has stopped the process, nobody would
#: ever hear of it.
LAST_PATIENCE: Final = 10.0

#: What is told: whose letter it is, what has become of it, and which names it has not been given.
Told = Callable[[list[tuple[K, int, list[int]]], Receipt], object]


@implementer(IReadDescriptor)
class WriteProcess(Generic[K]):
    """
    The process, and what it has been sent; all in the thread of *reactor*.  Only its start and its end,
    which wait, are left to *pool*.  *seconds* is a clock that never goes back.

    *told* is called with what has become of letters, and once with none when the process `is_late`.
    """

    told: Told[K] | None = None

    def __init__(self, reactor: Any, pool: Pool, seconds: Callable[[], float]) -> None:
        self._reactor, self._pool, self._seconds = reactor, pool, seconds
        self._started: Started | None = None
        self._is_starting = False
        # It has said that it runs.
        self._is_ready = False
        self._is_wanted = True
        self._not_before = -math.inf
        # Where answers are received.
        self._page = room_for_one()
        # What has been sent and not been answered, by number, the oldest first.
        self._sent: dict[int, tuple[K, Room]] = {}
        self._number = 0
        # Who looks, now and then, whether it gets on; and how many answers there were at that time.
        self._watch: IDelayedCall | None = None
        self._count = self._seen = 0
        #: It has not got on for a while.
        self.is_late = False

    # ── what it is asked ─────────────────────────────────────────────────────────────────────────

    @property
    def is_there(self) -> bool:
        """
        Whether it can be sent letters.
        """
        return self._is_ready and not self.is_late

    @property
    def is_idle(self) -> bool:
        """
        Whether nothing has been sent that is not answered.
        """
        return not self._sent

    def send(
        self,
        key: K,
        octets: bytes,
        device: int,
        *,
        together: bool,
        mode: int,
        uid: int | None,
        gid: int | None,
        tmp: str,
        new: list[str],
        inode: int = 0,
    ) -> bool:
        """
        Have a message of *octets* stored, see `Letter`; *key* is what it is called when it is `told`
        of.  False if there is no room just now.

        Raises:
            OSError: It cannot be sent.
        """
        started = self._started
        assert started is not None, "it is there"
        size = len(octets)
        for largest, free in started.free:
            if size <= largest and free:
                room = free.pop()
                break
        else:
            return False
        begin = room.begin
        started.shared[begin : begin + size] = octets
        self._number = number = self._number + 1
        # A `Letter`, without the class.
        letter = (number, device, together, begin, size, mode, uid, gid, tmp, new, inode)
        try:
            started.letters.send(pack_letter(letter))
        except BlockingIOError:
            room.free.append(room)
            return False
        except BaseException:
            room.free.append(room)
            raise
        self._sent[number] = key, room
        if self._watch is None:
            self._look_again(PATIENCE)
        return True

    def start(self) -> None:
        """
        Have it started, soon, if it is not and can be.
        """
        is_due = self._is_wanted and self._seconds() >= self._not_before
        if is_due and self._started is None and not self._is_starting:
            self._is_starting = True
            self._pool.run(self._start)

    def allow(self) -> None:
        """
        It may be started again after `stop`.
        """
        self._is_wanted = True

    def stop(self) -> None:
        """
        Have it end; the pool can be stopped then, and ends behind it.
        """
        self._is_wanted = False
        self._let_go()

    # ── its beginning and its end ────────────────────────────────────────────────────────────────

    def _start(self) -> None:
        """
        In a worker thread.
        """
        try:
            started = start()
        except Exception as error:
            self._pool.post(self._has_not_started, error)
        else:
            self._pool.post(self._has_started, started)

    def _has_started(self, started: Started) -> None:
        self._is_starting = False
        self._started = started
        self._reactor.addReader(self)
        # It may never come to say that it runs.
        self._look_again(LAST_PATIENCE)
        if not self._is_wanted:
            self._let_go()

    def _has_not_started(self, error: Exception) -> None:
        self._is_starting = False
        self._rest("no process that stores mail can be started: {error}", error=error)

    def _rest(self, why: str, **values: object) -> None:
        """
        Do without it for a while.
        """
        self._not_before = max(self._not_before, self._seconds() + PAUSE)
        _log.warn(why + "; threads do it", **values)

    def _let_go(self) -> None:
        """
        End the process; nobody wants anything of it any more.
        """
        self._is_ready = self.is_late = False
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        started = self._started
        if started is not None:
            # Before it has no descriptor any more.
            self._reactor.removeReader(self)
            self._started = None
            started.close()
            self._pool.run(started.process.wait)

    # ── when it does not get on ──────────────────────────────────────────────────────────────────

    def _look_again(self, seconds: float) -> None:
        self._seen = self._count
        self._watch = self._reactor.callLater(seconds, self._look)

    def _look(self) -> None:
        """
        See whether it has answered since.
        """
        self._watch = None
        if self._started is None:
            return
        process = self._started.process
        if not self._is_ready:
            process.kill()
        elif not self._sent and not self.is_late:
            return
        elif self._count != self._seen:
            self._look_again(PATIENCE)
        elif not self.is_late:
            self.is_late = True
            self._look_again(LAST_PATIENCE)
            taken_back = self._taken_back()
            self._ask()
            self._tell(Receipt(taken_back, None, None, 0))
        else:
            # Its socket tells when it has ended.
            process.kill()

    def _ask(self) -> None:
        """
        Have it answer when it gets on: it may have begun nothing that it would tell of.
        """
        assert self._started is not None, "it does not get on"
        # If it has ended, the other socket tells.
        with suppress(OSError):
            self._started.letters.send(pack_letter(QUESTION))

    def _taken_back(self) -> list[Outcome]:
        """
        What it has not begun.
        """
        assert self._started is not None, "it does not get on, or has ended"
        outcomes: list[Outcome] = []
        try:
            while True:
                letter = self._started.unread.recv(LONGEST, socket.MSG_DONTWAIT)
                outcomes.append(Outcome(unpack_letter(letter).number, NOTHING, []))
        except OSError:
            # There is nothing more.
            return outcomes

    def _gets_on(self) -> None:
        """
        It has answered.
        """
        self._count += 1
        if self.is_late:
            self.is_late = False
            if self._watch is not None:
                # What it is given now is looked after as ever.
                self._watch.reset(PATIENCE)

    # ── what the reactor calls ───────────────────────────────────────────────────────────────────

    def fileno(self) -> int:
        return -1 if self._started is None else self._started.answers.fileno()

    def logPrefix(self) -> str:
        return "WriteProcess"

    def doRead(self) -> None:
        """
        It has answered, or ended.
        """
        if self._started is None:
            return
        try:
            size = self._started.answers.recv_into(self._page)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if not size:
            self._has_ended()
        elif self._is_ready:
            self._gets_on()
            self._tell(unpack_receipt(self._page[:size]))
        else:
            self._is_ready = True
            if self._watch is not None:
                self._watch.cancel()
                self._watch = None

    def connectionLost(self, reason: Failure) -> None:
        """
        The reactor has let go of it, at its end.
        """
        if self._started is None:
            # Most reactors let go of what has closed its descriptor, too.
            return
        self._is_wanted = False
        self._end()

    def _has_ended(self) -> None:
        assert self._started is not None, "it has been heard"
        words = self._started.last_words()
        what = ": {words}" if words else ""
        self._rest("the process that stores mail has ended" + what, words=words)
        self._end()

    def _end(self) -> None:
        unread = self._taken_back()
        self._let_go()
        # What it has begun, nobody knows; of the others, the first outcome is the one that counts.
        lost = [Outcome(number, UNKNOWN, []) for number in self._sent]
        self._tell(Receipt([*unread, *lost], None, None, 0))

    def _tell(self, answer: Receipt) -> None:
        told = []
        for number, what, refused in answer.outcomes:
            sent = self._sent.pop(number, None)
            if sent is None:
                # Told before, or nothing but a question.
                continue
            key, room = sent
            room.free.append(room)
            told.append((key, what, refused))
        try:
            if self.told is not None:
                self.told(told, answer)
        except Exception:
            _log.failure("an answer was not taken")
