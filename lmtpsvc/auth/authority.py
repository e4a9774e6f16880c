"""
Authority: several checkers as one, for AUTH.
"""

from __future__ import annotations

import pwd
from collections.abc import Sequence
from typing import Any, Final

from twisted.cred.credentials import IUsernamePassword, UsernamePassword
from twisted.cred.error import LoginFailed
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from .. import replies
from ..delivery.awaiting import as_deferred
from ..errors import refusal
from ..in_thread import InThread
from ..session.sasl import StoredKeys
from .checkers import IHasKeys, ProvenName
from .plugins import IProvenName

#: Characters of a login name: it stands in logs and headers.
MAX_NAME: Final = 255
#: Checkers of Twisted's that keep the reactor waiting.
_BLOCKING: Final = {"twisted.plugins.cred_unix"}

_log = Logger(namespace="lmtpsvc.auth")


class CheckerAuthority:
    """
    Asks *checkers*, one after the other, until one says yes; see `lmtpsvc.session.sasl.Authority`.

    If none does, and one could not say, nobody knows: that is a temporary failure.
    """

    def __init__(self, checkers: Sequence[Any], in_thread: InThread) -> None:
        self._in_thread = in_thread
        self._of_passwords = _those_for(IUsernamePassword, checkers)
        self._of_names = _those_for(IProvenName, checkers)
        self._with_keys = [each for each in checkers if IHasKeys.providedBy(each)]
        self.takes_passwords = bool(self._of_passwords)
        self.has_keys = bool(self._with_keys)
        self.takes_proof = bool(self._of_names)

    async def check_password(self, user: str, password: str) -> str | None:
        credentials = UsernamePassword(user.encode(), password.encode())
        return await self._ask(self._of_passwords, credentials)

    async def check_proven(self, name: str) -> str | None:
        return await self._ask(self._of_names, ProvenName(name))

    async def stored_keys(self, user: str) -> StoredKeys:
        try:
            for checker in self._with_keys:
                found: StoredKeys = await as_deferred(checker.stored_keys(user))
                if found.is_known:
                    break
        except Exception as error:
            _complain("the keys for a login cannot be found", error)
            raise refusal(replies.LOGIN_UNCHECKED) from error
        return found

    async def name_of(self, uid: int) -> str | None:
        def find() -> str | None:
            try:
                return pwd.getpwuid(uid).pw_name
            except KeyError:
                return None

        return await self._in_thread(find)

    def wait(self, clock: IReactorTime, seconds: float) -> Deferred[None]:
        return deferLater(clock, seconds, lambda: None)

    def tell(self, host: str, mechanism: str, login: str | None) -> None:
        if login is None:
            _log.warn(
                "login failed client={host} mechanism={mechanism}", host=host, mechanism=mechanism
            )
        else:
            _log.info(
                "login={login} client={host} mechanism={mechanism}",
                login=login,
                host=host,
                mechanism=mechanism,
            )

    async def _ask(self, checkers: Sequence[Any], credentials: object) -> str | None:
        unknown: Exception | None = None
        for checker in checkers:
            try:
                return _name(await self._request(checker, credentials))
            except LoginFailed:
                continue
            except CancelledError as error:
                # The time is up, or the client has gone.
                raise refusal(replies.LOGIN_UNCHECKED) from error
            except Exception as error:
                _complain("a login cannot be checked", error)
                unknown = error
        if unknown is not None:
            raise refusal(replies.LOGIN_UNCHECKED) from unknown
        return None

    async def _request(self, checker: Any, credentials: object) -> object:
        if type(checker).__module__ in _BLOCKING:
            [outcome] = await self._in_thread(lambda: _outcome(checker, credentials))
            if isinstance(outcome, Failure):
                outcome.raiseException()
            return outcome
        return await maybeDeferred(checker.requestAvatarId, credentials)


def _complain(what: str, error: Exception) -> None:
    """
    Log *error*: in one line if it is about a file of the operator's, else as a defect.
    """
    if isinstance(error, (OSError, ValueError)):
        _log.error("{what}: {error}", what=what, error=error)
    else:
        _log.failure("{what}", what=what)


def _outcome(checker: Any, credentials: object) -> list[object]:
    """
    What *checker*, which does not wait for anything, says: one result, or Failure.
    """
    outcome: list[object] = []
    maybeDeferred(checker.requestAvatarId, credentials).addBoth(outcome.append)
    return outcome


def _those_for(interface: Any, checkers: Sequence[Any]) -> list[Any]:
    return [
        checker
        for checker in checkers
        if any(each.isOrExtends(interface) for each in checker.credentialInterfaces)
    ]


def _name(avatar: object) -> str | None:
    """
    What a checker calls somebody, if that can be shown; None for somebody anonymous.
    """
    try:
        name = avatar.decode() if isinstance(avatar, bytes) else avatar
    except UnicodeDecodeError:
        return None
    if not isinstance(name, str) or not name or len(name) > MAX_NAME:
        return None
    return name if name.isprintable() and " " not in name else None
