"""
When is tried again, warned and given up.
"""

from __future__ import annotations

from typing import Any

import pytest

from lmtpsvc.relay.schedule import DAY, HOUR, MINUTE, Schedule

from ..rows import each_row

ARRIVED = 1_000_000.0
EVEN = 0.5


class TestNext:
    @each_row(
        ("attempts", "minutes"),
        [(1, 5), (2, 10), (3, 20), (4, 40), (5, 80), (6, 160), (7, 240), (8, 240), (100, 240)],
    )
    def test_pauses(self, attempts: int, minutes: float) -> None:
        """
        From five minutes on twice as long each time, up to four hours.
        """
        now = ARRIVED + 1
        assert Schedule().next(attempts, ARRIVED, now, EVEN) == now + minutes * MINUTE

    @pytest.mark.parametrize(("chance", "minutes"), [(0.0, 4), (EVEN, 5), (1.0, 6)])
    def test_jitter(self, chance: float, minutes: float) -> None:
        """
        A fifth more or less, so that what failed together comes back apart.
        """
        assert Schedule().next(1, ARRIVED, ARRIVED, chance) == pytest.approx(
            ARRIVED + minutes * MINUTE
        )

    def test_last(self) -> None:
        """
        The last attempt is when the time is up, and not a pause before.
        """
        now = ARRIVED + 5 * DAY - HOUR
        assert Schedule().next(9, ARRIVED, now, EVEN) == ARRIVED + 5 * DAY

    def test_never_in_the_past(self) -> None:
        """
        Not even for a message that is older than it may get.
        """
        now = ARRIVED + 6 * DAY
        assert Schedule().next(9, ARRIVED, now, EVEN) == now

    def test_put_off(self) -> None:
        """
        Who was never tried has the first pause.
        """
        assert Schedule().next(0, ARRIVED, ARRIVED, EVEN) == ARRIVED + 5 * MINUTE

    def test_whole_life(self) -> None:
        """
        A message that never arrives is tried some thirty-six times in five days, warned of once.
        """
        schedule, now, attempts = Schedule(), ARRIVED, 0
        while True:
            attempts += 1
            if schedule.is_too_old(ARRIVED, now):
                break
            now = schedule.next(attempts, ARRIVED, now, EVEN)
        assert now == ARRIVED + 5 * DAY
        assert attempts == 36


@pytest.mark.parametrize(
    ("after", "is_late", "is_too_old"),
    [
        (0, False, False),
        (4 * HOUR - 1, False, False),
        (4 * HOUR, True, False),
        (5 * DAY - 1, True, False),
        (5 * DAY, True, True),
    ],
)
def test_age(after: float, is_late: bool, is_too_old: bool) -> None:
    """
    Told of after four hours, given up after five days.
    """
    assert Schedule().is_late(ARRIVED, ARRIVED + after) is is_late
    assert Schedule().is_too_old(ARRIVED, ARRIVED + after) is is_too_old


@pytest.mark.parametrize(
    "mistake",
    [
        {"pauses": ()},
        {"pauses": (60.0, 0.0)},
        {"jitter": 1.0},
        {"jitter": -0.1},
        {"warn": 0.0},
        {"give_up": -1.0},
    ],
)
def test_mistakes(mistake: dict[str, Any]) -> None:
    """
    What is no schedule is refused.
    """
    with pytest.raises(ValueError):
        Schedule(**mistake)
