"""
The letters that are there are taken together, and it is known when the service has gone.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lmtpsvc.backends.letter_box import MOST, LetterBox
from lmtpsvc.backends.letters import (
    Letter,
    pack_letter,
)

LETTER = Letter(1, 2049, False, 4, 8, 0o600, None, None, "ann/tmp/1", ["ann/new/1"])


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """
    That of the service, and that of the process.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def numbers(ends: Ends) -> Callable[[bool], list[int] | None]:
    """
    ``numbers(wait)``: of the letters that the process finds.
    """
    box = LetterBox(ends[1])

    def numbers(wait: bool) -> list[int] | None:
        letters = box.receive(None if wait else 0.0)
        return None if letters is None else [letter.number for letter in letters]

    return numbers


def send(ends: Ends, *numbers: int) -> None:
    """
    Send letters with these numbers, of different lengths.
    """
    for number in numbers:
        ends[0].send(pack_letter(LETTER._replace(number=number, tmp="x" * (number % 7))))


def test_all_that_are_there(ends: Ends, numbers: Callable[[bool], list[int] | None]) -> None:
    """
    All of them, in order; who does not wait may find none.
    """
    send(ends, 3)
    assert [3] == numbers(True)
    send(ends, 1, 2, 5)
    assert [1, 2, 5] == numbers(True)
    send(ends, 9, 7)
    assert [9, 7] == numbers(False)
    assert [] == numbers(False)


def test_first_is_waited_for() -> None:
    """
    Who waits does so until there is one, and takes no longer for the others.
    """
    flags = []

    class Socket(socket.socket):
        def recv_into(self, page: Any, size: int = 0, how: int = 0) -> int:
            flags.append(how)
            if len(flags) > 2:
                raise BlockingIOError
            octets = pack_letter(LETTER)
            page[: len(octets)] = octets
            return len(octets)

    with Socket() as letters:
        assert [LETTER, LETTER] == LetterBox(letters).receive(None)

    assert [0, socket.MSG_DONTWAIT, socket.MSG_DONTWAIT] == flags


def test_waited_for_no_longer(ends: Ends) -> None:
    """
    Who waits for a while gets nothing if nothing comes, and the kernel is told how long only once.
    """
    told = []

    class Socket(socket.socket):
        def setsockopt(self, *arguments: Any) -> None:
            told.append(arguments[-1])
            super().setsockopt(*arguments)

    with Socket(fileno=ends[1].detach()) as letters:
        box = LetterBox(letters)
        for _ in range(2):
            assert [] == box.receive(0.001)
        assert [] == box.receive(0.0)
        send(ends, 3)
        for seconds in (5.0, None):
            send(ends, 4)
            assert box.receive(seconds)

    waits = [struct.unpack("@ll", limit) for limit in told]
    assert [(0, 1000), (5, 0), (0, 0)] == waits


def test_more_than_there_may_be(ends: Ends, numbers: Callable[[bool], list[int] | None]) -> None:
    """
    The rest comes the next time.
    """
    send(ends, *range(MOST + 3))

    assert list(range(MOST)) == numbers(True)
    assert [MOST, MOST + 1, MOST + 2] == numbers(False)
    assert [] == numbers(False)


@pytest.mark.parametrize("wait", [False, True])
@pytest.mark.parametrize("before", [(), (1, 2)])
def test_end(
    ends: Ends, numbers: Callable[[bool], list[int] | None], before: tuple[int, ...], wait: bool
) -> None:
    """
    Nothing more will come; what came before is of no use to anybody.
    """
    send(ends, *before)
    ends[0].close()

    assert None is numbers(wait)
    assert None is numbers(wait)


@pytest.mark.parametrize("before", [(), (1, 2)])
def test_service_has_gone(ends: Ends, before: tuple[int, ...]) -> None:
    """
    It is known at once, also while there are letters of its.
    """
    box = LetterBox(ends[1])
    box.check()
    send(ends, *before)
    box.check()
    ends[0].close()

    with pytest.raises(ConnectionError):
        box.check()
