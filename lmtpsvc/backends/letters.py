"""
What the service and the process that writes for it say to each other.

A letter asks for one message to be stored; its octets are in memory that both share.  Each receipt
is for all that became of several letters at a time.  Both are the same Python, so they say it in
Python's own binary form, which takes next to no time.
"""

from __future__ import annotations

import marshal
import math
import mmap
from typing import Final, NamedTuple

#: What has become of a message: it is safe wherever it could be shown; it is in ``tmp``, or in
#: ``new``, but may not be safe; nothing of it is there; or nobody knows.
SAFE: Final = 0
WRITTEN: Final = 1
SHOWN: Final = 2
NOTHING: Final = 3
UNKNOWN: Final = 4

# Of the form: later ones remember each part, in case it comes again, which takes longer.
_VERSION: Final = 2

#: The octets of a letter or an answer, at most.
LONGEST: Final = 1 << 20


class Letter(NamedTuple):
    """
    One message.
    """

    number: int
    #: The file system that all names are on.
    device: int
    #: Its directories may not be safe: only a wait for all that is on the file system will do.
    together: bool
    #: Where its octets begin in the shared memory, and how many there are.
    begin: int
    size: int
    #: Of the file, and whose it is to be; see `identity.as_user`.
    mode: int
    uid: int | None
    gid: int | None
    #: The file in the ``tmp`` of the source, and those in ``new``, the source's first.
    tmp: str
    new: list[str]
    #: The number of the first ``new`` when it was known to be safe, or 0: if it is another one by now,
    #: the directories above may not be safe either.
    inode: int = 0


#: It can be stored nowhere: what is answered tells only that the process gets on.
QUESTION: Final = Letter(0, -1, True, 0, 0, 0, None, None, "", [])


#: A `Letter` without its class, which takes a fifth of the time to make; mypy sees that the types agree.
Parts = tuple[int, int, bool, int, int, int, int | None, int | None, str, list[str], int]


class Outcome(NamedTuple):
    """
    What has become of a letter's message.
    """

    number: int
    what: int
    #: Which of the names in ``new`` could not be given, by their place in the letter.
    refused: list[int]


class Receipt(NamedTuple):
    """
    What has become of some letters, in the order in which it did.
    """

    outcomes: list[Outcome]
    #: How long the longest wait for all took, in seconds, if there was one; and that for one file
    #: alone.
    whole: float | None
    each: float | None
    #: The errno of what has gone wrong with the wait for all, or 0.
    lost: int
    #: The waits for all have told of directories that were lost since then; see
    #: `FileSystem.tells_since`.
    tells_since: float = -math.inf


def pack_letter(letter: Parts) -> bytes:
    """
    To be sent in one piece.
    """
    return marshal.dumps(tuple(letter), _VERSION)


def unpack_letter(octets: bytes | memoryview) -> Letter:
    """
    What `pack_letter` packed.
    """
    return Letter(*marshal.loads(octets))  # noqa: S302 - from our own process


def pack_receipt(answer: Receipt) -> bytes:
    """
    To be sent in one piece.
    """
    outcomes, *waits = answer
    return marshal.dumps(([tuple(outcome) for outcome in outcomes], *waits), _VERSION)


def unpack_receipt(octets: bytes | memoryview) -> Receipt:
    """
    What `pack_receipt` packed.
    """
    outcomes, *waits = marshal.loads(octets)  # noqa: S302 - from our own process
    # What Outcome(*outcome) does, in a third of the time.
    return Receipt([tuple.__new__(Outcome, outcome) for outcome in outcomes], *waits)


def room_for_one() -> memoryview:
    """
    Where a letter or an answer can be received: once and for all, as so much memory would be taken from
    the system for each, and given back, which takes longer than anything else.
    """
    # What is never used of it is never there.
    return memoryview(mmap.mmap(-1, LONGEST, flags=mmap.MAP_PRIVATE))
