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

_ABOUT: Final = (
    "LMTP, RFC 2033",
    "After the text comes one reply for each accepted recipient, in their order",
)

#: The same in SMTP.
SMTP_SYNTAX: Final[Mapping[bytes, str]] = {
    b"EHLO": "domain",
    b"HELO": "domain",
    **{verb: words for verb, words in SYNTAX.items() if verb != b"LHLO"},
}
ABOUT_SMTP: Final = ("SMTP, RFC 5321", "After the text comes one reply for all recipients")


def help_on(
    argument: bytes,
    more: Mapping[bytes, str],
    own: Mapping[bytes, str] = SYNTAX,
    about: tuple[str, str] = _ABOUT,
) -> MultilineReply:
    """
    The answer to ``HELP``, or to ``HELP verb``, where the session has its *own* verbs, and extensions
    have *more*.

    Raises:
        CommandError: 504: no such verb.
    """
    known = {**own, **more}
    if argument:
        verb = argument.upper()
        if verb not in known:
            raise CommandError(replies.NO_SUCH_TOPIC)
        said = f"Syntax: {verb.decode('ascii')} {known[verb]}".rstrip()
        return MultilineReply(214, (said,), (0, 0))
    verbs = " ".join(verb.decode("ascii") for verb in known)
    return MultilineReply(214, (f"{about[0]}: {verbs}", about[1]), (0, 0))
