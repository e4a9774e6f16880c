"""
What tests in every folder may ask for: peers, and the results of Deferreds.

Test folders are no packages, so that shared code is a fixture here, never an import.
"""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import os
import re
import shutil
import stat
from collections.abc import Awaitable, Callable, Generator, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, settings
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import ILogObserver, LogEvent, globalLogBeginner, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

# Fixtures: servers for whoever needs a database, processes that have begun already, and our wheel.
from .databases import mariadb, new_mariadb, new_postgresql, postgresql, sqlite_with  # noqa: F401
from .forks import forks  # noqa: F401
from .wheels import built, wheel  # noqa: F401

TESTS = Path(__file__).parent

# A busy machine is no defect.  In CI everybody gets the same examples: a change that breaks nothing
# must not fail by chance there; at home each run looks somewhere new.
_SLOW = [HealthCheck.too_slow]
settings.register_profile("home", deadline=None, suppress_health_check=_SLOW)
settings.register_profile("ci", deadline=None, derandomize=True, suppress_health_check=_SLOW)
settings.load_profile("ci" if os.environ.get("CI") else "home")


# pytest asks for every single test which Twisted this is, and the answer is the parsing of a long
# text.  What is installed does not change meanwhile.
importlib.metadata.version = functools.cache(importlib.metadata.version)


# In the name of a class, among the parameters of a test, or among the fixtures that it asks for.
_database_server = re.compile(r"postgresql|mariadb", re.IGNORECASE).search


def _room(path: Path) -> str | None:
    """
    The folder right below tests that *path* is in; None if it is not below tests at all.
    """
    return path.relative_to(TESTS).parts[0] if TESTS in path.parents else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Mark what stands in ``interop/`` and ``faults/`` as such, and what talks to a database server.

    The rest needs no peer, and is quick enough to be run after each change.
    """
    room = functools.cache(_room)  # thousands of tests are in a few hundred files
    for item in items:
        if (name := room(item.path)) in ("interop", "faults"):
            item.add_marker(name)
        asked_for = " ".join(getattr(item, "fixturenames", ()))
        if _database_server(f"{item.nodeid} {asked_for}") is not None:
            item.add_marker("interop")


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """
    ``-n auto`` is half as many again as there are processors: while one test waits for a disk, a
    clock or another process, the next one computes.
    """
    processors = yield
    return processors + (processors + 1) // 2


# Until all tests have been found there is no garbage to speak of, and more and more to look through.
gc.disable()


def pytest_collection_finish() -> None:
    """
    Thousands of tests, and the modules that they need, are no garbage: nobody has to look at them
    again and again, least of all those tests that look for garbage themselves.
    """
    gc.enable()
    gc.collect()
    gc.freeze()


# Until somebody begins, Twisted keeps what was logged last, and all that its failures refer to.
globalLogBeginner.beginLoggingTo([], discardBuffer=True, redirectStandardIO=False)


@implementer(ILogObserver)
class _Unhandled:
    """
    Notes the failures of Deferreds that nobody has taken.
    """

    def __init__(self) -> None:
        self.failures: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        if event["log_namespace"] == "twisted.internet.defer" and "log_failure" in event:
            self.failures.append(event["log_failure"].getTraceback() + event["debugInfo"])


@pytest.fixture(scope="module", autouse=True)
def nothing_unhandled() -> Iterator[None]:
    """
    Tests take the failures that they bring about.  One that nobody takes is logged as soon as it is
    collected: within some other test, which may look at just what is logged.
    """
    unhandled = _Unhandled()
    globalLogPublisher.addObserver(unhandled)
    yield
    gc.collect()
    gc.freeze()  # what is left is no garbage of the next ones, either
    globalLogPublisher.removeObserver(unhandled)
    assert [] == unhandled.failures, "defer.setDebugging(True) shows where they come from"


# ── what a machine may lack ──────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="session")
def unavailable() -> Callable[[str], NoReturn]:
    """
    Skip the test because this machine lacks *what*; with LMTPSVC_REQUIRE_PEERS=1, fail it.

    CI sets the variable, so that a test that never runs cannot look like one that passes.
    """

    def unavailable(what: str) -> NoReturn:
        if os.environ.get("LMTPSVC_REQUIRE_PEERS") == "1":
            pytest.fail(
                f"{what} is missing, and LMTPSVC_REQUIRE_PEERS=1 asks for it", pytrace=False
            )
        pytest.skip(f"{what} is missing")

    return unavailable


@pytest.fixture(scope="session")
def peer(unavailable: Callable[[str], NoReturn]) -> Callable[[str], Path]:
    """
    Find a program by name or absolute path: ``peer("swaks")``; else `unavailable`.
    """

    def peer(name: str) -> Path:
        # Servers stand in sbin, which is not on everybody's PATH.
        path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
        found = shutil.which(name, path=path)
        return Path(found) if found is not None else unavailable(name)

    return peer


@pytest.fixture
def passable(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """
    Any user can come to the directory of this test, and read it; pytest makes it for ours alone.
    """
    base = tmp_path_factory.getbasetemp()
    # What runs beside others has a directory of its own in that of all.
    above = base.parents[:2] if "PYTEST_XDIST_WORKER" in os.environ else base.parents[:1]
    for path in (*above, base, tmp_path):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o055 != 0o055:
            path.chmod(mode | 0o055)


# ── Deferreds ────────────────────────────────────────────────────────────────────────────────────

#: Trial's own words for the results of Deferreds; they do not need its runner.
_trial = SynchronousTestCase()


def _deferred(result: Awaitable[Any]) -> Deferred[Any]:
    return result if isinstance(result, Deferred) else ensureDeferred(result)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def success_of() -> Callable[[Awaitable[Any]], Any]:
    """
    ``success_of(d)``: the result that *d*, a Deferred or coroutine, has already got.
    """
    return lambda result: _trial.successResultOf(_deferred(result))


@pytest.fixture(scope="session")
def failure_of() -> Callable[..., Failure]:
    """
    ``failure_of(d, Type, ...)``: the Failure, of one of the types if given, that *d* has got.
    """
    return lambda result, *types: _trial.failureResultOf(_deferred(result), *types)


@pytest.fixture(scope="session")
def no_result() -> Callable[[Deferred[Any]], None]:
    """
    ``no_result(d)``: *d* has not fired yet.
    """
    return _trial.assertNoResult
