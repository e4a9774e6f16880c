"""
A stranger's package, built and installed beside ours, takes mail.
"""

from __future__ import annotations

import signal
import smtplib
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from zipfile import ZipFile

import pytest

from .wheels import ROOT, installed_in, run

pytestmark = pytest.mark.packaging

TICKETS = ROOT / "examples" / "tickets"


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    The wheel of the stranger.
    """
    directory = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", directory, TICKETS, cwd=directory)
    (found,) = directory.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, strange: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    The ``bin`` of a new environment that has our wheel and the stranger's.
    """
    return installed_in(tmp_path_factory.mktemp("venv"), wheel, strange)


def test_contents(strange: Path) -> None:
    """
    The package and the plugin file, and nothing that is Twisted's.
    """
    with ZipFile(strange) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}

    assert names == {
        "tickets/__init__.py",
        "tickets/backend.py",
        "tickets/py.typed",
        "twisted/plugins/tickets_plugin.py",
    }


def test_listed(installed: Path, tmp_path: Path) -> None:
    """
    ``--help-backends`` has it among ours.
    """
    said = run(installed / "twistd", "lmtp", "--help-backends", cwd=tmp_path)

    assert "maildir:TEMPLATE" in said
    assert "tickets:DATABASE[:queues=support]\n    Opens a ticket for each message." in said


def test_delivers(installed: Path, tmp_path: Path) -> None:
    """
    Mail over LMTP opens a ticket, and who is no queue is refused at RCPT.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ("-n", "--pidfile=", "lmtp", "--listen", f"tcp:{port}:interface=127.0.0.1")
    process = subprocess.Popen(
        [installed / "twistd", *words, "--backend", "tickets:tickets.db:queues=support,sales"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            with connected(process, port) as client:
                # One recipient: smtplib reads one reply after the text, however many there are.
                refused = client.sendmail(
                    "bob@example.net",
                    ["sales@example.org", "nobody@example.org"],
                    "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nHello.\r\n",
                )
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=30)
        finally:
            process.kill()

    assert {"nobody@example.org": (550, b"5.1.1 No such queue")} == refused
    with closing(sqlite3.connect(tmp_path / "tickets.db")) as tickets:
        ((queue, sender, title, text),) = tickets.execute(
            "SELECT queue, sender, title, text FROM tickets"
        )
    assert ("sales", "bob@example.net", "Grüße") == (queue, sender, title)
    assert text.endswith(b"\r\n\r\nHello.\r\n")
    assert "Traceback" not in output


def connected(process: subprocess.Popen[str], port: int) -> smtplib.LMTP:
    """
    A client, once the service listens; fail if *process* ended, or after 30 seconds.
    """
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        try:
            return smtplib.LMTP("127.0.0.1", port, local_hostname="client.example.net")
        except ConnectionRefusedError:
            time.sleep(0.05)
    process.kill()
    pytest.fail(f"nothing listens on port {port}: {process.communicate()[0]}")
