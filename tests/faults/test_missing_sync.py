"""
The power cut is a check that can fail: take a sync out, and it does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from .disks import Disk
from .messages import compose
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


def test_every_parent_is_synced(directory: Path, service: Callable[..., Service]) -> None:
    """
    The first delivery to a mailbox of a new domain syncs every directory that it made or changed.

    ext4 commits all names with any sync, so that no power cut would tell.
    """
    root = directory / "mail"
    root.mkdir()
    record = directory / "syncs"
    running = service(root, sabotage=("record", str(record)))
    recipients: tuple[str, ...] = ("ann@example.org", "bob@example.org", "cid@example.com")
    with running.connection() as connection:
        for octets in (1000, 300_000):
            replies = connection.deliver(compose(Random(octets), recipients, octets))
            synced = record.read_text().splitlines()
            assert [250] * 3 == [reply.code for reply in replies]

            made = {root}
            for recipient in recipients:
                user, domain = recipient.split("@")
                made |= {root / domain, root / domain / user, root / domain / user / "new"}
            assert {str(path) for path in made} <= set(synced)
            files = [path for path in synced if "/tmp/" in path.removeprefix(str(root))]
            assert files, "the message itself"
            news = [path for path in synced if path.endswith("/new")]
            assert synced.index(files[0]) < len(synced) - 1 - synced[::-1].index(news[-1])
            recipients = tuple(f"new-{recipient}" for recipient in recipients)
            record.write_text("")
