"""
``lmtpsvc passwd``.
"""

from __future__ import annotations

import io
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from lmtpsvc.__main__ import main as lmtpsvc
from lmtpsvc.auth.stored_keys import ITERATIONS, is_password, parse


@pytest.fixture
def passwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """
    Run it for the file ``logins``, with *typed* on its standard input.
    """
    monkeypatch.chdir(tmp_path)

    def passwd(*words: str, typed: str = "") -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        return lmtpsvc(["passwd", "logins", *words])

    return passwd


def logins() -> dict[str, bool]:
    """
    Who is in the file, and whether the password is ``secret``.
    """
    users = dict(parse(Path("logins").read_text()))
    return {user: is_password("secret", keys) for user, keys in users.items()}


def test_new_file(passwd: Callable[..., int]) -> None:
    """
    It is for its owner alone.
    """
    assert 0 == passwd("ann@example.org", typed="secret\n")

    assert {"ann@example.org": True} == logins()
    assert 0o600 == stat.S_IMODE(Path("logins").stat().st_mode)
    assert [Path("logins")] == list(Path().iterdir())


def test_changed(passwd: Callable[..., int]) -> None:
    """
    Order, comments, mode and everybody else stay.
    """
    Path("logins").write_text("# Ours\n")
    for user in ("ann", "bob", "eve"):
        passwd(user, typed="secret")
    Path("logins").chmod(0o640)

    assert 0 == passwd("bob", typed="other\n")

    assert {"ann": True, "bob": False, "eve": True} == logins()
    first, *lines = Path("logins").read_text().splitlines()
    assert ("# Ours", ["ann", "bob", "eve"]) == (first, [each.partition(":")[0] for each in lines])
    assert 0o640 == stat.S_IMODE(Path("logins").stat().st_mode)


def test_deleted(passwd: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    """
    ``--delete`` takes out one name; who is not there cannot be.
    """
    passwd("ann", typed="secret")
    passwd("bob", typed="secret")

    assert (0, {"bob": True}) == (passwd("ann", "--delete"), logins())
    assert 1 == passwd("ann", "--delete")
    assert "lmtpsvc passwd: logins: there is no ann\n" == capsys.readouterr().err


def test_iterations(passwd: Callable[..., int]) -> None:
    """
    How hard it is to guess may be said, and has a default.
    """
    passwd("ann", typed="secret")
    passwd("bob", "--iterations", "5000", typed="secret")

    assert [ITERATIONS, 5000] == [keys.iterations for _, keys in parse(Path("logins").read_text())]


@pytest.mark.parametrize(
    ("words", "typed", "said"),
    [
        (["a:b"], "x", "'a:b' cannot be a user"),
        (["#a"], "x", "'#a' cannot be a user"),
        (["a\nb"], "x", "'a\\nb' cannot be a user"),
        ([""], "x", "'' cannot be a user"),
        (["ann"], "\n", "a password has at least one character"),
        (["ann"], "a\0b\n", "not a password: "),
        (["ann", "--iterations", "1"], "x", "iterations are 4096 to 500000"),
    ],
)
def test_mistake(
    words: list[str],
    typed: str,
    said: str,
    passwd: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """
    One line, and no file.
    """
    assert 1 == passwd(*words, typed=typed)
    assert capsys.readouterr().err.startswith(f"lmtpsvc passwd: logins: {said}")
    assert not Path("logins").exists()


def test_broken_file(passwd: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    """
    It is left as it is.
    """
    Path("logins").write_text("nonsense\n")

    assert 1 == passwd("ann", typed="secret")

    assert "line 1: expected user:" in capsys.readouterr().err
    assert "nonsense\n" == Path("logins").read_text()
