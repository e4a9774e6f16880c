"""
What a service imports: memory that every process of it takes, whether or not anybody uses it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ..forks import Forks

BUILD = """\
import sys
from lmtpsvc.tap import Options, makeService
options = Options()
options.parseOptions(sys.argv[1:])
makeService(options)
print(*sys.modules)
"""

#: Large packages and those of our own that bring them, and what asks for each, if
#: anything does at the start.
BY_WISH = {
    "scramp": ["--auth", "scram:logins"],
    "asn1crypto": ["--auth", "scram:logins"],
    "lmtpsvc.client": ["--dsn", "tcp:127.0.0.1:25"],
    "lmtpsvc.outgoing": ["--backend", "forward:127.0.0.1:24"],
    "sqlalchemy": ["--backend", "sql:sqlite:///mail.db"],
    "alembic": [],
    "lmtpsvc.relay": [],
    "lmtpsvc.pop3": [],
    "lmtpsvc.testing": [],
}


def imported(forks: Forks, directory: Path, *words: str) -> set[str]:
    """
    All modules of a process that has built a service from *words*, to be started in *directory*.
    """
    (directory / "logins").touch(0o600)
    ended = forks.run(BUILD, "--listen", "tcp:0:interface=127.0.0.1", *words, directory=directory)
    assert 0 == ended.status, ended.said
    return set(ended.said.split())


def test_nothing_that_nobody_asks_for(tmp_path: Path, forks: Forks) -> None:
    """
    A service that stores mail in Maildirs has imported neither what speaks to others, nor what knows
    passwords and databases.
    """
    assert imported(forks, tmp_path).isdisjoint(BY_WISH)


@pytest.mark.parametrize(
    ("name", "words"), [(name, words) for name, words in BY_WISH.items() if words]
)
def test_all_at_the_start(name: str, words: list[str], tmp_path: Path, forks: Forks) -> None:
    """
    What is asked for is imported before there is a connection, while it can still be read.
    """
    assert name in imported(forks, tmp_path, *words)
