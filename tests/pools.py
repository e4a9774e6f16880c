"""
Pools whose jobs are done in the thread of the test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, execute, succeed

T = TypeVar("T")


class SpotPool:
    """
    Does each job on the spot.
    """

    def run(self, job: Callable[[], object], priority: int = 0) -> None:
        job()

    def post(self, call: Callable[..., object], *arguments: Any) -> None:
        call(*arguments)

    def submit(self, job: Callable[[], T]) -> Deferred[T]:
        return execute(job)

    def stop(self) -> Deferred[None]:
        return succeed(None)


class HeldPool(SpotPool):
    """
    Keeps the jobs that are to `run` until `work`, while it *is_held*.
    """

    def __init__(self, *, is_held: bool = True) -> None:
        self.is_held = is_held
        self.jobs: list[Callable[[], object]] = []

    def run(self, job: Callable[[], object], priority: int = 0) -> None:
        self.jobs.append(job)
        if not self.is_held:
            self.work()

    def work(self) -> None:
        while self.jobs:
            self.jobs.pop(0)()
