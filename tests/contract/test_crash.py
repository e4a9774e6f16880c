"""
What is published about crashes, with the backends that claim to survive them and one that does not.
"""

from __future__ import annotations

import mailbox as readers
import re
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from lmtpsvc.envelope import Mailbox
from lmtpsvc.testing import CrashContract

# Many starts of a server in one test: on a busy machine, each takes its time.
pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

TICKETS = Path(__file__).parent.parent.parent / "examples" / "tickets" / "src"


class TestMaildir(CrashContract):
    rounds = 5

    def spec(self, directory: Path) -> str:
        return f"maildir:{directory}/{{domain}}/{{user}}"

    def stored(self, directory: Path, mailbox: Mailbox) -> list[bytes]:
        new = directory / mailbox.domain / mailbox.user / "new"
        return [path.read_bytes() for path in new.iterdir()] if new.is_dir() else []


class TestMbox(CrashContract):
    rounds = 5

    def spec(self, directory: Path) -> str:
        return f"mbox:{directory}/{{user}}:lock_timeout=1"

    def stored(self, directory: Path, mailbox: Mailbox) -> list[bytes]:
        path = directory / mailbox.user
        if not path.exists():
            return []
        with closing(readers.mbox(path, create=False)) as box:
            texts = [box.get_bytes(key) for key in box.iterkeys()]
        return [re.sub(rb"^>(>*From )", rb"\1", text, flags=re.MULTILINE) for text in texts]


class Tickets(CrashContract):
    """
    The example's, as a stranger would test it.
    """

    # Each of them finds out the careless one below.
    rounds = 5

    @pytest.fixture(autouse=True)
    def importable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "path", [str(TICKETS), *sys.path])

    def spec(self, directory: Path) -> str:
        return f"tickets:{directory}/tickets.db:queues=ann,bob,cid"

    def stored(self, directory: Path, mailbox: Mailbox) -> list[bytes]:
        with closing(sqlite3.connect(directory / "tickets.db")) as tickets:
            found = tickets.execute("SELECT text FROM tickets WHERE queue = ?", (mailbox.user,))
            return [text for (text,) in found]


class TestTickets(Tickets):
    """
    It survives.
    """


class TestCareless(Tickets):
    """
    The same without a sync: a power cut tells.
    """

    @pytest.fixture(autouse=True)
    def careless(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = (TICKETS / "tickets" / "backend.py").read_text()
        assert "synchronous = EXTRA" in source
        (tmp_path / "twisted" / "plugins").mkdir(parents=True)
        (tmp_path / "twisted" / "plugins" / "careless_plugin.py").write_text(
            source.replace("synchronous = EXTRA", "synchronous = OFF")
            + '\nfrom lmtpsvc.plugins import BackendPlugin\ncareless = BackendPlugin("careless", Tickets)\n'
        )
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    def spec(self, directory: Path) -> str:
        return f"careless:{directory}/tickets.db:queues=ann,bob,cid"

    def test_power_cut(self) -> None:
        """
        A backend that does not sync breaks its promise, which is noticed.
        """
        with pytest.raises((AssertionError, sqlite3.Error)) as caught:
            super().test_power_cut()

        if isinstance(caught.value, AssertionError):
            assert "promises" in str(caught.value) or "answered" in str(caught.value)

    # A process that is killed takes nothing from the disk.
    test_killed = None  # type: ignore[assignment]
