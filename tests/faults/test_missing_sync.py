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


@pytest.mark.parametrize("what", ["files", "directories"])
def test_is_noticed(
    what: str, disk: Callable[..., Disk], service: Callable[..., Service]
) -> None:
    """
    Without the sync of files, or that of directories, a power cut breaks a promise.

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
    wanted = "broken" if what == "files" else "lost"
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
    message = compose(Random(0), ("ann@example.org",), 1000)
    with running.connection() as connection:
        (reply,) = connection.deliver(message)

    assert reply.code == 250
    synced = record.read_text().splitlines()
    mailbox = root / "example.org" / "ann"
    for path in (root, root / "example.org", mailbox, mailbox / "new"):
        assert str(path) in synced
    files = [path for path in synced if "/tmp/" in path.removeprefix(str(root))]
    assert files, "the message itself"
    assert synced.index(files[0]) < synced.index(str(mailbox / "new"))
