"""
Outcomes, as those who wait for them get them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from lmtpsvc.outgoing.delivery import Delivery
from lmtpsvc.replies import Reply
from lmtpsvc.session.outcomes import Outcome, Stage

Message = Callable[..., Delivery]


def outcome(code: int) -> Outcome:
    return Outcome(Reply(code, "said"), Stage.MESSAGE)


async def names(delivery: Delivery) -> list[tuple[str, int]]:
    return [(str(who), what.reply.code) async for who, what in delivery]


class TestIteration:
    def test_in_the_order_of_arrival(
        self, message: Message, success_of: Any, no_result: Any
    ) -> None:
        """
        Whoever is settled first comes first, before or after somebody looks.
        """
        delivery = message("ann", "bob", "cat")
        delivery.settle(1, outcome(250))
        reading = Deferred.fromCoroutine(names(delivery))
        delivery.settle(2, outcome(450))
        no_result(reading)
        delivery.settle(0, outcome(550))

        expected = [("bob@foo.edu", 250), ("cat@foo.edu", 450), ("ann@foo.edu", 550)]
        assert success_of(reading) == expected
        assert success_of(names(delivery)) == expected

    def test_all(self, message: Message, success_of: Any, no_result: Any) -> None:
        """
        To await a delivery is to await all of them.
        """

        async def wait() -> list[Outcome]:
            return await delivery

        delivery = message("ann", "bob")
        waiting = Deferred.fromCoroutine(wait())
        delivery.settle(1, outcome(250))
        no_result(waiting)
        delivery.settle(0, outcome(550))

        assert [each.reply.code for each in success_of(waiting)] == [550, 250]
        assert [each.reply.code for each in success_of(delivery.as_deferred())] == [550, 250]

    def test_in_asyncio(self, message: Message) -> None:
        """
        A task of asyncio reads and awaits them, too.
        """

        async def both(delivery: Delivery) -> tuple[list[tuple[str, int]], int]:
            loop = asyncio.get_running_loop()
            loop.call_later(0.001, delivery.settle, 0, outcome(250))
            return await names(delivery), len(await delivery)

        assert asyncio.run(both(message("ann"))) == ([("ann@foo.edu", 250)], 1)


class TestOutcomes:
    def test_only_the_first_counts(self, message: Message) -> None:
        """
        What has been said once is not said differently later.
        """
        delivery = message("ann")
        delivery.settle(0, outcome(250))
        delivery.settle(0, outcome(550))
        delivery.settle_rest(Reply(451, "late"), Stage.MESSAGE)

        assert delivery.outcomes[0].result == outcome(250)

    def test_who_does_not_want_to_wait(self, message: Message, failure_of: Any) -> None:
        """
        To cancel a recipient's Deferred stops the waiting, and nothing else.
        """
        delivery = message("ann", "bob")
        delivery.outcomes[0].cancel()
        failure_of(delivery.outcomes[0], CancelledError)
        delivery.settle(0, outcome(250))
        delivery.settle(1, outcome(250))

        assert delivery.is_settled

    def test_kinds(self) -> None:
        """
        An outcome is success, temporary or permanent.
        """
        for code, kind in ((250, "success"), (450, "temporary"), (550, "permanent")):
            found = outcome(code)
            kinds = {
                "success": found.is_success,
                "temporary": found.is_temporary,
                "permanent": found.is_permanent,
            }
            assert [name for name, is_it in kinds.items() if is_it] == [kind]

    def test_called_off_before_it_is_sent(self, message: Message) -> None:
        """
        Whoever takes it up later is told at once.
        """
        delivery = message("ann")
        delivery.cancel()
        told: list[Reply] = []
        delivery.on_its_way(told.append)

        assert [reply.code for reply in told] == [451]
