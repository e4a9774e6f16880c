"""
What is refused as long as a client has not met the terms of the listener that it came to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from .. import replies
from ..wire.commands import CommandError
from .connection import Terms
from .extensions import VerbAction

if TYPE_CHECKING:
    from .server import ServerSession

#: RFC 3207 §4: what may be said in the clear where encryption is required.  Of the others, HELO and
#: EHLO say what is wrong with them, and BDAT takes its octets from the wire before it is refused
#: for want of a MAIL.
_IN_CLEAR: Final = frozenset({b"LHLO", b"STARTTLS", b"NOOP", b"QUIT", b"HELO", b"EHLO", b"BDAT"})

#: What is for those who have logged in, where that is required: mail, and who lives here.
_FOR_KNOWN: Final = frozenset({b"MAIL", b"VRFY", b"EXPN"})


def under_terms(actions: Mapping[bytes, VerbAction], terms: Terms) -> Mapping[bytes, VerbAction]:
    """
    What carries out each verb on a connection with *terms*, if *actions* do without them.
    """
    if terms.login_required:
        actions = {
            verb: _if_known(verb, action) if verb in _FOR_KNOWN else action
            for verb, action in actions.items()
        }
    if terms.tls_required:
        actions = {
            verb: action if verb in _IN_CLEAR else _if_encrypted(verb, action)
            for verb, action in actions.items()
        }
    return actions


def _if_known(verb: bytes, action: VerbAction) -> VerbAction:
    def known(session: ServerSession, argument: bytes) -> None:
        if not session.client.login:
            if verb == b"MAIL":
                session.expect_text()
            raise CommandError(replies.LOGIN_REQUIRED)
        action(session, argument)

    return known


def _if_encrypted(verb: bytes, action: VerbAction) -> VerbAction:
    def encrypted(session: ServerSession, argument: bytes) -> None:
        if not session.connection.tls:
            if verb == b"MAIL":
                session.expect_text()
            raise CommandError(replies.TLS_REQUIRED)
        action(session, argument)

    return encrypted
