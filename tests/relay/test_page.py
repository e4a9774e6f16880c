"""
What docs/queue.md says is so.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor

from lmtpsvc.backends.forward_breaker import ENOUGH
from lmtpsvc.commands.queue import _HEAD, _parser
from lmtpsvc.relay.delivering import Rates
from lmtpsvc.relay.ledger import PIECE
from lmtpsvc.relay.mx import MOST_HOPS
from lmtpsvc.relay.queue import LEASE
from lmtpsvc.relay.reports import MOST, SMALL
from lmtpsvc.relay.round import MOST_RECIPIENTS
from lmtpsvc.relay.schedule import DAY, HOUR, MINUTE, Schedule

PAGE = (Path(__file__).parents[2] / "docs" / "queue.md").read_text(encoding="utf-8")


def test_schedule() -> None:
    """
    The table of pauses, and the ages.
    """
    found = re.search(r"<!-- schedule -->\n(.*?)<!-- end of schedule -->", PAGE, re.DOTALL)
    assert found is not None
    pauses = [
        int(number) * MINUTE for number in re.findall(r"\| (\d+) \|$", found[1], re.MULTILINE)
    ]
    schedule = Schedule()

    assert tuple(pauses) == schedule.pauses
    assert schedule.jitter == 1 / 5
    assert (schedule.warn, schedule.give_up) == (4 * HOUR, 5 * DAY)


def test_numbers() -> None:
    """
    The numbers that the page has in its sentences.
    """
    rates = Rates()
    assert (rates.per_destination, rates.waiting, rates.retry) == (10, 100, MINUTE)
    assert (LEASE, MOST_HOPS, ENOUGH, MOST_RECIPIENTS) == (MINUTE, 5, 3, 100)
    assert (PIECE, SMALL, MOST) == (256 << 10, 64 << 10, 1 << 20)


def test_command() -> None:
    """
    Every sub-command stands in the table, and the columns in the example.
    """
    table = PAGE.split("## lmtpsvc queue")[1].split("\n## ")[0]
    there = set(re.findall(r"^\| `(\w+)", table, re.MULTILINE))
    actions = [each for each in _parser()._actions if each.choices]
    assert there == set(actions[0].choices or ())
    assert "  ".join(_HEAD).split() == re.findall(r"^ID .*$", table, re.MULTILINE)[0].split()


def test_python(tmp_path: Path, success_of: Callable[..., Any]) -> None:
    """
    The example makes a relay.
    """
    (example,) = re.findall(r"<!-- test: relay -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    relay, queue = names["make_relay"](reactor, f"sqlite:///{tmp_path}/queue.db")

    relay.privilegedStartService()
    assert [queue, *relay.services[1:]] == list(relay)
    assert (tmp_path / "queue.db").exists()
    success_of(queue.stopService())
