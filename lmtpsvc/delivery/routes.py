"""
Routes: several backends that look like one, and several directories.

For each mailbox the most exact word counts: that of a route for its very address, then what the
directory says about this user (the attribute ``backend``), then a route for its domain, then one
for domains below another, then the default.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from email.message import EmailMessage
from typing import Any, BinaryIO

from attrs import frozen
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from zope.interface import implementer

from ..envelope import Envelope, Mailbox, Recipient
from ..errors import DeliveryError, refusal
from ..interfaces import Capabilities, IBackend, IDirectory, IMessage, LineEnding, Sizes
from ..replies import CANNOT_LOOK_UP, NO_SUCH_USER
from .dispatch import dispatch
from .patterns import Patterns

#: The attribute with which a directory says by name which backend a mailbox is in.
BACKEND = "backend"

_log = Logger()


@frozen
class Destination:
    """
    A backend, and what the operator calls it.
    """

    name: str
    backend: IBackend


@implementer(IBackend)
class RoutedBackend:
    """
    Hands each mailbox to its backend.  *named* are those that a directory may name.

    Each backend gets its mailboxes of a message in one call, all of them at the same time.  What
    one does wrong is felt by its own recipients only.
    """

    def __init__(
        self,
        default: Destination,
        routes: Patterns[Destination] | None = None,
        named: Mapping[str, Destination] | None = None,
    ) -> None:
        self._default, self._named = default, named or {}
        self._routes: Patterns[Destination] = Patterns([]) if routes is None else routes
        self._is_one = not self._routes.values()
        others = {id(each.backend): each.backend for each in self._named.values()}
        others.update((id(each.backend), each.backend) for each in self._routes.values())
        self.capabilities = merged(
            [default.backend.capabilities, *(each.capabilities for each in others.values())]
        )

        line_ending = default.backend.capabilities.line_ending
        self._spools_alike = line_ending == self.capabilities.line_ending

    def destination(self, mailbox: Mailbox) -> Destination:
        """
        Where mail for *mailbox* goes.

        Raises:
            TemporaryFailure: The directory names a backend that there is not.
        """
        if self._is_one and BACKEND not in mailbox.attributes:
            return self._default
        found = self._routes.of_address(mailbox)
        if found is not None:
            return found
        name = mailbox.attributes.get(BACKEND)
        if name:
            if name not in self._named:
                _log.error(
                    "{mailbox}: the directory says backend {name!r}, which is not configured",
                    mailbox=str(mailbox),
                    name=name,
                )
                raise refusal(CANNOT_LOOK_UP)
            return self._named[name]
        return self._routes.of_domain(mailbox) or self._default

    def verify(self, mailbox: Mailbox) -> Awaitable[None] | None:
        if self._is_one and BACKEND not in mailbox.attributes:
            return self._default.backend.verify(mailbox)
        return self.destination(mailbox).backend.verify(mailbox)

    def deliver(self, message: IMessage, mailboxes: Sequence[Mailbox]) -> Sequence[Any]:
        if self._is_one and not [each for each in mailboxes if BACKEND in each.attributes]:
            # The usual service has one backend, and nobody names another.
            backend = self._default.backend
            if not self._spools_alike:
                message = self._as_spooled_for(backend, message)
            return backend.deliver(message, mailboxes)
        results: dict[int, Deferred[Any]] = {}
        # Two names may be one backend, which shares what it stores between recipients.
        positions_of: dict[int, tuple[IBackend, list[int]]] = {}
        for position, mailbox in enumerate(mailboxes):
            try:
                backend = self.destination(mailbox).backend
            except DeliveryError as error:
                results[position] = fail(error)
            else:
                positions_of.setdefault(id(backend), (backend, []))[1].append(position)
        for backend, positions in positions_of.values():
            theirs = tuple(mailboxes[position] for position in positions)
            delivered = dispatch(backend, self._as_spooled_for(backend, message), theirs)
            results.update(zip(positions, delivered, strict=True))
        return [results[position] for position in range(len(mailboxes))]

    def _as_spooled_for(self, backend: IBackend, message: IMessage) -> IMessage:
        """
        *message*, without its file where that has not the line ending that *backend* relies on.
        """
        if message.path is None or (
            backend.capabilities.line_ending == self.capabilities.line_ending
        ):
            return message
        return _WithoutFile(message)


@implementer(IDirectory)
class RoutedDirectory:
    """
    Asks the directory that a route names for an address, else the *default*.  Without a default,
    nobody else lives here.
    """

    def __init__(self, routes: Patterns[IDirectory], default: IDirectory | None) -> None:
        self._routes, self._default = routes, default

    def resolve(self, mailbox: Mailbox) -> Awaitable[Sequence[Mailbox]] | Sequence[Mailbox]:
        directory = self._routes.of_address(mailbox)
        if directory is None:
            directory = self._routes.of_domain(mailbox)
        if directory is None:
            directory = self._default
        if directory is None:
            raise refusal(NO_SUCH_USER)
        return directory.resolve(mailbox)


def merged(capabilities: Sequence[Capabilities]) -> Capabilities:
    """
    What suits all of *capabilities*, the first of which is that of the default.

    Messages are spooled with LF if all store them so; else with CRLF, which is what they come with.
    They are spooled where the default backend wants them, where most mail goes; or if it does not
    care, where the others agree.  Binary content needs all of them: it is announced before anybody
    knows whom a message is for, and a client that is not told it sends the message encoded.
    """
    endings = {each.line_ending for each in capabilities}
    places = {each.spool_directory for each in capabilities} - {None}
    place = capabilities[0].spool_directory
    if place is None and len(places) == 1:
        (place,) = places
    line_ending = endings.pop() if len(endings) == 1 else "\r\n"
    # The default backend gets what was spooled only if that has the line ending which it relies on.
    default = capabilities[0]
    return Capabilities(
        line_ending,
        place,
        binary=all(each.binary for each in capabilities),
        links_spooled=default.links_spooled and default.line_ending == line_ending,
    )


@implementer(IMessage)
class _WithoutFile:
    """
    A message that has to be read, and cannot be linked.
    """

    path = None

    def __init__(self, message: IMessage) -> None:
        self._message = message
        self.id: str = message.id
        self.envelope: Envelope = message.envelope
        self.deadline: float = message.deadline
        self.trace: bytes = message.trace
        self.is_for_all: bool = message.is_for_all
        self.begun: float = message.begun

    @property
    def digest(self) -> str:
        return self._message.digest

    def open(self, line_ending: LineEnding = "\r\n") -> BinaryIO:
        return self._message.open(line_ending)

    def sizes(self, line_ending: LineEnding = "\r\n") -> Sizes:
        return self._message.sizes(line_ending)

    def recipients_of(self, mailbox: Mailbox) -> Sequence[Recipient]:
        return self._message.recipients_of(mailbox)

    def headers(self) -> EmailMessage:
        return self._message.headers()
