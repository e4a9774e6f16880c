"""
An application for a session to talk to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import pytest

from lmtpsvc import replies
from lmtpsvc.envelope import Recipient
from lmtpsvc.limits import Limits
from lmtpsvc.replies import Reply
from lmtpsvc.session.events import (
    Event,
    ExtensionFailed,
    MessageReceived,
    RecipientOffered,
    TextAbandoned,
    TextBegun,
    TextDiscarded,
    TextReceived,
)
from lmtpsvc.session.server import ServerSession
from lmtpsvc.session.standard import standard_extensions


class Application:
    """
    A session, and somebody who answers it by the local parts of the recipients.

    ``no...`` is refused, ``full...`` is accepted and then not delivered.  ``late...`` is not
    accepted before `settle`, ``slow...`` not delivered before it.  *told* is what the session said,
    with all text of a message in one piece; *sent* is what went to the client.
    """

    def __init__(self, limits: Limits | None = None, *, binary: bool = False) -> None:
        limits = limits or Limits()
        extensions = standard_extensions(limits, binary=binary)
        self.session = ServerSession("foo.edu", limits, extensions)
        self.told: list[tuple[object, ...]] = []
        self.sent = b""
        #: What is not answered yet.
        self.held: list[Callable[[], object]] = []
        self._accepted: tuple[RecipientOffered, ...] = ()

    def feed(self, chunks: Iterable[bytes]) -> None:
        """
        Let the client say *chunks*, each a packet.
        """
        for chunk in chunks:
            self.session.receive(chunk)
            self.go_on()

    def go_on(self) -> None:
        """
        Take the session as far as it goes.
        """
        while True:
            while (event := self.session.next_event()) is not None:
                self._take(event)
            has_more = self.session.has_much_to_say
            self.sent += self.session.data_to_send()
            if not has_more:
                break

    def settle(self, pick: Callable[[int], int] = lambda _count: 0) -> None:
        """
        Answer what is held, one at a time; *pick* says which of so many is next.
        """
        while self.held:
            self.held.pop(pick(len(self.held)))()
            self.go_on()

    def take_sent(self) -> bytes:
        """
        What went to the client since the last time.
        """
        sent, self.sent = self.sent, b""
        return sent

    def _take(self, event: Event) -> None:
        match event:
            case RecipientOffered():
                self.told.append(("recipient", str(event.recipient)))
                reply = _welcome(event.recipient)
                self._answer(
                    event.recipient, "late", lambda: self.session.answer_recipient(event, reply)
                )
            case TextBegun():
                self._accepted = event.accepted
                to = tuple(str(offer.recipient) for offer in event.accepted)
                self.told.append(("text", str(event.sender), to))
                self.told.append(("octets", b""))
            case TextReceived():
                _, octets = self.told.pop()
                assert isinstance(octets, bytes)
                self.told.append(("octets", octets + event.octets))
            case TextDiscarded():
                # How much came before depends on the packets.
                self.told[-1] = ("discarded",)
            case TextAbandoned():
                self.told[-1] = ("abandoned",)
            case MessageReceived():
                assert len(event.slots) == len(self._accepted)
                self.told.append(("complete",))
                for offer, slot in zip(self._accepted, event.slots, strict=True):
                    answer = partial(self.session.answer_message, slot, delivered(offer.recipient))
                    self._answer(offer.recipient, "slow", answer)
            case ExtensionFailed():
                raise event.error

    def _answer(self, recipient: Recipient, patient: str, answer: Callable[[], object]) -> None:
        if recipient.address.local.startswith(patient):
            self.held.append(answer)
        else:
            answer()


def _welcome(recipient: Recipient) -> Reply:
    no = "no" in recipient.address.local
    return replies.NO_SUCH_USER if no else replies.RECIPIENT_OK


def delivered(recipient: Recipient) -> Reply:
    """
    What an Application answers for one recipient of a message.
    """
    if recipient.address.local.startswith("full"):
        return Reply(452, f"<{recipient}> is temporarily over quota", (2, 2))
    return replies.delivered("t1", str(recipient))


@pytest.fixture(scope="session")
def application() -> type[Application]:
    """
    Make an application, with limits if they matter.
    """
    return Application
