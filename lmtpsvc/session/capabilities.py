"""
What a server has announced after LHLO or EHLO (RFC 5321 §4.1.1.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from attrs import field, frozen

from ..wire.heard_replies import HeardReply

_NOTHING: Mapping[str, tuple[str, ...]] = MappingProxyType({})


@frozen
class Capabilities:
    """
    What the server calls itself, and its extensions: parameters by keyword, in upper case.
    """

    name: str = ""
    extensions: Mapping[str, tuple[str, ...]] = field(default=_NOTHING)

    def __contains__(self, keyword: object) -> bool:
        return keyword in self.extensions

    def parameters(self, keyword: str) -> tuple[str, ...]:
        """
        What stands behind *keyword*, in upper case; empty if it was not announced.
        """
        return self.extensions.get(keyword, ())

    @property
    def size(self) -> int | None:
        """
        Octets of the largest message (RFC 1870), None if there is no limit, or none is told.
        """
        match self.parameters("SIZE"):
            case (digits, *_) if digits.isascii() and digits.isdigit() and len(digits) <= 20:
                return int(digits) or None
        return None


def read_capabilities(reply: HeardReply) -> Capabilities:
    """
    Read the answer to LHLO.  What makes no sense is left out.
    """
    name = reply.lines[0].split(" ")[0]
    extensions: dict[str, tuple[str, ...]] = {}
    for line in reply.lines[1:]:
        keyword, *parameters = line.upper().split()[:64] or [""]
        # What servers said before RFC 2554, and some say besides: AUTH=LOGIN.
        if keyword.startswith("AUTH="):
            keyword, parameters = "AUTH", [keyword[5:], *parameters]
        if keyword:
            extensions[keyword] = (*extensions.get(keyword, ()), *parameters)
    return Capabilities(name, MappingProxyType(extensions))
