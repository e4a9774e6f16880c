"""
Where mail for an address would go, asked of directories and backends as the service asks them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

from twisted.application.service import IService
from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.python.failure import Failure

from ..delivery.awaiting import as_deferred, check_success
from ..delivery.dispatch import reply_for
from ..delivery.routing import AddressRules
from ..envelope import Mailbox
from ..errors import DeliveryError
from ..interfaces import IDirectory, ITellsWhere
from ..replies import NO_SUCH_USER
from ..wire.commands import CommandError
from ..wire.paths import parse_rcpt
from ..wiring.parts import Parts


def say_routes(
    _reactor: object,
    directories: Mapping[str, IDirectory],
    addresses: Sequence[str],
    lines: list[str],
    refused: list[str],
    to: Callable[[str], Coroutine[Any, Any, list[str]]],
) -> Deferred[None]:
    """
    Have *lines* that say where mail for each of *addresses* goes *to*; *refused* gets those that
    would be.  The *directories* are started for it, and stopped; fires when they are.
    """

    async def say() -> None:
        services = [each for each in directories.values() if IService.providedBy(each)]
        for service in services:
            IService(service).startService()
        for address in addresses:
            try:
                lines.extend(await to(address))
            except Refused as error:
                lines.append(f"{address}: {error}")
                refused.append(address)
        for service in reversed(services):
            await maybeDeferred(IService(service).stopService)

    return ensureDeferred(say())


class Refused(Exception):
    """
    Mail for an address would be refused; the text is the reply.
    """


async def routes(parts: Parts, text: str) -> list[str]:
    """
    Where mail for the address *text* would go: a line for each mailbox.

    Raises:
        Refused: Nowhere.
    """
    return [
        f"{text} -> {mailbox} in {await _where(parts, mailbox)}"
        for mailbox in await mailboxes(parts.rules, parts.directory, text)
    ]


async def mailboxes(rules: AddressRules, directory: IDirectory, text: str) -> Sequence[Mailbox]:
    """
    Who gets mail for the address *text*.

    Raises:
        Refused: Nobody.
    """
    try:
        # What is no text is as wrong here as it is on the wire.
        address, _ = parse_rcpt(f"TO:<{text}>".encode(errors="surrogateescape"))
    except CommandError as error:
        raise Refused(str(error.reply)) from error
    found: Sequence[Mailbox] = await answer(lambda: directory.resolve(rules.mailbox(address)))
    if not found:
        raise Refused(str(NO_SUCH_USER))
    return found


async def _where(parts: Parts, mailbox: Mailbox) -> str:
    """
    The backend of *mailbox*, and the place there if the backend can say.
    """
    try:
        to = parts.backend.destination(mailbox)
    except DeliveryError as error:
        raise Refused(str(error.reply)) from error
    await answer(lambda: to.backend.verify(mailbox))
    if not ITellsWhere.providedBy(to.backend):
        return to.name
    return f"{to.name}: {ITellsWhere(to.backend).where(mailbox)}"


async def answer(ask: Callable[[], Awaitable[Any] | Any]) -> Any:
    """
    What a directory, a backend or a router answers.

    Raises:
        Refused: It does not like the mailbox, or is broken.
    """
    try:
        found = await as_deferred(ask())
        check_success(found)
    except Exception as error:
        raise Refused(str(reply_for(Failure(error)))) from error
    return found
