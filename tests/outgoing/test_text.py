"""
Big messages go out piece by piece.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from twisted.internet.task import Clock

from lmtpsvc.outgoing.delivery import Delivery
from lmtpsvc.outgoing.pool import Pool
from lmtpsvc.outgoing.text import CHUNK, LOOKED_THROUGH, PIECE, Text
from lmtpsvc.session.outcomes import Outcome, Stage
from lmtpsvc.session.terms import Terms

if TYPE_CHECKING:
    from .conftest import Connection, Server

Message = Callable[..., Delivery]
OK = b"250 2.0.0 OK\r\n"


class Counting(io.BytesIO):
    """
    A file that counts how much was read of it.
    """

    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        octets = super().read(size)
        self.taken += len(octets)
        return octets


class Broken(Counting):
    """
    A file that fails with *error* behind the first pieces.
    """

    def __init__(self, octets: bytes, error: Exception) -> None:
        super().__init__(octets)
        self._error = error

    def read(self, size: int | None = -1, /) -> bytes:
        if self.taken >= 2 * PIECE:
            raise self._error
        return super().read(size)


@pytest.fixture
def connection(server: Server, clock: Clock) -> Callable[[Delivery], Connection]:
    """
    Start a delivery, over the only connection.
    """

    def connection(delivery: Delivery, *extensions: str) -> Connection:
        Pool(server, Terms("client.example"), clock).send(delivery)
        [made] = server.connections
        made.greet(*extensions)
        return made

    return connection


def drained(connection: Connection) -> bytes:
    """
    All that the client sends when the transport always has room.
    """
    sent = connection.heard()
    while (producer := connection.transport.producer) is not None:
        producer.resumeProducing()
        sent += connection.heard()
    return sent


class TestData:
    def test_leaves_piece_by_piece(
        self, connection: Callable[..., Connection], message: Message
    ) -> None:
        """
        No more is read than the transport has room for, and one piece ahead.
        """
        file = Counting((b"x" * 98 + b"\r\n") * 10_000)
        made = connection(delivery := message(text=file))
        made.take()
        assert file.taken <= 2 * PIECE
        sent = drained(made)
        made.say(OK)

        assert sent == file.getvalue() + b".\r\n"
        assert delivery.is_settled

    @pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE])
    def test_sizes(
        self, size: int, connection: Callable[..., Connection], message: Message
    ) -> None:
        """
        Whatever its length, all of it is sent, and its end once.
        """
        made = connection(message(text=io.BytesIO(b"x" * size)))
        made.take()

        assert drained(made) == b"x" * size + (b"\r\n.\r\n" if size else b".\r\n")

    def test_dots_at_the_edge_of_a_piece(
        self, connection: Callable[..., Connection], message: Message
    ) -> None:
        """
        A dot is stuffed wherever the piece begins.
        """
        text = b"x" * (PIECE - 2) + b"\r\n.\r\nQUIT\r\n"
        made = connection(message(text=io.BytesIO(text)))
        made.take()

        assert drained(made) == text.replace(b"\r\n.", b"\r\n..") + b".\r\n"

    def test_lost_in_the_middle(
        self, connection: Callable[..., Connection], message: Message
    ) -> None:
        """
        Nothing is read any more.
        """
        file = Counting(b"x" * 10 * PIECE)
        made = connection(delivery := message(text=file))
        made.take()
        producer = made.transport.producer
        assert producer is not None
        made.lose()
        taken = file.taken
        producer.resumeProducing()

        assert file.taken == taken
        assert delivery.is_settled

    def test_refused_in_the_middle(
        self, connection: Callable[..., Connection], message: Message
    ) -> None:
        """
        The rest is not sent, and the refusal is the outcome.
        """
        made = connection(delivery := message(text=io.BytesIO(b"x" * 10 * PIECE)))
        made.take()
        made.say(b"552 5.3.4 too large\r\n")
        outcome = delivery.outcomes[0].result

        assert isinstance(outcome, Outcome)
        assert (outcome.reply.code, outcome.stage) == (552, Stage.TEXT)
        assert made.transport.producer is None
        assert made.is_closing

    @pytest.mark.parametrize("error", [OSError(5, "Input/output error"), zlib.error("incomplete")])
    def test_unreadable(
        self,
        error: Exception,
        connection: Callable[..., Connection],
        message: Message,
        logged: Callable[[], list[str]],
    ) -> None:
        """
        Half a message never looks like a whole one; a disk that fails is no defect of ours.
        """
        made = connection(delivery := message(text=Broken(b"x" * 10 * PIECE, error)))
        made.take()
        sent = drained(made)
        outcome = delivery.outcomes[0].result

        assert isinstance(outcome, Outcome)
        assert outcome.reply.code == 451
        assert made.transport.aborted
        assert b"\r\n.\r\n" not in sent
        assert logged() == ([] if isinstance(error, OSError) else ["a message cannot be read"])

    def test_slow_server(
        self, connection: Callable[..., Connection], message: Message, clock: Clock
    ) -> None:
        """
        Each piece has its three minutes.
        """
        made = connection(delivery := message(text=io.BytesIO(b"x" * 10 * PIECE)))
        made.take()
        for _ in range(3):
            clock.advance(179)
            producer = made.transport.producer
            assert producer is not None
            producer.resumeProducing()
        assert not delivery.is_settled
        clock.advance(180)

        assert delivery.is_settled
        assert made.transport.aborted


class TestBdat:
    def test_chunk_by_chunk(self, connection: Callable[..., Connection], message: Message) -> None:
        """
        Each chunk waits for the answer to the one before it.
        """
        text = b"x" * (CHUNK + 1)
        made = connection(delivery := message(text=io.BytesIO(text)), "CHUNKING")
        made.heard()
        made.say(OK * 2)
        assert made.heard() == b"BDAT %d\r\n" % CHUNK + text[:CHUNK]
        made.say(OK)
        assert made.heard() == b"BDAT 1 LAST\r\nx"
        made.say(OK)

        assert delivery.is_settled

    def test_empty(self, connection: Callable[..., Connection], message: Message) -> None:
        """
        A message of no octets is one chunk, too.
        """
        made = connection(message(text=b""), "CHUNKING")
        made.heard()
        made.say(OK * 2)

        assert made.heard() == b"BDAT 0 LAST\r\n"


class TestText:
    def test_from_where_it_stands(self) -> None:
        """
        What was read of a file before is no part of the message.
        """
        file = io.BytesIO(b"envelope\nmessage")
        file.readline()
        text = Text(file)

        assert text.size == 7
        assert text.is_ascii()
        assert text.read(100) == (b"message", True)

    @pytest.mark.parametrize(
        ("octets", "is_ascii"), [(b"x" * 200_000, True), (b"x" * 200_000 + b"\x80", False)]
    )
    def test_is_ascii(self, octets: bytes, is_ascii: bool) -> None:
        """
        All of it is looked at.
        """
        assert Text(octets).is_ascii() is is_ascii
        assert Text(octets).is_short

    def test_pipe(self) -> None:
        """
        What cannot be rewound has no size, and counts as 8-bit.
        """

        class Pipe(io.BytesIO):
            def seekable(self) -> bool:
                return False

        text = Text(Pipe(b"x"))

        assert text.size is None
        assert not text.is_ascii()
        assert not text.is_short

    def test_long(self) -> None:
        """
        A long message is not looked through without need.
        """
        assert not Text(b"x" * (LOOKED_THROUGH + 1)).is_short

    def test_unreadable(self) -> None:
        """
        What cannot be read is not refused for what is in it.
        """
        text = Text(Broken(b"x" * 10 * PIECE, OSError(5, "Input/output error")))

        assert text.is_ascii()
