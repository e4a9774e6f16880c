from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from attrs import evolve

from benchmarks.client import Client, LoadError
from benchmarks.ledger import Ledger
from benchmarks.workloads import Workload

FEW = Workload("few", sessions=2, recipients=3, octets=1024, users=range(10), most=4)


@contextmanager
def connected(server: Any, workload: Workload, ledger: Ledger) -> Iterator[Client]:
    """
    A client whose sessions are open.
    """
    client = Client(server.connect, workload, ledger)
    try:
        client.open()
        yield client
    finally:
        client.close()


class TestSending:
    @pytest.mark.parametrize("trickle", [False, True])
    def test_acknowledged(self, scripted: Callable[..., Any], trickle: bool) -> None:
        """
        Each recipient who was answered stands in the ledger, and has a latency.
        """
        server, ledger = scripted(trickle=trickle), Ledger()

        with connected(server, FEW, ledger) as client:
            sent = client.send(60)

        assert sent.messages == 4
        assert sent.deliveries == len(sent.latencies) == len(ledger.entries) == 12
        assert {number for number, _ in ledger.entries} == {1, 2, 3, 4}
        assert min(sent.latencies) > 0
        assert server.connections == 2

    def test_text(self, scripted: Callable[..., Any]) -> None:
        """
        The text has the size of the workload, and a line that begins with a dot.
        """
        server = scripted()

        with connected(server, evolve(FEW, octets=100_000, most=1), Ledger()) as client:
            client.send(60)

        [text] = server.texts
        assert b"\r\n..A line" in text
        assert len(text) == 100_001

    def test_everybody(self, scripted: Callable[..., Any]) -> None:
        """
        Who warms a server up sends to each user, and over each session.
        """
        ledger = Ledger()

        with connected(scripted(), evolve(FEW, sessions=6), ledger) as client:
            sent = client.send_to_all()

        assert sent.messages == 6
        assert {user for _, user in ledger.entries} == set(range(10))

    def test_nobody_twice(self, scripted: Callable[..., Any]) -> None:
        """
        No message names a recipient twice.
        """
        ledger = Ledger()

        with connected(scripted(), evolve(FEW, recipients=10), ledger) as client:
            client.send(60)

        assert {(number, user) for number in range(1, 5) for user in range(10)} == ledger.entries

    def test_time(self, scripted: Callable[..., Any]) -> None:
        """
        When the time is over, nothing more is sent.
        """
        with connected(scripted(), FEW, Ledger()) as client:
            assert client.send(0).messages == 0

    def test_reconnect(self, scripted: Callable[..., Any]) -> None:
        """
        A connection for each message, if the workload says so.
        """
        server = scripted()

        with connected(server, evolve(FEW, reconnect=True), Ledger()) as client:
            client.send(60)

        assert server.connections == 2 + 4
        assert server.lines.count(b"QUIT") == 4


class TestRefused:
    def test_recipient(self, scripted: Callable[..., Any]) -> None:
        """
        Who was told to come back is not in the ledger.
        """
        ledger = Ledger()
        server = scripted(
            answers=lambda line: b"452 full" if line == b". u000003@example.org" else b"250 Ok"
        )

        with connected(server, evolve(FEW, recipients=10, most=1), ledger) as client:
            sent = client.send(60)

        assert dict(sent.refused) == {"452 full": 1}
        assert {(1, user) for user in range(10) if user != 3} == ledger.entries

    def test_several_lines(self, scripted: Callable[..., Any]) -> None:
        """
        A reply of several lines is one reply.
        """
        server = scripted(answers=lambda _: b"250-one\r\n250 two")

        with connected(server, FEW, Ledger()) as client:
            assert client.send(60).deliveries == 12

    @pytest.mark.parametrize(
        ("said", "answer"),
        [(b"MAIL", b"550 no"), (b"RCPT", b"550 no"), (b"LHLO", b"500 no"), (b"MAIL", b"")],
    )
    def test_command(self, scripted: Callable[..., Any], said: bytes, answer: bytes) -> None:
        """
        A command that is refused, or a connection that is lost, ends it all.
        """
        server = scripted(answers=lambda line: answer if line.startswith(said) else b"250 Ok")

        with pytest.raises(LoadError), connected(server, FEW, Ledger()) as client:
            client.send(60)

    def test_greeting(self, scripted: Callable[..., Any]) -> None:
        """
        A server that is not ready is not measured.
        """
        with (
            pytest.raises(LoadError, match="expected 220, heard b'421 later'"),
            connected(scripted(greeting=b"421 later"), FEW, Ledger()),
        ):
            pass

    def test_too_much(self, scripted: Callable[..., Any]) -> None:
        """
        One reply too many is a mistake of the server's.
        """
        server = scripted(
            answers=lambda line: b"250 Ok\r\n250 Ok" if line.startswith(b". ") else b"250 Ok"
        )

        with (
            pytest.raises(LoadError),
            connected(server, evolve(FEW, sessions=1), Ledger()) as client,
        ):
            client.send(60)
