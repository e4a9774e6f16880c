"""
Verbs of old: what RFC 821 and early ESMTP had, and what we say to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from .. import replies
from ..replies import Reply
from ..wire.commands import CommandError
from .extensions import VerbAction

if TYPE_CHECKING:
    from .server import ServerSession


def _never(reply: Reply) -> VerbAction:
    def refuse(_session: ServerSession, _argument: bytes) -> None:
        raise CommandError(reply)

    return refuse


def _verb(session: ServerSession, _argument: bytes) -> None:
    session.reply(replies.NOTHING_MORE_TO_SAY)


def _onex(session: ServerSession, _argument: bytes) -> None:
    session.reply(replies.AS_MANY_AS_YOU_LIKE)


#: Those that are carried out, as far as there is anything to do.  Sendmail had them: VERB asks for
#: more words, ONEX says that there will be one transaction only.
HARMLESS_VERBS: Final[Mapping[bytes, VerbAction]] = {b"VERB": _verb, b"ONEX": _onex}

#: Those that are known and refused.
REFUSED_VERBS: Final[Mapping[bytes, VerbAction]] = {
    b"EXPN": _never(replies.NOT_IMPLEMENTED),
    # RFC 821 §3.4; RFC 5321 §F.6 has them no more.
    b"SEND": _never(replies.NO_TERMINALS),
    b"SOML": _never(replies.NO_TERMINALS),
    b"SAML": _never(replies.NO_TERMINALS),
    # RFC 5321 §F.1: nobody may take another's mail by turning round.  RFC 1985 and RFC 2645 are the
    # better ways, but for somebody with a queue.
    b"TURN": _never(replies.NO_QUEUE),
    b"ETRN": _never(replies.NO_QUEUE),
    b"ATRN": _never(replies.NO_QUEUE),
}
