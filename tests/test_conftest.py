"""
The fixtures that all tests stand on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.python.failure import Failure


class TestPeers:
    def test_found(self, peer: Callable[[str], Path]) -> None:
        """
        A program on the machine is found, and its path is absolute.
        """
        assert peer("sh").is_absolute()

    def test_missing_is_skipped(
        self, peer: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        Whoever has no Postfix can work all the same.
        """
        monkeypatch.delenv("LMTPSVC_REQUIRE_PEERS", raising=False)

        with pytest.raises(pytest.skip.Exception, match="no-such-peer"):
            peer("no-such-peer")

    def test_missing_fails_in_ci(
        self, peer: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        With LMTPSVC_REQUIRE_PEERS=1, nothing is skipped in silence.
        """
        monkeypatch.setenv("LMTPSVC_REQUIRE_PEERS", "1")

        with pytest.raises(pytest.fail.Exception, match="no-such-peer"):
            peer("no-such-peer")


class TestDeferreds:
    def test_success(self, success_of: Callable[[Awaitable[Any]], Any]) -> None:
        """
        The result of a Deferred and of a coroutine; a failure is an error.
        """

        async def two() -> int:
            return 1 + await succeed(1)

        assert success_of(succeed(1)) == 1
        assert success_of(two()) == 2
        with pytest.raises(AssertionError):
            success_of(fail(ValueError()))

    def test_failure(self, failure_of: Callable[..., Failure]) -> None:
        """
        The failure of a Deferred; another type than the one asked for is an error.
        """
        assert isinstance(failure_of(fail(ValueError("why"))).value, ValueError)
        with pytest.raises(AssertionError):
            failure_of(fail(ValueError("why")), CancelledError)

    def test_no_result(self, no_result: Callable[[Deferred[Any]], None]) -> None:
        """
        A Deferred that has not fired, and one that has.
        """
        no_result(Deferred())
        with pytest.raises(AssertionError):
            no_result(succeed(None))
