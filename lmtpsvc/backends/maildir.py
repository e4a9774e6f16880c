"""
The Maildir backend: a file for each message, which IMAP and POP3 servers and mail readers share.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Hashable, Sequence
from functools import partial
from operator import attrgetter
from typing import Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFDSet, IReactorFromThreads, IReactorTime
from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface import implementer

from ..commitment import Commitment
from ..envelope import Mailbox
from ..errors import DeliveryError, from_os_error
from ..interfaces import Capabilities, IBackend, IBackendFactory, IMessage, ITellsWhere
from ..quota import Quota, declared_size
from .allowance import allowance
from .batch import Batch
from .entrusted import Entrusted
from .files import check_room, make_directory, make_directory_durably, remove_older
from .folders import directory_name
from .group_commit import GroupCommit
from .haste import Haste
from .names import Names
from .places import STALE_SECONDS, Place, Places
from .pool import Pool, WorkerPool
from .posting import Posting
from .quotas import Quotas
from .settings import SPOOL, SYNOPSIS, Settings, from_words
from .shortcut import Shortcut
from .syncing import Syncing
from .target import Answer, Target
from .write_process import WriteProcess

_log = Logger()

#: Mailboxes of which it is remembered where their mail goes; then it begins anew.
REMEMBERED_MAILBOXES: Final = 10_000

# What says where the mail of a mailbox goes.  Its attributes do not, and must not be remembered: each size
# that a client declares there would make another mailbox, and all of these have the same hash.
_where = attrgetter("user", "domain", "detail", "home", "uid", "gid")


@implementer(IBackend, ITellsWhere)
class MaildirBackend(Service):
    """
    Stores mail in Maildirs; file work is done in *pool* only, except at start.

    *names* makes the names of files, and *clock* tells the time of day; *process* stores
    what is small.
    """

    def __init__(
        self,
        settings: Settings,
        pool: Pool,
        names: Names,
        clock: IReactorTime,
        process: WriteProcess[Posting] | None = None,
    ) -> None:
        seconds = clock.seconds
        self._settings, self._pool, self._names, self._seconds = settings, pool, names, seconds
        root = settings.template.root
        self._spool = None if root is None else os.path.join(root, SPOOL)
        self._places = Places(root, settings.mode, seconds)
        self._syncing = Syncing(time.monotonic)
        self._haste = Haste(time.monotonic, self._syncing)
        self._quotas = Quotas(settings.mailbox_full, settings.file_mode, seconds)
        self._known: dict[Hashable, Place] = {}
        self._group = GroupCommit(
            pool, clock, settings.threads, partial(self._syncing.whole_pays, 2), self._store
        )
        self._entrusted = Entrusted(
            process,
            pool,
            self._places,
            self._syncing,
            self._batch,
            self._store_patiently,
        )
        self._shortcut = Shortcut(
            pool,
            clock,
            settings,
            self._places,
            self._syncing,
            self._haste,
            self._entrusted,
            self._store_patiently,
            lambda: self._group.count,
        )
        self.capabilities = Capabilities(
            settings.line_ending,
            self._spool,
            binary=settings.line_ending == "\r\n",
            # Who shares looks for a copy by the digest, for which all of it is read.
            links_spooled=self._spool is not None
            and settings.file_mode == 0o600
            and settings.sharing is None,
        )

    def startService(self) -> None:
        """
        Make the root, with the directory for the spool.

        Raises:
            OSError: It cannot be made.
        """
        super().startService()
        self._entrusted.allow()
        root = self._settings.template.root
        if root is not None and self._spool is not None:
            make_directory_durably(root, self._places.shared_mode)
            make_directory(self._spool, 0o700)
            self._pool.run(partial(remove_older, self._spool, self._seconds() - STALE_SECONDS))

    def stopService(self) -> Deferred[None]:
        """
        Fires when all deliveries that have been asked for are done.
        """
        super().stopService()
        # Before the pool: what waits for its turn is not in the pool yet.
        finished = self._shortcut.finish().addCallback(lambda _: self._group.finish())
        finished.addCallback(lambda _: self._entrusted.stop())
        return finished.addCallback(lambda _: self._pool.stop())

    def verify(self, mailbox: Mailbox) -> Deferred[None] | None:
        """
        Refuse a *mailbox* that could not be a directory, or has no room; whether it exists does not
        matter.
        """
        place, quota = self._found(mailbox)
        if quota is None or not quota.binding:
            return None
        return self._pool.submit(partial(self._check_room, mailbox, place, quota))

    def where(self, mailbox: Mailbox) -> str:
        return self._place(mailbox).directory

    def deliver(self, message: IMessage, mailboxes: Sequence[Mailbox]) -> list[Commitment]:
        """
        Store *message*; mailboxes that are the same Maildir get one copy.
        """
        results: list[Commitment] = []
        # By Maildir, and by owner: links can only be shared by those to whom the file belongs.
        targets: dict[Hashable, Target] = {}
        owners: dict[Hashable, list[Target]] = {}
        for mailbox in mailboxes:
            result = Commitment()
            results.append(result)
            try:
                place, quota = self._found(mailbox)
            except DeliveryError as error:
                result.errback(error)
                continue
            target = targets.get(place.key)
            if target is None:
                target = targets[place.key] = Target(place, mailbox, quota)
                owners.setdefault(place.owner, []).append(target)
            target.waiting.append(result)
        for group in owners.values():
            posting = Posting(message, group, self._settings, self._places, self._names)
            if not self._shortcut.take(posting):
                self._store_patiently(posting)
        return results

    def _store_patiently(self, posting: Posting) -> None:
        self._group.add(posting, posting.message.envelope.sender.priority)

    def _store(self, postings: list[Posting]) -> list[Answer]:
        """
        In a worker thread: store several messages together.
        """
        return self._batch().store(postings)

    def _batch(self) -> Batch:
        return Batch(
            self._settings, self._places, self._syncing, self._quotas, self._haste, self._pool
        )

    def _check_room(self, mailbox: Mailbox, place: Place, quota: Quota) -> None:
        """
        In a worker thread: whether a message as large as the client says has room.
        """
        try:
            self._quotas.check(place, quota, declared_size(mailbox))
        except OSError as error:
            _log.error("{mailbox}: the quota is not known: {error}", mailbox=mailbox, error=error)
            raise from_os_error(error, self._settings.mailbox_full) from error

    def _found(self, mailbox: Mailbox) -> tuple[Place, Quota | None]:
        """
        Where mail for *mailbox* goes, which is remembered, as it is asked for at RCPT and again for
        each message; and what may be there at most.

        Raises:
            DeliveryError: There can be no such place.
        """
        where: Hashable = _where(mailbox) if mailbox.attributes else mailbox
        place = self._known.get(where)
        if place is None:
            place = self._place(mailbox)
            if len(self._known) >= REMEMBERED_MAILBOXES:
                self._known.clear()
            self._known[where] = place
        return place, allowance(mailbox, self._settings.quota)

    def _place(self, mailbox: Mailbox) -> Place:
        """
        Where mail for *mailbox* goes.

        Raises:
            DeliveryError: There can be no such place.
        """
        template = self._settings.template
        inbox = template.expand(mailbox)
        shared = inbox.rsplit("/", template.private_names)[0] or "/"
        folder = directory_name(mailbox.detail) if self._settings.folders else ""
        directory = f"{inbox}/{folder}" if folder else inbox
        return Place(directory, inbox, shared, mailbox.uid, mailbox.gid)


@implementer(IPlugin, IBackendFactory)
class MaildirFactory:
    """
    Makes a `MaildirBackend`.
    """

    name = "maildir"
    synopsis = SYNOPSIS
    help = """\
