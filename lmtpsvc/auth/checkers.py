"""
The checkers that are ours.
"""

from __future__ import annotations

from attrs import define, field, frozen
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.threads import deferToThread
from zope.interface import Interface, implementer

from ..in_thread import InThread
from ..session.sasl import StoredKeys
from .plugins import IProvenName
from .stored_keys import KeysFile, is_password


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

        return self.in_thread(lambda: is_password(password, keys)).addCallback(judge)


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
