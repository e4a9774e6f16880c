"""
HELP: the verbs that are there (RFC 5321 §4.1.1.8).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .. import replies
from ..replies import MultilineReply
from ..wire.commands import CommandError

#: The verbs of the session itself, each with what stands behind it.
SYNTAX: Final[Mapping[bytes, str]] = {
    b"LHLO": "domain",
    b"MAIL": "FROM:<address> [parameters]",
    b"RCPT": "TO:<address> [parameters]",
    b"DATA": "",
    b"RSET": "",
    b"NOOP": "",
    b"VRFY": "address [SMTPUTF8]",
    b"HELP": "[verb]",
    b"QUIT": "",
}

_OF_REPLIES: Final = "After the text comes one reply for each accepted recipient, in their order"


def help_on(argument: bytes, more: Mapping[bytes, str]) -> MultilineReply:
    """
    The answer to ``HELP``, or to ``HELP verb``, where extensions have *more* verbs.

    Raises:
        CommandError: 504: no such verb.
    """
    known = {**SYNTAX, **more}
    if argument:
        verb = argument.upper()
        if verb not in known:
            raise CommandError(replies.NO_SUCH_TOPIC)
        said = f"Syntax: {verb.decode('ascii')} {known[verb]}".rstrip()
        return MultilineReply(214, (said,), (0, 0))
    verbs = " ".join(verb.decode("ascii") for verb in known)
    return MultilineReply(214, (f"LMTP, RFC 2033: {verbs}", _OF_REPLIES), (0, 0))
