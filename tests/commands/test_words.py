"""
What ``lmtpsvc`` itself says: its list of commands, and what is missing.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from lmtpsvc.__main__ import COMMANDS, main


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
def test_without_sql(missing: str) -> None:
    """
    Who has not installed what a command needs is told so, in one line.
    """
    program = (
        f"import sys; sys.modules[{missing!r}] = None; from lmtpsvc.__main__ import main;"
        "print([main([name, '--help']) for name in ('sql', 'export', 'import')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    said = f"{missing} is missing: pip install 'lmtpsvc[sql]'\n"
    assert "[1, 1, 1]\n" == done.stdout
    assert f"lmtpsvc sql: {said}lmtpsvc export: {said}lmtpsvc import: {said}" == done.stderr
