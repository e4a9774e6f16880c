"""
What a directory may know about a mailbox, beside its name: words of a file, or columns of a table.

========================================  ==========================================================
``home``                                  an absolute path
``uid``, ``gid``                          whose the files are; never root
``quota``                                 ``1G``, or ``1G,10000`` for messages too; 0 is no limit
``quota_octets``, ``quota_messages``      the same, as two numbers
``backend``                               the name of the backend that the mailbox is in
``since``, ``domain_since``               when its owner got the mailbox, or its domain's the domain
``node``                                  the host that the mailbox is on, for ``forward:``
``x_...``                                 handed on as it is, for a backend of your own
========================================  ==========================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Final

from attrs import evolve, field, frozen

from .. import ownership, quota
from ..envelope import NO_PARAMETERS, Mailbox

_is_own = re.compile(r"x_[a-z0-9_]+", re.ASCII).fullmatch
_is_backend = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII).fullmatch
_is_node = re.compile(r"[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]", re.ASCII).fullmatch
_is_id = re.compile(r"[1-9][0-9]{0,9}", re.ASCII).fullmatch

#: Behind it is -1, as the kernel sees it.
_LAST_ID: Final = 2**32 - 2


@frozen
class Knowledge:
    """
    What is known; all of it may be nothing.
    """

    home: str | None = None
    uid: int | None = None
    gid: int | None = None
    attributes: Mapping[str, str] = field(default=NO_PARAMETERS, hash=False)

    def __bool__(self) -> bool:
        return self != NOTHING

    def about(self, mailbox: Mailbox) -> Mailbox:
        """
        *mailbox*, with it.
        """
        if not self:
            return mailbox
        return evolve(
            mailbox, home=self.home, uid=self.uid, gid=self.gid, attributes=self.attributes
        )


NOTHING: Final = Knowledge()


def known_from(words: Mapping[str, str]) -> Knowledge:
    """
    Read names and values.

    Raises:
        ValueError: One is wrong, or unknown; the text says which.
    """
    if "quota" in words and {quota.OCTETS, quota.MESSAGES} & set(words):
        raise ValueError(f"quota says what {quota.OCTETS} and {quota.MESSAGES} say")
    if "uid" in words and "gid" not in words:
        raise ValueError("uid needs gid")
    attributes: dict[str, str] = {}
    for name, value in words.items():
        if name == "quota":
            attributes.update(quota.parse(value).attributes())
        elif _is_own(name):
            attributes[name] = value
        elif name in _READ:
            try:
                attributes[name] = _READ[name](value)
            except ValueError as error:
                raise ValueError(f"{name}={value}: expected {error}") from None
        else:
            raise ValueError(_unknown(name))
    home, uid, gid = (attributes.pop(name, None) for name in ("home", "uid", "gid"))
    return Knowledge(
        home,
        None if uid is None else int(uid),
        None if gid is None else int(gid),
        MappingProxyType(attributes) if attributes else NO_PARAMETERS,
    )


def _home(value: str) -> str:
    if not value.startswith("/") or "\0" in value:
        raise ValueError("an absolute path")
    return value


def _id(value: str) -> str:
    # Mail that is stored as root, with what a column says that was left at 0: rather not.  Nor with
    # -1 as an unsigned number: to setreuid(2) and chown(2) it means "as it is", and that is root.
    if _is_id(value) is None or int(value) > _LAST_ID:
        raise ValueError(f"a number from 1 to {_LAST_ID}")
    return value


def _octets(value: str) -> str:
    try:
        return str(quota.parse(f"{value},0").octets)
    except ValueError:
        raise ValueError("a number of octets such as 100M, or 0") from None


def _messages(value: str) -> str:
    try:
        return str(quota.parse(f"0,{value}").messages)
    except ValueError:
        raise ValueError("a number such as 10000, or 0") from None


def _backend(value: str) -> str:
    if _is_backend(value) is None:
        raise ValueError("a name")
    return value


def _moment(value: str) -> str:
    try:
        return ownership.moment(value).isoformat()
    except ValueError:
        raise ValueError("a date such as 2024-05-01, or 20240501T120000Z") from None


def _node(value: str) -> str:
    if _is_node(value) is None:
        raise ValueError("the name or address of a host")
    return value


#: How each is read; what they raise says what was expected.
_READ: Final[Mapping[str, Callable[[str], str]]] = {
    "home": _home,
    "uid": _id,
    "gid": _id,
    quota.OCTETS: _octets,
    quota.MESSAGES: _messages,
    "backend": _backend,
    ownership.SINCE: _moment,
    ownership.DOMAIN_SINCE: _moment,
    "node": _node,
}

#: All names but those of your own.
NAMES: Final = ("quota", *_READ)


def _unknown(name: str) -> str:
    close = get_close_matches(name, NAMES, 1)
    question = f"did you mean {close[0]}?" if close else f"expected {', '.join(NAMES)} or x_..."
    return f"{name} is not known here: {question}"


def is_own(name: str) -> bool:
    """
    Whether *name* is one for a backend of your own.
    """
    return _is_own(name) is not None
