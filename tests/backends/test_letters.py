"""
What is said to the process that stores messages arrives as it was meant.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lmtpsvc.backends.letter_box import MOST
from lmtpsvc.backends.letters import (
    LONGEST,
    NOTHING,
    SAFE,
    Letter,
    Outcome,
    Receipt,
    pack_letter,
    pack_receipt,
    room_for_one,
    unpack_letter,
    unpack_receipt,
)

NUMBERS = st.integers(0, (1 << 64) - 1)

# A name may be of octets that are no text: the system calls take it as it is.
PATHS = st.binary(max_size=300).map(lambda octets: octets.decode("utf-8", "surrogateescape"))

LETTER = Letter(1, 2049, False, 4, 8, 0o600, None, None, "ann/tmp/1", ["ann/new/1"])


@given(
    st.builds(
        Letter,
        *[NUMBERS, NUMBERS, st.booleans(), NUMBERS, NUMBERS, NUMBERS],
        *[st.none() | NUMBERS, st.none() | NUMBERS, PATHS, st.lists(PATHS), NUMBERS],
    )
)
def test_letter(letter: Letter) -> None:
    """
    Each letter, whatever the names are.
    """
    assert letter == unpack_letter(pack_letter(letter))


@given(
    st.builds(
        Receipt,
        st.lists(st.builds(Outcome, NUMBERS, st.integers(SAFE, 4), st.lists(NUMBERS))),
        *[st.none() | st.floats(0), st.none() | st.floats(0), NUMBERS, st.floats(allow_nan=False)],
    )
)
def test_receipt(receipt: Receipt) -> None:
    """
    Each receipt; what is in it has names again, too.
    """
    found = unpack_receipt(pack_receipt(receipt))

    assert receipt == found
    assert all(type(outcome) is Outcome for outcome in found.outcomes)


def test_longest() -> None:
    """
    A message for as many mailboxes as there may be, with names as long as they can be, is not too
    much.
    """
    names = ["x" * 4095] * 64
    refused = list(range(64))
    outcomes = [Outcome(1 << 62, NOTHING, refused)] * 2 * MOST

    assert len(pack_letter(LETTER._replace(tmp=names[0], new=names))) < LONGEST
    assert len(pack_receipt(Receipt(outcomes, 1.0, 1.0, 5))) < LONGEST
    assert len(room_for_one()) == LONGEST
