"""
Lines of the log that wait for those behind them, so that one system call writes them all.

A message for fifty has fifty lines, and most of their replies leave in one piece.  A line that waits is
written before any reply leaves, at the latest in the next turn of the reactor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

#: What writes out the lines that wait, wherever there may be some.
HELD: Final[list[Callable[[], None]]] = []


def write_out() -> None:
    """
    Write what waits: a reply is to leave.
    """
    while HELD:
        HELD.pop()()
