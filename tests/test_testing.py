"""
What is published for those who test backends.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from zope.interface.verify import verifyObject

from lmtpsvc.interfaces import IMessage, LineEnding
from lmtpsvc.testing import MemoryMessage

ROOT = Path(__file__).parent.parent

TEXT = b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nbody\r\n"


class TestMemoryMessage:
    def test_provides(self) -> None:
        """
        It is what a backend gets.
        """
        message = MemoryMessage(TEXT)

        assert verifyObject(IMessage, message)
        assert "Grüße" == message.headers()["Subject"]
        assert hashlib.sha256(TEXT).hexdigest() == message.digest

    @pytest.mark.parametrize("line_ending", ["\r\n", "\n"])
    def test_spooled(self, tmp_path: Path, line_ending: LineEnding) -> None:
        """
        A spooled one has its text in a file too.
        """
        message = MemoryMessage(TEXT).spooled(str(tmp_path), line_ending)

        assert message.path is not None
        with message.open(line_ending) as opened:
            assert opened.read() == Path(message.path).read_bytes()


UNITTEST = """
from pathlib import Path

from twisted.internet.defer import succeed
from {module} import TestCase

from lmtpsvc.interfaces import Capabilities
from lmtpsvc.per_recipient import PerRecipientBackend
from lmtpsvc.testing import BackendContract

kept = {{}}

class Shelf(PerRecipientBackend):
    async def store(self, message, mailbox):
        kept.setdefault(mailbox, []).append(message.open().read(){mistake})

class ShelfTests(BackendContract, TestCase):
    def make(self, reactor, directory):
        kept.clear()
        return Shelf()

    def stored(self, directory, mailbox):
        return kept.get(mailbox, [])
"""


def outcome(
    directory: Path, runner: str, module: str, mistake: str = "", tests: str = "test_shelf"
) -> tuple[int, str]:
    """
    The exit status, and what was printed, where *runner* runs *tests* of the contract.
    """
    (directory / "test_shelf.py").write_text(UNITTEST.format(module=module, mistake=mistake))
    path = os.pathsep.join((str(directory), str(ROOT)))
    done = subprocess.run(
        [sys.executable, "-m", runner, tests],
        env={**os.environ, "PYTHONPATH": path},
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


class TestRunners:
    def test_trial(self, tmp_path: Path) -> None:
        """
        With trial, the contract is a TestCase beside it.
        """
        status, said = outcome(tmp_path, "twisted.trial", "twisted.trial.unittest")

        assert 0 == status, said
        assert "skips=1" in said
        assert "nobody has said how to break one mailbox" in said

    def test_trial_notices(self, tmp_path: Path) -> None:
        """
        With trial, a backend that breaks the contract fails.
        """
        one = "test_shelf.ShelfTests.test_any_octets"
        status, said = outcome(tmp_path, "twisted.trial", "twisted.trial.unittest", "[:3]", one)

        assert 1 == status
        assert "FAILED" in said

    def test_unittest(self, tmp_path: Path) -> None:
        """
        A runner without a reactor would pass everything unrun; it fails instead.
        """
        status, said = outcome(tmp_path, "unittest", "unittest")

        assert 1 == status
        assert "the reactor does not run" in said
