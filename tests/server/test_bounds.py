"""
Whatever clients send, at whatever pace, memory stays flat, and others are served meanwhile.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from typing import Any

import pytest

from lmtpsvc.limits import Limits

HELLO = b"LHLO a\r\n"
MAIL = b"MAIL FROM:<me@example.net>\r\n"
RCPT = b"RCPT TO:<quick@example.org>\r\n"
PACKET = 65_536

#: Octets that may be in memory more than before, whatever has been sent: for a packet or two, with
#: the replies to thousands of commands in it.
FLAT = 2_000_000


def packets(octets: bytes, count: int, size: int = PACKET) -> Iterator[bytes]:
    """
    *count* packets with *octets* again and again.
    """
    stream = octets * (size // len(octets) + 2)
    position = 0
    for _ in range(count):
        yield stream[position : position + size]
        position = (position + size) % len(octets)


#: What a client says, of which there is much more than may be kept.
FLOODS: dict[str, Callable[[], Iterator[bytes]]] = {
    "a line without end": lambda: packets(b"x", 100),
    "a line without end in a transaction": lambda: chain([MAIL], packets(b"RCPT TO:<", 100)),
    "a line without end, octet by octet": lambda: packets(b"x", 20_000, 1),
    "parameters without end": lambda: chain([b"MAIL FROM:<> "], packets(b"SIZE=1 X=", 100)),
    "lines that are too long": lambda: packets(b"NOOP " + b"x" * 9000 + b"\r\n", 20),
    "white space without end": lambda: packets(b" ", 100),
    "NULs": lambda: packets(b"\0", 100),
    "a chunk without end": lambda: chain(
        [MAIL + RCPT + b"BDAT 99999999999999999999 LAST\r\n"], packets(b"QUIT\r\n", 100)
    ),
    "a chunk without end that nobody asked for": lambda: chain(
        [b"BDAT 99999999999999999999\r\n"], packets(b"QUIT\r\n", 100)
    ),
    "a chunk of 21 digits": lambda: chain(
        [b"BDAT 999999999999999999999\r\n"], packets(b"QUIT\r\n", 100)
    ),
    "chunks that are refused": lambda: chain(
        [MAIL + RCPT], packets(b"BDAT 900 NOT\r\n" + b"NOOP\r\n\r\n." * 100, 100)
    ),
    "chunks of a message that is too large": lambda: chain(
        [MAIL + RCPT], packets(b"BDAT 60000\r\n" + b"x" * 60_000, 100)
    ),
    "empty chunks": lambda: chain([MAIL + RCPT], packets(b"BDAT 0\r\n", 3)),
    "a text that is too large": lambda: chain([MAIL + RCPT + b"DATA\r\n"], packets(b".\r\n", 100)),
    "a line of text without end": lambda: chain([MAIL + RCPT + b"DATA\r\n"], packets(b"x", 100)),
    "recipients without end": lambda: chain([MAIL], packets(RCPT, 10)),
    "nothing but errors": lambda: packets(b"X\r\n", 100),
}


class Hungry:
    """
    A client on *wire* that takes its replies at once, and sends as long as it is read.
    """

    def __init__(self, wire: Any) -> None:
        self.wire = wire
        self.heard = 0
        self.kept = 0

    def send(self, flood: Iterator[bytes]) -> None:
        for packet in flood:
            if self.wire.disconnecting or self.wire.producerState != "producing":
                return
            self.wire.protocol.dataReceived(packet)
            self.heard += len(self.wire.value())
            self.wire.clear()
            self.wire.writes.clear()
            self.kept = max(self.kept, len(self.wire.protocol._session._buffer))


@pytest.fixture
def settled() -> Iterator[None]:
    gc.collect()
    gc.freeze()  # what is left is no garbage of this test: nobody need look through it again
    tracemalloc.start()
    yield
    tracemalloc.stop()


SMALL = Limits(message_size=100_000, spool_memory=50_000, recipients=100)


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("flood", FLOODS)
def test_flat(flood: str, make_server: Callable[..., Any]) -> None:
    """
    Of up to six megabytes next to nothing is kept; and somebody else's message is delivered.
    """
    server = make_server(SMALL)
    client = Hungry(server.accept())
    client.wire.protocol.dataReceived(HELLO)
    client.wire.clear()
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()

    client.send(FLOODS[flood]())

    _, peak = tracemalloc.get_traced_memory()
    assert peak - before < FLAT, f"{peak - before:,} octets"
    assert client.kept <= PACKET + SMALL.command_line
    other = server.accept()
    other.heard()
    other.protocol.dataReceived(HELLO + MAIL + RCPT + b"BDAT 2 LAST\r\nHi")
    assert other.heard()[-1].endswith(b"Delivered")


def test_ten_thousand_commands(make_server: Callable[..., Any]) -> None:
    """
    Ten thousand commands in one go are ten thousand replies, with no nesting and in order.
    """
    server = make_server(SMALL)
    wire = server.accept()
    wire.heard()

    wire.protocol.dataReceived(b"NOOP\r\nVRFY a\r\n" * 5_000)

    heard = wire.heard()
    assert [b"250", b"252"] * 5_000 == [line[:3] for line in heard]


def test_commands_in_front_of_a_look_up(make_server: Callable[..., Any]) -> None:
    """
    Behind a slow look-up they are not even read: the transport is stopped.
    """
    server = make_server(SMALL)
    client = Hungry(server.accept())
    client.wire.protocol.dataReceived(HELLO + MAIL + b"RCPT TO:<late@example.org>\r\n")

    client.send(packets(b"NOOP\r\n", 100))

    assert "paused" == client.wire.producerState
    assert client.kept <= 2 * PACKET


@pytest.mark.parametrize("said", [b"DATA\r\n", b"BDAT 1000000 LAST\r\n"])
def test_text_in_front_of_a_look_up(said: bytes, make_server: Callable[..., Any]) -> None:
    """
    Nor is a text, however it comes.
    """
    server = make_server(SMALL)
    client = Hungry(server.accept())
    client.wire.protocol.dataReceived(HELLO + MAIL + b"RCPT TO:<late@example.org>\r\n" + said)

    client.send(packets(b"x", 100))

    assert "paused" == client.wire.producerState
    assert client.kept <= 2 * PACKET


def test_slow_senders(make_server: Callable[..., Any]) -> None:
    """
    Fifty clients of an octet at a time are served side by side.
    """
    server = make_server(SMALL)
    talk = HELLO + MAIL + RCPT + b"BDAT 3\r\nHi\nBDAT 0 LAST\r\n" + MAIL + RCPT + b"DATA\r\n.\r\n"
    wires = [server.accept() for _ in range(50)]
    for wire in wires:
        wire.clear()

    for octet in range(len(talk)):
        for wire in wires:
            wire.protocol.dataReceived(talk[octet : octet + 1])
    for wire in wires:
        heard = [line[:3] for line in wire.heard() if line[3:4] == b" "]
        assert [*repeat(b"250", 7), b"354", b"250"] == heard


class Slow:
    """
    A client on *wire* that takes nothing of what it hears before it is asked to; *kept* is how much
    of it was to be sent at most.
    """

    def __init__(self, wire: Any) -> None:
        self.wire = wire
        self.kept = 0
        self.heard = b""
        write = wire.write

        def full(octets: bytes) -> None:
            write(octets)
            self.kept = max(self.kept, len(wire.value()))
            if len(wire.value()) > PACKET:
                wire.protocol.pauseProducing()

        wire.write = full

    def take(self) -> bool:
        """
        Take what is there; whether there was something.
        """
        heard: bytes = self.wire.value()
        self.heard += heard
        self.wire.clear()
        self.wire.protocol.resumeProducing()
        return heard != b""


def test_replies_that_are_long(make_server: Callable[..., Any]) -> None:
    """
    What is answered with fifty times as much is not answered before the client takes it.
    """
    server = make_server(SMALL)
    client = Slow(server.accept())
    said = PACKET // len(HELLO)

    client.wire.protocol.dataReceived(HELLO * said + b"QUIT\r\n")

    assert "paused" == client.wire.producerState
    while client.take():
        pass
    assert client.kept < 3 * PACKET
    assert said == client.heard.count(b"\r\n250 ")
    assert client.heard.endswith(b"closing connection\r\n")
    assert client.wire.disconnecting


def test_replies_that_are_taken(make_server: Callable[..., Any]) -> None:
    """
    Who takes them at once gets all of them, without a further octet of its own.
    """
    server = make_server(SMALL)
    wire = server.accept()

    wire.protocol.dataReceived(HELLO * 5_000 + b"LH")

    assert 5_000 == wire.value().count(b"\r\n250 ")
    assert "producing" == wire.producerState
