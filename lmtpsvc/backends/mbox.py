"""
The mbox backend: one file for a whole mailbox, as ``/var/mail`` has had it for half a century.

How it is written is told by its parts: `mbox_format` (the text), `mbox_locks`, `mbox_mark` (what
makes an append whole or nothing), `mbox_batch` (the steps) and `mbox_queue` (who waits for what).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import partial
from glob import escape, iglob
from typing import Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface import implementer

from ..commitment import Commitment
from ..envelope import Mailbox
from ..errors import DeliveryError, from_os_error, refusal
from ..interfaces import Capabilities, IBackend, IBackendFactory, IMessage, ITellsWhere
from ..quota import Quota, declared_size
from ..replies import BAD_MAILBOX
from .allowance import allowance
from .files import check_room, make_directory_durably
from .mbox_batch import Answers, Letter, MboxBatch
from .mbox_files import MboxFiles, Spot
from .mbox_locks import SUFFIX
from .mbox_mark import is_marked
from .mbox_queue import MboxQueue
from .mbox_settings import SYNOPSIS, MboxSettings, from_words
from .pool import Pool, WorkerPool
from .template import MAX_NAME

_log = Logger()

#: What to do where the directory of the mailboxes cannot be written to.
_ADVICE: Final = ": be in its group (on Debian: mail), or let locks= have dotlock_try for dotlock"


@implementer(IBackend, ITellsWhere)
class MboxBackend(Service):
    """
    Stores mail in mboxes; file work is done in *pool* only, except at start.

    *clock* tells the time of day.
    """

    def __init__(self, settings: MboxSettings, pool: Pool, clock: IReactorTime) -> None:
        self._settings, self._pool, self._seconds = settings, pool, clock.seconds
        root = settings.template.root
        self._files = MboxFiles(root, settings.mode, settings.directory_mode)
        self._queue = MboxQueue(pool, clock, settings.lock_timeout, self._store)
        self.capabilities = Capabilities("\n")

    def startService(self) -> None:
        """
        Make the root, and mend what was left by a service that died.

        Raises:
            OSError: It cannot be made.
        """
        super().startService()
        root = self._settings.template.root
        if root is not None:
            if not os.path.isdir(root):
                make_directory_durably(root, self._files.shared_mode)
            self._pool.run(partial(self._look_after, root))

    def stopService(self) -> Deferred[None]:
        """
        Fires when all deliveries that have been asked for are done.
        """
        super().stopService()
        # Before the pool: what waits for its turn, or for a lock, is not in the pool.
        return self._queue.finish().addCallback(lambda _: self._pool.stop())

    def verify(self, mailbox: Mailbox) -> Deferred[None] | None:
        """
        Refuse a *mailbox* that could not be a file, or that has no room for what the client has
        announced; whether it exists does not matter.
        """
        spot, quota = self._spot(mailbox), allowance(mailbox, self._settings.quota)
        if quota is None or not quota.binding:
            return None
        size = max(declared_size(mailbox), 1)
        return self._pool.submit(partial(self._check_room, spot.path, quota, size))

    def where(self, mailbox: Mailbox) -> str:
        return self._spot(mailbox).path

    def deliver(self, message: IMessage, mailboxes: Sequence[Mailbox]) -> list[Commitment]:
        """
        Store *message*; mailboxes that are the same file get one copy.
        """
        results = [Commitment() for _ in mailboxes]
        letters: dict[str, tuple[Spot, Letter]] = {}
        for mailbox, result in zip(mailboxes, results, strict=True):
            try:
                spot, quota = self._spot(mailbox), allowance(mailbox, self._settings.quota)
            except DeliveryError as error:
                result.errback(error)
                continue
            if spot.path not in letters:
                letters[spot.path] = spot, Letter(message, mailbox, quota)
            letters[spot.path][1].waiting.append(result)
        for spot, letter in letters.values():
            self._queue.add(spot, letter)
        return results

    def _check_room(self, path: str, quota: Quota, size: int) -> None:
        """
        In a worker thread: whether *size* octets more have room.
        """
        try:
            octets = os.stat(path).st_size
        except FileNotFoundError:
            octets = 0
        except OSError as error:
            _log.error("{path}: the quota is not known: {error}", path=path, error=error)
            raise from_os_error(error) from error
        if not quota.has_room(octets + size, 0):
            raise refusal(self._settings.mailbox_full)

    def _store(self, spot: Spot, letters: list[Letter]) -> Answers:
        """
        In a worker thread: store several messages in one mailbox.
        """
        return MboxBatch(spot, letters, self._files, self._settings, self._seconds).store()

    def _spot(self, mailbox: Mailbox) -> Spot:
        """
        Where mail for *mailbox* goes.

        Raises:
            DeliveryError: There can be no such place.
        """
        template = self._settings.template
        path = template.expand(mailbox)
        name = os.path.basename(path)
        # The mailbox of a user "ann.lock" would be the lock of Ann's.
        if name.endswith(SUFFIX) or len(os.fsencode(name + SUFFIX)) > MAX_NAME:
            raise refusal(BAD_MAILBOX)
        shared = path.rsplit("/", template.private_names)[0] or "/"
        is_private = template.root is None or template.private_names > 1
        return Spot(path, shared, is_private, mailbox.uid, mailbox.gid)

    def _look_after(self, root: str) -> None:
        """
        In a worker thread: find mailboxes that somebody who died has left a mark on.

        Those in users' own directories are mended by their next mail: here nobody knows the users.
        """
        template = self._settings.template
        if template.private_names > 1 and os.geteuid() == 0:
            return
        below = os.path.relpath(template.text, root)
        pattern = re.sub(r"\{[^{}]*\}", "*", escape(below))
        for path in iglob(os.path.join(escape(root), pattern)):
            if is_marked(path):
                spot = Spot(path, os.path.dirname(path), is_private=False)
                self._pool.post(self._queue.add, spot)


@implementer(IPlugin, IBackendFactory)
class MboxFactory:
    """
    Makes an `MboxBackend`.
    """

    name = "mbox"
    synopsis = SYNOPSIS
    help = """\
Stores all messages of a mailbox in one file, which is made when its first mail comes.

TEMPLATE  the file of a mailbox; the fields are {user} {domain} {detail} {home}, the last at the
          beginning only: /var/mail/{user} or {home}/mbox.  Without any field, /{domain}/{user} is
          added.
locks     in this order: fcntl, flock, dotlock (a file with .lock behind its name), or dotlock_try
          (does without one where no file can be created).  All programs must use the same.
lock_timeout  seconds to wait for a mailbox that another program has locked; then the reply is 451.
mode      of new files, in octal; new directories get the right to search as well.
quota     octets of a mailbox's file, if the directory says nothing; messages are not counted.
full      the reply to mail over quota: try again later (452), or never (552).
threads   at most so many mailboxes are written to at a time.
"""

    def build(self, reactor: object, *words: str, **options: str) -> IBackend:
        """
        Make the backend; the directory need not be there, but must be possible.
        """
        if len(words) != 1:
            raise ValueError(f"expected {self.synopsis}")
        settings = from_words(words[0], options)
        if settings.template.root is not None:
            needs_files = "dotlock" in settings.locks
            check_room(settings.template.root, _ADVICE, if_there=needs_files)
        pool = WorkerPool(IReactorFromThreads(reactor), settings.threads, "mbox")
        return MboxBackend(settings, pool, IReactorTime(reactor))
