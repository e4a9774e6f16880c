"""
One mailbox that cannot be written to, among others that can.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

import pytest

from lmtpsvc.testing.disk import run

from .disks import MIB, Disk
from .messages import KIB, Ledger, compose
from .service import Service
from .store import inspect
from .test_full_disk import clean

NOBODY = 65534


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    """
    Nothing can be made in the directory, not even by root.
    """
    run("chattr", "+i", path)
    try:
        yield
    finally:
        run("chattr", "-i", path)


def spoil(how: str, mailbox: Path, stack: ExitStack) -> None:
    """
    Make a mailbox unwritable.
    """
    match how:
        case "a file in its place":
            mailbox.parent.mkdir(exist_ok=True)
            mailbox.write_bytes(b"not a directory")
        case "immutable":
            mailbox.mkdir(parents=True)
            stack.enter_context(immutable(mailbox))
        case "new is immutable":
            for name in ("new", "tmp", "cur"):
                (mailbox / name).mkdir(parents=True)
            stack.enter_context(immutable(mailbox / "new"))
        case "of somebody else":
            mailbox.mkdir(parents=True)
        case "new of somebody else":
            for name in ("new", "tmp", "cur"):
                (mailbox / name).mkdir(parents=True)
            for path in (mailbox, mailbox / "tmp", mailbox / "cur"):
                os.chown(path, NOBODY, NOBODY)


@pytest.mark.parametrize("octets", [1000, 300 * KIB])
@pytest.mark.parametrize(
    "how",
    [
        "a file in its place",
        "immutable",
        "new is immutable",
        "of somebody else",
        "new of somebody else",
    ],
)
def test_for_it_alone(
    how: str,
    octets: int,
    stack: ExitStack,
    directory: Path,
    disk: Callable[..., Disk],
    service: Callable[..., Service],
) -> None:
    """
    That recipient is told "not now", the others have their mail, wherever it stands in line.

    The service runs as an ordinary user where it is about permissions.
    """
    root = disk(32 * MIB).root
    twistd: tuple[str, ...] = ()
    (root / "example.org").mkdir()
    if "somebody else" in how:
        twistd = (f"--uid={NOBODY}", f"--gid={NOBODY}")
        for path in (directory, root, root / "example.org"):
            os.chown(path, NOBODY, NOBODY)
    spoil(how, root / "example.org" / "bob", stack)
    running = service(root, twistd=twistd)
    ledger = Ledger()
    with running.connection() as connection:
        for position in range(3):
            recipients = ["ann@example.org", "cid@example.org"]
            recipients.insert(position, "bob@example.org")
            message = compose(Random(position), tuple(recipients), octets)
            replies = connection.deliver(message, ledger)

            expected = ["250 2."] * 2
            expected.insert(position, "451 4.")
            assert expected == [reply.line[:6] for reply in replies], running.log[-2000:]
            assert replies[position].line.startswith("451 4.2.0")
        (alone,) = connection.deliver(compose(Random(3), ("bob@example.org",), octets), ledger)
        assert alone.line.startswith("451 4.2.0")
    found = inspect(root, ledger)
    assert found.harm == []
    assert found.refused == []
    if how != "a file in its place":
        clean(running)
