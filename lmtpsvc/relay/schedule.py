"""
Schedule: when a message is tried again, when its sender is warned, and when it is given up.

Functions of the clock and of nothing else; docs/queue.md has the same numbers in words.
"""

from __future__ import annotations

from typing import Final

from attrs import field, frozen

MINUTE: Final = 60.0
HOUR: Final = 3600.0
DAY: Final = 86400.0


@frozen
class Schedule:
    """
    *pauses* are the seconds before each further attempt, the last one again and again.  Each is made
    longer or shorter by up to *jitter* of itself, so that what failed together does not come back
    together.  After *warn* seconds the sender is told of the delay, once; after *give_up* it is
    returned, but not before one last attempt.

    Raises:
        ValueError: That is no schedule.
    """

    pauses: tuple[float, ...] = (
        *(5 * MINUTE, 10 * MINUTE, 20 * MINUTE, 40 * MINUTE, 80 * MINUTE, 160 * MINUTE),
        4 * HOUR,
    )
    jitter: float = field(default=0.2)
    warn: float = 4 * HOUR
    give_up: float = 5 * DAY

    def __attrs_post_init__(self) -> None:
        if not self.pauses or min(self.pauses) <= 0:
            raise ValueError("there must be pauses, each of more than 0 seconds")
        if not 0 <= self.jitter < 1:
            raise ValueError("the jitter is a part of the pause, from 0 to less than 1")
        if self.give_up <= 0 or self.warn <= 0:
            raise ValueError(
                "a message is given up, and a delay told of, after more than 0 seconds"
            )

    def next(self, attempts: int, arrived: float, now: float, chance: float) -> float:
        """
        When to try again what has failed *attempts* times, the last time *now*.  *chance* is a
        random number from 0 to 1.
        """
        pause = self.pauses[min(max(attempts, 1), len(self.pauses)) - 1]
        pause *= 1 + self.jitter * (2 * chance - 1)
        # The last attempt is at the very end, and not a pause before it.
        return max(min(now + pause, arrived + self.give_up), now)

    def is_too_old(self, arrived: float, now: float) -> bool:
        """
        Who fails *now* is not tried again.
        """
        return now >= arrived + self.give_up

    def is_late(self, arrived: float, now: float) -> bool:
        """
        Who still waits *now* has a sender who should know.
        """
        return now >= arrived + self.warn
