"""
The power cut is a check that can fail: take a sync out, and it does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from .disks import Disk
from .messages import KIB, compose
from .power import cut_power_under_load
from .service import Service

ROUNDS = 12


@pytest.mark.parametrize("what", ["files", "large-files", "directories"])
def test_is_noticed(what: str, disk: Callable[..., Disk], service: Callable[..., Service]) -> None:
    """
    Without the sync of files, of large ones only, or of directories, a power cut breaks a promise.

    Without the former, names are on the disk before what they name: messages are empty or cut.
    Without the latter, the last names are missing; not all, since ext4 commits the names of
    before with the next file that is synced.  So few clients: the fewer syncs, the more is lost.
    """
    plugged = disk()
    harm: list[str] = []
    for seed in range(ROUNDS):
        _, found = cut_power_under_load(
            plugged, service, seed, connections=2, most=60, sabotage=(what,)
        )
        harm = found.harm
        if harm:
            break

    assert harm, f"{ROUNDS} rounds without the sync of {what}, and nothing was lost"
    wanted = "lost" if what == "directories" else "broken"
    assert [line for line in harm if line.startswith(wanted)]


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
