"""
What ``lmtpsvc`` itself says: its list of commands, and what is missing.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from lmtpsvc.__main__ import COMMANDS, main

from ..forks import Forks


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """
    Every command is listed.
    """
    assert main(["--help"]) == 0

    said = capsys.readouterr().out
    assert all(f"\n  {name} " in said for name in COMMANDS)


@pytest.mark.parametrize(
    "words", [*([name] for name in COMMANDS), *(["sql", w] for w in ("check", "upgrade", "clean"))]
)
def test_help_of_each(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """
    Each explains itself, under the name by which it was called.
    """
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])

    assert not ended.value.code
    assert f"lmtpsvc {' '.join(words)}" in capsys.readouterr().out


@pytest.mark.parametrize("missing", ["sqlalchemy", "alembic"])
def test_without_sql(missing: str, tmp_path: Path, forks: Forks) -> None:
    """
    Who has not installed what a command needs is told so, in one line.
    """
    program = (
        f"import sys; sys.modules[{missing!r}] = None; from lmtpsvc.__main__ import main;"
        "print([main([name, '--help']) for name in ('sql', 'export', 'import')], flush=True)"
    )
    ended = forks.run(program, directory=tmp_path)

    said = f"{missing} is missing: pip install 'lmtpsvc[sql]'\n"
    names = ("sql", "export", "import")
    assert "".join(f"lmtpsvc {name}: {said}" for name in names) + "[1, 1, 1]\n" == ended.said


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (BrokenPipeError(32, "Broken pipe"), 0, ""),
        (OSError(28, "No space left"), 1, "lmtpsvc: standard output: No space left\n"),
    ],
)
def test_output_that_cannot_leave(
    error: OSError,
    status: int,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Who has seen enough may go; any other reason is told, in one line.
    """

    class Gone(io.StringIO):
        def flush(self) -> None:
            raise error

    monkeypatch.setattr(sys, "stdout", Gone())

    assert main(["queue", "create", "--queue", f"sqlite:///{tmp_path}/queue.db"]) == status
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (BrokenPipeError(32, "Broken pipe"), ""),
        (OSError(28, "No space left"), "lmtpsvc: standard output: No space left\n"),
    ],
)
def test_output_that_leaves_no_more(
    error: OSError,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    The same in the middle; what comes behind it is not done.
    """

    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise error

        def flush(self) -> None:
            raise error

    monkeypatch.setattr(sys, "stdout", Gone())
    monkeypatch.setattr("lmtpsvc.commands.queue.main", lambda _: sys.stdout.write("much"))

    assert main(["queue", "list"]) == 1
    assert capsys.readouterr().err == said


def test_help_that_cannot_leave(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The same of what a command tells of itself.
    """

    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(28, "No space left")

    for words in (["--help"], ["queue", "--help"]):
        monkeypatch.setattr(sys, "stdout", Full())

        assert main(words) == 1
        assert capsys.readouterr().err == "lmtpsvc: standard output: No space left\n"


@pytest.mark.parametrize("words", [["list"], ["show", "0123"]])
def test_not_the_database(
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Output that cannot leave is not taken for a database that is full.
    """

    class Full(io.StringIO):
        def write(self, _text: str) -> int:
            raise OSError(28, "No space left")

    queue = ["--queue", f"sqlite:///{tmp_path}/queue.db"]
    assert main(["queue", "create", *queue]) == 0
    monkeypatch.setattr("lmtpsvc.relay.ledger.read", lambda *_: [None])
    monkeypatch.setattr("lmtpsvc.commands.queue._as_json", str)
    capsys.readouterr()
    monkeypatch.setattr(sys, "stdout", Full())

    more = ["--json"] if words[0] == "show" else []
    assert main(["queue", *words, *more, *queue]) == 1
    assert capsys.readouterr().err == "lmtpsvc: standard output: No space left\n"


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
def test_closed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A stream that is closed is as good as /dev/null.
    """
    monkeypatch.setattr(sys, name, None)

    assert main(["--help"]) == 0
    with getattr(sys, name) as stream:
        assert stream.name == os.devnull


def test_a_directory_that_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Paths that count from where nothing is any more are told of in one line.
    """
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    for words in (["queue", "list"], ["check"], ["sql", "check", "sqlite:///mail.db"]):
        assert main(words) == 1
        said = f"lmtpsvc {words[0]}: the directory in which it was started is gone\n"
        assert capsys.readouterr().err == said


def test_not_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An error of something else is not taken for one.
    """

    def fails(_words: object) -> int:
        raise PermissionError(13, "Permission denied", "/srv")

    monkeypatch.setattr("lmtpsvc.commands.queue.main", fails)

    with pytest.raises(PermissionError):
        main(["queue", "list"])


def test_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Who types Ctrl-C knows why it ended.
    """

    def interrupted(_words: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("lmtpsvc.commands.queue.main", interrupted)

    assert main(["queue", "list"]) == 130


def test_interrupted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The same while what a command needs is still being imported, which takes the most of its time.
    """

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lmtpsvc.__main__.import_module", interrupted)

    assert main(["queue", "list"]) == 130


def test_letters_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A terminal that has not all letters is no reason to fail.
    """
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", shown)

    assert main(["queue", "list", "--queue", "sqlite:////nowhere/x.db"]) == 1
    assert shown.errors == "backslashreplace"
