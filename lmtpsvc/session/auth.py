"""
AUTH (RFC 4954): who the client is, proven.
"""

from __future__ import annotations

from base64 import b64encode
from binascii import Error, a2b_base64
from typing import TYPE_CHECKING, Any, Final

from attrs import define, evolve

from .. import replies
from ..replies import MAX_TEXT, Reply
from ..wire.commands import CommandError
from ..wire.paths import parse_mail
from ..wire.xtext import decode_xtext
from .extensions import Extension
from .sasl import MECHANISMS, Authority, Exchange, Inquiry, offered
from .states import State

if TYPE_CHECKING:
    from .connection import Connection
    from .server import ServerSession

#: Octets of a response, CRLF included (RFC 4954 §4).
MAX_LINE: Final = 12288
#: Failures on a connection before 421.
MAX_FAILURES: Final = 3
#: Seconds after the first failure; twice as many after each further one.
FIRST_DELAY_SECONDS: Final = 1.0

_SHOWS_PASSWORD: Final = {"PLAIN", "LOGIN"}


@define
class _Attempt:
    """
    What goes on between a client that says AUTH and its answer.
    """

    mechanism: str
    exchange: Exchange
    initial: bytes | None


class Auth(Extension):
    """
    For those that *authority* knows.

    The session's client has the *login* then.  Who fails waits, longer each time, and is sent away
    in the end.
    """

    keyword = "AUTH"
    barriers = frozenset({b"AUTH"})

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self.verbs = {b"AUTH": self._auth}
        self.mail_parameters = {"AUTH": submitter}

    def announcement(self, session: ServerSession) -> str:
        names = offered(_proofs(session), self._authority)
        return " ".join((self.keyword, *names)) if names else ""

    def _auth(self, session: ServerSession, argument: bytes) -> None:
        if session.state is State.NEW:
            raise CommandError(replies.LHLO_FIRST)
        if not session.is_between_transactions:
            raise CommandError(replies.IN_TRANSACTION)
        if session.client.login:
            raise CommandError(replies.LOGGED_IN)
        words = argument.split()
        if not 1 <= len(words) <= 2:
            raise CommandError(replies.BAD_AUTH)
        name = words[0].upper().decode("ascii", "replace")
        connection = _proofs(session)
        if name not in offered(connection, self._authority):
            weak = name in _SHOWS_PASSWORD and self._authority.takes_passwords
            raise CommandError(replies.LOGIN_NEEDS_TLS if weak else replies.UNKNOWN_MECHANISM)
        initial = None
        if len(words) == 2:
            # RFC 4954 §4: an equals sign is a response of no octets.
            initial = b"" if words[1] == b"=" else _decode(words[1])
        exchange = MECHANISMS[name](connection, self._authority)
        self._advance(session, _Attempt(name, exchange, initial), None)

    def _advance(self, session: ServerSession, attempt: _Attempt, value: Any) -> None:
        """
        Let the mechanism go on, with *value* for what it has asked.
        """
        while True:
            try:
                step = attempt.exchange.send(value)
            except StopIteration as ended:
                self._end(session, attempt.mechanism, ended.value)
                return
            if isinstance(step, Inquiry):
                session.ask(step.find, lambda found: self._advance(session, attempt, found))
                return
            if attempt.initial is None:
                break
            value, attempt.initial = attempt.initial, None
        session.reply(_challenge(step))
        session.read_line(
            lambda line: self._respond(session, attempt, line),
            MAX_LINE,
            replies.RESPONSE_TOO_LONG,
        )

    def _respond(self, session: ServerSession, attempt: _Attempt, line: bytes) -> None:
        if line == b"*":
            raise CommandError(replies.LOGIN_CANCELLED)
        self._advance(session, attempt, _decode(line))

    def _end(self, session: ServerSession, mechanism: str, login: str | None) -> None:
        self._authority.tell(session.client.host, mechanism, login)
        if login is not None:
            session.client = evolve(session.client, login=login)
            session.reply(replies.AUTHENTICATED)
            return
        failures = session.notes.get(self, 0) + 1
        session.notes[self] = failures

        def then(_: object) -> None:
            if failures >= MAX_FAILURES:
                session.end(replies.TOO_MANY_LOGINS)
            else:
                raise CommandError(replies.LOGIN_FAILED)

        seconds = FIRST_DELAY_SECONDS * 2 ** (failures - 1)

        def wait(agent: Any) -> Any:
            # What takes longer than a look-up may is called off, and would be no failure then.
            return self._authority.wait(agent.clock, min(seconds, agent.limits.lookup_seconds / 2))

        session.ask(wait, then)


def _proofs(session: ServerSession) -> Connection:
    """
    The connection, with what proves who the client is: what proves who its proxy is does not.
    """
    connection = session.connection
    if session.is_introduced:
        return evolve(connection, certificate=None, uid=None)
    return connection


def _decode(said: bytes) -> bytes:
    try:
        return a2b_base64(said, strict_mode=True)
    except Error:
        raise CommandError(replies.BAD_BASE64) from None


def _challenge(octets: bytes) -> Reply:
    text = b64encode(octets).decode()
    if len(text) > MAX_TEXT:
        # What the client has sent comes back in it.
        raise CommandError(replies.BAD_RESPONSE)
    return Reply(334, text)


def submitter(value: str | None) -> str:
    """
    Read ``AUTH=`` of MAIL (RFC 4954 §5): the address, or an empty text for ``<>``, which is nobody
    that anyone could name.

    It is what the client says: believe it as far as you believe *envelope.client.login*.

    Raises:
        CommandError: It is neither.
    """
    if value == "<>":
        return ""
    try:
        address, more = parse_mail(f"FROM:<{decode_xtext(value or '')}>".encode("latin-1"))
    except (CommandError, ValueError):
        raise CommandError(replies.BAD_PARAMETER) from None
    if address is None or more:
        raise CommandError(replies.BAD_PARAMETER)
    return str(address)
