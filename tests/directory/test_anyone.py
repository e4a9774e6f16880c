"""
The directory in which everybody is found.
"""

from __future__ import annotations

import pytest
from zope.interface.verify import verifyObject

from lmtpsvc.directory.anyone import AnyFactory, Anyone
from lmtpsvc.envelope import Mailbox
from lmtpsvc.interfaces import IDirectory, IDirectoryFactory


def test_interface() -> None:
    """
    It is a directory.
    """
    verifyObject(IDirectory, Anyone())
    verifyObject(IDirectoryFactory, AnyFactory())


def test_everybody() -> None:
    """
    Mail goes where its address says.
    """
    mailbox = Mailbox("ann", "example.org", "lists")

    assert [mailbox] == AnyFactory().build(object()).resolve(mailbox)


def test_no_words() -> None:
    """
    There is nothing to choose.
    """
    for words, options in [(["x"], {}), ([], {"x": "y"})]:
        with pytest.raises(ValueError, match="takes no arguments; expected any"):
            AnyFactory().build(object(), *words, **options)
