"""
No room, no inodes, no right to write: "not now" to whom it concerns, and the service goes on.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random

import pytest

from lmtpsvc.testing.load import PATIENCE

from .client import Load
from .disks import MIB, Disk, MemoryDisk, Mount
from .messages import KIB, Ledger, compose
from .service import Service, wait_until
from .store import inspect, leftovers, messages
from .writer import ALWAYS, begin_writing, written

NO_SPACE = "452 4.3.1"
THREE = ("ann@example.org", "bob@example.org", "cid@example.org")


def clean(service: Service) -> None:
    """
    Wait until nothing is left of what could not be delivered: no file, and no spool.

    The last reply may be written a moment before the last file is removed.
    """
    wait_until(
        lambda: not leftovers(service.root) and not service.open_files(service.root),
        PATIENCE,
        "everything is tidied up",
    )


@pytest.fixture(params=["tmpfs: space", "tmpfs: inodes", "ext4: space", "ext4: inodes"])
def scarce(
    request: pytest.FixtureRequest,
    disk: Callable[..., Disk],
    memory_disk: Callable[..., MemoryDisk],
) -> Mount:
    """
    A disk on which something runs out soon.
    """
    match request.param:
        case "tmpfs: space":
            return memory_disk(6 * MIB)
        case "tmpfs: inodes":
            return memory_disk(64 * MIB, 500)
        case "ext4: space":
            return disk(16 * MIB, ("-b", "1024", "-m", "0"))
        case _:
            return disk(64 * MIB, ("-b", "1024", "-m", "0", "-N", "500"))


def fill(running: Service, *, large: bool) -> Ledger:
    """
    Deliver until the disk is full, and a hundred recipients have been told "not now", and nothing else;
    returns what all were told.
    """
    ledger = Ledger()
    load = Load(running.where, ledger, "full", large=large)
    load.start()
    try:
        ledger.wait_for(lambda: len(ledger.refused) >= 100, PATIENCE)
    finally:
        load.stop()

    assert not load.ended
    assert {reply.line[: len(NO_SPACE)] for reply in ledger.refused.values()} == {NO_SPACE}
    return ledger


def test_runs_full(scarce: Mount, service: Callable[..., Service]) -> None:
    """
    Eight clients deliver until long after the disk is full: the refused are told "not now", and
    nothing is left of them.  When somebody has tidied up, mail is taken again.
    """
    running = service(scarce.root)
    ledger = fill(running, large=True)
    assert ledger.promised
    clean(running)
    found = inspect(scarce.root, ledger)
    assert found.harm == []
    assert found.refused == []

    for path in messages(scarce.root):
        path.unlink()
    with running.connection() as connection:
        again = compose(Random(1), ("user1@example.org", "user2@example.org"), 300 * KIB)
        replies = connection.deliver(again)
    assert [reply.code for reply in replies] == [250, 250]


def test_runs_full_under_the_writer(scarce: Mount, service: Callable[..., Service]) -> None:
    """
    The same where a process stores what is small: what it finds no room for, it leaves to others, who
    tell why.
    """
    running = service(scarce.root, sabotage=ALWAYS)
    pid = begin_writing(running)
    so_far = written(pid)
    ledger = fill(running, large=False)
    assert len(ledger.promised) > 20
    assert written(pid) > so_far + 10 * KIB
    clean(running)
    found = inspect(scarce.root, ledger)
    assert found.harm == []
    assert found.refused == []

    for path in messages(scarce.root):
        path.unlink()
    so_far = written(begin_writing(running))
    with running.connection() as connection:
        (reply,) = connection.deliver(compose(Random(1), ("user1@example.org",), 10 * KIB))
    assert 250 == reply.code
    assert written(pid) >= so_far + 10 * KIB


def test_only_one_of_the_disks(
    directory: Path, memory_disk: Callable[..., MemoryDisk], service: Callable[..., Service]
) -> None:
    """
    A mailbox whose own disk is full does not concern the others, wherever it stands in line.
    """
    root = directory / "mail"
    full = memory_disk(MIB, point="mail/full.example")
    running = service(root)
    hoard = full.point / "hoard"
    with hoard.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(64 * KIB))
    with running.connection() as connection:
        for octets in (1000, 300 * KIB):
            for position in range(3):
                recipients = ["ann@example.org", "bob@example.org"]
                recipients.insert(position, "cid@full.example")
                message = compose(Random(position), tuple(recipients), octets)
                replies = connection.deliver(message)
                expected = ["250"] * 2
                expected.insert(position, "452")
                assert expected == [reply.line[:3] for reply in replies]
                assert replies[position].line.startswith(NO_SPACE)
        hoard.unlink()
        (reply,) = connection.deliver(compose(Random(4), ("cid@full.example",), 1000))
    assert reply.code == 250


def test_spool_is_full(
    memory_disk: Callable[..., MemoryDisk], service: Callable[..., Service]
) -> None:
    """
    A message that does not fit into the spool is refused for each recipient, after its text; the
    connection can be used for the next.
    """
    small = memory_disk(2 * MIB)
    running = service(small.root)
    ledger = Ledger()
    with running.connection() as connection:
        large = connection.deliver(compose(Random(0), THREE, 5 * MIB), ledger)
        assert [NO_SPACE] * 3 == [reply.line[: len(NO_SPACE)] for reply in large]
        modest = connection.deliver(compose(Random(1), THREE, 1000), ledger)
        assert [250] * 3 == [reply.code for reply in modest]
    clean(running)
    assert inspect(small.root, ledger).harm == []


def _spools(service: Service, expected: bool) -> bool:
    return bool(service.open_files(service.root)) == expected


def test_failed_spool_is_nobody_elses(
    memory_disk: Callable[..., MemoryDisk], service: Callable[..., Service]
) -> None:
    """
    A message whose spool has failed before its end is refused, although another client's message
    is being spooled by then, perhaps under the same file descriptor.
    """
    small = memory_disk(3 * MIB)
    running = service(small.root)
    ledger = Ledger()
    too_large = compose(Random(0), ("ann@example.org",), 5 * MIB)
    fitting = compose(Random(1), ("bob@example.org",), MIB)
    with running.connection() as first, running.connection() as second:
        for connection, message, sent in ((first, too_large, -3), (second, fitting, 700 * KIB)):
            ledger.will_send(message)
            connection.begin(message.recipients)
            connection.send(message.stuffed[:sent])
            wait_until(
                partial(_spools, running, sent > 0),
                PATIENCE,
                "the first is given up, the second spooled",
            )
        first.send(too_large.stuffed[-3:])
        refused = first.reply()
        second.send(fitting.stuffed[700 * KIB :])
        delivered = second.reply()
    ledger.record(too_large, "ann@example.org", refused)
    ledger.record(fitting, "bob@example.org", delivered)
    assert inspect(small.root, ledger).harm == []
    assert refused.line.startswith(NO_SPACE)
    assert delivered.code == 250


def test_read_only(disk: Callable[..., Disk], service: Callable[..., Service]) -> None:
    """
    On a disk that has become read-only nothing can be stored, be it large or small; later it can.
    """
    plugged = disk(32 * MIB)
    running = service(plugged.root)
    with running.connection() as connection:

        def codes(seed: int, octets: int, *recipients: str) -> list[str]:
            replies = connection.deliver(compose(Random(seed), recipients, octets))
            return [reply.line[: len(NO_SPACE if reply.code > 250 else "250")] for reply in replies]

        assert codes(1, 1000, "ann@example.org") == ["250"]
        plugged.remount("ro")
        assert codes(2, 1000, "ann@example.org") == [NO_SPACE]
        assert codes(3, 1000, *THREE) == [NO_SPACE] * 3
        assert codes(4, 400 * KIB, *THREE) == [NO_SPACE] * 3
        plugged.remount("rw")
        assert codes(5, 1000, *THREE) == ["250"] * 3
        assert codes(6, 400 * KIB, *THREE) == ["250"] * 3
    clean(running)
    assert len(messages(plugged.root)) == 7


def test_no_descriptors(directory: Path, service: Callable[..., Service]) -> None:
    """
    A server that may not open another file says "not now", and goes on when it may.
    """
    root = directory / "mail"
    running = service(root)
    ledger = Ledger()
    process = running.process.pid
    allowed = resource.prlimit(process, resource.RLIMIT_NOFILE)
    with running.connection() as connection:
        used = len(list(Path(f"/proc/{process}/fd").iterdir()))
        resource.prlimit(process, resource.RLIMIT_NOFILE, (used, allowed[1]))
        for seed, octets in enumerate((300 * KIB, 1000, 300 * KIB)):
            message = compose(Random(seed), THREE, octets)
            replies = connection.deliver(message, ledger)
            assert {reply.code for reply in replies} <= {250, 451, 452}
        resource.prlimit(process, resource.RLIMIT_NOFILE, allowed)
        for seed, octets in enumerate((300 * KIB, 1000), start=10):
            replies = connection.deliver(compose(Random(seed), THREE, octets), ledger)
            assert [250] * 3 == [reply.code for reply in replies]
    assert ledger.refused
    clean(running)
    found = inspect(root, ledger)
    assert found.harm == []
    assert found.refused == []


def test_no_room_for_the_log(directory: Path, service: Callable[..., Service]) -> None:
    """
    Mail is taken although not a word of it can be logged.
    """
    running = service(directory / "mail", log=Path("/dev/full"))
    ledger = Ledger()
    with running.connection() as connection:
        for seed in range(3):
            replies = connection.deliver(compose(Random(seed), THREE, 1000), ledger)
            assert [250] * 3 == [reply.code for reply in replies]
    assert inspect(running.root, ledger).harm == []
