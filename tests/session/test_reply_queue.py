"""
Replies leave in the order of the questions, as early as that allows.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis.strategies import booleans, data, lists, permutations

from lmtpsvc.replies import MultilineReply, Reply
from lmtpsvc.session.reply_queue import MUCH, Answer, ReplyQueue, Slot

ONE, TWO, THREE = (Reply(250, f"number {n}") for n in (1, 2, 3))


class TestReplyQueue:
    """
    A line of people, each with one answer.
    """

    def test_known_at_once(self) -> None:
        """
        What is known leaves at once, all in one piece, and only once.
        """
        queue = ReplyQueue()
        queue.put(ONE)
        queue.put(MultilineReply(250, ("a", "b")))

        assert 2 == len(queue)
        assert ONE.wire + b"250-a\r\n250 b\r\n" == queue.drain()
        assert (b"", 0) == (queue.drain(), len(queue))

    def test_begins_with(self) -> None:
        """
        A line may begin with a reply; that is drained first.
        """
        queue = ReplyQueue(b"220 hello\r\n")
        assert (1, 11) == (len(queue), queue.octets)
        queue.put(ONE)
        assert b"220 hello\r\n" + ONE.wire == queue.drain()

    def test_has_room(self) -> None:
        """
        For so many that wait, those not counted who are answered; and for so much to be drained.
        """
        queue = ReplyQueue()
        slots = queue.reserve_many(2)
        assert queue.has_room(3)
        assert not queue.has_room(2)
        slots[0].answer(ONE)
        assert queue.has_room(2)

        slots[1].answer(TWO)
        queue.drain()
        queue.put_wire(b"x" * (MUCH - 1))
        assert queue.has_room(1)
        queue.put_wire(b"x")
        assert not queue.has_room(1)

    def test_waits_for_earlier(self) -> None:
        """
        A reply stays while one before it is not known.
        """
        queue = ReplyQueue()
        first, second = queue.reserve(), queue.reserve()
        queue.put(THREE)

        second.answer(TWO)
        assert (b"", 3, 3) == (queue.drain(), len(queue), queue.outstanding)

        first.answer(ONE)
        assert ONE.wire + TWO.wire + THREE.wire == queue.drain()
        assert (0, 0) == (len(queue), queue.outstanding)

    def test_only_the_head_leaves(self) -> None:
        """
        The first reply does not wait for the second.
        """
        queue = ReplyQueue()
        first, _, third = (queue.reserve() for _ in range(3))

        first.answer(ONE)
        third.answer(THREE)

        assert ONE.wire == queue.drain()
        assert (2, 2) == (len(queue), queue.outstanding)

    def test_ready_replies_are_no_longer_outstanding(self) -> None:
        """
        A reply with nothing before it waits for nobody, drained or not.
        """
        queue = ReplyQueue()
        queue.put(ONE)

        assert (1, 0) == (len(queue), queue.outstanding)

    def test_answered_twice(self) -> None:
        """
        A second answer would put the client out of step for ever: it is our error.
        """
        slot = ReplyQueue().reserve()
        slot.answer(ONE)

        with pytest.raises(RuntimeError, match="answered twice: 250 number 1, then 250 number 2"):
            slot.answer(TWO)

    @given(order=permutations(range(6)))
    def test_answers_in_any_order(self, order: Sequence[int]) -> None:
        """
        Replies leave in line order, each as soon as the line allows.
        """
        queue = ReplyQueue()
        slots = [queue.reserve() for _ in order]
        numbered = [Reply(250, f"number {n}") for n in range(6)]
        sent = b""
        for done, n in enumerate(order, start=1):
            slots[n].answer(numbered[n])
            sent += queue.drain()

            known = set(order[:done])
            head = next((i for i in range(6) if i not in known), 6)
            assert b"".join(reply.wire for reply in numbered[:head]) == sent

    @given(known=lists(booleans(), max_size=8), chosen=data())
    def test_mixed(self, known: list[bool], chosen: data) -> None:  # type: ignore[valid-type]  # hypothesis
        """
        Replies that are known at once stand in the same line as those that come later.
        """
        queue, waiting = ReplyQueue(), list[tuple[Slot, Answer]]()
        numbered = [Reply(250, f"number {n}") for n in range(len(known))]
        sent = b""
        for now, reply in zip(known, numbered, strict=True):
            if now:
                queue.put(reply)
            else:
                waiting.append((queue.reserve(), reply))
            sent += queue.drain()
        for slot, reply in chosen.draw(permutations(waiting)):  # type: ignore[attr-defined]  # hypothesis
            slot.answer(reply)
            sent += queue.drain()

        assert b"".join(reply.wire for reply in numbered) == sent
