"""
The table of connections that all workers share.
"""

from __future__ import annotations

import os

import pytest

from lmtpsvc.server.counts import Counts


@pytest.fixture
def counts() -> Counts:
    return Counts.create(3)


class TestCounts:
    def test_shared(self, counts: Counts) -> None:
        """
        Whoever has the descriptor sees, and says, the same.
        """
        other = Counts(os.dup(counts.descriptor), 3)
        other.set(2, 7)
        counts.set(3, 1)
        assert counts.total() == other.total() == 8

    def test_total(self, counts: Counts) -> None:
        """
        The connections of all count, also of one that takes no more; not of one that is gone.
        """
        for number in (1, 2, 3):
            counts.take(number)
            counts.set(number, number)
        counts.leave(2)
        assert counts.total() == 6
        counts.clear(3)
        assert counts.total() == 3

    def test_stopping(self, counts: Counts) -> None:
        """
        The end is told to all.
        """
        assert not counts.stopping
        counts.stop()
        assert counts.stopping

    def test_begun(self, counts: Counts) -> None:
        """
        It is known of each worker whether it ever took connections.
        """
        assert not counts.begun(1)
        counts.take(1)
        assert counts.begun(1)
        counts.leave(1)
        assert counts.begun(1)
        counts.clear(1)
        assert not counts.begun(1)


class TestIsDue:
    @pytest.mark.parametrize(
        ("connections", "due"),
        [
            ((0, 0, 0), {1, 2, 3}),
            ((1, 0, 0), {2, 3}),
            ((1, 1, 0), {3}),
            ((5, 5, 5), {1, 2, 3}),
            ((4, 5, 9), {1}),
        ],
    )
    def test_fewest(self, counts: Counts, connections: tuple[int, int, int], due: set[int]) -> None:
        """
        The next connection is for one of those who have fewest.
        """
        for number, each in enumerate(connections, 1):
            counts.take(number)
            counts.set(number, each)
        assert due == {number for number in (1, 2, 3) if counts.is_due(number)}

    def test_only_those_who_take(self, counts: Counts) -> None:
        """
        Who does not take connections, yet or any more, is not waited for.
        """
        counts.take(1)
        counts.set(1, 5)
        assert counts.is_due(1)
        counts.take(2)
        assert not counts.is_due(1)
        counts.leave(2)
        assert counts.is_due(1)
