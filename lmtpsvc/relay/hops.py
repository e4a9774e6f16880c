"""
From words to a server that mail is passed on to: ``lmtp:unix:/run/lmtp.sock``,
``smtp.example.net:587:login=me:password_file=/etc/relay.password``.
"""

from __future__ import annotations

from typing import Any, Final

from ..backends.forward_settings import DIALECTS, TLS_WORDS, login_of
from ..backends.words import choice
from ..client import TLS, Dialect, Encryption
from ..outgoing.destination import destination
from ..specs import parse
from .routes import Hop

SYNOPSIS: Final = (
    "[lmtp:|smtp:]DESTINATION[:tls=none|may|encrypt|must][:name=HOST][:ca=FILE][:certificate=FILE]"
    "[:login=USER:password_file=FILE]"
)

SMTP_PORT: Final = 25
_OF_TLS: Final = {"name", "ca", "certificate"}


def hops(reactor: Any, words: str) -> tuple[Hop, ...]:
    """
    The servers that *words* name, with commas between, in the order in which they are tried.

    Raises:
        ValueError: With one line that says what is wrong.
    """
    return tuple([hop(reactor, each.strip()) for each in words.split(",")])


def hop(reactor: Any, words: str) -> Hop:
    """
    One server.  It is spoken to with SMTP unless they say ``lmtp:`` in front; the port of SMTP may
    be left out.  SMTP is encrypted if the server can, LMTP is not, and a password is shown to nobody
    but the server that it is for, unless ``tls=`` says otherwise.

    Raises:
        ValueError: With one line that says what is wrong.
    """
    spec = parse(words)
    parts, left = [spec.name, *spec.words], dict(spec.options)
    dialect = DIALECTS[parts.pop(0)] if spec.name in DIALECTS else Dialect.SMTP
    where = ":".join(parts)
    if dialect is Dialect.SMTP and len(parts) == 1 and where and where[0] not in "/[":
        where = f"{where}:{SMTP_PORT}"
    login = login_of(left.pop("login", None), left.pop("password_file", None))
    usual = "must" if login is not None else "may" if dialect is Dialect.SMTP else "none"
    tls = choice(left, "tls", usual, TLS_WORDS)
    name, authorities = left.pop("name", ""), left.pop("ca", None)
    encryption = Encryption(name, authorities, left.pop("certificate", None))
    if left:
        raise ValueError(f"{words}: {min(left)}: no such option; expected {SYNOPSIS}")
    found = destination(reactor, where)
    if tls is TLS.MUST:
        encryption.named(found.host).options(tls)
    return Hop(where, dialect, tls, encryption if spec.options.keys() & _OF_TLS else None, login)
