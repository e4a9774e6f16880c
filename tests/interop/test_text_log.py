"""
twistd's own logs take the short way to the lines of deliveries, however it is started.
"""

from __future__ import annotations

import os
import re
import smtplib
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ..forks import TWISTD
from ..running import Daemon, accepts, free_port

#: Python runs this before anything else: whoever takes the short way says so.
MARK = """
from lmtpsvc.delivery.text_log import DeliveryText

text = DeliveryText._text

def marked(self, event):
    said = text(self, event)
    return said and said.replace("\\n", " (short)\\n")

DeliveryText._text = marked
"""


@pytest.mark.parametrize(
    ("twistd", "words"),
    [
        ((), ()),
        (("--logfile", "twistd.log"), ()),
        ((), ("--workers", "2")),
        (("--logfile", "twistd.log"), ("--workers", "2")),
    ],
    ids=["output", "file", "workers, output", "workers, files"],
)
def test_short(twistd: Sequence[str], words: Sequence[str], tmp_path: Path) -> None:
    """
    To standard output and to a file, in one process and in workers; a client that has its reply has
    its line in the log.
    """
    (tmp_path / "sitecustomize.py").write_text(MARK)
    port = free_port()
    service = Daemon(
        [
            *(sys.executable, "-c", TWISTD),
            *("--nodaemon", "--pidfile=", *twistd, "lmtp", *words),
            *("--backend", f"maildir:{tmp_path}/mail/{{user}}"),
            *("--listen", f"tcp:{port}:interface=127.0.0.1"),
        ],
        tmp_path / "said.log",
        tmp_path,
        {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])},
    )
    try:
        service.start(lambda: accepts(("127.0.0.1", port)))
        with smtplib.LMTP("127.0.0.1", port) as client:
            for name in ("ann", "bob"):
                client.sendmail("", [f"{name}@example.org"], "Subject: x\r\n\r\nx\r\n")
            logged = "".join(path.read_text() for path in tmp_path.glob("*.log"))
    finally:
        service.stop()

    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}"
    line = rf"^{time} \[lmtpsvc\.delivery#info\] \w+ to=<(\w+)@example\.org> .* \(short\)$"
    assert ["ann", "bob"] == re.findall(line, logged, re.MULTILINE)
