"""
Patterns of addresses, and what each stands for.

There are three, the most exact first: ``ann@example.org``, ``example.org``, and ``*.example.org``
for every domain below that one; of two of these the longer is the more exact.  Case does not
matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Generic, TypeVar
from unicodedata import normalize

from ..domains import with_ascii_domain
from ..envelope import Mailbox

T = TypeVar("T")

_label = r"[\w-]+"
_is_domain = re.compile(rf"{_label}(?:\.{_label})*|\[[^\[\]\s]+\]").fullmatch


def fold(pattern: str) -> str:
    """
    A *pattern* in the one spelling in which it is compared.

    Raises:
        ValueError: It is none.
    """
    folded = _folded(pattern)
    local, at, domain = folded.rpartition("@")
    if at and local in {"", "*"}:
        raise ValueError(f"for the whole domain, write {domain!r} and not {pattern!r}")
    if not at:
        domain = domain.removeprefix("*.")
    if _is_domain(domain) is None or not local.isprintable() or (local and local[0] == '"'):
        raise ValueError(
            f"{pattern!r} is no pattern; write ann@example.org, example.org or *.example.org"
        )
    return folded


class Patterns(Generic[T]):
    """
    What the first of *pairs*, each a pattern and what it stands for, says about a mailbox.

    *delimiter* is what stands between user and detail: ``ann+lists@example.org`` is more exact than
    ``ann@example.org``, which means her mail with any detail.

    Raises:
        ValueError: A pattern is none, or there twice.
    """

    def __init__(self, pairs: Iterable[tuple[str, T]], delimiter: str = "+") -> None:
        self._delimiter = delimiter
        self._values: dict[str, T] = {}
        for pattern, value in pairs:
            if self._values.setdefault(fold(pattern), value) is not value:
                raise ValueError(f"{pattern!r} stands in two routes")
        self._has_suffixes = any(pattern.startswith("*.") for pattern in self._values)

    def values(self) -> Iterable[T]:
        """
        All that the patterns stand for.
        """
        return self._values.values()

    def of_address(self, mailbox: Mailbox) -> T | None:
        """
        What is said about exactly this address.
        """
        if not self._values:
            return None
        user, domain = mailbox.user, mailbox.domain
        found = None
        if mailbox.detail and self._delimiter:
            found = self._find(f"{user}{self._delimiter}{mailbox.detail}@{domain}")
        return self._find(f"{user}@{domain}") if found is None else found

    def of_domain(self, mailbox: Mailbox) -> T | None:
        """
        What is said about its domain, or about one that this is below of.
        """
        if not self._values:
            return None
        found = self._find(mailbox.domain)
        rest = mailbox.domain
        while found is None and self._has_suffixes and rest:
            _, _, rest = rest.partition(".")
            found = self._find(f"*.{rest}")
        return found

    def _find(self, key: str) -> T | None:
        return self._values.get(_folded(key))


def _folded(text: str) -> str:
    """
    One spelling for an address, domain or pattern, an internationalised domain as DNS has it.
    """
    text = text.lower()
    if text.isascii():
        return text
    before, dot, domain = text.rpartition("*.")
    return normalize("NFC", before + dot + with_ascii_domain(domain))
