"""
What is published has types, and they fit what strangers write.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
TICKETS = ROOT / "examples" / "tickets"

SETTINGS = """
[mypy]
plugins = mypy_zope:plugin
strict = true
disallow_untyped_calls = false
disallow_subclassing_any = false
explicit_package_bases = true
namespace_packages = true

# It calls nothing of Twisted's, and so passes as strict as can be.
[mypy-tickets.*]
disallow_untyped_calls = true
"""


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """
    The files of the guide, each under a name of its own.
    """
    directory = tmp_path_factory.mktemp("guide")
    text = (ROOT / "docs" / "write-a-backend.md").read_text(encoding="utf-8")
    files = []
    for number, (name, source) in enumerate(
        re.findall(r"^```python (\S+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ):
        if "twisted.plugins." in source or "from tickets." in source:
            # These import what stands elsewhere, and are the same as in examples in the end.
            continue
        files.append(directory / f"guide_{number}_{Path(name).stem}.py")
        files[-1].write_text(source, encoding="utf-8")
    return files


def test_strict(guide: list[Path], tmp_path: Path) -> None:
    """
    A sample of everything, the code of the guide and the example pass ``mypy --strict`` with
    mypy-zope.
    """
    pytest.importorskip("mypy")
    pytest.importorskip("mypy_zope")
    settings = tmp_path / "mypy.ini"
    settings.write_text(SETTINGS)
    sources = [
        Path(__file__).with_name("published.py"),
        *guide,
        TICKETS / "src" / "tickets" / "backend.py",
        TICKETS / "src" / "twisted" / "plugins" / "tickets_plugin.py",
        TICKETS / "tests" / "test_backend.py",
    ]

    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--config-file", str(settings)),
            *("--cache-dir", str(ROOT / ".mypy_cache" / "published"), *map(str, sources)),
        ],
        # Its src is no place to look into: the twisted in it would hide Twisted itself.
        env={**os.environ, "MYPYPATH": os.pathsep.join((str(ROOT), str(TICKETS / "src")))},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )

    assert len(guide) >= 3
    assert done.returncode == 0, done.stdout
