"""
Which command may follow which.
"""

from __future__ import annotations

import pytest

from lmtpsvc import replies
from lmtpsvc.replies import Reply
from lmtpsvc.session.states import TRANSITIONS, State, Verb, advance
from lmtpsvc.wire.commands import CommandError

from ..rows import each_row

# One row per state, one column per verb.  A dot is 503.
GRID = """
            LHLO  MAIL   RCPT       DATA BDAT   RSET
NEW         READY .      .          .    .      NEW
READY       READY SENDER .          .    .      READY
SENDER      READY .      RECIPIENTS .    .      READY
RECIPIENTS  READY .      RECIPIENTS TEXT CHUNKS READY
TEXT        .     .      .          .    .      .
CHUNKS      READY .      .          .    CHUNKS READY
REFUSED     READY .      .          .    .      READY
DELIVERING  .     .      .          .    .      .
CLOSED      .     .      .          .    .      .
"""

HEAD, *ROWS = (line.split() for line in GRID.split("\n") if line)


def after(state: str, verb: str) -> str:
    try:
        return advance(State[state], Verb[verb]).name
    except CommandError as error:
        return "." if error.reply.code == 503 else str(error.reply)


def test_every_verb_in_every_state() -> None:
    """
    The whole table, so that a change to it is a change to this picture.
    """
    assert [state.name for state in State] == [row[0] for row in ROWS]
    assert [verb.name for verb in Verb] == HEAD
    for name, *cells in ROWS:
        for verb, cell in zip(HEAD, cells, strict=True):
            assert cell == after(name, verb), f"{verb} in {name}"


def test_table_is_whole() -> None:
    """
    Every state has a row, even where nothing may come.
    """
    assert set(State) == set(TRANSITIONS)


@each_row(
    ("state", "verb", "reply"),
    [
        ("NEW", "MAIL", replies.LHLO_FIRST),
        ("NEW", "RCPT", replies.LHLO_FIRST),
        ("NEW", "DATA", replies.LHLO_FIRST),
        ("NEW", "BDAT", replies.LHLO_FIRST),
        ("READY", "RCPT", replies.MAIL_FIRST),
        ("READY", "DATA", replies.MAIL_FIRST),
        ("READY", "BDAT", replies.MAIL_FIRST),
        ("SENDER", "MAIL", replies.NESTED_MAIL),
        ("RECIPIENTS", "MAIL", replies.NESTED_MAIL),
        ("SENDER", "DATA", replies.NO_RECIPIENTS),
        ("SENDER", "BDAT", replies.NO_RECIPIENTS),
        ("CHUNKS", "MAIL", replies.NESTED_MAIL),
        ("CHUNKS", "RCPT", replies.CHUNKS_BEGUN),
        ("CHUNKS", "DATA", replies.CHUNKS_BEGUN),
        ("REFUSED", "MAIL", replies.CHUNK_REFUSED),
        ("REFUSED", "RCPT", replies.CHUNK_REFUSED),
        ("REFUSED", "DATA", replies.CHUNK_REFUSED),
        ("REFUSED", "BDAT", replies.CHUNK_REFUSED),
        ("TEXT", "MAIL", replies.BAD_SEQUENCE),
    ],
)
def test_reason(state: str, verb: str, reply: Reply) -> None:
    """
    A 503 says which command is missing.
    """
    with pytest.raises(CommandError) as caught:
        advance(State[state], Verb[verb])

    assert reply == caught.value.reply
