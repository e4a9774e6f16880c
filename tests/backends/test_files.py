"""
What a file system error says to the client.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lmtpsvc.backends.files import MAILBOX_FULL_FOR_GOOD, make_directory_durably, refusal


@pytest.mark.parametrize(
    ("number", "reply"),
    [
        (errno.EDQUOT, "452 4.2.2"),
        (errno.ENOSPC, "452 4.3.1"),
        (errno.EROFS, "452 4.3.1"),
        (errno.EFBIG, "552 5.3.4"),
        (errno.ENAMETOOLONG, "553 5.1.3"),
        (errno.EACCES, "451 4.2.0"),
        (errno.EPERM, "451 4.2.0"),
        (errno.ELOOP, "451 4.2.0"),
        (errno.ENOTDIR, "451 4.2.0"),
        (errno.EIO, "451 4.3.0"),
        (errno.ESTALE, "451 4.3.0"),
        (errno.ENOENT, "451 4.3.0"),
        (errno.EMFILE, "451 4.3.0"),
    ],
)
def test_refusal(number: int, reply: str) -> None:
    """
    Each error has its reply, and no reply has a path.
    """
    said = str(refusal(OSError(number, os.strerror(number), "/srv/secret")).reply)

    assert reply == said[:9]
    assert "secret" not in said


def test_mailbox_full_is_up_to_the_operator() -> None:
    """
    A full mailbox may be for good, where the operator says so.
    """
    error = refusal(OSError(errno.EDQUOT, ""), MAILBOX_FULL_FOR_GOOD)

    assert "552 5.2.2 Mailbox full" == str(error.reply)


def test_file_in_the_way(tmp_path: Path) -> None:
    """
    Where a file is, there can be no directory.
    """
    (tmp_path / "file").touch()

    with pytest.raises(NotADirectoryError):
        make_directory_durably(str(tmp_path / "file/a"), 0o700)
