"""
Where a message is to go, and who waits for the answer.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.python.failure import Failure

from ..commitment import Commitment
from ..envelope import Mailbox
from ..quota import Quota
from ..response_codes import Codes
from .places import Known, Place
from .quotas import Reservation


class Waiting:
    """
    Those who wait for a message to be in one mailbox: one for each recipient.
    """

    __slots__ = ("_begun", "waiting")

    def __init__(self) -> None:
        self.waiting: list[Commitment] = []
        self._begun = False

    @property
    def is_cancelled(self) -> bool:
        """
        Whether nobody waits any more.
        """
        waiting = self.waiting
        if len(waiting) == 1:
            return waiting[0].called
        return all(commitment.called for commitment in waiting)

    def begin(self) -> bool:
        """
        Ask, before the message is shown, whether anybody still wants it.
        """
        if not self._begun:
            self.waiting = [commitment for commitment in self.waiting if commitment.begin()]
            self._begun = bool(self.waiting)
        return self._begun

    def put_off(self) -> None:
        """
        The message has not been shown, and nobody is about to show it: it can be called off again.  In
        the reactor thread.
        """
        if self._begun:
            self._begun = False
            for commitment in self.waiting:
                commitment.put_off()

    def fire(self, outcome: Failure | Codes = None) -> None:
        """
        Answer all; in the reactor thread.
        """
        for commitment in self.waiting:
            if not commitment.called:
                if isinstance(outcome, Failure):
                    commitment.errback(outcome)
                else:
                    commitment.callback(outcome)


class Target(Waiting):
    """
    A Maildir that gets the message, and those who wait for it.
    """

    __slots__ = ("known", "mailbox", "place", "quota", "reservation")

    def __init__(self, place: Place, mailbox: Mailbox, quota: Quota | None = None) -> None:
        super().__init__()
        self.place, self.mailbox, self.quota = place, mailbox, quota
        #: What was known of the Maildir before the message came there.
        self.known: Known | None = None
        #: The room for the message, where there is a quota, until it is there or will not come.
        self.reservation: Reservation | None = None


#: Who is to be answered, and what went wrong, or what there is to tell besides.
Answer = tuple[Waiting, Failure | Codes]


def fire(answers: Iterable[Answer]) -> None:
    """
    Answer them all; in the reactor thread.
    """
    for target, outcome in answers:
        target.fire(outcome)
