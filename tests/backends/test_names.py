"""
No two files in a Maildir have the same name.
"""

from __future__ import annotations

import pytest

from lmtpsvc.backends.names import Names, escape
from lmtpsvc.interfaces import Sizes


def test_unique() -> None:
    """
    Not in the same microsecond, not by two processes that have the same number.
    """
    one, other = (Names("mx", lambda: 1.0) for _ in range(2))

    made = [names.make(Sizes(1, 2)) for names in (one, other) for _ in range(100)]

    assert 200 == len(set(made))


@pytest.mark.parametrize(
    ("hostname", "name"),
    [
        ("mx.example.org", "mx.example.org"),
        ("a/b:c,d e", r"a\057b\072c\054d\040e"),
        ("", "localhost"),
    ],
)
def test_escape(hostname: str, name: str) -> None:
    """
    A host name cannot be a path, nor look like the flags behind a name.
    """
    assert name == escape(hostname)
