"""
What a database's error means: for whom, and in which words.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from attrs import frozen
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ...errors import DeliveryError, refusal
from ...replies import (
    CANNOT_STORE,
    MAILBOX_UNAVAILABLE,
    NO_SPACE,
    STORE_UNREACHABLE,
    TOO_LARGE,
    Reply,
)


class Means(Enum):
    """
    What to do about it.
    """

    #: The same may work at once: a deadlock that was ended for us.
    AGAIN = auto()
    #: It may be the fault of a single delivery.
    SOMEBODY = auto()
    #: It is the same for all; trying each would only take longer.
    ALL = auto()


@frozen
class Judgement:
    """
    *reply* is what those get whom it concerns.
    """

    means: Means
    reply: Reply = CANNOT_STORE

    @property
    def refusal(self) -> DeliveryError:
        """
        As an exception.
        """
        return refusal(self.reply)


_AGAIN: Final = Judgement(Means.AGAIN, MAILBOX_UNAVAILABLE)
_LOCKED: Final = Judgement(Means.SOMEBODY, MAILBOX_UNAVAILABLE)
_FULL: Final = Judgement(Means.SOMEBODY, NO_SPACE)
_LARGE: Final = Judgement(Means.SOMEBODY, TOO_LARGE)
_ODD: Final = Judgement(Means.SOMEBODY)
_BROKEN: Final = Judgement(Means.ALL)
UNREACHABLE: Final = Judgement(Means.ALL, STORE_UNREACHABLE)

# https://www.postgresql.org/docs/current/errcodes-appendix.html, the whole code or its class.
_POSTGRESQL: Final = {
    "40": _AGAIN,  # deadlock, serialization
    "23503": _AGAIN,  # what we referred to was removed meanwhile
    "55P03": _LOCKED,  # lock_timeout
    "53100": _FULL,
    "54": _LARGE,
    "28": _BROKEN,  # authentication
    "3D": _BROKEN,  # no such database
    "42": _BROKEN,  # no such table, no right to it
    "57014": _BROKEN,  # statement_timeout
    "08": UNREACHABLE,
    "57P": UNREACHABLE,  # it stops, or starts
    "25006": UNREACHABLE,  # a standby: our connection is to the wrong one
    "53300": UNREACHABLE,
}

# https://mariadb.com/kb/en/mariadb-error-codes/
_MARIADB: Final = {
    1213: _AGAIN,
    1020: _AGAIN,
    1452: _AGAIN,
    1205: _LOCKED,
    1021: _FULL,
    1114: _FULL,
    1153: _LARGE,
    1044: _BROKEN,  # access denied, here and in the next three
    1045: _BROKEN,
    1142: _BROKEN,
    1143: _BROKEN,
    1054: _BROKEN,  # no such column, no such table
    1146: _BROKEN,
    1969: _BROKEN,  # max_statement_time
    1053: UNREACHABLE,
    1040: UNREACHABLE,
    1290: UNREACHABLE,
    2002: UNREACHABLE,
    2003: UNREACHABLE,
    2006: UNREACHABLE,
    2013: UNREACHABLE,
}

# https://www.sqlite.org/rescode.html, the primary code.
_SQLITE: Final = {
    5: Judgement(Means.ALL, MAILBOX_UNAVAILABLE),  # SQLITE_BUSY, for all of busy_timeout
    6: Judgement(Means.ALL, MAILBOX_UNAVAILABLE),
    8: _BROKEN,  # read-only
    10: _BROKEN,  # I/O error
    11: _BROKEN,  # corrupt
    14: _BROKEN,  # cannot open
    26: _BROKEN,  # not a database
    13: _FULL,
    18: _LARGE,
}


def judge(error: Exception) -> Judgement:
    """
    What *error* means; log it yourself.
    """
    if not isinstance(error, SQLAlchemyError):
        return _ODD
    if not isinstance(error, DBAPIError):
        # The pool's time was up, among others.
        return _BROKEN
    cause = error.orig
    if error.connection_invalidated:
        return UNREACHABLE
    if (code := getattr(cause, "sqlite_errorcode", None)) is not None:
        return _SQLITE.get(code & 0xFF, _ODD)
    # Before the next: new versions of PyMySQL know a sqlstate, too, but hardly ever say which.
    if cause is not None and cause.args and isinstance(cause.args[0], int):
        return _MARIADB.get(cause.args[0], _ODD)
    if (state := getattr(cause, "sqlstate", None)) is not None:
        for length in (5, 3, 2):
            if state[:length] in _POSTGRESQL:
                return _POSTGRESQL[state[:length]]
        return _ODD
    return _BROKEN


def in_words(error: Exception) -> str:
    """
    One line for the log, without the statement and its values: those are people's mail.
    """
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return " ".join(f"{type(cause).__name__}: {cause}".split())
