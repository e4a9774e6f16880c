"""
A delivery that can be called off until it has begun to last.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Barrier, Thread
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from lmtpsvc.commitment import Commitment


class TestCommitment:
    """
    Begin or cancel: whoever comes first.
    """

    def test_cancelled_first(self, failure_of: Callable[..., Failure]) -> None:
        """
        What was called off may not begin.
        """
        commitment = Commitment()

        commitment.cancel()

        assert not commitment.begin()
        failure_of(commitment, CancelledError)

    def test_begun_first(
        self, no_result: Callable[[Deferred[Any]], None], success_of: Callable[..., Any]
    ) -> None:
        """
        What has begun is not called off: its result is the truth.
        """
        commitment = Commitment()

        assert commitment.begin()
        commitment.cancel()
        commitment.cancel()
        no_result(commitment)
        commitment.callback(None)

        assert success_of(commitment) is None

    def test_put_off(
        self, no_result: Callable[[Deferred[Any]], None], failure_of: Callable[..., Failure]
    ) -> None:
        """
        A commit of which nothing has come can be called off again, and begin again until then.
        """
        commitment = Commitment()
        commitment.begin()
        commitment.put_off()
        no_result(commitment)
        assert commitment.begin()

        commitment.put_off()
        commitment.cancel()

        assert not commitment.begin()
        failure_of(commitment, CancelledError)

    def test_called_off_in_vain_and_put_off(self, failure_of: Callable[..., Failure]) -> None:
        """
        Whoever tried to call off what had begun need not try again.
        """
        commitment = Commitment()
        commitment.begin()
        commitment.cancel()

        commitment.put_off()

        assert not commitment.begin()
        failure_of(commitment, CancelledError)

    def test_fails_after_beginning(self, failure_of: Callable[..., Failure]) -> None:
        """
        A commit that fails after all is a failure, cancelled or not.
        """
        commitment = Commitment()
        commitment.begin()
        commitment.cancel()

        commitment.errback(OSError("disk"))

        failure_of(commitment, OSError)

    def test_cancelled_twice(self, failure_of: Callable[..., Failure]) -> None:
        """
        To call off twice is to call off once.
        """
        commitment = Commitment()

        commitment.cancel()
        commitment.cancel()

        failure_of(commitment, CancelledError)

    def test_cancelled_through_a_coroutine(
        self, no_result: Callable[[Deferred[Any]], None], success_of: Callable[..., Any]
    ) -> None:
        """
        A backend may await it in a coroutine: cancelling that is no different.
        """
        commitment = Commitment()

        async def deliver() -> None:
            await commitment

        delivery = Deferred.fromCoroutine(deliver())
        commitment.begin()
        delivery.cancel()
        no_result(delivery)
        commitment.callback(None)

        success_of(delivery)

    def test_exactly_one_wins(self) -> None:
        """
        A thread that begins and a reactor that cancels at the same time never both succeed.
        """
        for _ in range(200):
            commitment = Commitment()
            outcome: list[bool] = []
            ended: list[Failure] = []
            commitment.addErrback(ended.append)
            start = Barrier(2)

            def work(
                commitment: Commitment = commitment,
                start: Barrier = start,
                outcome: list[bool] = outcome,
            ) -> None:
                start.wait()
                outcome.append(commitment.begin())

            thread = Thread(target=work)
            thread.start()
            start.wait()
            commitment.cancel()
            thread.join()

            assert [not ended] == outcome
