"""
What the documentation shows to authors of backends and extensions is run, as it stands there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from .forks import TWIST, Forks

ROOT = Path(__file__).parent.parent
GUIDE = ROOT / "docs" / "write-a-backend.md"
EXTENSIONS = ROOT / "docs" / "write-an-extension.md"
TICKETS = ROOT / "examples" / "tickets"

#: The whole of a working backend, its factory included, has so many lines at most.
LINES = 25

_blocks = re.compile(r"^```python (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL).findall


def steps() -> list[tuple[str, str]]:
    """
    The files of the guide, in order: the name, and what is in it.
    """
    return _blocks(GUIDE.read_text(encoding="utf-8"))


def named(name: str) -> list[str]:
    """
    The versions of one file.
    """
    return [source for found, source in steps() if found == name]


def write(directory: Path, name: str, source: str) -> None:
    """
    Put a file where the guide puts it.
    """
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")


def python(directory: Path, *words: str, path: str = "") -> str:
    """
    What Python prints in *directory*; the test fails with it if the exit status is not 0.
    """
    places = os.pathsep.join(filter(None, (str(directory), path, str(ROOT))))
    done = subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": places, "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def twist(forks: Forks, directory: Path, *words: str, status: int = 0) -> str:
    """
    What ``twist lmtp`` prints in *directory*; the test fails with it at another exit status.
    """
    ended = forks.run(TWIST, "lmtp", *words, directory=directory)
    assert status == ended.status, ended.said
    return ended.said


def contract(directory: Path) -> str:
    """
    What pytest says to the contract in the guide's test file; a warning is an error.
    """
    words = ("-m", "pytest", "-q", "-rs", "-W", "error", "-p", "no:cacheprovider")
    return python(directory, *words, "--import-mode=importlib", "test_tickets.py")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[str]]]:
    """
    What pytest says to the first backend of the guide, to the awaiting one, and to the package.

    Side by side, since each of them mostly waits.
    """
    plugin, words = "twisted/plugins/tickets_plugin.py", ("-m", "pytest", "-q", "-W", "error")
    with ThreadPoolExecutor(3) as pool:
        runs = {
            "package": pool.submit(
                python, TICKETS, *words, "-p", "no:cacheprovider", path=str(TICKETS / "src")
            )
        }
        for name, source in {
            "first": named(plugin)[0],
            "awaiting": named("awaiting.py")[0],
        }.items():
            directory = tmp_path_factory.mktemp(name)
            write(directory, plugin, source)
            write(directory, "test_tickets.py", named("test_tickets.py")[0])
            runs[name] = pool.submit(contract, directory)
        yield runs


class TestGuide:
    def test_the_first_backend_is_small(self) -> None:
        """
        A working backend, its factory included, takes 25 lines.
        """
        first = named("twisted/plugins/tickets_plugin.py")[0]

        assert "BackendPlugin(" in first
        assert len(first.splitlines()) <= LINES

    def test_the_first_backend(
        self, tmp_path: Path, kept: dict[str, Future[str]], forks: Forks
    ) -> None:
        """
        It is found, keeps the contract, and says honestly what was not tried.
        """
        write(
            tmp_path,
            "twisted/plugins/tickets_plugin.py",
            named("twisted/plugins/tickets_plugin.py")[0],
        )

        listed = twist(forks, tmp_path, "--help-backends")

        assert "tickets:DATABASE\n    Opens a ticket for each message" in listed
        assert "not applicable" in kept["first"].result()

    def test_the_real_one(self, tmp_path: Path, forks: Forks) -> None:
        """
        The last versions of all files are found; they are those of the package, whose tests see to
        it that they keep the contract.
        """
        for name, source in steps():
            write(tmp_path, name, source)

        listed = twist(forks, tmp_path, "--help-backends")
        assert "tickets:DATABASE[:queues=support]" in listed

    @pytest.mark.faults
    def test_the_promise(self, tmp_path: Path) -> None:
        """
        The last version survives being killed, and a power cut where that can be tried.
        """
        for name, source in steps():
            write(tmp_path, name, source)

        words = ("-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider")
        assert "passed" in python(tmp_path, *words, "--import-mode=importlib", "test_crash.py")

    def test_the_awaiting_one(self, kept: dict[str, Future[str]]) -> None:
        """
        The one with Deferreds keeps the contract, too.
        """
        assert "passed" in kept["awaiting"].result()

    @pytest.mark.parametrize(
        ("name", "path"),
        [
            ("tickets/backend.py", "src/tickets/backend.py"),
            ("twisted/plugins/tickets_plugin.py", "src/twisted/plugins/tickets_plugin.py"),
            ("test_tickets.py", "tests/test_backend.py"),
        ],
    )
    def test_the_example_is_the_same(self, name: str, path: str) -> None:
        """
        What the guide ends with is what stands in ``examples``.
        """
        assert named(name)[-1] == (TICKETS / path).read_text(encoding="utf-8")


class TestExtension:
    @pytest.fixture
    def directory(self, tmp_path: Path) -> Path:
        ((name, source),) = _blocks(EXTENSIONS.read_text(encoding="utf-8"))
        assert len(source.splitlines()) < 40
        write(tmp_path, name, source)
        return tmp_path

    def test_listed(self, directory: Path, forks: Forks) -> None:
        """
        It is found, and says what it is.
        """
        listed = twist(forks, directory, "--help-extensions")

        assert "expires\n    Takes XEXPIRES=YYYY-MM-DD on RCPT" in listed

    def test_twice(self, directory: Path, forks: Forks) -> None:
        """
        What claims a thing twice is one line at the start.
        """
        write(directory, "lmtp.toml", 'extension = ["expires", "expires"]\n')

        said = twist(forks, directory, "--config", "lmtp.toml", status=1)

        assert "lmtp.toml: extension: two extensions claim 'XEXPIRES'" in said
        assert "Traceback" not in said

    def test_talk(self, directory: Path, forks: Forks) -> None:
        """
        The parameter refuses what is late and reaches the backend's envelope; the verb answers.
        """
        ended = forks.run(_TALK, directory=directory)
        assert 0 == ended.status, ended.said
        announced, *heard, parameters = ended.said.splitlines()

        assert "True" == announced
        said = [" ".join(line.split()[:2]) for line in heard]
        assert ["250 2.1.0", "550 5.4.7", "501 5.5.4", "250 2.1.5", "250 2.0.0"] == said
        assert "{'XEXPIRES': datetime.date(9999, 1, 1)}" == parameters


_TALK = """
from lmtpsvc.limits import Limits
from lmtpsvc.replies import RECIPIENT_OK
from lmtpsvc.session.server import ServerSession
from lmtpsvc.session.standard import standard_extensions
from lmtpsvc.specs import extension_from_string

extensions = standard_extensions(Limits(), [extension_from_string(None, "expires")])
session = ServerSession("mx.example.org", Limits(), extensions)
session.data_to_send()
offered = []
for line in (
    "LHLO client.example.net",
    "MAIL FROM:<>",
    "RCPT TO:<ann@example.org> XEXPIRES=2001-01-01",
    "RCPT TO:<ann@example.org> XEXPIRES=soon",
    "RCPT TO:<ann@example.org> XEXPIRES=9999-01-01",
    "XTODAY",
):
    session.receive(line.encode() + b"\\r\\n")
    while (event := session.next_event()) is not None:
        session.answer_recipient(event, RECIPIENT_OK)
        offered.append(event.recipient)
    said = session.data_to_send().decode()
    print("XEXPIRES" in said if line.startswith("LHLO") else said.strip())
print(dict(offered[0].parameters))
"""


def test_example_tests(kept: dict[str, Future[str]]) -> None:
    """
    The tests of the package pass where they stand, and none is left out.
    """
    said = kept["package"].result()

    assert "passed" in said
    assert "skipped" not in said
