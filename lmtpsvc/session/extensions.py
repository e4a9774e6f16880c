"""
ESMTP service extensions as objects (RFC 5321 §2.2), and the registry that a session consults.

An extension announces itself with a keyword after LHLO, adds parameters to MAIL and RCPT, and may
add verbs.  A new one is a class of a few lines, registered where the service is put together;
`lmtpsvc.session.standard` has those that every LMTP server should have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from .. import replies
from ..envelope import NO_PARAMETERS, Address, Recipient, Sender
from ..replies import MultilineReply, Reply
from ..wire.commands import CommandError

if TYPE_CHECKING:
    from .server import ServerSession

#: Reads the value of a parameter (None if it came without ``=``); raises CommandError.
ParameterParser = Callable[[str | None], Any]
#: Carries out a verb: gets the session and what stood behind the verb; raises CommandError.
VerbAction = Callable[["ServerSession", bytes], None]


class Extension:
    """
    One service extension; override what it needs.
    """

    #: The keyword of RFC 5321 §4.1.1.1, in upper case.
    keyword: ClassVar[str]
    #: Parameters that it adds to MAIL and RCPT, by keyword in upper case.
    mail_parameters: Mapping[str, ParameterParser] = {}
    rcpt_parameters: Mapping[str, ParameterParser] = {}
    #: Verbs that it adds, in upper case; one that the session knows itself is taken over.
    verbs: Mapping[bytes, VerbAction] = {}
    #: How a verb is written, for HELP: what stands behind it.
    syntax: Mapping[bytes, str] = {}
    #: Those among them that wait until every command before them has been answered.
    barriers: frozenset[bytes] = frozenset()
    #: Of the session, `is_available` and `announcement` look at nothing but whether its connection is
    #: encrypted, offers TLS, and is trusted: so they need not be asked each time.  Each class says it
    #: of itself.
    tells_by_connection: ClassVar[bool] = False
    #: Whether `check_sender` and `check_recipient` look at addresses, too, that are ASCII and come
    #: without parameters.  If none does, a short way is open to MAIL and RCPT of that kind.  A class
    #: says it of its own checks and those that it inherits, not of those that override them.
    checks_plain: ClassVar[bool] = True

    def is_available(self, session: ServerSession) -> bool:
        """
        Whether the extension is there for this client.  If not, it is not announced, and its
        parameters and verbs are as unknown as if there were none.
        """
        return True

    def announcement(self, session: ServerSession) -> str:
        """
        The line after LHLO: the keyword, and its parameters if it has any.  If it is empty, the
        extension is not announced, but there all the same.
        """
        return self.keyword

    def check_sender(self, session: ServerSession, sender: Sender) -> None:
        """
        Look at a MAIL as a whole.

        Raises:
            CommandError: With the reply that refuses it.
        """

    def change_sender(self, session: ServerSession, sender: Sender) -> tuple[Sender, Reply] | None:
        """
        Look at a MAIL with parameters that has passed all checks.

        Returns what is to be carried on in its place, and the reply of success that tells so; None
        if it stays as it is.
        """

    def check_recipient(self, session: ServerSession, sender: Sender, recipient: Recipient) -> None:
        """
        Look at a RCPT as a whole, in the transaction that *sender* opened.

        Raises:
            CommandError: With the reply that refuses it.
        """


# RFC 5321 §4.1.1.1, ehlo-keyword, and esmtp-keyword in §4.1.2; case does not matter there.
_is_keyword = re.compile(r"[A-Z0-9][A-Z0-9-]*").fullmatch

_is_verb = re.compile(rb"[A-Z0-9-]+").fullmatch

_Parsers = Mapping[str, tuple[Extension, ParameterParser]]
_NOBODY = (None, None)


class Extensions:
    """
    The extensions of a service, in the order in which they are announced.

    Raises:
        ValueError: Two of them claim the same keyword, parameter or verb; or one is written such that no
            client could ever say it.
    """

    def __init__(self, extensions: Iterable[Extension]) -> None:
        self._extensions = tuple(extensions)
        for each in self._extensions:
            if (wrong := _unsayable(each)) is not None:
                raise ValueError(f"{type(each).__module__}.{type(each).__qualname__}: {wrong}")
        # Most are there for everybody: only the others are asked.
        self._choosy = frozenset(
            each
            for each in self._extensions
            if type(each).is_available is not Extension.is_available
        )
        self._mail: _Parsers = self._collect("mail_parameters")
        self._rcpt: _Parsers = self._collect("rcpt_parameters")
        self._verbs: Mapping[bytes, tuple[Extension, VerbAction]] = self._collect("verbs")
        #: Verbs that wait until every command before them has been answered.
        self.barriers = frozenset(verb for each in self._extensions for verb in each.barriers)
        self._actions: tuple[Mapping[bytes, VerbAction], Mapping[bytes, VerbAction]] | None = None
        # Who is asked whether it is there, and for its line, by those who do not always say the same.
        self._announcements = tuple(
            (
                each.is_available if each in self._choosy else None,
                each.announcement if _says_more(each) else None,
                each.keyword,
            )
            for each in self._extensions
        )
        self._tell_by_connection = all(map(_tells_by_connection, self._extensions))
        self._hellos: dict[tuple[object, ...], MultilineReply] = {}
        # The answer to LHLO is one of very few.
        self._hello = lru_cache(maxsize=64)(partial(MultilineReply, 250))
        keywords = [each.keyword for each in self._extensions]
        if len(set(keywords)) != len(keywords):
            raise ValueError(f"an extension is registered twice: {keywords}")
        self._sender_checks = self._overriding("check_sender")
        self._recipient_checks = self._overriding("check_recipient")
        self._sender_changes = self._overriding("change_sender")
        #: Where MAIL and RCPT have no parameters, and addresses in ASCII, nobody here has a say.
        self.passes_plain = not (
            any(map(_checks_plain, self._extensions))
            or (self.barriers | self._verbs.keys()) & {b"MAIL", b"RCPT", b"DATA"}
        )

    def _collect(self, name: str) -> dict[Any, Any]:
        collected: dict[Any, Any] = {}
        for extension in self._extensions:
            for key, value in getattr(extension, name).items():
                if key in collected:
                    raise ValueError(f"two extensions claim {key!r}")
                collected[key] = (extension, value)
        return collected

    def _overriding(self, name: str) -> tuple[Callable[..., Any], ...]:
        # Most extensions check nothing: those are not asked, as this is done for each command.
        return tuple(
            getattr(each, name)
            for each in self._extensions
            if getattr(type(each), name) is not getattr(Extension, name)
        )

    def actions(self, own: Mapping[bytes, VerbAction]) -> Mapping[bytes, VerbAction]:
        """
        What carries out each verb: *own*, those of the session, and ours before them.
        """
        # Every session asks with the same.
        known = self._actions
        if known is None or known[0] is not own:
            ours = {verb: self._guarded(*each, own.get(verb)) for verb, each in self._verbs.items()}
            self._actions = known = (own, MappingProxyType({**own, **ours}))
        return known[1]

    def _guarded(
        self, extension: Extension, action: VerbAction, otherwise: VerbAction | None
    ) -> VerbAction:
        if extension not in self._choosy:
            return action

        def guarded(session: ServerSession, argument: bytes) -> None:
            if extension.is_available(session):
                action(session, argument)
            elif otherwise is not None:
                otherwise(session, argument)
            else:
                raise CommandError(replies.UNKNOWN_COMMAND)

        return guarded

    def verbs(self, session: ServerSession) -> Mapping[bytes, str]:
        """
        The verbs that the extensions add for this client, each with what stands behind it.
        """
        return {
            verb: extension.syntax.get(verb, "")
            for verb, (extension, _) in self._verbs.items()
            if extension not in self._choosy or extension.is_available(session)
        }

    def capabilities(self, hostname: str, session: ServerSession) -> MultilineReply:
        """
        The answer to LHLO (RFC 5321 §4.1.1.1).
        """
        connection = session.connection
        alike = (hostname, connection.tls, connection.offers_tls, connection.is_trusted)
        known = self._hellos.get(alike)
        if known is not None:
            return known
        announced = [
            line
            for is_available, announcement, keyword in self._announcements
            if (is_available is None or is_available(session))
            and (line := keyword if announcement is None else announcement(session))
        ]
        hello = self._hello((hostname, *announced))
        if self._tell_by_connection:
            self._hellos[alike] = hello
        return hello

    def sender(
        self,
        session: ServerSession,
        address: Address | None,
        parameters: Mapping[str, str | None],
    ) -> Sender:
        """
        Make a Sender of what MAIL said.

        Raises:
            CommandError: A parameter is unknown (RFC 5321 §4.1.1.11: 555) or an extension objects.
        """
        read = self._read(session, self._mail, parameters) if parameters else NO_PARAMETERS
        sender = Sender(address, read)
        for check in self._sender_checks:
            check(session, sender)
        return sender

    def changed(self, session: ServerSession, sender: Sender) -> tuple[Sender, Reply]:
        """
        *sender* as it is to be carried on, and the reply to MAIL.
        """
        reply = replies.SENDER_OK
        for change in self._sender_changes:
            sender, reply = change(session, sender) or (sender, reply)
        return sender, reply

    def recipient(
        self,
        session: ServerSession,
        sender: Sender,
        address: Address,
        parameters: Mapping[str, str | None],
    ) -> Recipient:
        """
        Make a Recipient of what RCPT said.

        Raises:
            CommandError: As in `sender`.
        """
        read = self._read(session, self._rcpt, parameters) if parameters else NO_PARAMETERS
        recipient = Recipient(address, read)
        for check in self._recipient_checks:
            check(session, sender, recipient)
        return recipient

    def _read(
        self, session: ServerSession, known: _Parsers, given: Mapping[str, str | None]
    ) -> Mapping[str, Any]:
        parsed = {}
        for keyword, value in given.items():
            extension, parser = known.get(keyword, _NOBODY)
            if parser is None or (
                extension in self._choosy and not extension.is_available(session)
            ):
                raise CommandError(replies.UNKNOWN_PARAMETER)
            parsed[keyword] = parser(value)
        return parsed


def _unsayable(extension: Extension) -> str | None:
    """
    What of an extension's is not as it comes from clients, if anything: keywords, and verbs.
    """
    said = getattr(extension, "keyword", None)
    if not (isinstance(said, str) and _is_keyword(said)):
        return f"{said!r} is no keyword: write it in upper case"
    for name in ("mail_parameters", "rcpt_parameters"):
        for parameter in getattr(extension, name):
            if not (isinstance(parameter, str) and _is_keyword(parameter)):
                return f"{parameter!r} in {name} is no keyword: write it in upper case"
    verbs: Iterable[object] = extension.verbs
    for verb in verbs:
        if not (isinstance(verb, bytes) and _is_verb(verb)):
            return f"{verb!r} in verbs is no verb: write it as octets, in upper case"
    return None


def _checks_plain(extension: Extension) -> bool:
    for each in type(extension).__mro__:
        said = vars(each)
        if each is Extension:
            break
        # What a class says of its checks need not be true of those that are made from it.
        if "checks_plain" in said:
            return bool(said["checks_plain"])
        if "check_sender" in said or "check_recipient" in said:
            return True
    return False


def _tells_by_connection(extension: Extension) -> bool:
    ours, theirs = Extension, type(extension)
    # What a class says of itself need not be true of one that is made from it.
    return vars(theirs).get("tells_by_connection", False) or (
        theirs.is_available is ours.is_available and theirs.announcement is ours.announcement
    )


def _says_more(extension: Extension) -> bool:
    """
    It announces itself with another line than its keyword.
    """
    return type(extension).announcement is not Extension.announcement
