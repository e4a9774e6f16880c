"""
CHUNKING: the text in pieces, each behind a BDAT that says how long it is (RFC 3030 §2); and
BINARYMIME: a text without lines, of which no octet may change (RFC 3030 §3).

What stands behind a BDAT is never run as a command, whatever becomes of the BDAT: exactly as many
octets as it says are taken, and then it is answered.  Where it does not say how many, the
connection ends, since nobody can tell text from commands any more.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from .. import replies
from ..replies import Reply
from ..wire.commands import CommandError
from .extensions import Extension
from .states import State

if TYPE_CHECKING:
    from .server import ServerSession

# A size has as many digits as RFC 1870 allows for that of a message.
_parts = re.compile(rb"([0-9]{1,20})(?:[ \t]+(.+))?").fullmatch


class Chunking(Extension):
    """
    RFC 3030 §2, with the replies of RFC 2033 §4.3: one to each BDAT, and to the LAST one for each
    accepted recipient; if there is none, none.
    """

    keyword = "CHUNKING"
    barriers = frozenset({b"BDAT"})

    def __init__(self) -> None:
        self.verbs = {b"BDAT": self._bdat}
        self.syntax = {b"BDAT": "size [LAST]"}

    def _bdat(self, session: ServerSession, argument: bytes) -> None:
        parts = _parts(argument)
        if parts is None:
            session.end(replies.UNREADABLE_BDAT)
            return
        size, word = int(parts[1]), parts[2]
        is_last = word is not None and word.upper() == b"LAST"
        try:
            if word is not None and not is_last:
                raise CommandError(replies.BAD_BDAT)
            session.begin_chunk(size)
        except CommandError as error:
            # RFC 3030 §2: the octets are taken, and then the refusal is told.
            refused = partial(_refused, session, error.reply, is_last=is_last)
            session.take_octets(size, refused, as_text=False)
        else:
            taken = session.end_text if is_last else partial(_taken, session, size)
            session.take_octets(size, taken, as_text=True)


def _taken(session: ServerSession, size: int) -> None:
    session.reply(replies.chunk_received(size))


def _refused(session: ServerSession, reply: Reply, *, is_last: bool) -> None:
    """
    Tell *reply*, behind the octets of the chunk.
    """
    if is_last and session.has_said_mail:
        session.end_failed_text(reply)
    elif session.state in _OUTSIDE:
        session.refuse(reply)
    elif session.state is State.REFUSED:
        # It was in the pipeline already when the client heard of the failure: no error of its own.
        session.reply(reply)
    else:
        session.fail_text(reply)


#: There is no transaction that could fail.
_OUTSIDE = (State.NEW, State.READY)


class BinaryMime(Extension):
    """
    RFC 3030 §3, where all backends store what they get unchanged.  The value of BODY that it adds
    is taken by `lmtpsvc.session.standard.EightBitMime`, whose parameter it is.
    """

    keyword = "BINARYMIME"
