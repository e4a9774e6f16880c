"""
Whose mailbox somebody gets who has logged in.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.mail.interfaces import IMailboxPOP3

from lmtpsvc.pop3.mailbox import StoreRealm


@pytest.mark.parametrize(
    ("login", "mailbox"),
    [
        ("ann@example.org", "ann@example.org"),
        ("Ann@Example.ORG", "ann@example.org"),
        ("ann@bücher.example", "ann@xn--bcher-kva.example"),
        ("ann@xn--bcher-kva.example", "ann@xn--bcher-kva.example"),
    ],
)
def test_name(login: str, mailbox: str) -> None:
    """
    The mailbox has one name, in whatever form and case somebody logs in.
    """
    opened: list[Any] = []

    class Pool:
        def submit(self, job: Any) -> Deferred[Any]:
            opened.append(job.args[-1])
            return Deferred()

    pool: Any = Pool()
    StoreRealm(pool, pool).requestAvatar(login.encode(), None, IMailboxPOP3)

    assert [mailbox] == opened
