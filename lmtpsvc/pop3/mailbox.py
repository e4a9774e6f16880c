"""
A mailbox of the SQL store, as `twisted.mail.pop3` wants to have it, and whose it is.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, BinaryIO

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.portal import IRealm
from twisted.internet.defer import Deferred
from twisted.mail.interfaces import IMailboxPOP3
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from ..backends.pool import Pool
from ..backends.sql.reading import NoSuchMailboxError, NoSuchMessageError, Store
from ..domains import with_ascii_domain


@implementer(IMailboxPOP3)
class StoredMailboxPOP3:
    """
    What was in a mailbox when its user logged in: messages that come later are for the next time,
    as RFC 1939 §3 has it.

    Sessions do not lock each other out.  What is deleted in one is an error to read in another, and
    no message changes its number or its UID on the way.
    """

    def __init__(
        self,
        store: Store,
        pool: Pool,
        name: str,
        uidvalidity: int,
        messages: Sequence[tuple[int, int]],
    ) -> None:
        self._store, self._pool, self._name = store, pool, name
        self._uidvalidity = uidvalidity
        #: UID and size.
        self._messages = messages
        self._deleted: set[int] = set()

    @classmethod
    def open(cls, store: Store, pool: Pool, name: str) -> StoredMailboxPOP3:
        """
        The mailbox *name*, an empty one if no mail has come for it yet.  It blocks.
        """
        try:
            uidvalidity = store.mailbox(name).uidvalidity
        except NoSuchMailboxError:
            return cls(store, pool, name, 0, ())
        messages = [(message.uid, message.size) for message in store.messages(name)]
        return cls(store, pool, name, uidvalidity, messages)

    def listMessages(self, i: int | None = None) -> list[int] | int:  # type: ignore[override]  # overloaded there
        if i is None:
            return [self._size(each) for each in range(len(self._messages))]
        self._check(i)
        return self._size(i)

    def getMessage(self, i: int) -> Deferred[BinaryIO]:
        """
        The file that it fires with blocks when it is read.
        """
        uid = self._uid(i)

        def read() -> BinaryIO:
            try:
                return self._store.open(self._name, uid)
            except NoSuchMessageError as error:
                raise ValueError("somebody else has deleted it") from error

        return self._pool.submit(read)

    def getUidl(self, i: int) -> bytes:
        return b"%d.%d" % (self._uidvalidity, self._uid(i))

    def deleteMessage(self, i: int) -> None:
        self._uid(i)
        self._deleted.add(i)

    def undeleteMessages(self) -> None:
        self._deleted.clear()

    def sync(self) -> Deferred[None]:
        """
        Fires when what was marked is gone for good.
        """
        uids = [self._messages[index][0] for index in sorted(self._deleted)]

        def delete() -> None:
            if uids:
                self._store.delete(self._name, uids)

        return self._pool.submit(delete)

    def _size(self, index: int) -> int:
        return 0 if index in self._deleted else self._messages[index][1]

    def _uid(self, index: int) -> int:
        self._check(index)
        if index in self._deleted:
            raise ValueError("it is marked as deleted")
        return self._messages[index][0]

    def _check(self, index: int) -> None:
        # A negative index would be one from the end.
        if not 0 <= index < len(self._messages):
            raise ValueError("no such message")


def _named(login: str) -> str:
    return with_ascii_domain(login.lower())


@implementer(IRealm)
class StoreRealm:
    """
    Whoever has logged in as ``user@domain`` gets the mailbox of that name.
    """

    def __init__(self, store: Store, pool: Pool, mailbox_of: Callable[[str], str] = _named) -> None:
        """
        *mailbox_of* makes the name of a mailbox of the name that somebody has logged in with.
        """
        self._store, self._pool, self._mailbox_of = store, pool, mailbox_of

    def requestAvatar(
        self, avatarId: bytes | tuple[()], mind: object, *interfaces: type[Interface]
    ) -> Deferred[tuple[type[Interface], object, Callable[[], None]]]:
        if IMailboxPOP3 not in interfaces or not isinstance(avatarId, bytes):
            raise NotImplementedError("only mailboxes, and for users who have a name")
        name = self._mailbox_of(avatarId.decode())
        opened = self._pool.submit(partial(StoredMailboxPOP3.open, self._store, self._pool, name))
        return opened.addCallback(lambda mailbox: (IMailboxPOP3, mailbox, lambda: None))


@implementer(ICredentialsChecker)
class AskedInThread:
    """
    A *checker* that reads files or computes, asked in another thread; it must have its answer when
    it returns, as `twisted.cred.checkers.FilePasswordDB` has.
    """

    def __init__(self, checker: Any, pool: Pool) -> None:
        self._checker, self._pool = checker, pool
        self.credentialInterfaces = checker.credentialInterfaces

    def requestAvatarId(self, credentials: object) -> Deferred[bytes | tuple[()]]:
        return self._pool.submit(partial(self._ask, credentials))

    def _ask(self, credentials: object) -> bytes | tuple[()]:
        answers: list[Any] = []
        self._checker.requestAvatarId(credentials).addBoth(answers.append)
        [answer] = answers
        if isinstance(answer, Failure):
            answer.raiseException()
        found: bytes | tuple[()] = answer
        return found


#: What a file is read by: as large as a piece in the database, so that each is asked for once.
PIECE = 16 * io.DEFAULT_BUFFER_SIZE
