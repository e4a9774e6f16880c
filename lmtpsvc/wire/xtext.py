"""
The encodings in which an address or a text may stand in a parameter: xtext (RFC 3461 §4), and that
of an original recipient in UTF-8 (RFC 6533 §3).
"""

from __future__ import annotations

import re
from typing import Final

_match_xtext = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*").fullmatch
_hexchar = re.compile(r"\+([0-9A-F]{2})")

# RFC 6533 §3: QUCHAR has neither "+", "=" nor the backslash; EmbeddedUnicodeChar begins with one.
# Of HEXPOINT's forms, this takes all, and a few that nobody needs; what must not be is looked at.
_match_utf8 = re.compile(r"(?:[^\x00- +=\\\x7f]|\\x\{(?:10|[1-9A-F])?[0-9A-F]{1,4}\})*").fullmatch
_embedded = re.compile(r"\\x\{([0-9A-F]{1,6})\}")
_to_embed = re.compile(r"[^!-*,-<>-\[\]-~]")

_SURROGATES: Final = range(0xD800, 0xE000)
_BEYOND_UNICODE: Final = 0x110000


def decode_xtext(said: str) -> str:
    """
    What *said* means: a text of one character per octet (RFC 3461 §4).

    Raises:
        ValueError: It is no xtext.
    """
    if _match_xtext(said) is None:
        raise ValueError(f"not xtext: {said!r}")
    return _hexchar.sub(lambda match: chr(int(match[1], 16)), said) if "+" in said else said


def decode_utf8_address(said: str) -> str:
    r"""
    What *said*, a ``utf-8-enc-addr``, means: ``J\x{F6}rg@example.org`` is ``Jörg@example.org``
    (RFC 6533 §3).

    Raises:
        ValueError: It is none.
    """
    if _match_utf8(said) is None:
        raise ValueError(f"not an address of RFC 6533: {said!r}")
    return _embedded.sub(_embedded_character, said) if "\\" in said else said


def encode_utf8_address(address: str) -> str:
    r"""
    *address* in ASCII, as ``utf-8-addr-xtext``: ``J\x{F6}rg@example.org`` (RFC 6533 §3).
    """
    return _to_embed.sub(lambda match: f"\\x{{{ord(match[0]):02X}}}", address)


def _embedded_character(match: re.Match[str]) -> str:
    point = int(match[1], 16)
    if point in _SURROGATES or point >= _BEYOND_UNICODE:
        raise ValueError(f"not a character: {match[0]}")
    return chr(point)
