"""
Refusals, and what they say.
"""

from __future__ import annotations

import errno
import os

import pytest

from lmtpsvc import replies
from lmtpsvc.errors import (
    DeliveryError,
    PermanentFailure,
    TemporaryFailure,
    from_os_error,
    refusal,
)
from lmtpsvc.replies import Reply

from .rows import each_row


class TestDeliveryError:
    """
    The answer is inside.
    """

    @pytest.mark.parametrize(
        ("error", "wire"),
        [
            (TemporaryFailure("Later"), b"451 4.0.0 Later\r\n"),
            (TemporaryFailure("Full", (2, 2), 452), b"452 4.2.2 Full\r\n"),
            (PermanentFailure("Never"), b"550 5.0.0 Never\r\n"),
            (PermanentFailure("Who?", (1, 1)), b"550 5.1.1 Who?\r\n"),
            (PermanentFailure("No", (1, 3), 553), b"553 5.1.3 No\r\n"),
        ],
    )
    def test_reply(self, error: DeliveryError, wire: bytes) -> None:
        """
        A failure is a reply with its codes, and its text is what a log shows.
        """
        assert wire == error.reply.wire
        assert error.reply.text == str(error)

    @pytest.mark.parametrize(
        ("kind", "code"),
        [(TemporaryFailure, 550), (TemporaryFailure, 250), (PermanentFailure, 451)],
    )
    def test_wrong_kind(self, kind: type[DeliveryError], code: int) -> None:
        """
        Nobody can say "not now" and mean "not ever", or "delivered".
        """
        with pytest.raises(ValueError, match="yz code"):
            kind("x", code=code)

    @pytest.mark.parametrize("text", ["a\r\n250 OK", "größer"])
    def test_not_a_line(self, text: str) -> None:
        """
        A text that a client must not read is refused where it is made.
        """
        with pytest.raises(ValueError, match="printable"):
            PermanentFailure(text)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (replies.MAILBOX_FULL, TemporaryFailure),
        (replies.NO_SUCH_USER, PermanentFailure),
        (replies.MAILBOX_FULL_FOR_GOOD, PermanentFailure),
    ],
)
def test_refusal(reply: Reply, kind: type[DeliveryError]) -> None:
    """
    A reply becomes the failure that says exactly this.
    """
    error = refusal(reply)

    assert kind is type(error)
    assert reply == error.reply


class TestOSErrors:
    """
    What a file system's refusal means to a client.
    """

    @each_row(
        ("number", "reply"),
        [
            (errno.EDQUOT, replies.MAILBOX_FULL),
            (errno.ENOSPC, replies.NO_SPACE),
            (errno.EROFS, replies.NO_SPACE),
            (errno.EFBIG, replies.TOO_LARGE),
            (errno.ENAMETOOLONG, replies.BAD_MAILBOX),
            (errno.EACCES, replies.MAILBOX_UNAVAILABLE),
            (errno.EPERM, replies.MAILBOX_UNAVAILABLE),
            (errno.ELOOP, replies.MAILBOX_UNAVAILABLE),
            (errno.ENOTDIR, replies.MAILBOX_UNAVAILABLE),
            (errno.EIO, replies.CANNOT_STORE),
            (errno.ENOENT, replies.CANNOT_STORE),
            (errno.ESTALE, replies.CANNOT_STORE),
        ],
    )
    def test_reply(self, number: int, reply: Reply) -> None:
        """
        Each says what is wrong, and none of them where.
        """
        error = OSError(number, os.strerror(number), "/srv/mail/ann")

        assert reply == from_os_error(error).reply

    def test_permanent_ones_are_few(self) -> None:
        """
        A lost mount or a wrong mode is no reason to return mail to its sender.
        """
        permanent = {
            number
            for number in errno.errorcode
            if isinstance(from_os_error(OSError(number, "x")), PermanentFailure)
        }

        assert {errno.EFBIG, errno.ENAMETOOLONG} == permanent

    def test_full_for_good(self) -> None:
        """
        Where the operator wants it, mail for a full mailbox goes back at once.
        """
        error = from_os_error(OSError(errno.EDQUOT, "x"), replies.MAILBOX_FULL_FOR_GOOD)

        assert b"552 5.2.2 Mailbox full\r\n" == error.reply.wire
