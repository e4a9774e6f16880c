"""
Which command may follow which: the state of a conversation, as a table.

All transitions stand here, and this file knows nothing but them.  A step that is missing from the
table is answered 503.  NOOP, HELP, VRFY and QUIT may come in every state and are no part of it;
the verbs that extensions add say for themselves in which states they may come.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

from .. import replies
from ..replies import Reply
from ..wire.commands import CommandError


class State(Enum):
    """
    How far a conversation has come.
    """

    NEW = auto()  # no LHLO yet
    READY = auto()  # no transaction
    SENDER = auto()  # MAIL accepted
    RECIPIENTS = auto()  # at least one RCPT accepted
    TEXT = auto()  # 354 sent, or a BDAT was read; what comes is message text
    CHUNKS = auto()  # between two BDATs: the text is not complete
    REFUSED = auto()  # a BDAT was refused, and the transaction has failed
    DELIVERING = auto()  # the text is here; nothing is read until each recipient has its reply
    CLOSED = auto()  # nothing is read any more

    # Enum hashes by name, in Python, on each look-up; members are singletons.
    __hash__ = object.__hash__


class Verb(Enum):
    """
    The commands that move the state.
    """

    LHLO = auto()
    MAIL = auto()
    RCPT = auto()
    DATA = auto()
    BDAT = auto()
    RSET = auto()

    __hash__ = object.__hash__


S, V = State, Verb

TRANSITIONS: Mapping[State, Mapping[Verb, State]] = {
    S.NEW: {V.LHLO: S.READY, V.RSET: S.NEW},
    S.READY: {V.LHLO: S.READY, V.RSET: S.READY, V.MAIL: S.SENDER},
    S.SENDER: {V.LHLO: S.READY, V.RSET: S.READY, V.RCPT: S.RECIPIENTS},
    S.RECIPIENTS: {
        V.LHLO: S.READY,
        V.RSET: S.READY,
        V.RCPT: S.RECIPIENTS,
        V.DATA: S.TEXT,  # only here: RFC 2033 §4.2 wants one good RCPT
        V.BDAT: S.CHUNKS,
    },
    S.TEXT: {},
    # RFC 3030 §2: no DATA behind BDAT, and only LAST or a reset ends it.
    S.CHUNKS: {V.LHLO: S.READY, V.RSET: S.READY, V.BDAT: S.CHUNKS},
    S.REFUSED: {V.LHLO: S.READY, V.RSET: S.READY},
    S.DELIVERING: {},
    S.CLOSED: {},
}

# Why a step is missing, where there is more to say than "bad sequence".
_REASONS: Mapping[tuple[State, Verb], Reply] = {
    (S.NEW, V.MAIL): replies.LHLO_FIRST,
    (S.NEW, V.RCPT): replies.LHLO_FIRST,
    (S.NEW, V.DATA): replies.LHLO_FIRST,
    (S.NEW, V.BDAT): replies.LHLO_FIRST,
    (S.READY, V.RCPT): replies.MAIL_FIRST,
    (S.READY, V.DATA): replies.MAIL_FIRST,
    (S.READY, V.BDAT): replies.MAIL_FIRST,
    (S.SENDER, V.DATA): replies.NO_RECIPIENTS,
    (S.SENDER, V.BDAT): replies.NO_RECIPIENTS,
    (S.SENDER, V.MAIL): replies.NESTED_MAIL,
    (S.RECIPIENTS, V.MAIL): replies.NESTED_MAIL,
    (S.CHUNKS, V.MAIL): replies.NESTED_MAIL,
    (S.CHUNKS, V.RCPT): replies.CHUNKS_BEGUN,
    (S.CHUNKS, V.DATA): replies.CHUNKS_BEGUN,
    (S.REFUSED, V.MAIL): replies.CHUNK_REFUSED,
    (S.REFUSED, V.RCPT): replies.CHUNK_REFUSED,
    (S.REFUSED, V.DATA): replies.CHUNK_REFUSED,
    (S.REFUSED, V.BDAT): replies.CHUNK_REFUSED,
}


def advance(state: State, verb: Verb) -> State:
    """
    Return the state behind *verb* in *state*.

    Raises:
        CommandError: It may not come now (RFC 5321 §4.1.4: 503).
    """
    after = TRANSITIONS[state].get(verb)
    if after is None:
        raise CommandError(_REASONS.get((state, verb), replies.BAD_SEQUENCE))
    return after
