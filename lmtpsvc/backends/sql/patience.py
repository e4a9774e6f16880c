"""
A connection to PostgreSQL that does not wait for ever.

libpq has a limit for connecting and none for an answer: a server that is stopped, or a network that
swallows everything, would keep the thread.  psycopg looks up every tenth of a second while it
waits; so does this.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, ClassVar, TypeVar

import psycopg

T = TypeVar("T")


class PatientConnection(psycopg.Connection[Any]):
    """
    Closes itself when an answer takes longer than *patience* seconds.
    """

    patience: ClassVar[float]

    def wait(self, gen: Generator[Any, Any, T], *interval: Any, **more: Any) -> T:
        """
        As in `psycopg.Connection`, which calls it for whatever takes time.

        Raises:
            OperationalError: It took too long; the connection is closed.
        """
        return super().wait(self._limited(gen), *interval, **more)

    def _limited(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        end = time.monotonic() + self.patience
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready:
                    # It goes on, however slowly.
                    end = time.monotonic() + self.patience
                elif time.monotonic() > end:
                    self.close()
                    raise psycopg.OperationalError("the server does not answer")
                wanted = gen.send(ready)
        except StopIteration as stop:
            result: T = stop.value
            return result


def patient(seconds: float) -> type[PatientConnection]:
    """
    The class whose *patience* is so many *seconds*.
    """
    return type("PatientConnection", (PatientConnection,), {"patience": seconds})
