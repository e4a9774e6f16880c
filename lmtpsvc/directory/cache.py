"""
Answers of a directory, kept for a while, and not too many of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from ..envelope import Mailbox

#: Answers that are kept, at most, of either kind: a stranger who tries names neither fills the
#: memory nor pushes out those who live here.
MOST: Final = 10_000

#: "Nobody of that name" is kept for this part of the time: somebody may be waiting for his first
#: mail.
_UNKNOWN_PART: Final = 1 / 6

Answer = Sequence[Mailbox]


class Cache:
    """
    Keeps answers for *seconds*, and those who live here *stale_seconds* longer, for when nobody can
    be asked.  *now* is a clock.
    """

    def __init__(
        self, seconds: float, stale_seconds: float, now: Callable[[], float], most: int = MOST
    ) -> None:
        self._seconds, self._stale_seconds = seconds, stale_seconds
        self._now, self._most = now, most
        # The oldest come first.
        self._known: dict[Mailbox, tuple[float, Answer]] = {}
        self._unknown: dict[Mailbox, float] = {}

    def fresh(self, mailbox: Mailbox) -> Answer | None:
        """
        What was said about *mailbox* of late, which may be nobody; None if that is not known.
        """
        now = self._now()
        if mailbox in self._known:
            said, answer = self._known[mailbox]
            return answer if now - said < self._seconds else None
        said = self._unknown.get(mailbox, now - self._seconds)
        return () if now - said < self._seconds * _UNKNOWN_PART else None

    def stale(self, mailbox: Mailbox) -> Answer | None:
        """
        What was said about *mailbox* not too long ago; never that nobody lives there.
        """
        said, answer = self._known.get(mailbox, (0.0, ()))
        is_kept = answer and self._now() - said < self._seconds + self._stale_seconds
        return answer if is_kept and self._stale_seconds else None

    def keep(self, mailbox: Mailbox, answer: Answer) -> None:
        """
        Remember what was said just now.
        """
        now = self._now()
        self._known.pop(mailbox, None)
        self._unknown.pop(mailbox, None)
        if not self._seconds:
            return
        if answer:
            self._known[mailbox] = (now, answer)
            oldest = next(iter(self._known))
            is_old = now - self._known[oldest][0] >= self._seconds + self._stale_seconds
            if is_old or len(self._known) > self._most:
                del self._known[oldest]
        else:
            self._unknown[mailbox] = now
            if len(self._unknown) > self._most:
                del self._unknown[next(iter(self._unknown))]
