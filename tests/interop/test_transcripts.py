"""
The conversations of tests/transcripts, held with the service over its sockets.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ..running import run
from ..transcripts.reading import read_folder
from .service import Service

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "transcripts"


def ask(target: str, *options: str) -> tuple[int, list[str]]:
    """
    Run the program; returns its exit status and the lines that it says.
    """
    words = [sys.executable, "-m", "tests.transcripts", "--target", target, *options]
    done = run([*words], cwd=ROOT, seconds=100)
    return done.returncode, done.stdout.decode().splitlines()


def test_everything_over_tcp(conversing: Service) -> None:
    """
    The real service answers as the one in memory does, to the last code.
    """
    host, port = conversing.tcp

    status, lines = ask(f"tcp:{host}:{port}", "--domain", "example.test", "--strict")

    assert status == 0, "\n".join(lines)
    asked = sum(not each.ours for each in read_folder(FOLDER))
    assert lines[-1].startswith(f"{asked} conversations: {asked} as written, 0 with another code")


def test_over_a_unix_socket(conversing: Service) -> None:
    """
    A UNIX socket is a target, too.
    """
    status, lines = ask(
        f"unix:{conversing.unix}", "--domain", "example.test", "--only", "hello", "--strict"
    )

    assert status == 0, "\n".join(lines)


def test_what_differs_is_told(conversing: Service) -> None:
    """
    With users that nobody knows, the server answers otherwise: the program says what, and fails.
    """
    host, port = conversing.tcp

    status, lines = ask(f"tcp:{host}:{port}", "--domain", "example.net", "--only", "recipients")

    assert status == 1
    assert any("'RCPT TO:<ann@example.net>': 250" in line and "got 550" in line for line in lines)


def test_nobody_there() -> None:
    """
    No server is one line, and another status.
    """
    status, lines = ask("unix:/nonexistent")

    assert (2, 1) == (status, len(lines))