Stores each message as a file in a Maildir, which is made when its first mail comes.

TEMPLATE  the Maildir of a mailbox; the fields are {user} {domain} {detail} {home}, the last at the
          beginning only: /srv/mail/{domain}/{user} or {home}/Maildir.  Without any field,
          /{domain}/{user} is added.
detail    ann+lists goes to Ann's INBOX (inbox), or to her Maildir++ folder "lists" (folder).
mode      of new directories, in octal; new files get the same without the right to execute.
newline   how lines end in the files.
full      the reply to mail over quota: try again later (452), or never (552).
quota     octets, and messages if you like, that a mailbox may hold of which the directory says
          nothing else; kept in Maildir++ files (maildirsize).
threads   at most so many deliveries are on their way to the disk at a time.
sharing   a file with a key that several nodes have which store in the same directory: one links the
          copy that another has stored, if the client carries MAILDATA between them.
"""

    def build(self, reactor: object, *words: str, **options: str) -> IBackend:
        """
        Make the backend; the directory need not be there, but must be possible.
        """
        if len(words) != 1:
            raise ValueError(f"expected {self.synopsis}")
        settings = from_words(words[0], options)
        root = settings.template.root
        if root is not None:
            check_room(root)
        # As many for those that only look, which may hang as well; and as many again for the messages
        # that take the short way, which must not wait for the others.
        pool = WorkerPool(IReactorFromThreads(reactor), 3 * settings.threads, "maildir")
        clock = IReactorTime(reactor)
        names = Names(socket.gethostname(), clock.seconds)
        process: WriteProcess[Posting] | None = None
        if IReactorFDSet.providedBy(reactor):
            process = WriteProcess(reactor, pool, time.monotonic)
        return MaildirBackend(settings, pool, names, clock, process)
