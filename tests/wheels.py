"""
What is shipped, built and installed as by a stranger: once for all who look at it.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*command: str | Path, cwd: Path) -> str:
    """
    What *command* printed; the test fails with it if the exit status is not 0.
    """
    done = subprocess.run(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A directory with an sdist, and the wheel that was built from it.
    """
    directory = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", directory, cwd=ROOT)
    return directory


@pytest.fixture(scope="session")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


def installed_in(directory: Path, *wheels: Path) -> Path:
    """
    The ``bin`` of a new environment in *directory* that has these, what they need, and nothing that
    only the tests need: not even pip, which puts them there from outside.
    """
    venv.create(directory)
    programs = directory / "bin"
    pip = (sys.executable, "-m", "pip", "--python", programs / "python")
    run(*pip, "install", "-q", *wheels, cwd=directory)
    return programs
