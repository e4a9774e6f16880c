"""
VRFY and EXPN, for those who may know who lives here (RFC 5321 §3.5).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from .. import replies
from ..envelope import Address, Mailbox
from ..replies import AddressReply, Reply
from ..wire.commands import CommandError
from ..wire.paths import parse_asked
from .extensions import Extension

if TYPE_CHECKING:
    from .server import ServerSession

#: Who may ask who lives here: nobody; trusted hosts, and whoever has logged in; everybody.
Askers = Literal["no", "trusted", "yes"]


class Verification(Extension):
    """
    VRFY says whether there is a mailbox, EXPN who is behind an alias.  They are there for trusted
    hosts and for those who have logged in, or with *for_all* for everybody.

    RFC 5321 §3.5.2 has EXPN announced where it is there; and VRFY has to be everywhere: others get
    252 from the session itself.
    """

    keyword = "EXPN"
    # What it answers must not come before the replies of RCPTs before it.
    barriers = frozenset({b"VRFY", b"EXPN"})

    def __init__(self, *, for_all: bool = False) -> None:
        self._for_all = for_all
        self.verbs = {b"VRFY": self._vrfy, b"EXPN": self._expn}
        self.syntax = {b"VRFY": "address [SMTPUTF8]", b"EXPN": "alias [SMTPUTF8]"}

    def is_available(self, session: ServerSession) -> bool:
        return self._for_all or session.connection.is_trusted or bool(session.client.login)

    def _vrfy(self, session: ServerSession, argument: bytes) -> None:
        address, utf8 = parse_asked(argument, replies.BAD_VRFY)

        def then(found: tuple[Mailbox, Sequence[Mailbox]]) -> None:
            asked, mailboxes = _known(found)
            # What a list leads to is EXPN's to say.
            said = mailboxes[0] if len(mailboxes) == 1 else asked
            session.reply(_listed([said], utf8, replies.CANNOT_SAY_IN_ASCII))

        session.ask(_resolve(address), then)

    def _expn(self, session: ServerSession, argument: bytes) -> None:
        address, utf8 = parse_asked(argument, replies.BAD_EXPN)

        def then(found: tuple[Mailbox, Sequence[Mailbox]]) -> None:
            asked, mailboxes = _known(found)
            if [(asked.user, asked.domain)] == [(each.user, each.domain) for each in mailboxes]:
                raise CommandError(replies.NO_LIST)
            session.reply(_listed(mailboxes, utf8, replies.CANNOT_LIST_IN_ASCII))

        session.ask(_resolve(address), then)


def _resolve(address: Address) -> Callable[[Any], Any]:
    """
    What finds, with a delivery agent, the mailbox that *address* says, and those that it means.
    """

    def find(agent: Any) -> Any:
        asked = agent.routing.rules.mailbox(address)
        found = agent.resolve(address).addCallback(lambda found: (asked, found))
        # A name on its own is looked for in our own domain, where it may be nobody's.
        return found if address.domain else found.addErrback(_elsewhere, asked)

    return find


def _known(found: tuple[Mailbox, Sequence[Mailbox]]) -> tuple[Mailbox, Sequence[Mailbox]]:
    """
    *found*, unless it is nothing.

    Raises:
        CommandError: 553: the name may be known in another domain.
    """
    if not found[1]:
        raise CommandError(replies.WHICH_DOMAIN)
    return found


def _elsewhere(failure: Any, asked: Mailbox) -> Any:
    if getattr(failure.value, "reply", None) == replies.NO_SUCH_USER:
        return asked, ()
    return failure


def _listed(mailboxes: Sequence[Mailbox], utf8: bool, otherwise: Reply) -> AddressReply:
    """
    A reply with *mailboxes*.

    Raises:
        CommandError: With *otherwise*: it needs UTF-8, which was not asked for.
    """
    try:
        return AddressReply(250, tuple(map(_address, mailboxes)), (1, 5), utf8)
    except ValueError:
        raise CommandError(otherwise) from None


def _address(mailbox: Mailbox) -> str:
    # Quoted where it must be, which the text of a mailbox is not.
    user = f"{mailbox.user}+{mailbox.detail}" if mailbox.detail else mailbox.user
    return str(Address(user, mailbox.domain))
