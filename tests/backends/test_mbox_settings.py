"""
The words of the command line, and what is wrong with them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet import reactor
from twisted.plugin import IPlugin
from zope.interface.verify import verifyObject

from lmtpsvc.backends.mbox import MboxBackend, MboxFactory
from lmtpsvc.backends.mbox_settings import MboxSettings, from_words
from lmtpsvc.interfaces import IBackendFactory
from lmtpsvc.quota import Quota
from lmtpsvc.replies import MAILBOX_FULL_FOR_GOOD
from lmtpsvc.specs import backend_from_string

from ..rows import each_row


def test_defaults() -> None:
    """
    What Debian's programs do, if nothing else is said.
    """
    settings = from_words("/var/mail/{user}", {})

    assert MboxSettings(settings.template) == settings
    assert ("fcntl", "dotlock") == settings.locks
    assert 0o700 == settings.directory_mode


def test_all() -> None:
    """
    Each word means what it says.
    """
    settings = from_words(
        "/srv/{user}",
        {
            "locks": "dotlock_try,flock,fcntl",
            "lock_timeout": "2.5",
            "mode": "0640",
            "quota": "1G",
            "full": "552",
            "threads": "3",
        },
    )

    assert ("dotlock_try", "flock", "fcntl") == settings.locks
    assert 2.5 == settings.lock_timeout
    assert (0o640, 0o750) == (settings.mode, settings.directory_mode)
    assert MAILBOX_FULL_FOR_GOOD is settings.mailbox_full
    assert 3 == settings.threads
    assert Quota(1 << 30) == settings.quota


@each_row(
    ("option", "word"),
    [
        ("locks", ""),
        ("locks", "none"),
        ("locks", "fcntl,fcntl"),
        ("locks", "dotlock,dotlock_try"),
        ("locks", "dotlock_try"),
        ("lock_timeout", "-1"),
        ("lock_timeout", "soon"),
        ("lock_timeout", "3601"),
        ("mode", "0700"),
        ("mode", "0400"),
        ("mode", "0662"),
        ("mode", "rw"),
        ("quota", "much"),
        ("quota", "1G,10"),
        ("full", "450"),
        ("threads", "0"),
        ("threads", "257"),
        ("color", "red"),
    ],
)
def test_mistakes(option: str, word: str) -> None:
    """
    A mistake is one line that names the option.
    """
    with pytest.raises(ValueError) as wrong:
        from_words("/var/mail/{user}", {option: word})

    assert option in str(wrong.value)
    assert "\n" not in str(wrong.value)


def test_factory(tmp_path: Path) -> None:
    """
    The plugin is found by its name, and makes a backend without touching the disk.
    """
    assert verifyObject(IPlugin, MboxFactory())
    assert verifyObject(IBackendFactory, MboxFactory())

    made = backend_from_string(reactor, f"mbox:{tmp_path}/mail/{{user}}:locks=fcntl")

    assert isinstance(made, MboxBackend)
    assert [] == list(tmp_path.iterdir())


def test_not_a_directory(tmp_path: Path) -> None:
    """
    What cannot be a directory of mailboxes is found at start.
    """
    (tmp_path / "file").touch()

    with pytest.raises(ValueError, match="is not a directory"):
        MboxFactory().build(reactor, f"{tmp_path}/file/{{user}}")
    with pytest.raises(ValueError, match="expected mbox:"):
        MboxFactory().build(reactor)
