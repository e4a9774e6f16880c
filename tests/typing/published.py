"""
What strangers write against the published names, for mypy to look at: never run.

Where mypy must object, a ``type: ignore`` says so: strict mode objects to one that is not needed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from email.message import EmailMessage
from typing import BinaryIO

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from lmtpsvc.client import TLS, Client, Login, Outcome
from lmtpsvc.commitment import Commitment
from lmtpsvc.envelope import Address, Envelope, Mailbox, Recipient
from lmtpsvc.errors import PermanentFailure, TemporaryFailure
from lmtpsvc.interfaces import (
    Capabilities,
    IBackend,
    IBackendFactory,
    IDirectory,
    IDirectoryFactory,
    IMessage,
    Sizes,
)
from lmtpsvc.per_recipient import BlockingBackend, PerRecipientBackend, to_the_end
from lmtpsvc.plugins import BackendPlugin, DirectoryPlugin
from lmtpsvc.specs import backend_from_string
from lmtpsvc.testing import BackendContract, BlockingPostbox, Mail, MemoryMessage, Postbox


@implementer(IBackend)
class Deferring:
    capabilities = Capabilities("\n", "/var/spool")

    def verify(self, mailbox: Mailbox) -> Deferred[None]:
        return succeed(None)

    def deliver(self, message: IMessage, mailboxes: Sequence[Mailbox]) -> list[Deferred[None]]:
        return [Commitment() for _ in mailboxes]


@implementer(IBackend)
class Awaiting:
    capabilities = Capabilities()

    async def verify(self, mailbox: Mailbox) -> None:
        raise PermanentFailure("No such user", (1, 1))

    def deliver(self, message: IMessage, mailboxes: Sequence[Mailbox]) -> list[Awaitable[None]]:
        return [self.store(message, mailbox) for mailbox in mailboxes]

    async def store(self, message: IMessage, mailbox: Mailbox) -> None:
        raise TemporaryFailure("Later", code=452)


@implementer(IDirectory)
class Known:
    def resolve(self, mailbox: Mailbox) -> Sequence[Mailbox]:
        return [mailbox]


@implementer(IDirectory)
class Asked:
    async def resolve(self, mailbox: Mailbox) -> Sequence[Mailbox]:
        return [mailbox]


class Simple(PerRecipientBackend):
    async def store(self, message: IMessage, mailbox: Mailbox) -> None:
        number: int = await to_the_end(succeed(1))
        assert number


class Blocking(BlockingBackend):
    def store(self, message: IMessage, mailbox: Mailbox) -> None:
        assert message.id
        assert mailbox.user


class Wrong(PerRecipientBackend):
    # Not a coroutine: nothing would be awaited.
    def store(self, message: IMessage, mailbox: Mailbox) -> None:  # type: ignore[override]
        pass


class Misread(BlockingBackend):
    # An address where the mailbox comes.
    def store(self, message: IMessage, mailbox: Address) -> None:  # type: ignore[override]
        pass


def backends(reactor: object) -> list[IBackend]:
    return [
        Deferring(),
        Awaiting(),
        Simple(),
        Blocking(reactor),
        backend_from_string(reactor, "maildir:/srv/mail"),
    ]


def directories() -> list[IDirectory]:
    return [Known(), Asked()]


def factories() -> tuple[IBackendFactory, IDirectoryFactory]:
    return BackendPlugin("simple", Simple), DirectoryPlugin("known", Known)


def no_backend() -> IBackend:
    return Known()  # type: ignore[return-value]


def reading(message: IMessage) -> tuple[BinaryIO, Sizes, EmailMessage, Envelope, str | None]:
    message.open("\r")  # type: ignore[arg-type]
    return message.open("\n"), message.sizes(), message.headers(), message.envelope, message.path


def message() -> IMessage:
    return MemoryMessage(b"")


async def sending(reactor: object, message: IMessage) -> list[Outcome]:
    client = Client(reactor, "unix:/run/lmtp.sock", tls=TLS.MAY, login=Login("ann", "sesame"))
    with message.open() as file:
        delivery = client.send(None, ["ann@example.org", Address("bob", "example.org")], file)
        come: list[tuple[Recipient, Outcome]] = [each async for each in delivery]
        first: Outcome = await delivery.outcomes[0]
    # Text is no message: nobody knows how its lines end, or in which encoding.
    client.send(None, ["ann@example.org"], "Hi")  # type: ignore[arg-type]
    await client.close()
    return [first, come[0][1], *await delivery]


class Contract(BackendContract):
    def make(self, reactor: object, directory: object) -> IBackend:
        return Simple()

    async def stored(self, directory: object, mailbox: Mailbox) -> Sequence[bytes]:
        return []


async def receive() -> str:
    async with Postbox() as postbox:
        postbox.fail("ann@example.org", times=1)
        postbox.hold().release("550 5.7.1 No")
        first: Mail = await postbox.next()
    with BlockingPostbox("unix:/tmp/x") as blocking:
        second: Mail = blocking.next(seconds=3)
    subject: str = first.parsed["Subject"]
    return subject + second.sender
