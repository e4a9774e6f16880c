"""
The words of the command line.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from twisted.internet import reactor
from twisted.plugin import IPlugin
from zope.interface.verify import verifyObject

from lmtpsvc.backends.maildir import MaildirFactory
from lmtpsvc.backends.settings import from_words
from lmtpsvc.interfaces import IBackend, IBackendFactory
from lmtpsvc.replies import MAILBOX_FULL_FOR_GOOD

from ..rows import each_row


def test_defaults() -> None:
    """
    What is not said has its default.
    """
    settings = from_words("/srv/mail/{user}", {})

    assert (False, 0o700, 0o600) == (settings.folders, settings.mode, settings.file_mode)
    assert ("\n", 16, 452) == (settings.line_ending, settings.threads, settings.mailbox_full.code)


def test_all_options() -> None:
    """
    All options are read.
    """
    words = {"detail": "folder", "mode": "2770", "newline": "crlf", "threads": "4", "full": "552"}

    settings = from_words("/srv/mail/{user}", words)

    assert (True, 0o2770, 0o660) == (settings.folders, settings.mode, settings.file_mode)
    assert ("\r\n", 4) == (settings.line_ending, settings.threads)
    assert MAILBOX_FULL_FOR_GOOD == settings.mailbox_full


@each_row(
    ("option", "value", "hint"),
    [
        ("detail", "spam", "detail=spam: expected inbox or folder"),
        ("newline", "cr", "newline=cr: expected lf or crlf"),
        ("full", "550", "full=550: expected 452 or 552"),
        ("mode", "rwx", "0700"),
        ("mode", "0500", "0700"),
        ("mode", "1700", "0700"),
        ("mode", "4755", "0700"),
        ("mode", "77", "0700"),
        ("threads", "0", "from 1 to 256"),
        ("threads", "257", "from 1 to 256"),
        ("threads", "many", "from 1 to 256"),
        ("colour", "red", "colour: no such option"),
    ],
)
def test_mistakes(option: str, value: str, hint: str) -> None:
    """
    A mistake is one line that tells what was expected.
    """
    with pytest.raises(ValueError) as error:
        MaildirFactory().build(reactor, "/tmp/mail", **{option: value})

    assert hint in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("words", [(), ("/tmp/a", "/tmp/b")])
def test_words(words: tuple[str, ...]) -> None:
    """
    There is one template, no less and no more.
    """
    with pytest.raises(ValueError, match="expected maildir:TEMPLATE"):
        MaildirFactory().build(reactor, *words)


def test_build(tmp_path: Path) -> None:
    """
    A plugin, which makes a backend and touches nothing.
    """
    factory = MaildirFactory()

    backend = factory.build(reactor, f"{tmp_path}/a/b")

    assert verifyObject(IPlugin, factory)
    assert verifyObject(IBackendFactory, factory)
    assert verifyObject(IBackend, backend)
    assert [] == os.listdir(tmp_path)


def test_root_is_a_file(tmp_path: Path) -> None:
    """
    A file where the mail should be is found at start.
    """
    (tmp_path / "file").touch()

    for path in ("file", "file/mail"):
        with pytest.raises(ValueError, match="is not a directory"):
            MaildirFactory().build(reactor, f"{tmp_path}/{path}/{{user}}")


def test_root_is_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    So is a directory in which the service may not write.
    """
    monkeypatch.setattr(os, "access", lambda path, *_, **__: path != str(tmp_path))

    with pytest.raises(ValueError, match="is not writable for user"):
        MaildirFactory().build(reactor, f"{tmp_path}/mail/{{user}}")
