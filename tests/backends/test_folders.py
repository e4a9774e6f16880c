"""
Details as Maildir++ folders.
"""

from __future__ import annotations

import pytest

from lmtpsvc.backends.folders import directory_name
from lmtpsvc.errors import PermanentFailure

from ..rows import each_row


@each_row(
    ("detail", "name"),
    [
        ("", ""),
        ("INBOX", ""),
        ("inbox", ""),
        ("lists", ".lists"),
        ("Lists.Python", ".Lists.Python"),
        ("a b", ".a b"),
        ("a&b", ".a&-b"),
        # RFC 3501 §5.1.3 has this one.
        ("~peter.mail.台北.日本語", ".~peter.mail.&U,BTFw-.&ZeVnLIqe-"),
        ("Entwürfe", ".Entw&APw-rfe"),
        ("😀", ".&2D3eAA-"),
    ],
)
def test_directory_name(detail: str, name: str) -> None:
    """
    A dot separates levels; what is not ASCII is written as IMAP does.
    """
    assert name == directory_name(detail)


@each_row("detail", [".", "..", ".a", "a.", "a..b", "a/b", "a\0", "a\n", "é" * 100])
def test_no_folder(detail: str) -> None:
    """
    A folder that no reader could open is not made.
    """
    with pytest.raises(PermanentFailure):
        directory_name(detail)
