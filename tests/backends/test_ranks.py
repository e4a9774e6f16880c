"""
The most urgent first, and nobody for ever last.
"""

from __future__ import annotations

from threading import Thread

import pytest

from lmtpsvc.backends.ranks import TURN, Ranks


def taken(ranks: Ranks[str]) -> list[str]:
    return [ranks.take() for _ in range(len(ranks))]


def test_first_come() -> None:
    """
    Of one priority, who came first is taken first.
    """
    ranks: Ranks[str] = Ranks()
    for name in "abc":
        ranks.add(name)

    assert list("abc") == taken(ranks)
    with pytest.raises(IndexError):
        ranks.take()


def test_urgent_first() -> None:
    """
    Nine comes before nought, and that before minus nine.
    """
    ranks: Ranks[str] = Ranks()
    for name, priority in (("a", 0), ("b", -9), ("c", 9), ("d", 1), ("e", 0), ("f", 1)):
        ranks.add(name, priority)

    assert 6 == len(ranks)
    assert list("cdfaeb") == taken(ranks)
    with pytest.raises(IndexError):
        ranks.take()


@pytest.mark.parametrize("priority", [0, 4, -4])
def test_put_back(priority: int) -> None:
    """
    What was taken and cannot be used yet is the next of its priority again, behind what is more urgent.
    """
    ranks: Ranks[str] = Ranks()
    for name in "abc":
        ranks.add(name, priority)
    assert "a" == ranks.take()
    ranks.add("urgent", 9)
    ranks.put_back("a", priority)

    assert 4 == len(ranks)
    assert ["urgent", *"abc"] == taken(ranks)
    assert 0 == len(ranks)


@pytest.mark.parametrize(("usual", "urgent"), [(0, 9), (-9, 0), (-9, -8)])
def test_no_starvation(usual: int, urgent: int) -> None:
    """
    While the urgent never end, one in so many is of those that wait longest.
    """
    ranks: Ranks[str] = Ranks()
    ranks.add("patient", usual)
    order = []
    for _ in range(TURN):
        ranks.add("urgent", urgent)
        order.append(ranks.take())

    assert order.count("patient") == 1


def test_no_starvation_in_between() -> None:
    """
    Nor do those wait for ever that are neither the most urgent nor the least.
    """
    ranks: Ranks[str] = Ranks()
    ranks.add("patient", 0)
    ranks.add("patient", 3)
    order = []
    for _ in range(4 * TURN):
        ranks.add("urgent", 9)
        ranks.add("idle", -9)
        order.append(ranks.take())

    assert order.count("patient") == 2


def test_threads() -> None:
    """
    With many threads at both ends, each item is taken once, and none is missed.
    """
    ranks: Ranks[int] = Ranks()
    found: list[list[int]] = [[] for _ in range(4)]

    def work(number: int) -> None:
        for item in range(2000):
            ranks.add(number * 10_000 + item, (item % 5 - 2) if item % 3 else 0)
            # There is one for each that was added before.
            found[number].append(ranks.take())

    threads = [Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    everything = sorted(item for each in found for item in each)
    assert sorted(n * 10_000 + i for n in range(4) for i in range(2000)) == everything
    assert 0 == len(ranks)
