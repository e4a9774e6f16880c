"""
ESMTP service extensions as objects (RFC 5321 §2.2), and the registry that a session consults.

An extension announces itself with a keyword after LHLO, adds parameters to MAIL and RCPT, and may
add verbs.  A new one is a class of a few lines, registered where the service is put together;
`lmtpsvc.session.standard` has those that every LMTP server should have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from .. import replies
from ..envelope import NO_PARAMETERS, Address, Recipient, Sender
from ..replies import MultilineReply
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
    #: Verbs that it adds, in upper case.
    verbs: Mapping[bytes, VerbAction] = {}

    def announcement(self) -> str:
        """
        The line after LHLO: the keyword, and its parameters if it has any.
        """
        return self.keyword

    def check_sender(self, sender: Sender) -> None:
        """
        Look at a MAIL as a whole.

        Raises:
            CommandError: With the reply that refuses it.
        """

    def check_recipient(self, sender: Sender, recipient: Recipient) -> None:
        """
        Look at a RCPT as a whole, in the transaction that *sender* opened.

        Raises:
            CommandError: With the reply that refuses it.
        """


class Extensions:
    """
    The extensions of a service, in the order in which they are announced.

    Raises:
        ValueError: Two of them claim the same keyword, parameter or verb.
    """

    def __init__(self, extensions: Iterable[Extension]) -> None:
        self._extensions = tuple(extensions)
        self._mail = self._collect("mail_parameters")
        self._rcpt = self._collect("rcpt_parameters")
        self.verbs: Mapping[bytes, VerbAction] = self._collect("verbs")
        keywords = [each.keyword for each in self._extensions]
        if len(set(keywords)) != len(keywords):
            raise ValueError(f"an extension is registered twice: {keywords}")
        self._sender_checks = self._overriding("check_sender")
        self._recipient_checks = self._overriding("check_recipient")

    def _collect(self, name: str) -> dict[Any, Any]:
        collected: dict[Any, Any] = {}
        for extension in self._extensions:
            for key, value in getattr(extension, name).items():
                if key in collected:
                    raise ValueError(f"two extensions claim {key!r}")
                collected[key] = value
        return collected

    def _overriding(self, name: str) -> tuple[Callable[..., None], ...]:
        # Most extensions check nothing: those are not asked, as this is done for each command.
        return tuple(
            getattr(each, name)
            for each in self._extensions
            if getattr(type(each), name) is not getattr(Extension, name)
        )

    def capabilities(self, hostname: str) -> MultilineReply:
        """
        The answer to LHLO (RFC 5321 §4.1.1.1).
        """
        announced = (each.announcement() for each in self._extensions)
        return MultilineReply(250, (hostname, *announced))

    def sender(self, address: Address | None, parameters: Mapping[str, str | None]) -> Sender:
        """
        Make a Sender of what MAIL said.

        Raises:
            CommandError: A parameter is unknown (RFC 5321 §4.1.1.11: 555) or an extension objects.
        """
        sender = Sender(address, _read(self._mail, parameters) if parameters else NO_PARAMETERS)
        for check in self._sender_checks:
            check(sender)
        return sender

    def recipient(
        self, sender: Sender, address: Address, parameters: Mapping[str, str | None]
    ) -> Recipient:
        """
        Make a Recipient of what RCPT said.

        Raises:
            CommandError: As in `sender`.
        """
        recipient = Recipient(
            address, _read(self._rcpt, parameters) if parameters else NO_PARAMETERS
        )
        for check in self._recipient_checks:
            check(sender, recipient)
        return recipient


def _read(
    known: Mapping[str, ParameterParser], given: Mapping[str, str | None]
) -> Mapping[str, Any]:
    parsed = {}
    for keyword, value in given.items():
        parser = known.get(keyword)
        if parser is None:
            raise CommandError(replies.UNKNOWN_PARAMETER)
        parsed[keyword] = parser(value)
    return parsed
