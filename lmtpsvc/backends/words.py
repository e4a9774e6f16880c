"""
Options of a backend, as they stand among its words on the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")


def choice(options: dict[str, str], name: str, default: str, choices: Mapping[str, T]) -> T:
    """
    Take the option *name* out of *options*: one of *choices*.

    Raises:
        ValueError: It is none of them.
    """
    word = options.pop(name, default)
    if word not in choices:
        raise ValueError(f"{name}={word}: expected {' or '.join(choices)}")
    return choices[word]


def quantity(options: dict[str, str], name: str, default: str, read: Callable[[str], T]) -> T:
    """
    Take the option *name* out of *options*: what *read*, of `lmtpsvc.quantities`, reads.

    Raises:
        ValueError: It is not of that form.
    """
    try:
        return read(options.pop(name, default))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
