"""
What is shipped is what works: the wheel, built from the sdist, in an environment of its own.
"""

from __future__ import annotations

import re
import signal
import smtplib
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZipFile

import pytest

from .wheels import ROOT, installed_in, run

pytestmark = pytest.mark.packaging

PLUGIN = "twisted/plugins/lmtpsvc_plugin.py"


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    The ``bin`` of a new environment that has the wheel, and nothing that only the tests need.
    """
    return installed_in(tmp_path_factory.mktemp("venv"), wheel)


def shipped() -> set[str]:
    """
    What belongs into the wheel, beside its metadata.
    """
    ours = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "lmtpsvc").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    return ours | {PLUGIN}


class TestContents:
    def test_wheel(self, wheel: Path) -> None:
        """
        The package, its py.typed and the plugin, and never a file that is Twisted's.
        """
        with ZipFile(wheel) as archive:
            names = {name for name in archive.namelist() if ".dist-info/" not in name}

        assert shipped() == names
        assert "lmtpsvc/py.typed" in names

    def test_sdist(self, built: Path) -> None:
        """
        All of that, and what a distributor needs to test it.
        """
        (sdist,) = built.glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}

        assert shipped() <= names
        assert {"LICENSE", "Makefile", "README.md", "pyproject.toml", "tests/conftest.py"} <= names


class TestInstalled:
    def test_twistd_lists_it(self, installed: Path, tmp_path: Path) -> None:
        """
        ``twistd --help`` names lmtp, among Twisted's own commands.
        """
        output = run(installed / "twistd", "--help", cwd=tmp_path)

        assert re.search(r"^ +lmtp +\S", output, re.MULTILINE)
        assert re.search(r"^ +portforward +\S", output, re.MULTILINE)

    def test_help(self, installed: Path, tmp_path: Path) -> None:
        """
        ``twistd lmtp --help`` knows the options.
        """
        output = run(installed / "twistd", "lmtp", "--help", cwd=tmp_path)

        assert "--listen" in output

    def test_check(self, installed: Path, tmp_path: Path) -> None:
        """
        ``lmtpsvc`` is a command, and looks at a configuration.
        """
        (tmp_path / "lmtp.toml").write_text('listen = "unix:sock"\n')

        output = run(installed / "lmtpsvc", "check", "lmtp.toml", cwd=tmp_path)

        assert output.startswith("no problem found: ")

    def test_delivers(self, installed: Path, tmp_path: Path) -> None:
        """
        A message goes in by LMTP, lies in the Maildir, and SIGTERM ends the service in order.
        """
        with twistd(installed, tmp_path) as (process, port):
            with smtplib.LMTP("127.0.0.1", port, local_hostname="client.example.net") as client:
                refused = client.sendmail(
                    "bob@example.net", ["ann@example.org"], b"Subject: first\r\n\r\nHello.\r\n"
                )
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=30)

        assert refused == {}
        (message,) = (tmp_path / "mail" / "example.org" / "ann" / "new").iterdir()
        assert message.read_bytes().endswith(b"Subject: first\n\nHello.\n")
        # twistd stops its services and then ends as a signal ends a process.
        assert process.returncode == -signal.SIGTERM, output
        assert "Traceback" not in output


@contextmanager
def twistd(programs: Path, directory: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """
    A running ``twistd lmtp`` with its Maildirs in *directory*, and the port it listens on.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            *(programs / "twistd", "-n", "--pidfile=", "lmtp"),
            *("--listen", f"tcp:{port}:interface=127.0.0.1"),
            *("--backend", f"maildir:{directory}/mail/{{domain}}/{{user}}"),
        ],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            wait_for(process, port)
            yield process, port
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], port: int) -> None:
    """
    Return once something listens on *port*; fail if *process* ended, or after 30 seconds.
    """
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if process.poll() is not None:
                break
            time.sleep(0.05)
        else:
            return
    process.kill()
    pytest.fail(f"nothing listens on port {port}: {process.communicate()[0]}")
