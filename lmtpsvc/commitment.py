"""
Commitment: a Deferred for work that can be called off until it has begun to last.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred


class Commitment(Deferred[Any]):
    """
    The result of one delivery, with a point of no return.

    `Deferred.cancel` always ends a Deferred: for a delivery whose commit has begun that would be a
    lie, and a duplicate when the client tries again.  Here, whoever is to make the delivery last
    asks `begin` first; from then on `cancel` does nothing, and the result that comes is the truth.
    """

    # Somebody has tried to call it off when it had begun.
    _is_unwanted = False

    def __init__(self) -> None:
        super().__init__()
        # list.pop is atomic, so that exactly one of begin and cancel gets the one ticket, from
        # whichever threads they are called.
        self._ticket = [None]

    def begin(self) -> bool:
        """
        Ask, from any thread and once, whether the commit may begin.  False: it was cancelled.
        """
        try:
            self._ticket.pop()
        except IndexError:
            return False
        return True

    def cancel(self) -> None:
        """
        Fail with CancelledError, unless the commit has begun.  In the reactor thread only.
        """
        if self.begin():
            super().cancel()
        else:
            self._is_unwanted = True

    def put_off(self) -> None:
        """
        Nothing has come of the commit that has begun: it can be called off again, and is now if that
        has been tried meanwhile.  In the reactor thread only.
        """
        self._ticket.append(None)
        if self._is_unwanted:
            self.cancel()
