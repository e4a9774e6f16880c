"""
The power cut is a check that can fail: take a sync out, and it does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import pytest

from .disks import Disk
from .messages import KIB, compose
from .power import cut_power_under_load
from .service import Service

ROUNDS = 12

#: How many clients there are, and within how many replies the power goes.  Some things are done only
#: where there are many clients, and the process needs a moment to begin.
LOADS = {"file-systems": (8, 150), "process": (8, 800)}


@pytest.mark.parametrize("what", ["files", "large-files", "directories", "file-systems", "process"])
def test_is_noticed(what: str, disk: Callable[..., Disk], service: Callable[..., Service]) -> None:
    """
    Without the sync of files, of large ones only, or of directories, a power cut breaks a promise.

    Without the sync of files, names are on the disk before what they name: messages are empty or
    cut.  Without that of directories the last names are missing; not all, since ext4 commits the
    names of before with the next file that is synced: so few clients, for the fewer syncs, the more
    is lost.  Whole file systems are synced only where many clients come together; most of these waits
    are done by a process.
    """
    plugged = disk()
    # How it waits for the disk depends on how long things take: they are to take what they do elsewhere.
    start = partial(service, forks=None)
    connections, most = LOADS.get(what, (2, 60))
    wanted = "broken" if what.endswith("files") else "lost"
    harm: list[str] = []
    for seed in range(ROUNDS):
        _, found = cut_power_under_load(
            plugged, start, seed, connections=connections, most=most, sabotage=(what,)
        )
        harm += found.harm
        # Where nothing is synced, there may be one harm in a round, and the other in the next.
        if any(line.startswith(wanted) for line in harm):
            return

    pytest.fail(f"{ROUNDS} rounds without the sync of {what}, and nothing was {wanted}: {harm}")


@pytest.mark.parametrize("octets", [1000, 300 * KIB])
def test_everything_is_synced(
    octets: int, directory: Path, service: Callable[..., Service]
) -> None:
    """
    The first delivery to some mailboxes syncs the message and every directory that it made or
    changed; the second syncs the message, then ``new`` of each.

    ext4 commits all names with any sync, so that no power cut would tell.
    """
    root = directory / "mail"
    root.mkdir()
    record = directory / "syncs"
    running = service(root, sabotage=("record", str(record)))
    recipients = ("ann@example.org", "bob@example.org", "cid@example.com")
    homes = [root / domain / user for user, _, domain in (r.partition("@") for r in recipients)]
    with running.connection() as connection:

        def deliver(seed: int) -> list[Path]:
            record.write_text("")
            replies = connection.deliver(compose(Random(seed), recipients, octets))
            assert [250] * 3 == [reply.code for reply in replies]
            return [Path(line) for line in record.read_text().splitlines()]

        first, second = deliver(1), deliver(2)

    parents = {root, *homes, *(home.parent for home in homes)}
    assert parents <= set(first)
    for synced in (first, second):
        (message,) = [path for path in synced if path.parent.name == "tmp"]
        after = synced[synced.index(message) :]
        assert {home / "new" for home in homes} <= set(after)


@pytest.mark.parametrize("octets", [1000, 300 * KIB])
def test_file_system_is_synced_twice(
    octets: int, directory: Path, service: Callable[..., Service]
) -> None:
    """
    Where the file system as a whole is synced, it is before a message is shown, and after.

    ext4 writes the data before the names, so that no power cut would tell of the former.
    """
    root = directory / "mail"
    root.mkdir()
    record = directory / "syncs"
    running = service(root, sabotage=("record-file-systems", str(record)))
    recipients = ("ann@example.org", "bob@example.org")
    with running.connection() as connection:
        replies = connection.deliver(compose(Random(0), recipients, octets))

    assert [250] * 2 == [reply.code for reply in replies]
    assert ["not yet", "finally"] == record.read_text().splitlines()
