"""
ResponseCode: what a reply tells a program, beside the text for people.

In the manner of IMAP (RFC 3501 §7.1) it stands in brackets in front of the text:
``450 4.4.4 [REFERRAL lmtp://node2.example.org/] Redirected``.  Clients hear of them only if they have
asked, see `lmtpsvc.session.response_codes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from attrs import frozen

_name = re.compile(r"[A-Z][A-Z0-9-]*").fullmatch
# What needs no quotes, and what can stand in quotes.
_plain = re.compile(r"[!#-Z^-~]+").fullmatch
_quotable = re.compile(r"[ -~]*").fullmatch
_code = re.compile(
    r'\[([A-Z][A-Z0-9-]*)(?: (?:([!#-Z^-~]+)|"((?:[^"\\]|\\["\\])*)"))?\](?: |$)'
).match

#: The mail is to be sent to the URL that is its value, instead (cf. RFC 2221).
REFERRAL = "REFERRAL"
#: Its value lets another node of the same storage link the copy that has just been stored.
MAILDATA = "MAILDATA"


@frozen
class ResponseCode:
    """
    *name* in upper case, and a *value*, which may be empty: any printable ASCII.

    Raises:
        ValueError: One of the two cannot stand in a reply.
    """

    name: str
    value: str = ""

    def __attrs_post_init__(self) -> None:
        if _name(self.name) is None:
            raise ValueError(f"not the name of a response code: {self.name!r}")
        if _quotable(self.value) is None:
            raise ValueError(f"not printable ASCII: {self.value!r}")

    def __str__(self) -> str:
        """
        The code with its brackets, quoted where it must be: nothing in the value ends it early.
        """
        value = self.value
        if not value:
            return f"[{self.name}]"
        if _plain(value) is None:
            value = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return f"[{self.name} {value}]"


#: What a delivery may end with: nothing to tell, or codes for its reply.
Codes = Sequence[ResponseCode] | None


def write(codes: Iterable[ResponseCode], text: str, most: int) -> str:
    """
    Put *codes* in front of *text*; an address in angle brackets stays the first word.  What would
    make it longer than *most* characters is left out: no code is worth a reply that cannot be sent.
    """
    first, space, rest = text.partition(" ") if text.startswith("<") else ("", "", text)
    words = [first] if first else []
    length = len(text)
    for code in codes:
        word = str(code)
        if length + 1 + len(word) <= most:
            length += 1 + len(word)
            words.append(word)
    return " ".join([*words, rest] if rest or not space else words)


def read(text: str) -> tuple[tuple[ResponseCode, ...], str]:
    """
    The codes in the *text* of a reply, and the text without them.  What is no code is text.
    """
    first, space, rest = text.partition(" ") if text.startswith("<") else ("", "", text)
    codes = []
    while (found := _code(rest)) is not None:
        name, plain, quoted = found.groups()
        value = plain or re.sub(r"\\(.)", r"\1", quoted or "")
        codes.append(ResponseCode(name, value))
        rest = rest[found.end() :]
    return tuple(codes), f"{first}{space}{rest}"
