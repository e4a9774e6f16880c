"""
Where a mailbox lies, and which names cannot be part of a path.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lmtpsvc.backends.template import parse
from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import PermanentFailure, TemporaryFailure

from ..rows import each_row

ANN = Mailbox("ann", "example.org", detail="lists", home="/home/ann")


@each_row(
    ("text", "path", "root"),
    [
        ("/srv/mail/{domain}/{user}", "/srv/mail/example.org/ann", "/srv/mail"),
        ("/srv/mail", "/srv/mail/example.org/ann", "/srv/mail"),
        ("/srv/mail/", "/srv/mail/example.org/ann", "/srv/mail"),
        ("/srv//mail/./{user}/Maildir/", "/srv/mail/ann/Maildir", "/srv/mail"),
        ("/srv/mail/u-{user}@{domain}", "/srv/mail/u-ann@example.org", "/srv/mail"),
        ("/srv/{user}/{detail}", "/srv/ann/lists", "/srv"),
        ("/{user}", "/ann", "/"),
        ("/srv/100%/{user}", "/srv/100%/ann", "/srv/100%"),
        ("{home}/Maildir", "/home/ann/Maildir", None),
        ("{home}", "/home/ann", None),
    ],
)
def test_expand(text: str, path: str, root: str | None) -> None:
    """
    Fields are filled in; what stands before the first is the root.
    """
    template = parse(text)

    assert path == template.expand(ANN)
    assert root == template.root


@pytest.mark.parametrize("text", ["mail", "./mail", "mail/{domain}/{user}"])
def test_relative(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A relative template counts from where the service was started, whatever that is called.
    """
    odd = tmp_path / "{odd}%s"
    odd.mkdir()
    monkeypatch.chdir(odd)
    template = parse(text)
    monkeypatch.chdir("/")

    assert f"{odd}/mail/example.org/ann" == template.expand(ANN)
    assert f"{odd}/mail" == template.root


@each_row(
    ("text", "hint"),
    [
        ("", "for example"),
        ("/srv/{usr}", "{usr} is not a field"),
        ("/srv/{}", "{} is not a field"),
        ("/srv/{user!r}", "not a field"),
        ("/srv/{user", "brace"),
        ("/srv/user}", "brace"),
        ("/srv/{{user}}", "brace"),
        ("/srv/{home}/x", "beginning"),
        ("x{home}/x", "beginning"),
        ("{home}x/y", "beginning"),
        ("{home}/{home}", "beginning"),
        ("~/Maildir", "{home}"),
        ("/srv/{user}/../{domain}", ".."),
    ],
)
def test_mistakes(text: str, hint: str) -> None:
    """
    A mistake is one line that tells what to do.
    """
    with pytest.raises(ValueError) as error:
        parse(text)

    assert hint in str(error.value)
    assert "\n" not in str(error.value)


@each_row(
    "value",
    [
        *("", ".", "..", ".ann", "../bob", "/etc", "a/b", "a\0", "a\nb", "a\x7f", "a\x85"),
        *("x" * 256, "é" * 128, "\udc80"),
    ],
)
@each_row("name", ["user", "domain", "detail"])
def test_no_path(name: str, value: str) -> None:
    """
    What cannot be a part of a path is refused for good.
    """
    mailbox = Mailbox(
        value if name == "user" else "ann",
        value if name == "domain" else "example.org",
        value if name == "detail" else "lists",
    )

    with pytest.raises(PermanentFailure) as refused:
        parse("/srv/{domain}/{user}/{detail}").expand(mailbox)

    assert "553 5.1.3 This address cannot be a mailbox here" == str(refused.value.reply)


@pytest.mark.parametrize("value", ["x" * 255, "é" * 127, "a b", "[192.0.2.1]", "a..b", "~", "a+b"])
def test_unusual_but_fine(value: str) -> None:
    """
    What the file system takes is taken.
    """
    assert f"/srv/{value}" == parse("/srv/{user}").expand(Mailbox(value, "example.org"))


def test_path_too_long() -> None:
    """
    A path that is too long for the system is refused at once.
    """
    template = parse("/srv/" + "/".join(["{user}"] * 20))

    with pytest.raises(PermanentFailure):
        template.expand(Mailbox("x" * 200, "example.org"))


@pytest.mark.parametrize("home", [None, "", "home/ann", "/home/\0"])
def test_home_unknown(home: str | None) -> None:
    """
    Not to know the home directory is no reason to return mail.
    """
    with pytest.raises(TemporaryFailure):
        parse("{home}/Maildir").expand(Mailbox("ann", "example.org", home=home))


def test_private_names() -> None:
    """
    From the first name with {user} in it, or from the home directory on, all is the user's.
    """
    for text, names in (
        ("/srv/{domain}/{user}", 1),
        ("/srv/{domain}/{user}/mail/box", 3),
        ("/srv/{domain}", 1),
        ("{home}/a/Maildir", 2),
        ("{home}", 0),
    ):
        assert names == parse(text).private_names, text


def test_no_io() -> None:
    """
    A template does not look at the disk.
    """
    assert not os.path.exists(parse("/nonexistent/{user}").expand(ANN))
