"""
``file:PATH``: the people who live here stand in a file, which is read again when it changes.

Look-ups are answered from memory.  At most once a second, one of them has the file looked at in a
thread.  Nobody waits for that while what is known is at most two seconds old.  If it is older, for
want of look-ups, the first ones wait: a user added an hour ago must not be unknown to the first
mail.  But they do not wait for ever: a file that cannot be reached does not stop the mail.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.plugin import IPlugin
from twisted.python.failure import Failure
from zope.interface import implementer

from ..envelope import Mailbox
from ..in_thread import InThread, in_pool_of
from ..interfaces import IDirectory, IDirectoryFactory, ITellsSince
from .reading import Look, Signature, look, read
from .table import Table

#: The file is not looked at more often.
LOOK_SECONDS = 1.0
#: Answers from contents that were last compared with the file longer ago wait for the next look.
STALE_SECONDS = 2.0
#: But no longer than this.
WAIT_SECONDS = 2.0


@implementer(IDirectory, ITellsSince)
class FileDirectory:
    """
    Those who stand in the file *path*.

    Raises:
        OSError: It cannot be read.
        ValueError: A line is wrong; the text has all of those lines.
    """

    _log = Logger()

    def __init__(
        self,
        path: str,
        clock: IReactorTime,
        in_thread: InThread,
        delimiters: str = "+",
        wall_seconds: Callable[[], float] = time.time,
    ) -> None:
        self._path, self._delimiters = path, delimiters
        self._clock, self._in_thread, self._wall_seconds = clock, in_thread, wall_seconds
        first = read(path, delimiters)
        if first.table is None:
            raise ValueError("; ".join(first.problems))
        self._table: Table = first.table
        self._judged: Signature = first.signature
        self._seen: Signature = first.signature
        self._looked_at = clock.seconds()
        self._is_looking = False
        self._unreadable = ""
        self._waiting: list[Deferred[None]] = []
        self._patience: IDelayedCall | None = None
        self._is_out_of_patience = False

    @property
    def tells_since(self) -> bool:
        return self._table.tells_since

    def resolve(self, mailbox: Mailbox) -> Deferred[Sequence[Mailbox]] | Sequence[Mailbox]:
        now = self._clock.seconds()
        if now - self._looked_at >= LOOK_SECONDS and not self._is_looking:
            self._look(now)
        is_stale = now - self._looked_at > STALE_SECONDS
        if not (self._is_looking and is_stale) or self._is_out_of_patience:
            return self._table.resolve(mailbox)
        if self._patience is None:
            self._patience = self._clock.callLater(WAIT_SECONDS, self._lose_patience)
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting.addCallback(lambda _: self._table.resolve(mailbox))

    def _look(self, now: float) -> None:
        self._is_looking = True
        judged, seen = self._judged, self._seen

        def ended(result: object) -> None:
            self._is_looking = False
            self._looked_at = now
            self._is_out_of_patience = False
            if self._patience is not None:
                self._patience.cancel()
            self._stop_waiting()

        looking = self._in_thread(
            lambda: look(self._path, self._delimiters, judged, seen, self._wall_seconds)
        )
        looking.addCallbacks(self._found, self._found_none).addErrback(
            lambda failure: self._log.failure("cannot look at {path}", failure, path=self._path)
        ).addCallback(ended)

    def _found(self, found: Look) -> None:
        self._seen = found.signature
        if found.is_judged:
            self._judged = found.signature
        if self._unreadable:
            self._unreadable = ""
            self._log.info("{path}: can be read again", path=self._path)
        for problem in found.problems:
            self._log.error(
                "{path}: {problem} (the old contents stay in force)",
                path=self._path,
                problem=problem,
            )
        if found.table is not None:
            self._table = found.table
            count = len(found.table.entries)
            self._log.info("{path}: read again, {count} addresses", path=self._path, count=count)

    def _found_none(self, failure: Failure) -> None:
        failure.trap(OSError)
        reason = getattr(failure.value, "strerror", None) or str(failure.value)
        if reason != self._unreadable:
            self._unreadable = reason
            self._log.error(
                "{path}: {reason} (the old contents stay in force)", path=self._path, reason=reason
            )

    def _lose_patience(self) -> None:
        self._is_out_of_patience = True
        self._log.warn("{path}: cannot be looked at in time, going on", path=self._path)
        self._stop_waiting()

    def _stop_waiting(self) -> None:
        self._patience = None
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(None)


@implementer(IPlugin, IDirectoryFactory)
class FileFactory:
    """
    ``file:PATH``, or ``file:PATH:delimiter=+``.
    """

    name = "file"
    synopsis = "file:PATH[:delimiter=+]"
    help = """
        Those who live here stand in the file PATH, in UTF-8, one on a line:

            ann@example.org                       # Ann lives here
            @example.org                          # and everybody else of that domain
            staff@example.org: ann@example.org, bob@example.org
            @example.net: ann@example.org         # all that is not listed otherwise
            postmaster: ann@example.org           # of every domain
            cid@example.org quota=1G backend=archive

        Case does not matter.  For ann+lists@example.org, that address is looked for first, then
        ann@example.org, ann: and @example.org; Ann, or those who get her mail, get it with the
        detail.  A target must stand in the file itself, for nothing is forwarded; an alias may
        have itself as a target.

        Behind the address of somebody, or of a domain, may stand what is known about each mailbox
        there: quota=1G, or quota=1G,10000 for messages too; backend=NAME; home=/path; uid=1000
        gid=1000; since=2024-05-01, the day when somebody got the mailbox that another had before, and
        domain_since= of a domain (RFC 7293); and x_NAME=VALUE for a backend of your own.

        The file is read again when it has changed, and has then rested for a second.  If a line is
        wrong, all lines that are get logged, and the old contents stay in force.

        delimiter: what may stand between user and detail, as with --recipient-delimiter; empty for
        nothing.
    """

    def build(self, reactor: object, *words: str, **options: str) -> IDirectory:
        if len(words) != 1 or not words[0] or set(options) - {"delimiter"}:
            raise ValueError(f"expected {self.synopsis}")
        # The service may change its working directory later on.
        path = os.path.abspath(words[0])
        try:
            return FileDirectory(
                path, IReactorTime(reactor), in_pool_of(reactor), options.get("delimiter", "+")
            )
        except OSError as error:
            raise ValueError(f"file:{path}: {error.strerror}") from error
        except ValueError as error:
            raise ValueError(f"file:{path}: {error}") from error
