"""
What the tests of the program that stores messages share: a service that sends it letters.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lmtpsvc.backends import disk_writer
from lmtpsvc.backends.disk_writer import KEPT, DiskWriter
from lmtpsvc.backends.letters import (
    Letter,
    Outcome,
    Receipt,
)

Break = Callable[[str, str, int], None]
Calls = list[tuple[str, str]]

#: Letters that are there when the program looks, or what makes them just then; or the end.
Round = list[Letter] | Callable[[], list[Letter]] | None

USERS = ("ann", "bob", "cy", "dee")


def descriptors(root: Path) -> list[str]:
    """
    Which are open for what is below *root*.
    """
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the list itself
            if os.readlink(f"/proc/self/fd/{name}").startswith(f"{root}"):
                found.append(name)
    return found


class Service:
    """
    The other side: letters for Maildirs below *root*, and what is heard of them.  It adds each answer
    to *calls*, with the numbers of the letters.
    """

    def __init__(self, root: Path, calls: Calls) -> None:
        self.receipts: list[Receipt] = []
        self.hear: Callable[[Receipt], None] = self.receipts.append
        #: What raises if the service is gone.
        self.check: Callable[[], None] = lambda: None
        #: For each time that the program looked: whether it would wait for letters.
        self.waits: list[bool] = []
        self._root, self._calls = root, calls
        self._room = bytearray(1 << 17)
        self._used = 7
        self._number = 0
        for user in USERS:
            (root / user / "new").mkdir(parents=True)
            (root / user / "tmp").mkdir()
        self._device = root.stat().st_dev

    def letter(self, text: str, *users: str, **changes: Any) -> Letter:
        """
        One that asks for *text* to be stored for *users*.
        """
        begin, octets = self._used, text.encode()
        self._used += len(octets)
        self._room[begin : self._used] = octets
        self._number += 1
        name = f"{self._number}.mx"
        letter = Letter(
            number=self._number,
            device=self._device,
            together=False,
            begin=begin,
            size=len(octets),
            mode=0o600,
            uid=None,
            gid=None,
            tmp=f"{self._root}/{users[0]}/tmp/{name}",
            new=[f"{self._root}/{user}/new/{name}" for user in users],
            inode=(self._root / users[0] / "new").stat().st_ino,
        )
        return letter._replace(**changes)

    def run(self, *rounds: Round) -> dict[int, Outcome]:
        """
        Run the program, which finds these letters one round after the other, and then the end, when
        it would wait for more.  Returns what has become of each letter.
        """
        left = iter(rounds)

        def receive(seconds: float | None) -> list[Letter] | None:
            # Where nothing has been on its way for a while, the disk can be unmounted.
            assert seconds in {0, KEPT, None}
            assert bool(self.opened()) is (seconds is not None)
            found = next(left, None if seconds is None else [])
            if found != [] or seconds == 0:
                self.waits.append(seconds != 0)
            return found() if callable(found) else found

        def answer(receipt: Receipt) -> None:
            self.hear(receipt)
            numbers = [str(outcome.number) for outcome in receipt.outcomes]
            self._calls.append(("answer", " ".join(numbers)))

        self._calls.clear()
        DiskWriter(receive, answer, memoryview(self._room), self.check).run()
        outcomes = [outcome for receipt in self.receipts for outcome in receipt.outcomes]
        found = {outcome.number: outcome for outcome in outcomes}
        assert len(outcomes) == len(found)
        return found

    def opened(self) -> list[str]:
        """
        What is open below the root, so that it could not be unmounted.
        """
        return [os.readlink(f"/proc/self/fd/{name}") for name in descriptors(self._root)]

    def texts(self, *places: str) -> list[str]:
        """
        What each of these directories, or that of these users, says, in alphabetical order.
        """
        found = []
        for place in places:
            directory = self._root / (place if "/" in place else f"{place}/new")
            found.append("".join(sorted(path.read_text() for path in directory.iterdir())))
        return found

    @property
    def written(self) -> str:
        """
        All that is in any tmp, in alphabetical order.
        """
        return "".join(sorted("".join(self.texts(f"{user}/tmp")) for user in USERS))


@pytest.fixture
def patch(tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """
    As `monkeypatch`, but all is whole again before the directory is removed.
    """
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(params=[True, False], ids=["nameless", "in-tmp"])
def is_nameless(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """
    Whether a message that is not alone has no name before it is in new; or it is in tmp, as all are
    where that cannot be.
    """
    if not request.param:
        monkeypatch.setattr(disk_writer, "can_give_names", lambda: False)
    return bool(request.param)


@pytest.fixture
def service(root: Path, calls: Calls, is_nameless: bool) -> Service:
    return Service(root, calls)


def steps(calls: Calls) -> list[str]:
    """
    What was done, in order; a "name" is given by a rename or a link.
    """
    return ["name" if call in {"rename", "link"} else call for call, _ in calls]


def break_naming(break_call: Break, where: str, number: int) -> None:
    """
    Whichever call gives the name to what is alone, or in the source's new.
    """
    for call in ("rename", "link"):
        break_call(call, where, number)
