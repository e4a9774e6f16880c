"""
Quotas of Maildirs: is there room, and what has been delivered is added to ``maildirsize``.

Within this process, a mailbox is asked and charged by one thread at a time, and what is on its way
counts, so that no two deliveries share the last room.  Between processes nobody waits for that:
each may deliver what it found room for.

The sums stay right by a lock (flock) on the directory of the INBOX.  A delivery has it, shared,
from before its message is shown until its line is written; who counts takes it alone, or else keeps
the result to himself.  So a message is never both counted and added.  Other programs do not know
the lock; with them, the times of the directories tell whether anything has changed meanwhile.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Final

from twisted.logger import Logger

from ..errors import refusal
from ..quota import Quota
from ..replies import Reply
from . import maildirsize
from .identity import as_user
from .maildirsize import Sums
from .places import Place

_log = Logger()

#: How long a delivery waits, at most, for somebody who counts, and how often it looks, in seconds.
PATIENCE: Final = 10.0
_PAUSE: Final = 0.01


class _Account:
    """
    What this process has under way for one mailbox.
    """

    __slots__ = ("lock", "messages", "octets", "users")

    def __init__(self) -> None:
        self.lock = Lock()
        self.octets = self.messages = self.users = 0


class Quotas:
    """
    Of all Maildirs of a backend.  All methods block, and may be called from any thread.

    *full* is what is said where there is no room; *mode* is that of new files, *seconds* the time
    of day.
    """

    def __init__(
        self,
        full: Reply,
        mode: int,
        seconds: Callable[[], float],
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._full, self._mode, self._seconds, self._pause = full, mode, seconds, pause
        self._accounts: dict[str, _Account] = {}
        self._lock = Lock()

    def check(self, place: Place, quota: Quota, octets: int) -> None:
        """
        Make sure that a message of *octets*, 0 if that is not known, would have room now.

        Raises:
            DeliveryError: It would not.
            OSError: Nobody knows.
        """
        with self._account(place) as account, account.lock:
            self._ask(account, place, quota, Sums(max(octets, 1), 1))

    def reserve(self, place: Place, quota: Quota, octets: int) -> Reservation:
        """
        As `check`; what is returned must be ended.
        """
        size = Sums(octets, 1)
        with self._account(place) as account, account.lock:
            self._ask(account, place, quota, size)
            account.octets += size.octets
            account.messages += size.messages
            with self._lock:
                account.users += 1
        return Reservation(self, account, place, size)

    def end(self, account: _Account, place: Place, size: Sums, *, delivered: bool) -> None:
        """
        What was on its way is there, or will not come.
        """
        with account.lock:
            account.octets -= size.octets
            account.messages -= size.messages
            if delivered:
                self._add(place, size)
        self._leave(account, place)

    @contextmanager
    def _account(self, place: Place) -> Iterator[_Account]:
        with self._lock:
            account = self._accounts.setdefault(place.inbox, _Account())
            account.users += 1
        try:
            yield account
        finally:
            self._leave(account, place)

    def _leave(self, account: _Account, place: Place) -> None:
        with self._lock:
            account.users -= 1
            if not account.users:
                del self._accounts[place.inbox]

    def _ask(self, account: _Account, place: Place, quota: Quota, size: Sums) -> None:
        def has_room(sums: Sums) -> bool:
            return quota.has_room(
                sums.octets + account.octets + size.octets,
                sums.messages + account.messages + size.messages,
            )

        with as_user(place.uid, place.gid):
            record = maildirsize.read(place.inbox)
            if record is not None and record.quota == quota:
                if has_room(record.sums):
                    return
                if record.is_certain(self._seconds()):
                    raise refusal(self._full)
            if not has_room(self._count(account, place, quota)):
                raise refusal(self._full)

    def _count(self, account: _Account, place: Place, quota: Quota) -> Sums:
        """
        What is there, without what *account* has; written down unless a message is just being
        shown.
        """
        try:
            descriptor, locked = self._locked(place, fcntl.LOCK_EX)
        except FileNotFoundError:
            return Sums()
        try:
            sums = maildirsize.recount(place.inbox, quota, self._mode, store=locked)
        finally:
            os.close(descriptor)
        if locked:
            return sums
        # What is on its way may have been counted.  Better a message too much than one sent back.
        return Sums(sums.octets - account.octets, sums.messages - account.messages)

    def hold(self, place: Place) -> int | None:
        """
        Keep others from counting; returns a descriptor to be closed, or None if it could not be
        done.
        """
        waited = 0.0
        try:
            with as_user(place.uid, place.gid):
                while True:
                    descriptor, locked = self._locked(place, fcntl.LOCK_SH)
                    if locked:
                        return descriptor
                    os.close(descriptor)
                    if waited >= PATIENCE:
                        break
                    self._pause(_PAUSE)
                    waited += _PAUSE
        except OSError as error:
            _log.warn("{inbox}: no lock for the quota: {error}", inbox=place.inbox, error=error)
            return None
        _log.warn("{inbox}: somebody keeps the lock for the quota, going on", inbox=place.inbox)
        return None

    def _locked(self, place: Place, kind: int) -> tuple[int, bool]:
        """
        A descriptor of the INBOX's directory, and whether it has the lock, or none can be had.
        """
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        descriptor = os.open(place.inbox, flags)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno == errno.EWOULDBLOCK:
                return descriptor, False
            # NFS has no such lock for directories.  The times of the directories must do, then.
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor, True

    def _add(self, place: Place, size: Sums) -> None:
        """
        Write the line.  The message is there, whatever comes of that.
        """
        try:
            with as_user(place.uid, place.gid):
                maildirsize.append(place.inbox, size)
        except OSError as error:
            _log.error(
                "{inbox}: {octets} octets are not in the quota's sums: {error}",
                inbox=place.inbox,
                octets=size.octets,
                error=error,
            )


class Reservation:
    """
    Room for one message; see `Quotas.reserve`.  For one thread at a time.
    """

    __slots__ = ("_account", "_descriptor", "_is_open", "_place", "_quotas", "_size")

    def __init__(self, quotas: Quotas, account: _Account, place: Place, size: Sums) -> None:
        self._quotas, self._account, self._place, self._size = quotas, account, place, size
        self._descriptor: int | None = None
        self._is_open = True

    def hold(self) -> None:
        """
        The message is about to be shown.
        """
        if self._descriptor is None:
            self._descriptor = self._quotas.hold(self._place)

    def let_go(self) -> None:
        """
        It is not, for the time being.
        """
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def end(self, *, delivered: bool = False) -> None:
        """
        It is delivered, or never will be.  Only the first call counts.
        """
        if self._is_open:
            self._is_open = False
            try:
                self._quotas.end(self._account, self._place, self._size, delivered=delivered)
            finally:
                self.let_go()
