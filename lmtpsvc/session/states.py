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
    TEXT = auto()  # 354 sent; what comes is message text
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
    },
    S.TEXT: {},
    S.DELIVERING: {},
    S.CLOSED: {},
}

# Why a step is missing, where there is more to say than "bad sequence".
_REASONS: Mapping[tuple[State, Verb], Reply] = {
    (S.NEW, V.MAIL): replies.LHLO_FIRST,
    (S.NEW, V.RCPT): replies.LHLO_FIRST,
    (S.NEW, V.DATA): replies.LHLO_FIRST,
    (S.READY, V.RCPT): replies.MAIL_FIRST,
    (S.READY, V.DATA): replies.MAIL_FIRST,
    (S.SENDER, V.DATA): replies.NO_RECIPIENTS,
    (S.SENDER, V.MAIL): replies.NESTED_MAIL,
    (S.RECIPIENTS, V.MAIL): replies.NESTED_MAIL,
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
