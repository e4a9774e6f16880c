"""
The table of what other servers answer; asking them needs the servers.
"""

from __future__ import annotations

from ..transcripts.holding import Difference, Verdict
from ..transcripts.notation import Conversation
from ..transcripts.target import Outcome
from .others import Other, details, table


def other(name: str, *verdicts: Verdict | None) -> Other:
    """
    A server with these verdicts, by turns about two groups.
    """
    outcomes = []
    for number, verdict in enumerate(verdicts):
        conversation = Conversation("ab"[number % 2], f"Title {number}", 1, ())
        wrong = verdict not in {None, Verdict.SAME}
        differences = (
            [Difference(verdict, 7, b"NOOP\r\n", "250", "500 no")] if wrong and verdict else []
        )
        outcomes.append(Outcome(conversation, verdict, differences))
    return Other(name, "1.0", outcomes)


def test_table() -> None:
    """
    A row for each group, a column for each server; what did not happen is not counted.
    """
    one = other("One", Verdict.SAME, Verdict.OTHER, Verdict.OTHER_CODE, Verdict.SAME)
    two = other("Two", Verdict.SAME, None, Verdict.SAME, None)

    assert table([one, two]).splitlines() == [
        "| conversations | One 1.0 | Two 1.0 |",
        "| --- | --- | --- |",
        "| `a` | 1, 1 other code | 2 |",
        "| `b` | 1, 1 otherwise | 2 not asked |",
        "| all | 2, 1 other code, 1 otherwise | 2, 2 not asked |",
    ]


def test_details() -> None:
    """
    What went otherwise, and how.
    """
    assert details([other("One", Verdict.SAME, Verdict.OTHER)]).splitlines() == [
        "== One 1.0",
        "other: b: Title 1: line 7: 'NOOP': 250 expected, got 500 no",
    ]
