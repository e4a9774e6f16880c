"""
AUTH from the client's side (RFC 4954): which mechanism, and what it says to each challenge.

scramp does the arithmetic of SCRAM (RFC 5802, RFC 7677).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar, Final

from attrs import field, frozen
from scramp import ScramClient, ScramException

#: Iterations of SCRAM that a server may ask for: half a second of our time.
MAX_ITERATIONS: Final = 500_000

_iterations: Final = re.compile(r",i=([0-9]{1,9})(?:,|\Z)").search


class AuthenticationError(Exception):
    """
    The server's part does not fit: it may not be whom it claims to be.  The text says why.
    """


@frozen
class Login:
    """
    How to authenticate: as *user* with *password*, or with *user* None as whom the client
    certificate names (EXTERNAL, RFC 4422 appendix A).

    The first of *mechanisms* that the server offers is used.  PLAIN and LOGIN show the password to
    whoever listens: they are used only over TLS or a UNIX socket, or with *in_the_clear*.

    Raises:
        ValueError: A mechanism is not known here, or user or password have a NUL.
    """

    user: str | None
    password: str = field(default="", repr=False)
    mechanisms: tuple[str, ...] = field(default=())
    in_the_clear: bool = False

    def __attrs_post_init__(self) -> None:
        if not self.mechanisms:
            usual = ("EXTERNAL",) if self.user is None else ("SCRAM-SHA-256", "PLAIN", "LOGIN")
            object.__setattr__(self, "mechanisms", usual)
        for name in self.mechanisms:
            if name not in MECHANISMS:
                raise ValueError(f"unknown mechanism {name!r}; known: {', '.join(MECHANISMS)}")
            if self.user is None and name != "EXTERNAL":
                raise ValueError(f"{name} needs a user")
        if "\0" in (self.user or "") + self.password:
            raise ValueError("a user or password has no NUL")


class Mechanism:
    """
    One exchange.
    """

    #: It shows the password.
    shows_password: ClassVar[bool] = False

    def __init__(self, login: Login) -> None:
        self._user, self._password = login.user or "", login.password

    def initial(self) -> bytes | None:
        """
        What may stand behind ``AUTH NAME``; None if the server speaks first.
        """
        return None

    def respond(self, challenge: bytes) -> bytes:
        """
        Answer a challenge.

        Raises:
            AuthenticationError: It should not have come, or is wrong.
        """
        raise AuthenticationError("a challenge that nobody expects")

    def finish(self) -> None:
        """
        The server says that all is well.

        Raises:
            AuthenticationError: It has not shown that it knows the password.
        """


class Plain(Mechanism):
    """
    RFC 4616.
    """

    shows_password = True

    def initial(self) -> bytes:
        return f"\0{self._user}\0{self._password}".encode()


class LoginMechanism(Mechanism):
    """
    LOGIN: no RFC, but everywhere.  It asks twice, in words of its own.
    """

    shows_password = True

    def __init__(self, login: Login) -> None:
        super().__init__(login)
        self._answers = [self._password, self._user]

    def respond(self, challenge: bytes) -> bytes:
        if not self._answers:
            return super().respond(challenge)
        return self._answers.pop().encode()


class External(Mechanism):
    """
    RFC 4422 appendix A.
    """

    def initial(self) -> bytes:
        return self._user.encode()


class ScramSha256(Mechanism):
    """
    RFC 7677: neither side shows the password, and both prove that they know it.
    """

    def __init__(self, login: Login) -> None:
        super().__init__(login)
        try:
            self._scram = ScramClient(["SCRAM-SHA-256"], self._user, self._password)
        except ScramException as error:
            raise AuthenticationError(str(error)) from error
        self._step = 0

    def initial(self) -> bytes:
        first: str = self._scram.get_client_first()
        return first.encode()

    def respond(self, challenge: bytes) -> bytes:
        self._step += 1
        try:
            text = challenge.decode()
            if self._step == 1:
                return self._prove(text)
            if self._step == 2:
                self._scram.set_server_final(text)
                return b""
        except (ScramException, UnicodeDecodeError, ValueError) as error:
            raise AuthenticationError(f"SCRAM: {error}") from error
        return super().respond(challenge)

    def finish(self) -> None:
        if self._step != 2:
            raise AuthenticationError("SCRAM: the server has not proved that it knows the password")

    def _prove(self, challenge: str) -> bytes:
        asked = _iterations(challenge)
        if asked is not None and int(asked[1]) > MAX_ITERATIONS:
            raise AuthenticationError(f"SCRAM: more than {MAX_ITERATIONS} iterations")
        self._scram.set_server_first(challenge)
        final: str = self._scram.get_client_final()
        return final.encode()


MECHANISMS: Final[dict[str, type[Mechanism]]] = {
    "SCRAM-SHA-256": ScramSha256,
    "PLAIN": Plain,
    "LOGIN": LoginMechanism,
    "EXTERNAL": External,
}


def choose(login: Login, offered: Iterable[str], *, secure: bool) -> tuple[str, Mechanism]:
    """
    The mechanism for *login* on a connection that is *secure* or not.

    Raises:
        AuthenticationError: None that is *offered* will do.
    """
    offered = tuple(offered)
    shown = [name for name in login.mechanisms if name in offered]
    for name in shown:
        kind = MECHANISMS[name]
        if secure or login.in_the_clear or not kind.shows_password:
            return name, kind(login)
    if shown:
        raise AuthenticationError(f"{shown[0]} would show the password: it needs TLS")
    raise AuthenticationError(f"the server offers {' '.join(offered) or 'no AUTH'}")
