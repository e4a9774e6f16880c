"""
Who may send mail to whom through a relay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from .. import replies
from ..envelope import Address, Recipient, Sender
from ..networks import LOCAL, Networks
from ..session.extensions import Extension
from ..wire.commands import CommandError

if TYPE_CHECKING:
    from ..session.server import ServerSession

#: Networks that are wider than these are the world, or nearly so.
_WIDEST: Final = {4: 8, 6: 16}


class RelayPolicy(Extension):
    """
    Mail for our own *domains* is taken from everybody; mail for others from clients in *networks*,
    and from those who have logged in.

    There is nothing to announce: it looks at each RCPT.  *is_ours* is asked for a domain, in the
    spelling in which addresses have it.
    """

    keyword = "XRELAY"

    def __init__(self, networks: Networks, is_ours: Callable[[str], bool]) -> None:
        self._networks, self._is_ours = networks, is_ours

    def is_available(self, session: ServerSession) -> bool:
        return False

    def check_recipient(self, session: ServerSession, sender: Sender, recipient: Recipient) -> None:
        if not (self._is_for_us(recipient.address) or self._may_relay(session)):
            raise CommandError(replies.NO_RELAYING)

    def _is_for_us(self, address: Address) -> bool:
        # RFC 5321 §4.1.1.3: the bare <Postmaster> is ours, whoever asks.
        return not address.domain or self._is_ours(address.domain)

    def _may_relay(self, session: ServerSession) -> bool:
        # A proxy that we trust connects from a network of ours; what counts is for whom.
        client = session.client
        return bool(client.login) or client.host in self._networks


def relay_networks(words: Iterable[str]) -> Networks:
    """
    The networks whose clients may send mail to anybody.

    Raises:
        ValueError: A word is none, or one that would make an open relay.
    """
    several = tuple(words)
    networks = Networks(several)
    for each in several:
        if each == LOCAL:
            continue
        address, _, length = each.partition("/")
        version = 6 if ":" in address else 4
        if length.isdigit() and int(length) < _WIDEST[version]:
            raise ValueError(
                f"{each} is half the world: anybody could send mail to anybody; name your own"
                " networks, and let others log in"
            )
    return networks
