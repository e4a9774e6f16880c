"""
Quota: how much a mailbox may hold, as operators write it and as a directory tells a backend.

What a directory knows travels in `lmtpsvc.envelope.Mailbox.attributes`, as text:

``quota_octets``, ``quota_messages``
    What the mailbox may hold; ``0`` is no limit.  Without either, the backend's own rule counts.
``ignore_quota``
    Only where a client that is trusted has said IGNOREQUOTA: the mailbox takes what comes, and it is
    counted all the same.
``declared_size``
    Only in what `lmtpsvc.interfaces.IBackend.verify` gets: what the client said with SIZE.
"""

from __future__ import annotations

import re
from typing import Final

from attrs import evolve, field, frozen

from .envelope import Mailbox
from .quantities import octets

OCTETS: Final = "quota_octets"
MESSAGES: Final = "quota_messages"
DECLARED_SIZE: Final = "declared_size"
IGNORED: Final = "ignore_quota"

_number = re.compile(r"[0-9]{1,15}", re.ASCII).fullmatch


@frozen
class Quota:
    """
    The most *octets* and *messages* that a mailbox may hold; 0 is any number.  If it is not
    *binding*, what comes is counted, and there is room for it.
    """

    octets: int = 0
    messages: int = 0
    binding: bool = field(default=True, eq=False)

    def __bool__(self) -> bool:
        return bool(self.octets or self.messages)

    def has_room(self, octets: int, messages: int) -> bool:
        """
        Whether a mailbox may hold that much.
        """
        if not self.binding:
            return True
        return not (self.octets and octets > self.octets) and not (
            self.messages and messages > self.messages
        )

    def attributes(self) -> dict[str, str]:
        """
        As `Mailbox.attributes` has it.
        """
        return {OCTETS: str(self.octets), MESSAGES: str(self.messages)}


def parse(text: str) -> Quota:
    """
    Read ``1G``, ``1G,10000`` (octets, and messages) or ``0`` (any number).

    Raises:
        ValueError: It is none of these.
    """
    size, comma, count = text.partition(",")
    try:
        if comma and _number(count) is None:
            raise ValueError(count)
        return Quota(_octets(size), int(count or 0))
    except ValueError:
        raise ValueError(f"{text!r} is no quota; write 1G, or 1G,10000 for messages too") from None


def quota_of(mailbox: Mailbox) -> Quota | None:
    """
    What the directory says about *mailbox*; None if it says nothing.

    Raises:
        ValueError: What it says is no number.
    """
    found = mailbox.attributes
    if OCTETS not in found and MESSAGES not in found:
        return None
    messages = found.get(MESSAGES, "0")
    if _number(messages) is None:
        raise ValueError(f"{MESSAGES}={messages} is no number")
    return Quota(_octets(found.get(OCTETS, "0")), int(messages))


def declared_size(mailbox: Mailbox) -> int:
    """
    Octets that the client has announced (RFC 1870); 0 if it has not.
    """
    return int(mailbox.attributes.get(DECLARED_SIZE, "0"))


def with_declared_size(mailbox: Mailbox, size: int) -> Mailbox:
    """
    *mailbox*, as `lmtpsvc.interfaces.IBackend.verify` gets it.
    """
    return mailbox.told(DECLARED_SIZE, str(size))


def limit_of(mailbox: Mailbox, otherwise: Quota | None) -> Quota | None:
    """
    What *mailbox* may hold: as the directory says, *otherwise* if it says nothing; None if there is
    no limit.

    Raises:
        ValueError: What the directory says is no number.
    """
    said = quota_of(mailbox)
    quota = otherwise if said is None else said or None
    if quota is not None and IGNORED in mailbox.attributes:
        return evolve(quota, binding=False)
    return quota


def ignoring_quota(mailbox: Mailbox) -> Mailbox:
    """
    *mailbox* as one that takes what comes: a trusted client has said IGNOREQUOTA.
    """
    return mailbox.told(IGNORED, "yes")


def _octets(text: str) -> int:
    return 0 if text == "0" else octets(text)
