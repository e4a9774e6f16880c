"""
SASL mechanisms from the server's side (RFC 4422), each a generator.

It yields what it wants: octets, a challenge, for which it gets the client's response; or an
`Inquiry`, for which it gets what was found out.  It ends with the name of who has logged in, or None
if nobody has; or with a CommandError.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from attrs import frozen
from scramp import ScramException, ScramMechanism

from .. import replies
from ..wire.commands import CommandError

if TYPE_CHECKING:
    from .connection import Connection


@frozen
class StoredKeys:
    """
    What is kept of a password so that SCRAM-SHA-256 can be spoken (RFC 5802 §5, RFC 7677); what
    *is_known* says no of is made up for somebody who does not exist.
    """

    salt: bytes
    stored_key: bytes
    server_key: bytes
    iterations: int
    is_known: bool = True


class Authority(Protocol):
    """
    Who knows the users.  What it returns may be a Deferred or coroutine of that; a failure is what
    the client is told.
    """

    #: Whether it can judge passwords, has the keys of SCRAM, and believes names that are proven.
    takes_passwords: bool
    has_keys: bool
    takes_proof: bool

    def check_password(self, user: str, password: str) -> Any:
        """
        The name of who has logged in, or None.
        """

    def stored_keys(self, user: str) -> Any:
        """
        Some StoredKeys, also if there is no such user: nobody is to learn that.
        """

    def check_proven(self, name: str) -> Any:
        """
        The same as for a password, if TLS or the kernel has proven *name*.
        """

    def name_of(self, uid: int) -> Any:
        """
        What the user with the number *uid* is called; None if there is none.
        """

    def wait(self, clock: Any, seconds: float) -> Any:
        """
        Fires after so many seconds.
        """

    def tell(self, host: str, mechanism: str, login: str | None) -> None:
        """
        For the log: somebody at *host* has logged in, or None: has failed to.
        """


@frozen
class Inquiry:
    """
    Something that takes its time; see `ServerSession.ask`.
    """

    find: Callable[[Any], Any]


Exchange = Generator["bytes | Inquiry", Any, "str | None"]
Mechanism = Callable[["Connection", Authority], Exchange]


def plain(_connection: Connection, authority: Authority) -> Exchange:
    """
    RFC 4616.
    """
    parts = (yield b"").split(b"\0")
    if len(parts) != 3:
        raise CommandError(replies.BAD_RESPONSE)
    for_whom, user, password = map(_text, parts)
    if not user or not password:
        raise CommandError(replies.BAD_RESPONSE)
    if for_whom not in {"", user}:
        # Nobody acts for somebody else.
        return None
    login: str | None = yield Inquiry(lambda _: authority.check_password(user, password))
    return login


def login(_connection: Connection, authority: Authority) -> Exchange:
    """
    LOGIN: no RFC, but everywhere.
    """
    user = _text((yield b"Username:"))
    password = _text((yield b"Password:"))
    if not user or not password:
        raise CommandError(replies.BAD_RESPONSE)
    login: str | None = yield Inquiry(lambda _: authority.check_password(user, password))
    return login


def external(connection: Connection, authority: Authority) -> Exchange:
    """
    RFC 4422 appendix A: who the certificate names, or who runs the process at the other end.
    """
    for_whom = _text((yield b""))
    name = connection.certificate
    if name is None:
        uid = connection.uid
        assert uid is not None, "or the mechanism is not there"
        name = yield Inquiry(lambda _: authority.name_of(uid))
    if name is None or for_whom not in {"", name}:
        return None
    login: str | None = yield Inquiry(lambda _: authority.check_proven(name))
    return login


#: RFC 5802 §7: gs2-header, with the authzid, and the beginning of client-first-message-bare, with
#: the user.
_client_first: Final = re.compile(r"[ny],(?:a=([^,]+))?,n=([^,]+),r=[!-+\--~]+(?:,.*)?").fullmatch


def scram_sha_256(_connection: Connection, authority: Authority) -> Exchange:
    """
    RFC 7677: the password is not shown, and both sides prove that they know it.
    """
    first = _text((yield b""))
    match = _client_first(first)
    if match is None:
        raise CommandError(replies.BAD_RESPONSE)
    for_whom, user = (_saslname(each or "") for each in match.groups())
    if for_whom not in {"", user}:
        return None
    keys: StoredKeys = yield Inquiry(lambda _: authority.stored_keys(user))
    server = ScramMechanism("SCRAM-SHA-256").make_server(
        lambda _: (keys.salt, keys.stored_key, keys.server_key, keys.iterations)
    )
    try:
        server.set_client_first(first)
        challenge: str = server.get_server_first()
    except ScramException as error:
        raise CommandError(replies.BAD_RESPONSE) from error
    final = _text((yield challenge.encode()))
    try:
        server.set_client_final(final)
        proof: str = server.get_server_final()
    except ScramException:
        return None
    if not keys.is_known:
        return None
    # RFC 4954 §4: what the server has to say at the end is one more challenge.
    if (yield proof.encode()) != b"":
        raise CommandError(replies.BAD_RESPONSE)
    return user


def _text(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        raise CommandError(replies.BAD_RESPONSE) from None


def _saslname(said: str) -> str:
    """
    RFC 5802 §5.1: comma and equals sign are written otherwise.
    """
    if re.search(r"=(?!2C|3D)", said):
        raise CommandError(replies.BAD_RESPONSE)
    return said.replace("=2C", ",").replace("=3D", "=")


#: The strongest first, as they are announced.
MECHANISMS: Final[Mapping[str, Mechanism]] = {
    "EXTERNAL": external,
    "SCRAM-SHA-256": scram_sha_256,
    "PLAIN": plain,
    "LOGIN": login,
}


def offered(connection: Connection, authority: Authority) -> list[str]:
    """
    The mechanisms for this connection.
    """
    proven = connection.certificate is not None or connection.uid is not None
    there = {
        "EXTERNAL": authority.takes_proof and proven,
        "SCRAM-SHA-256": authority.has_keys,
        "PLAIN": authority.takes_passwords and connection.is_private,
        "LOGIN": authority.takes_passwords and connection.is_private,
    }
    return [name for name in MECHANISMS if there[name]]
