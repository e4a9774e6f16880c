"""
ReplyQueue: each reply waits until all earlier ones are known.

Commands are answered in the order in which they came (RFC 2920 §3.2), and the end of the text by
one reply per accepted recipient, in RCPT order (RFC 2033 §4.2).  Look-ups and deliveries finish in
any order.  This file is where the two meet: a slot is a place in the line.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

#: Octets of replies that wait to be sent, before no more are made: some, such as that to LHLO, are
#: fifty times as long as what asks for them.
MUCH: Final = 65_536


class Answer(Protocol):
    """
    What a slot can be answered with: a Reply, or one of several lines.
    """

    @property
    def wire(self) -> bytes: ...

    @property
    def is_success(self) -> bool: ...


class Slot:
    """
    A place in the line, to be answered exactly once.
    """

    __slots__ = ("reply",)

    def __init__(self) -> None:
        self.reply: Answer | None = None

    def answer(self, reply: Answer) -> None:
        """
        Settle it.

        Raises:
            RuntimeError: It was settled before: a second reply would put the client out of step.
        """
        if self.reply is not None:
            raise RuntimeError(f"answered twice: {self.reply}, then {reply}")
        self.reply = reply


class ReplyQueue:
    """
    The line, that begins with the reply *first*, as it goes out, if there is one.  ``len`` tells how
    many replies have not been drained yet, *octets* how much of them may be.
    """

    __slots__ = ("_ready", "_slots", "octets")

    def __init__(self, first: bytes = b"") -> None:
        self._ready = [first] if first else []
        self.octets = len(first)
        self._slots: deque[Slot] = deque()

    def __len__(self) -> int:
        return len(self._ready) + len(self._slots)

    @property
    def outstanding(self) -> int:
        """
        How many places are waiting for a reply, their own or that of one before them.
        """
        self._advance()
        return len(self._slots)

    def has_outstanding(self, count: int) -> bool:
        """
        Whether so many places or more are waiting for a reply.
        """
        # Some that are answered may not have been counted out yet.
        return len(self._slots) >= count and self.outstanding >= count

    @property
    def is_ready(self) -> bool:
        """
        There is something to be drained.
        """
        return bool(self._ready or (self._slots and self._slots[0].reply is not None))

    @property
    def is_full(self) -> bool:
        """
        There is so much to be drained that no more should be said before it is.
        """
        return self.octets >= MUCH

    def has_room(self, count: int) -> bool:
        """
        It is not full, and less than *count* places are waiting for a reply.
        """
        return not (self.is_full or self.has_outstanding(count))

    def put(self, reply: Answer) -> None:
        """
        Add a reply that is known already.
        """
        if self._slots:
            self.reserve().answer(reply)
        else:
            self.put_wire(reply.wire)

    @property
    def is_settled(self) -> bool:
        """
        No place is waiting, and little is to be drained: a thousand short replies may be added.
        """
        if self._slots:
            self._advance()
        return not self._slots and self.octets < MUCH // 2

    def put_wire(self, octets: bytes) -> None:
        """
        Add replies as they go out, if no place before them is waiting: see `is_settled`.
        """
        self._ready.append(octets)
        self.octets += len(octets)

    def reserve(self) -> Slot:
        """
        Add a place whose reply comes later.
        """
        slot = Slot()
        self._slots.append(slot)
        return slot

    def reserve_many(self, count: int) -> tuple[Slot, ...]:
        """
        Add *count* such places.
        """
        if count == 1:
            return (self.reserve(),)
        slots = tuple([Slot() for _ in range(count)])
        self._slots.extend(slots)
        return slots

    def drain(self) -> bytes:
        """
        Take the answered replies at the head of the line.
        """
        slots, ready = self._slots, self._ready
        if slots and slots[0].reply is not None:
            self._advance()
        if not ready:
            return b""
        octets = ready[0] if len(ready) == 1 else b"".join(ready)
        ready.clear()
        self.octets = 0
        return octets

    def _advance(self) -> None:
        slots, ready = self._slots, self._ready
        while slots and (reply := slots[0].reply) is not None:
            octets = reply.wire
            ready.append(octets)
            self.octets += len(octets)
            slots.popleft()
