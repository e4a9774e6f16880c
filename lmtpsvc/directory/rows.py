"""
Rows of a table become mailboxes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from attrs import evolve

from ..domains import ascii_domain
from ..envelope import Mailbox
from .knowledge import NAMES, is_own, known_from

Row = Mapping[str, Any]

_control = re.compile(r"[\x00-\x1f\x7f-\x9f]").search


class NoAnswer(Exception):
    """
    A database did not answer, or not what it should; the text is for the log.
    """


#: Columns that say who it is; ``address`` is user and domain in one.
WHO: Final = ("address", "user", "domain", "detail")


def mailboxes_from(rows: Sequence[Row], asked: Mailbox) -> tuple[Mailbox, ...]:
    """
    The mailboxes that *rows* mean, by the names of the columns, each once.

    What a row does not say, or where it says NULL, is as it was *asked*.

    Raises:
        ValueError: A value is wrong; the text says which.
    """
    return tuple(dict.fromkeys(_mailbox(row, asked) for row in rows))


def unknown_columns(names: Collection[str]) -> list[str]:
    """
    Those of *names* that mean nothing.
    """
    return [name for name in names if name not in WHO and name not in NAMES and not is_own(name)]


def _mailbox(row: Row, asked: Mailbox) -> Mailbox:
    said = {name: _text(name, value) for name, value in row.items() if value is not None}
    user, domain = said.get("user", asked.user), said.get("domain", asked.domain)
    if "address" in said:
        if "user" in said or "domain" in said:
            raise ValueError("address says what user and domain say")
        user, at, domain = said["address"].strip().rpartition("@")
        if not at:
            raise ValueError(f"address={said['address']!r}: expected user@domain")
    if not user or not domain:
        raise ValueError("user or domain is empty")
    known = known_from(
        {name: value for name, value in said.items() if (name in NAMES and value) or is_own(name)}
    )
    detail = said.get("detail", asked.detail)
    return known.about(evolve(asked, user=user, domain=ascii_domain(domain.lower()), detail=detail))


def _text(name: str, value: Any) -> str:
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise ValueError(f"{name}: not UTF-8") from None
    text = str(value)
    if name in WHO and _control(text.strip() if name == "address" else text):
        # It would end a line of the header, or of the log.
        raise ValueError(f"{name}: a control character is in it")
    return text
