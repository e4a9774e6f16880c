"""
mbox files that may not become larger.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmtpsvc.backends.mbox import MboxBackend
from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import DeliveryError
from lmtpsvc.quota import ignoring_quota, with_declared_size
from lmtpsvc.testing import MemoryMessage

Make = Callable[..., MboxBackend]

TEXT = MemoryMessage(b"Subject: x\r\n\r\n" + b"x" * 1000 + b"\r\n")
BOB = Mailbox("bob", "example.org")


def ann(octets: str = "2500") -> Mailbox:
    return Mailbox("ann", "example.org", attributes={"quota_octets": octets})


def code(result: Any, failure_of: Any) -> str:
    return str(failure_of(result, DeliveryError).value.reply)[:9]


class TestDelivery:
    def test_the_others_have_it(
        self, mbox: Make, root: Path, success_of: Any, failure_of: Any
    ) -> None:
        """
        Whose file is full is told so, and it stays as it was; the others get their mail.
        """
        backend = mbox()
        for _ in range(2):
            success_of(backend.deliver(TEXT, [ann()])[0])
        before = (root / "ann").read_bytes()

        first, second = backend.deliver(TEXT, [ann(), BOB])

        assert "452 4.2.2" == code(first, failure_of)
        success_of(second)
        assert before == (root / "ann").read_bytes()
        assert len(before) < 2500

    def test_for_good(self, mbox: Make, root: Path, failure_of: Any) -> None:
        """
        The operator may want it returned at once; no message is there, nor half of one.
        """
        (result,) = mbox(quota="1K", full="552").deliver(TEXT, [BOB])

        assert "552 5.2.2" == code(result, failure_of)
        assert b"" == (root / "bob").read_bytes()

    def test_exactly(self, mbox: Make, root: Path, success_of: Any, failure_of: Any) -> None:
        """
        What fits to the octet fits.
        """
        success_of(mbox().deliver(TEXT, [BOB])[0])
        size = (root / "bob").stat().st_size

        success_of(mbox().deliver(TEXT, [ann(str(size))])[0])
        (root / "ann").unlink()
        assert "452 4.2.2" == code(mbox().deliver(TEXT, [ann(str(size - 1))])[0], failure_of)

    def test_makes_room(self, mbox: Make, root: Path, success_of: Any) -> None:
        """
        What a mail program takes out counts no more.
        """
        backend = mbox(quota="2K")
        success_of(backend.deliver(TEXT, [BOB])[0])
        (root / "bob").write_bytes(b"")

        success_of(backend.deliver(TEXT, [BOB])[0])

    def test_ignored(self, mbox: Make, success_of: Any) -> None:
        """
        Where a trusted client has said so, there is room.
        """
        backend = mbox(quota="1K")

        assert backend.verify(ignoring_quota(BOB)) is None
        success_of(backend.deliver(TEXT, [ignoring_quota(BOB)])[0])

    def test_no_number(self, mbox: Make, failure_of: Any) -> None:
        """
        A slip in the directory loses no mail.
        """
        assert "451 4.2.0" == code(mbox().deliver(TEXT, [ann("lots")])[0], failure_of)


class TestRcpt:
    @pytest.mark.parametrize(
        ("there", "declared", "fits"),
        [(0, 0, True), (0, 2500, True), (0, 2501, False), (2499, 0, True), (2500, 0, False)],
    )
    def test_room(
        self,
        mbox: Make,
        root: Path,
        success_of: Any,
        failure_of: Any,
        there: int,
        declared: int,
        fits: bool,
    ) -> None:
        """
        What the client announces is known not to fit before it is sent.
        """
        backend = mbox()
        if there:
            (root / "ann").write_bytes(b"\n" * there)
        verdict = backend.verify(with_declared_size(ann(), declared))

        if fits:
            success_of(verdict)
        else:
            assert "452 4.2.2" == code(verdict, failure_of)

    def test_no_quota(self, mbox: Make) -> None:
        """
        Where there is none, nothing is looked at.
        """
        assert mbox(quota="1K").verify(ann("0")) is None
        assert mbox().verify(BOB) is None

    def test_not_known(self, mbox: Make, root: Path, failure_of: Any) -> None:
        """
        Nobody is told that a mailbox is full without knowing it.
        """
        backend = mbox()
        (root / "ann").symlink_to("ann")

        assert code(backend.verify(ann()), failure_of).startswith("451 ")
