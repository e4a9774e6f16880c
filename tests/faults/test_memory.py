"""
What many clients, and large messages, cost a server that has started as an administrator's does.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from threading import Barrier

import pytest

from .client import Connection, quietly_close
from .disks import MIB, MemoryDisk
from .messages import KIB, Message, Reply, compose
from .service import Service
from .store import messages

CLIENTS = 50
IDLE = 2000


@pytest.fixture
def many_files() -> Iterator[None]:
    """
    As many open files as the machine allows, here and in the server.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < IDLE + 200:
        pytest.skip(f"no more than {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_large_messages(
    memory_disk: Callable[..., MemoryDisk],
    service: Callable[..., Service],
    port: int,
) -> None:
    """
    50 clients that send 30 MB each, all at the same time, leave the server below 200 MB.

    Every second one has two recipients.
    """
    root = memory_disk(4096 * MIB).root
    running = service(root, port=port, forks=None)
    body = compose(Random(0), (), 30 * MIB)
    half_way = Barrier(CLIENTS)

    def send(n: int) -> list[Reply]:
        recipients = [f"user{n}@example.org", f"user{n}@example.com"][: 1 + n % 2]
        with Connection(running.where, 120) as connection:
            _, data = connection.begin(recipients)
            assert data.code == 354
            middle = len(stuffed) // 2
            _send_in_pieces(connection, stuffed[:middle])
            half_way.wait(60)
            _send_in_pieces(connection, stuffed[middle:])
            return [connection.reply() for _ in recipients]

    stuffed = memoryview(body.stuffed)
    with ThreadPoolExecutor(CLIENTS) as pool:
        replies = [reply for replies in pool.map(send, range(CLIENTS)) for reply in replies]

    assert {reply.code for reply in replies} == {250}
    assert len(replies) == 75
    peak = running.memory("VmHWM")
    assert peak < 200 * MIB
    stored = messages(root)
    assert len(stored) == len(replies)
    _check(stored, body)


def test_large_chunk(directory: Path, service: Callable[..., Service], port: int) -> None:
    """
    A BDAT of 50 MB, and one of as much that is refused, cost the server less than 20 MB.
    """
    root = directory / "mail"
    running = service(root, port=port, forks=None)
    text = Random(0).randbytes(50 * MIB)
    envelope = b"MAIL FROM:<me@example.net>\r\nRCPT TO:<ann@example.org>\r\n"
    with running.connection() as connection:
        before = running.memory("VmHWM")
        connection.send(envelope + b"BDAT %d LAST\r\n" % len(text))
        _send_in_pieces(connection, memoryview(text))
        connection.send(b"BDAT %d\r\n" % len(text))
        _send_in_pieces(connection, memoryview(text))
        codes = [connection.reply().code for _ in range(4)]

    assert codes == [250, 250, 250, 503]
    assert running.memory("VmHWM") - before < 20 * MIB
    (stored,) = messages(root)
    same = stored.read_bytes().endswith(text.replace(b"\r\n", b"\n"))
    assert same, "what is stored is not what was sent"


def test_hostile_clients(directory: Path, service: Callable[..., Service], port: int) -> None:
    """
    Clients that send lines, parameters, chunks or commands without end, or take no replies, cost the
    server less than 40 MB all together; and others are served while they do.
    """
    running = service(directory / "mail", port=port, forks=None)
    rcpt = b"MAIL FROM:<me@example.net>\r\nRCPT TO:<ann@example.org>\r\n"
    floods = [
        (b"", b"x"),
        (b"MAIL FROM:<> ", b"SIZE=1 X=1 "),
        (b"", b"NOOP\r\n"),
        (rcpt + b"BDAT 99999999999999999999 LAST\r\n", b"QUIT\r\n"),
        (b"BDAT 99999999999999999999\r\n", b"QUIT\r\n"),
        (rcpt + b"BDAT 0 NOT\r\n", b"BDAT 8\r\n12345678"),
        (rcpt + b"DATA\r\n", b"."),
    ] * 5
    with running.connection() as connection:
        before = running.memory("VmHWM")
        with ThreadPoolExecutor(len(floods)) as pool:
            sent = [pool.submit(_flood, running, *flood) for flood in floods]
            served = 0
            while served < 20 or not all(each.done() for each in sent):
                message = compose(Random(served), ("ann@example.org",), 1000)
                assert [reply.code for reply in connection.deliver(message)] == [250]
                served += 1
        grown = running.memory("VmHWM") - before

    assert sum(each.result() for each in sent) > 50 * MIB
    assert grown < 40 * MIB
    assert "Traceback" not in running.log


def _flood(running: Service, begin: bytes, more: bytes) -> int:
    """
    Send *begin*, then *more* until there are 10 MB, or until nothing is read any more, and take no
    reply; returns how much was sent.
    """
    packet = more * (64 * KIB // len(more))
    sent = 0
    with running.connection() as connection:
        connection.socket.settimeout(2)
        try:
            connection.send(begin)
            while sent < 10 * MIB:
                connection.send(packet)
                sent += len(packet)
        except (TimeoutError, ConnectionError):
            # The server reads no more, or has hung up: both are right.
            pass
    return sent


def _send_in_pieces(connection: Connection, octets: memoryview) -> None:
    for start in range(0, len(octets), 64 * KIB):
        connection.socket.sendall(octets[start : start + 64 * KIB])


def _check(stored: list[Path], body: Message) -> None:
    """
    Each file ends with the text as it was sent; those with several names are read once.
    """
    text = body.text.replace(b"\r\n", b"\n")
    for path in {path.stat().st_ino: path for path in stored}.values():
        assert path.read_bytes().endswith(text), path


@pytest.mark.usefixtures("many_files")
def test_idle_connections(
    directory: Path,
    service: Callable[..., Service],
    port: int,
) -> None:
    """
    2,000 clients that have said LHLO and nothing else cost less than 20 KB each.
    """
    running = service(directory / "mail", port=port, forks=None)
    for _ in range(20):
        running.connection().close()
    before = running.memory("VmRSS")
    connections: list[Connection] = []
    try:
        while len(connections) < IDLE:
            connections.append(running.connection())
        each = (running.memory("VmRSS") - before) / IDLE
        with running.connection() as connection:
            (reply,) = connection.deliver(compose(Random(0), ("ann@example.org",), 1000))
    finally:
        quietly_close(connections)

    assert each < 20_000
    assert reply.code == 250
