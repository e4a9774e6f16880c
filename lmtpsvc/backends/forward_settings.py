"""
What the operator has chosen for a forward backend, and how it is read from words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from attrs import field, frozen

from ..client import TLS, Dialect, Encryption, Login
from ..outgoing.destination import destination
from ..quantities import count, seconds
from .forward_factory import SYNOPSIS
from .words import choice, quantity

#: What may stand in a destination: what the directory says, and the domain of the recipient.
FIELDS: Final = ("node", "domain")

field_in = re.compile(r"\{([^{}]*)\}")

DIALECTS: Final = {"lmtp": Dialect.LMTP, "smtp": Dialect.SMTP}
TLS_WORDS: Final = {each.value: each for each in TLS}
_SWITCH: Final = {"yes": True, "no": False}


@frozen
class ForwardSettings:
    """
    Where mail goes, and how.
    """

    #: With fields in it, perhaps.
    destination: str
    dialect: Dialect = Dialect.LMTP
    tls: TLS = TLS.NONE
    encryption: Encryption = field(factory=Encryption)
    login: Login | None = None
    #: To one destination, at most.
    connections: int = 10
    #: Seconds before a destination that could not be reached is tried again.
    retry: float = 10.0
    #: Go where a node says that a recipient's mail is to go.
    referrals: bool = True
    #: Say who our client is, where the node lets us.
    xclient: bool = True
    #: Let nodes that share their storage share one copy.
    maildata: bool = False
    #: All nodes take BINARYMIME (RFC 3030), so that clients may send it here.
    binary: bool = False

    @property
    def has_fields(self) -> bool:
        """
        The destination is not the same for all.
        """
        return field_in.search(self.destination) is not None


def from_words(
    reactor: object, words: Sequence[str], options: Mapping[str, str]
) -> ForwardSettings:
    """
    Read the words of the command line; the colons of a destination need no backslash.

    Raises:
        ValueError: With one line that says what is wrong.
    """
    if not words:
        raise ValueError(f"expected {SYNOPSIS}")
    where = ":".join(words)
    left = dict(options)
    settings = ForwardSettings(
        where,
        choice(left, "protocol", "lmtp", DIALECTS),
        choice(left, "tls", "none", TLS_WORDS),
        Encryption(left.pop("name", ""), left.pop("ca", None), left.pop("certificate", None)),
        login_of(left.pop("login", None), left.pop("password_file", None)),
        quantity(left, "connections", "10", count),
        quantity(left, "retry", "10s", seconds),
        choice(left, "referrals", "yes", _SWITCH),
        choice(left, "xclient", "yes", _SWITCH),
        choice(left, "maildata", "no", _SWITCH),
        choice(left, "binary", "no", _SWITCH),
    )
    if left:
        raise ValueError(f"{min(left)}: no such option; expected {SYNOPSIS}")
    for name in field_in.findall(where):
        if name not in FIELDS:
            known = ", ".join("{%s}" % each for each in FIELDS)
            raise ValueError(f"{where}: {{{name}}} is not a field; the fields are {known}")
    found = destination(reactor, field_in.sub("node.example", where))
    if settings.tls is TLS.MUST and not settings.has_fields:
        settings.encryption.named(found.host).options(settings.tls)
    return settings


def login_of(user: str | None, password_file: str | None) -> Login | None:
    """
    Who to log in as, with the password in the first line of a file.

    Raises:
        ValueError: One is there without the other, or the file cannot be read.
    """
    if user is None and password_file is None:
        return None
    if user is None or password_file is None:
        raise ValueError("login and password_file go together")
    try:
        with open(password_file, encoding="utf-8") as file:
            password = file.readline().rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"password_file: {password_file}: {error}") from error
    return Login(user, password)
