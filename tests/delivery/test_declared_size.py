"""
How large a message will be, on its way from MAIL to the backend that has to have room for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from twisted.internet.task import Clock
from zope.interface import implementer

from lmtpsvc.delivery.routing import AddressRules, Routing
from lmtpsvc.envelope import Address, Mailbox
from lmtpsvc.interfaces import Capabilities, IBackend, IDirectory
from lmtpsvc.limits import Limits
from lmtpsvc.session.events import RecipientOffered
from lmtpsvc.session.server import ServerSession
from lmtpsvc.session.standard import standard_extensions

ANN = Mailbox("ann", "example.org", attributes={"quota_octets": "1000"})


@implementer(IDirectory, IBackend)
class World:
    capabilities = Capabilities()

    def __init__(self) -> None:
        self.asked: list[Mailbox] = []

    def resolve(self, mailbox: Mailbox) -> Sequence[Mailbox]:
        return [ANN]

    def verify(self, mailbox: Mailbox) -> None:
        self.asked.append(mailbox)

    def deliver(self, message: object, mailboxes: Sequence[Mailbox]) -> list[Any]:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("size", "attributes"),
    [
        (None, {"quota_octets": "1000"}),
        (0, {"quota_octets": "1000", "declared_size": "0"}),
        (77, {"quota_octets": "1000", "declared_size": "77"}),
    ],
)
def test_verify(
    size: int | None, attributes: dict[str, str], success_of: Callable[[Any], Any]
) -> None:
    """
    The backend is asked about the size, beside what the directory knows; the mailbox stays as it is.
    """
    world = World()
    routing = Routing(world, world, AddressRules("mx.example.org"), Clock(), 60)

    assert (ANN,) == success_of(routing.resolve(Address("ann", "example.org"), size))
    assert [attributes] == [mailbox.attributes for mailbox in world.asked]


@pytest.mark.parametrize(("said", "size"), [(b"", None), (b" SIZE=77", 77), (b" SIZE=0", 0)])
def test_offer(said: bytes, size: int | None) -> None:
    """
    Each RCPT knows what its MAIL said, not the one before.
    """
    session = ServerSession("mx.example.org", Limits(), standard_extensions(Limits()))
    session.receive(
        b"LHLO x\r\nMAIL FROM:<> SIZE=5\r\nRSET\r\nMAIL FROM:<>%b\r\n" % said
        + b"RCPT TO:<ann@example.org>\r\n" * 2
    )

    for _ in range(2):
        offer = session.next_event()
        assert isinstance(offer, RecipientOffered)
        assert size == offer.declared_size
