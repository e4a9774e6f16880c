"""
A process may have as many files open as its connections need.
"""

from __future__ import annotations

import resource

import pytest

from lmtpsvc.server.open_files import BESIDE, allow_files


class Limits:
    """
    What the system allows, in place of the limits of the process that runs the tests.
    """

    def __init__(self, soft: int, hard: int) -> None:
        self.limits = soft, hard
        self.error: Exception | None = None

    def get(self, which: int) -> tuple[int, int]:
        assert which == resource.RLIMIT_NOFILE
        return self.limits

    def set(self, which: int, limits: tuple[int, int]) -> None:
        assert which == resource.RLIMIT_NOFILE
        if self.error is not None:
            raise self.error
        self.limits = limits


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Limits:
    system = Limits(1024, 4096)
    monkeypatch.setattr(resource, "getrlimit", system.get)
    monkeypatch.setattr(resource, "setrlimit", system.set)
    return system


def test_asks_for_more(system: Limits) -> None:
    """
    What is needed is asked for, and no more; a second time, as at a reload, there is nothing to do.
    """
    for _ in range(2):
        assert allow_files(1000) is None
        assert (2000 + BESIDE, 4096) == system.limits


def test_has_enough(system: Limits) -> None:
    """
    What an operator has allowed is never taken back.
    """
    assert allow_files(10) is None
    assert (1024, 4096) == system.limits


def test_not_for_everything(system: Limits) -> None:
    """
    Enough for connections, but not for a large message of each, is no worry.
    """
    assert allow_files(3000) is None
    assert (4096, 4096) == system.limits


def test_too_few(system: Limits) -> None:
    """
    Where the system does not allow what the configuration does, somebody is told.
    """
    said = allow_files(10_000)
    assert said is not None
    assert "10000 connections would need 10256 open files, and 4096 are allowed" in said
    assert (4096, 4096) == system.limits


@pytest.mark.parametrize("error", [PermissionError(1, "no"), ValueError("not allowed")])
def test_refused(system: Limits, error: Exception) -> None:
    """
    That the system does not do as it says is no reason not to start.
    """
    system.error = error
    assert allow_files(500) is None
    said = allow_files(1000)
    assert said is not None
    assert "1024 are allowed" in said


def test_as_many_as_one_likes(system: Limits) -> None:
    """
    A number of connections that stands for "all" asks for no more than systems have.
    """
    system.limits = 1024, 1 << 20
    assert allow_files(10**30) is None
    assert (1 << 20, 1 << 20) == system.limits


@pytest.mark.parametrize("soft", [256, resource.RLIM_INFINITY])
def test_no_limit(system: Limits, soft: int) -> None:
    """
    Where the system has no limit there is nothing to worry about.
    """
    system.limits = soft, resource.RLIM_INFINITY
    assert allow_files(10_000) is None
    wanted = 20_000 + BESIDE if soft == 256 else soft
    assert system.limits == (wanted, resource.RLIM_INFINITY)
