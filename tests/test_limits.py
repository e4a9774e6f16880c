"""
How the time for a delivery is shared out.
"""

from __future__ import annotations

import pytest

from lmtpsvc.limits import Limits

LIMITS = Limits(delivery_seconds=240, grace_seconds=30)


@pytest.mark.parametrize(
    ("patience", "delivery", "grace"),
    [
        (1000, 240, 30),
        (272, 240, 30),
        (271, 239, 30),
        (125, 93, 30),
        (62, 45, 15),
        (10, 6.75, 2.25),
        (1, 0.675, 0.225),
    ],
)
def test_patience(patience: float, delivery: float, grace: float) -> None:
    """
    The last reply leaves before the client gives up; who waits for long enough changes nothing.
    """
    limits = LIMITS.answering_within(patience)

    assert (delivery, grace) == pytest.approx((limits.delivery_seconds, limits.grace_seconds))
    assert limits.delivery_seconds + limits.grace_seconds < patience
    assert (limits is LIMITS) is (patience >= 272)


def test_short_already() -> None:
    """
    Who has set little time gets no more of it.
    """
    limits = Limits(delivery_seconds=5, grace_seconds=30).answering_within(30)

    assert (5, 7) == (limits.delivery_seconds, limits.grace_seconds)
