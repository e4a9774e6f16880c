"""
The checkers that are ours.
"""

from __future__ import annotations

from typing import Final

from attrs import define, field, frozen
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, DeferredSemaphore, fail, succeed
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from ..in_thread import InThread
from ..session.sasl import StoredKeys
from .plugins import IProvenName
from .stored_keys import KeysFile, is_password

#: Passwords that are looked at side by side: strangers can ask for it as often as they like, and
#: must not take all threads for it, in which mail is spooled too.
AT_ONCE: Final = 2


class IHasKeys(Interface):
    """
    A checker that has what SCRAM-SHA-256 needs, beside what its *credentialInterfaces* say.
    """

    def stored_keys(user: str) -> StoredKeys:
        """
        The keys of *user*, or a Deferred of them; some that are not known if there is no such user.
        """


@implementer(IProvenName)
@frozen
class ProvenName:
    name: str


@implementer(ICredentialsChecker, IHasKeys)
@define(eq=False)
class ScramChecker:
    """
    Users and keys in a file.  Passwords are looked at with *in_thread*: that takes long on purpose.
    """

    keys: KeysFile
    in_thread: InThread = deferToThread
    credentialInterfaces: tuple[type[Interface], ...] = (IUsernamePassword,)
    _turns: DeferredSemaphore = field(init=False, factory=lambda: DeferredSemaphore(AT_ONCE))

    @classmethod
    def of(cls, path: str) -> ScramChecker:
        """
        For a file.

        Raises:
            ValueError, OSError: As KeysFile does.
        """
        return cls(KeysFile(path))

    def stored_keys(self, user: str) -> StoredKeys:
        return self.keys.find(user)

    def requestAvatarId(self, credentials: object) -> Deferred[bytes | tuple[()]]:
        given = IUsernamePassword(credentials)
        user, password = _text(given.username), _text(given.password)
        if user is None or password is None:
            return fail(UnauthorizedLogin())
        # Somebody who does not exist is refused as slowly as somebody who does.
        keys = self.keys.find(user)

        def judge(right: bool) -> bytes | tuple[()]:
            if not right:
                raise UnauthorizedLogin
            return user.encode()

        found: Deferred[bool] = Deferred()

        def look() -> bool:
            # Who has gone meanwhile needs no answer.
            return not found.called and is_password(password, keys)

        def tell(outcome: bool | Failure) -> None:
            if not found.called:
                found.callback(outcome)

        # Nobody can call a thread off: its turn ends when it does, whether somebody waits or not.
        self._turns.run(self.in_thread, look).addBoth(tell)
        return found.addCallback(judge)


@implementer(ICredentialsChecker)
@define(eq=False)
class ProofChecker:
    """
    Believes every proven name, or those of *names* if there are any.
    """

    names: frozenset[str]
    credentialInterfaces: tuple[type[Interface], ...] = field(default=(IProvenName,))

    def requestAvatarId(self, credentials: object) -> Deferred[bytes | tuple[()]]:
        name = IProvenName(credentials).name
        if self.names and name not in self.names:
            return fail(UnauthorizedLogin())
        return succeed(name.encode())


def _text(octets: bytes) -> str | None:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return None
