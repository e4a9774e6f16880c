"""
The mark: what a service that died has left in a mailbox is cut off, and nothing else ever is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmtpsvc.backends import mbox_mark
from lmtpsvc.backends.mbox import MboxBackend
from lmtpsvc.backends.mbox_mark import NAME, Mark, decode, is_marked, mend
from lmtpsvc.envelope import Mailbox
from lmtpsvc.testing import MemoryMessage

ANN = Mailbox("ann", "example.org")

BEFORE = b"From x Mon Jan  5 00:00:00 2026\na: b\n\nold\n\n"
HEADS = [
    b"From ann@example.org Mon Jan  5 00:00:00 2026\n",
    b"From MAILER-DAEMON Mon Jan  5 00:00:00 2026\n",
]
OURS = HEADS[0] + b"a: b\n\n>From here\nin text\n\n" + HEADS[1] + b"c: d\n\nmore From here\n\n"
FOREIGN = b"From eve@example.net Tue Jan  6 00:00:00 2026\ne: f\n\nprecious\n\n"

CHECKSUMS = tuple(map(crc32, HEADS))
BEGUN = Mark(len(BEFORE), CHECKSUMS)
WRITTEN = Mark(len(BEFORE), CHECKSUMS, len(OURS), crc32(OURS))

Make = Callable[..., MboxBackend]


@pytest.fixture
def mended(tmp_path: Path) -> Callable[..., bytes]:
    """
    ``mended(octets, mark)``: what becomes of a file; it has no mark any more.
    """
    path = tmp_path / "mbox"

    def mended(octets: bytes, mark: Mark | bytes) -> bytes:
        path.write_bytes(octets)
        os.setxattr(path, NAME, mark if isinstance(mark, bytes) else mark.encode())
        descriptor = os.open(path, os.O_RDWR)
        try:
            mend(descriptor, str(path))
        finally:
            os.close(descriptor)
        assert not is_marked(str(path))
        return path.read_bytes()

    return mended


@pytest.mark.parametrize("mark", [BEGUN, WRITTEN])
def test_cut_anywhere(mended: Callable[..., bytes], mark: Mark) -> None:
    """
    Whatever part of what was to be written is there, it goes; what is whole stays.
    """
    for count in range(len(OURS)):
        assert BEFORE == mended(BEFORE + OURS[:count], mark), count
    whole = BEFORE + OURS
    assert (whole if mark is WRITTEN else BEFORE) == mended(whole, mark)


@pytest.mark.parametrize("mark", [BEGUN, WRITTEN])
@pytest.mark.parametrize("hole", [(0, 400), (3, 400), (60, 400), (0, 20), (20, 60), (70, 130)])
def test_holes(mended: Callable[..., bytes], mark: Mark, hole: tuple[int, int]) -> None:
    """
    Some file systems make a file longer before they fill it: what a power cut leaves has zeros.
    """
    start, end = hole[0], min(hole[1], len(OURS))
    octets = OURS[:start] + bytes(end - start) + OURS[end:]

    assert BEFORE == mended(BEFORE + octets, mark)


@pytest.mark.parametrize("mark", [BEGUN, WRITTEN])
def test_foreign_mail_is_never_cut(mended: Callable[..., bytes], mark: Mark) -> None:
    """
    If another program has delivered since, with a blank line before or without, its mail stays.
    """
    for gap in (b"", b"\n", b"\n\n"):
        for count in range(len(OURS) + 1):
            octets = BEFORE + OURS[:count] + gap + FOREIGN
            assert octets == mended(octets, mark), (gap, count)


@pytest.mark.parametrize("mark", [BEGUN, WRITTEN])
@pytest.mark.parametrize(
    "octets",
    [
        BEFORE + FOREIGN,
        BEFORE + b"\n" + FOREIGN,
        BEFORE + b"a line of somebody's\n",
        b"From y\n\n" + b"a reader has rewritten the file\n" * 5,
        BEFORE[:10],
        b"",
    ],
)
def test_rewritten(mended: Callable[..., bytes], mark: Mark, octets: bytes) -> None:
    """
    If a reader has rewritten the file since, what the mark says is not true, and nothing is cut.
    """
    assert octets == mended(octets, mark)


def test_behind_what_is_whole(mended: Callable[..., bytes]) -> None:
    """
    What is behind a whole message is somebody else's.
    """
    octets = BEFORE + OURS + b"whatever it is"
    assert octets == mended(octets, WRITTEN)


@pytest.mark.parametrize("piece", [64, 100, 256])
def test_in_pieces(
    mended: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    """
    A large file is looked at piece by piece, and a From line on the seam is seen.
    """
    monkeypatch.setattr(mbox_mark, "_PIECE", piece)
    monkeypatch.setattr(mbox_mark, "_OVERLAP", 64)
    text = b"some text\n" * 40
    for count in range(len(text)):
        ours = HEADS[0] + text[:count]
        assert BEFORE == mended(BEFORE + ours, BEGUN)
        for gap in (b"", b"\n"):
            foreign = BEFORE + ours + gap + FOREIGN
            assert foreign == mended(foreign, BEGUN), count
    whole = Mark(len(BEFORE), CHECKSUMS, len(ours), crc32(ours))
    assert BEFORE + ours == mended(BEFORE + ours, whole)


@pytest.mark.parametrize("value", [b"", b"\0", b"\1", b"\1" * 20, b"\1" * 22, b"\2" + b"\0" * 20])
def test_forged(mended: Callable[..., bytes], value: bytes) -> None:
    """
    A mark that is none of ours does no harm.
    """
    assert BEFORE == mended(BEFORE, value)


_number = st.integers(0, (1 << 64) - 1)
_checksum = st.integers(0, (1 << 32) - 1)


@given(_number, st.lists(_checksum), _number, _checksum)
def test_encoding(start: int, heads: list[int], length: int, checksum: int) -> None:
    """
    A mark is read as it was written.
    """
    mark = Mark(start, tuple(heads), length, checksum)
    assert mark == decode(mark.encode())


def test_short() -> None:
    """
    That of a single message fits into an inode of ext4, with its name.
    """
    assert len(NAME.removeprefix("user.") + "1234") + len(BEGUN.encode()) <= 64


class Death(BaseException):
    """
    The process is no more.
    """


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_next_delivery(
    mbox: Make,
    held_pool: Any,
    root: Path,
    success_of: Any,
    monkeypatch: pytest.MonkeyPatch,
    share: float,
) -> None:
    """
    The next delivery to a mailbox, in which somebody has died, finds it as it was before.
    """
    backend = mbox()
    success_of(backend.deliver(MemoryMessage(b"one\r\n"), [ANN])[0])
    before = (root / "ann").read_bytes()
    write = os.write

    def die(descriptor: int, octets: bytes) -> int:
        if bytes(octets[:5]) == b"From ":
            write(descriptor, octets[: int(len(octets) * share)])
            # What a death leaves undone.
            for name in ("ftruncate", "removexattr", "unlink"):
                monkeypatch.setattr(os, name, lambda *_: None)
            raise Death
        return write(descriptor, octets)

    monkeypatch.setattr(os, "write", die)
    backend.deliver(MemoryMessage(b"two\r\n"), [ANN])[0].addErrback(lambda _: None)
    monkeypatch.undo()
    assert is_marked(str(root / "ann"))
    assert ["ann", "ann.lock"] == sorted(os.listdir(root))

    success_of(mbox().deliver(MemoryMessage(b"three\r\n"), [ANN])[0])

    assert before + before.replace(b"one", b"three") == (root / "ann").read_bytes()
    assert ["ann"] == os.listdir(root)


@pytest.mark.parametrize(
    "template", ["{user}", "{domain}/{user}", "[odd]*/{user}", "u-{user}/{domain}.mbox"]
)
def test_start(mbox: Make, root: Path, template: str) -> None:
    """
    A start mends what it finds, before any mail comes.
    """
    path = root / template.format(user="ann", domain="example.org")
    path.parent.mkdir(parents=True)
    path.write_bytes(BEFORE + OURS[:80])
    os.setxattr(path, NAME, BEGUN.encode())

    if template.startswith("u-") and os.geteuid() == 0:
        pytest.skip("nobody knows whose it is")
    mbox(template=f"{root}/{template}")

    assert BEFORE == path.read_bytes()
